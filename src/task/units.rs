//! Units of measurement and counters that belong to the number before them, in English and Korean.

/// A unit, as one row of [`UNITS`] names it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Unit {
    /// What it measures. Two units of the same quantity can be converted.
    pub quantity: &'static str,
    /// The size of the unit, in the base unit of the quantity.
    pub factor: f64,
}

/// Quantities that are money. A numeric field of a record can be a price, although it has no unit.
const MONEY: &[&str] = &["usd", "eur", "gbp", "krw", "jpy"];

/// Counters: the thing counted often has no counter at all, as in `sleeps 3`.
const COUNTERS: &[&str] = &[
    "piece",
    "sheet",
    "volume-of-books",
    "pair",
    "roll",
    "person",
    "time-of-many",
    "page",
    "set",
    "pack",
    "machine",
    "bottle",
    "glass",
    "step",
    "layer",
    "kind",
    "box",
    "head",
];

/// One row for each unit: quantity, factor, and every spelling, folded and separated by spaces.
///
/// Factors are exact by definition: the inch is 2.54 cm and the pound 453.59237 g, by the international agreement of 1959.
const UNITS: &[(&str, f64, &str)] = &[
    ("length", 0.001, "mm millimetre millimetres millimeter millimeters 밀리미터 밀리"),
    ("length", 0.01, "cm centimetre centimetres centimeter centimeters 센티미터 센티 센치"),
    ("length", 1.0, "m metre metres meter meters 미터"),
    ("length", 1000.0, "km kilometre kilometres kilometer kilometers 킬로미터"),
    ("length", 0.0254, "in inch inches 인치"),
    ("length", 0.3048, "ft foot feet 피트"),
    ("length", 1609.344, "mile miles 마일"),
    ("length", 0.9144, "yd yard yards 야드"),
    ("length", 1e-6, "μm micron microns micrometre micrometres 마이크로미터"),
    ("area", 1.0, "m2 sqm 제곱미터"),
    ("area", 1e-4, "cm2 제곱센티미터"),
    ("area", 3.305_785, "평"),
    ("grammage", 1.0, "gsm g/m2"),
    ("mass", 0.001, "mg milligram milligrams 밀리그램"),
    ("mass", 1.0, "g gram grams 그램"),
    ("mass", 1000.0, "kg kilo kilos kilogram kilograms 킬로그램 킬로"),
    ("mass", 1e6, "t tonne tonnes 톤"),
    ("mass", 28.349_523_125, "oz ounce ounces 온스"),
    ("mass", 453.592_37, "lb lbs pound pounds 파운드"),
    ("volume", 0.001, "ml millilitre millilitres milliliter milliliters 밀리리터 cc"),
    ("volume", 0.01, "cl centilitre centilitres"),
    ("volume", 0.1, "dl decilitre decilitres"),
    ("volume", 1.0, "l litre litres liter liters 리터"),
    ("time", 0.001, "ms millisecond milliseconds 밀리초"),
    ("time", 1.0, "s sec secs second seconds 초"),
    ("time", 60.0, "min mins minute minutes 분"),
    ("time", 3600.0, "h hr hrs hour hours 시간"),
    ("time", 86_400.0, "day days 일"),
    ("time", 604_800.0, "week weeks 주 주일 주간"),
    ("months", 1.0, "month months 개월 달"),
    ("months", 12.0, "year years yr yrs 년"),
    ("volume", 3.785_411_784, "gallon gallons 갤런"),
    ("speed", 1.0, "km/h kph kmh"),
    ("speed", 1.609_344, "mph"),
    ("speed", 3.6, "m/s"),
    ("power", 1.0, "w watt watts 와트"),
    ("power", 1000.0, "kw kilowatt kilowatts 킬로와트"),
    ("energy", 1.0, "wh 와트시"),
    ("energy", 1000.0, "kwh 킬로와트시"),
    ("charge", 0.001, "mah"),
    ("charge", 1.0, "ah"),
    ("current", 0.001, "ma"),
    ("current", 1.0, "a amp amps 암페어"),
    ("voltage", 1.0, "v volt volts 볼트"),
    ("frequency", 1.0, "hz hertz 헤르츠"),
    ("frequency", 1e3, "khz"),
    ("frequency", 1e6, "mhz"),
    ("frequency", 1e9, "ghz"),
    ("data", 1e3, "kb"),
    ("data", 1e6, "mb"),
    ("data", 1e9, "gb gigabyte gigabytes 기가바이트 기가"),
    ("data", 1e12, "tb terabyte terabytes 테라바이트 테라"),
    ("pixels", 1.0, "px pixel pixels 픽셀"),
    ("pixels", 1e6, "mp megapixel megapixels"),
    ("resolution", 1.0, "dpi"),
    ("rotation", 1.0, "rpm"),
    ("pressure", 1000.0, "bar"),
    ("pressure", 1.0, "hpa mbar 헥토파스칼"),
    ("pressure", 68.947_572_931_683_6, "psi"),
    ("food-energy", 1.0, "kcal"),
    ("resolution", 1.0, "ppi"),
    ("loudness", 1.0, "db decibel decibels 데시벨"),
    ("light", 1.0, "lm lumen lumens 루멘"),
    ("illuminance", 1.0, "lux 룩스"),
    ("concentration", 1.0, "ppm"),
    ("degree", 1.0, "° degree degrees 도"),
    ("celsius", 1.0, "°c"),
    ("fahrenheit", 1.0, "°f"),
    ("percent", 1.0, "% percent 퍼센트 프로"),
    ("usd", 1.0, "usd dollar dollars 달러"),
    ("eur", 1.0, "eur euro euros 유로"),
    ("gbp", 1.0, "gbp"),
    ("krw", 1.0, "krw won 원"),
    ("jpy", 1.0, "jpy yen 엔"),
    ("piece", 1.0, "piece pieces pcs 개"),
    ("sheet", 1.0, "sheet sheets 장 매"),
    ("page", 1.0, "page pages 쪽 페이지"),
    ("volume-of-books", 1.0, "권"),
    ("pair", 1.0, "pair pairs 켤레 쌍"),
    ("roll", 1.0, "roll rolls 롤"),
    ("person", 1.0, "person persons people 명 인용 인분 인"),
    ("time-of-many", 1.0, "times 회 번"),
    ("set", 1.0, "세트"),
    ("pack", 1.0, "팩 봉지"),
    ("machine", 1.0, "대"),
    ("bottle", 1.0, "bottle bottles 병"),
    ("glass", 1.0, "잔 컵"),
    ("step", 1.0, "단계"),
    ("layer", 1.0, "단 층 겹"),
    ("kind", 1.0, "가지 종"),
    ("box", 1.0, "상자 박스"),
    ("head", 1.0, "마리"),
    ("factor", 1.0, "배"),
];

/// Marks of currencies, which stand before the number.
const MARKS: &[(char, &str)] = &[('$', "usd"), ('€', "eur"), ('£', "gbp"), ('₩', "krw"), ('¥', "jpy")];

/// Letters that are a unit only where no further word follows: `5 a day` is no current, and `2 in a pack` no length.
const NEEDS_AN_END: &[&str] = &["a", "in", "s", "t"];

impl Unit {
    /// Whether it is a currency.
    pub(super) fn is_money(&self) -> bool {
        MONEY.contains(&self.quantity)
    }

    /// `value` of this unit in `other`, if both measure the same.
    pub(super) fn convert(&self, value: f64, other: &Self) -> Option<f64> {
        let converted = || rounded(value * self.factor / other.factor);
        (self.quantity == other.quantity).then(|| if self == other { value } else { converted() })
    }

    /// Whether it counts things and measures nothing.
    pub(super) fn is_counter(&self) -> bool {
        COUNTERS.contains(&self.quantity)
    }

    /// Whether numbers of the two units can be compared. `도` can be either temperature, and `개` counts anything.
    pub(super) fn is_comparable(&self, other: &Self) -> bool {
        let one_is = |name: &str, fits: &dyn Fn(&Self) -> bool| {
            self.quantity == name && fits(other) || other.quantity == name && fits(self)
        };
        self.quantity == other.quantity
            || one_is("degree", &|unit| matches!(unit.quantity, "celsius" | "fahrenheit"))
            || one_is("piece", &Self::is_counter)
    }
}

/// The unit after the number that ends at `at` of a folded text, and where the unit ends.
pub(super) fn after(text: &str, at: usize) -> Option<(Unit, usize)> {
    let rest = &text[at..];
    let start = at + usize::from(rest.starts_with([' ', '-']));
    let is_unit = |letter: char| letter.is_alphabetic() || matches!(letter, '°' | '%');
    let word = text[start..].split(|letter: char| !is_unit(letter)).next().filter(|word| !word.is_empty())?;
    // A Korean unit can be followed by particles. The longest unit that the word starts with is taken.
    let begins = |name: &str| if name.is_ascii() { name == latin(word) } else { word.starts_with(name) };
    if let Some(compound) = compound(text, start, word) {
        return Some(compound);
    }
    let spelled = UNITS.iter().flat_map(|(quantity, factor, names)| names.split(' ').map(move |name| (quantity, factor, name)));
    let (quantity, factor, name) = spelled.filter(|(_, _, name)| begins(name)).max_by_key(|(_, _, name)| name.len())?;
    let end = start + name.len();
    let goes_on = text[end..].strip_prefix(' ').is_some_and(|next| next.starts_with(|letter: char| letter.is_alphanumeric()));
    if NEEDS_AN_END.contains(&name) && (goes_on || text[at..].starts_with('-')) {
        return None;
    }
    Some((Unit { quantity, factor: *factor }, end))
}

/// The unit of several marks that starts at `start` with `word`, such as `km/h` and `m2`. None of them counts as its first part alone.
fn compound(text: &str, start: usize, word: &str) -> Option<(Unit, usize)> {
    let rest = &text[start + word.len()..];
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '/';
    if !word.is_ascii() || !rest.starts_with(['/', '2', '3']) {
        return None;
    }
    let end = start + word.len() + rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
    Some((named(&text[start..end])?, end))
}

/// The unit with this folded spelling.
pub(super) fn named(spelling: &str) -> Option<Unit> {
    let found = UNITS.iter().find(|(.., names)| names.split(' ').any(|name| name == spelling));
    found.map(|(quantity, factor, _)| Unit { quantity, factor: *factor })
}

/// Every spelling, for suggestions.
pub(super) fn spellings() -> impl Iterator<Item = &'static str> + Clone {
    UNITS.iter().flat_map(|(.., names)| names.split(' '))
}

/// The currency whose mark stands before the number that starts at `at`, and where the mark starts.
pub(super) fn before(text: &str, at: usize) -> Option<(Unit, usize)> {
    let before = text[..at].trim_end_matches(' ');
    let mark = before.chars().next_back().filter(|_| at - before.len() <= 1)?;
    let (_, quantity) = MARKS.iter().find(|(known, _)| *known == mark)?;
    Some((Unit { quantity, factor: 1.0 }, before.len() - mark.len_utf8()))
}

/// The letters at the start of a word that are not Korean: `cm` of `cm입니다`.
fn latin(word: &str) -> &str {
    &word[..word.find(super::words::is_hangul).unwrap_or(word.len())]
}

/// The value without the error of the conversion: twelve significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// Whether the folded word is a unit of time.
pub(super) fn is_time(word: &str) -> bool {
    let times = UNITS.iter().filter(|(quantity, ..)| matches!(*quantity, "time" | "months"));
    times.flat_map(|(.., names)| names.split(' ')).any(|name| name == word && name.len() > 1)
}

/// Whether the folded text names the currency, by a mark or a word.
pub(super) fn names_currency(text: &str, unit: &Unit) -> bool {
    let has_mark = MARKS.iter().any(|(mark, quantity)| *quantity == unit.quantity && text.contains(*mark));
    let mut names = UNITS.iter().filter(|(quantity, ..)| *quantity == unit.quantity).flat_map(|(.., names)| names.split(' '));
    has_mark || names.any(|name| super::words::find(text, name).is_some())
}

/// All currencies, for finding out which ones a text names.
pub(super) fn currencies() -> impl Iterator<Item = Unit> {
    MONEY.iter().map(|quantity| Unit { quantity, factor: 1.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Option<&'static str> {
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        after(text, digits).map(|(unit, _)| unit.quantity)
    }

    #[test]
    fn a_unit_is_a_whole_word_in_latin_and_the_longest_beginning_in_korean() {
        assert_eq!(quantity("12 months"), Some("months"));
        assert_eq!(quantity("12 moths"), None);
        assert_eq!(quantity("2-litre"), Some("volume"));
        assert_eq!(quantity("3개월입니다"), Some("months"));
        assert_eq!(quantity("5cm입니다"), Some("length"));
        assert_eq!(quantity("3 in a pack"), None);
        assert_eq!(quantity("3 in"), Some("length"));
        assert_eq!(quantity("5 a day"), None);
    }

    #[test]
    fn units_of_several_marks_are_whole() {
        assert_eq!(quantity("90 km/h"), Some("speed"));
        assert_eq!(quantity("40 m2"), Some("area"));
        assert_eq!(quantity("300 g/m2"), Some("grammage"));
        assert_eq!(quantity("5 km/day"), Some("length"));
    }

    #[test]
    fn values_convert_within_a_quantity() {
        let converted = |value: f64, from: &str, to: &str| named(from).unwrap().convert(value, &named(to).unwrap());
        assert_eq!(converted(1.5, "l", "ml"), Some(1_500.0));
        assert_eq!(converted(1.1, "kg", "g"), Some(1_100.0));
        assert_eq!(converted(10.0, "inches", "cm"), Some(25.4));
        assert_eq!(converted(2.0, "년", "months"), Some(24.0));
        assert_eq!(converted(45.0, "litres", "cm"), None);
        assert_eq!(converted(3.0, "usd", "krw"), None);
    }

    #[test]
    fn no_spelling_belongs_to_two_units() {
        let mut all: Vec<&str> = UNITS.iter().flat_map(|(.., names)| names.split(' ')).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "a spelling is listed twice");
    }

    #[test]
    fn marks_of_currencies_stand_before_the_number() {
        assert_eq!(before("for $29.50", 5).map(|(unit, start)| (unit.quantity, start)), Some(("usd", 4)));
        assert_eq!(before("₩ 3000", 4).map(|(unit, start)| (unit.quantity, start)), Some(("krw", 0)));
        assert_eq!(before("29.50", 0), None);
    }
}
