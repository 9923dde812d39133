//! Units of measurement in English and Korean: which spellings mean the same unit, and how values convert within a dimension.

use std::ops::Range;

use super::words::is_hangul;

/// What a unit measures. Only units of one dimension convert into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dimension {
    Length,
    Area,
    Mass,
    Grammage,
    Volume,
    Duration,
    Temperature,
    Speed,
    Rotation,
    Power,
    Energy,
    Charge,
    Voltage,
    Current,
    Frequency,
    Data,
    Pixels,
    Resolution,
    Pressure,
    LuminousFlux,
    Illuminance,
    Loudness,
    Share,
    PartsPerMillion,
    /// Money of one currency: currencies do not convert.
    Money(&'static str),
    /// Things counted with one counter.
    Count(&'static str),
}

/// One unit.
#[derive(Debug, PartialEq)]
pub(super) struct Unit {
    /// Its spellings after folding, separated by spaces.
    spellings: &'static str,
    pub dimension: Dimension,
    /// Its size in the dimension's first unit.
    factor: f64,
    /// Its zero in the dimension's first unit; only temperatures have one.
    zero: f64,
}

const fn unit(spellings: &'static str, dimension: Dimension, factor: f64) -> Unit {
    Unit { spellings, dimension, factor, zero: 0.0 }
}

/// Every unit. NIST Special Publication 811 (2008), appendix B, defines the factors that are not metric.
const UNITS: &[Unit] = &[
    unit("m metre metres meter meters 미터", Dimension::Length, 1.0),
    unit("mm millimetre millimetres millimeter millimeters 밀리미터", Dimension::Length, 1e-3),
    unit("cm centimetre centimetres centimeter centimeters 센티미터 센티", Dimension::Length, 1e-2),
    unit("km kilometre kilometres kilometer kilometers 킬로미터", Dimension::Length, 1e3),
    unit("µm μm micron microns micrometre micrometres 마이크로미터", Dimension::Length, 1e-6),
    unit("in inch inches 인치", Dimension::Length, 0.0254),
    unit("ft foot feet 피트", Dimension::Length, 0.3048),
    unit("yd yard yards 야드", Dimension::Length, 0.9144),
    unit("mile miles 마일", Dimension::Length, 1_609.344),
    unit("m2 m² sqm 제곱미터", Dimension::Area, 1.0),
    unit("cm2 cm² 제곱센티미터", Dimension::Area, 1e-4),
    unit("평", Dimension::Area, 400.0 / 121.0),
    unit("g gram grams gramme grammes 그램", Dimension::Mass, 1.0),
    unit("mg milligram milligrams 밀리그램", Dimension::Mass, 1e-3),
    unit("kg kilo kilos kilogram kilograms 킬로그램 킬로", Dimension::Mass, 1e3),
    unit("t tonne tonnes 톤", Dimension::Mass, 1e6),
    unit("oz ounce ounces 온스", Dimension::Mass, 28.349_523_125),
    unit("lb lbs pound pounds 파운드", Dimension::Mass, 453.592_37),
    unit("gsm g/m2 g/m²", Dimension::Grammage, 1.0),
    unit("l litre litres liter liters 리터", Dimension::Volume, 1.0),
    unit("ml millilitre millilitres milliliter milliliters 밀리리터", Dimension::Volume, 1e-3),
    unit("cl centilitre centilitres centiliter centiliters", Dimension::Volume, 1e-2),
    unit("dl decilitre decilitres deciliter deciliters", Dimension::Volume, 1e-1),
    unit("gallon gallons 갤런", Dimension::Volume, 3.785_411_784),
    unit("s sec secs second seconds 초", Dimension::Duration, 1.0),
    unit("ms millisecond milliseconds 밀리초", Dimension::Duration, 1e-3),
    unit("min mins minute minutes 분", Dimension::Duration, 60.0),
    unit("h hr hrs hour hours 시간", Dimension::Duration, 3_600.0),
    unit("day days 일", Dimension::Duration, 86_400.0),
    unit("week weeks 주", Dimension::Duration, 604_800.0),
    // A month has no fixed number of days.
    unit("month months 개월", Dimension::Count("month"), 1.0),
    unit("year years yr yrs 년", Dimension::Count("month"), 12.0),
    unit("°c ℃ celsius 도", Dimension::Temperature, 1.0),
    Unit { spellings: "°f ℉ fahrenheit", dimension: Dimension::Temperature, factor: 5.0 / 9.0, zero: -160.0 / 9.0 },
    unit("km/h kph kmh", Dimension::Speed, 1.0),
    unit("mph", Dimension::Speed, 1.609_344),
    unit("m/s", Dimension::Speed, 3.6),
    unit("rpm", Dimension::Rotation, 1.0),
    unit("w watt watts 와트", Dimension::Power, 1.0),
    unit("kw kilowatt kilowatts 킬로와트", Dimension::Power, 1e3),
    unit("wh", Dimension::Energy, 1.0),
    unit("kwh 킬로와트시", Dimension::Energy, 1e3),
    unit("kcal 칼로리", Dimension::Energy, 1.163),
    unit("mah", Dimension::Charge, 1.0),
    unit("ah", Dimension::Charge, 1e3),
    unit("v volt volts 볼트", Dimension::Voltage, 1.0),
    unit("a amp amps ampere amperes 암페어", Dimension::Current, 1.0),
    unit("ma", Dimension::Current, 1e-3),
    unit("hz hertz 헤르츠", Dimension::Frequency, 1.0),
    unit("khz", Dimension::Frequency, 1e3),
    unit("mhz", Dimension::Frequency, 1e6),
    unit("ghz", Dimension::Frequency, 1e9),
    unit("kb", Dimension::Data, 1e3),
    unit("mb 메가바이트", Dimension::Data, 1e6),
    unit("gb 기가바이트", Dimension::Data, 1e9),
    unit("tb 테라바이트", Dimension::Data, 1e12),
    unit("px pixel pixels 픽셀", Dimension::Pixels, 1.0),
    unit("mp megapixel megapixels 메가픽셀 화소", Dimension::Pixels, 1e6),
    unit("dpi", Dimension::Resolution, 1.0),
    unit("ppi", Dimension::Resolution, 1.0),
    unit("bar", Dimension::Pressure, 1e3),
    unit("hpa mbar 헥토파스칼", Dimension::Pressure, 1.0),
    unit("psi", Dimension::Pressure, 68.947_572_931_683_6),
    unit("lm lumen lumens 루멘", Dimension::LuminousFlux, 1.0),
    unit("lx lux 럭스", Dimension::Illuminance, 1.0),
    unit("db decibel decibels 데시벨", Dimension::Loudness, 1.0),
    unit("% percent 퍼센트 프로", Dimension::Share, 1.0),
    unit("ppm", Dimension::PartsPerMillion, 1.0),
    unit("usd dollar dollars 달러", Dimension::Money("usd"), 1.0),
    unit("eur euro euros 유로", Dimension::Money("eur"), 1.0),
    unit("gbp", Dimension::Money("gbp"), 1.0),
    unit("krw won 원", Dimension::Money("krw"), 1.0),
    unit("jpy yen 엔", Dimension::Money("jpy"), 1.0),
    unit("개", Dimension::Count("개"), 1.0),
    unit("매", Dimension::Count("매"), 1.0),
    unit("장", Dimension::Count("장"), 1.0),
    unit("병", Dimension::Count("병"), 1.0),
    unit("권", Dimension::Count("권"), 1.0),
    unit("켤레", Dimension::Count("켤레"), 1.0),
    unit("롤", Dimension::Count("롤"), 1.0),
];

/// Signs of currencies, which are written before the number.
const CURRENCY_SIGNS: [(char, &str); 5] = [('$', "usd"), ('€', "eur"), ('£', "gbp"), ('₩', "krw"), ('¥', "jpy")];

impl Unit {
    #[cfg(test)]
    pub fn name(&self) -> &'static str {
        self.spellings.split(' ').next().unwrap_or_default()
    }

    /// `value` of this unit in `other`, if both measure the same.
    pub fn convert(&self, value: f64, other: &Self) -> Option<f64> {
        let converted = || (value * self.factor + self.zero - other.zero) / other.factor;
        (self.dimension == other.dimension).then(|| if self == other { value } else { rounded(converted()) })
    }
}

/// The value without the error of the conversion: twelve significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.11e}").parse().unwrap_or(value)
}

/// The unit with this folded spelling.
pub(super) fn named(spelling: &str) -> Option<&'static Unit> {
    UNITS.iter().find(|unit| unit.spellings.split(' ').any(|known| known == spelling))
}

/// Every spelling, for suggestions.
pub(super) fn spellings() -> impl Iterator<Item = &'static str> + Clone {
    UNITS.iter().flat_map(|unit| unit.spellings.split(' '))
}

/// The unit after the number that ends at `at` of a folded text, directly or after a space or a hyphen, and where the unit ends.
pub(super) fn after(text: &str, at: usize) -> Option<(&'static Unit, usize)> {
    let rest = &text[at..];
    let gap = usize::from(rest.starts_with([' ', '-']));
    let start = at + gap;
    let sign = |letter: char| matches!(letter, '°' | '%' | '/' | '²' | '℃' | '℉');
    let end = |text: &str| text.find(|letter: char| !(letter.is_alphabetic() || sign(letter))).unwrap_or(text.len());
    let mut word = &text[start..start + end(&text[start..])];
    // The 2 of m2 is a digit.
    if text[start + word.len()..].starts_with('2') && named(&format!("{word}2")).is_some() {
        word = &text[start..start + word.len() + 1];
    }
    let word = word.trim_end_matches('/');
    // `5 in a row` and `2 a day` are no measures.
    let goes_on = text[start + word.len()..].strip_prefix(' ').is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    if gap == 1 && matches!(word, "in" | "a") && goes_on {
        return None;
    }
    if !word.chars().any(is_hangul) {
        let folded = word.strip_prefix(' ').unwrap_or(word);
        let whole = named(folded).map(|unit| (unit, start + word.len()));
        // In 5 km/day the unit ends before the slash.
        return whole.or_else(|| word.split_once('/').and_then(|(first, _)| Some((named(first)?, start + first.len()))));
    }
    // A Korean unit can be followed by particles, so the longest unit that the word starts with is taken.
    let known = UNITS.iter().flat_map(|unit| unit.spellings.split(' ').map(move |spelling| (unit, spelling)));
    let starts = known.filter(|(_, spelling)| {
        word.strip_prefix(spelling).is_some_and(|rest| spelling.chars().any(is_hangul) || rest.starts_with(is_hangul))
    });
    let (unit, spelling) = starts.max_by_key(|(_, spelling)| spelling.len())?;
    Some((unit, start + spelling.len()))
}

/// The currency whose sign stands directly before the number at `place` of a folded text, and where the sign starts.
pub(super) fn currency_before(text: &str, place: &Range<usize>) -> Option<(&'static Unit, usize)> {
    let before = text[..place.start].strip_suffix(' ').unwrap_or(&text[..place.start]);
    let sign = before.chars().next_back()?;
    let (_, name) = CURRENCY_SIGNS.iter().find(|(known, _)| *known == sign)?;
    Some((named(name)?, before.len() - sign.len_utf8()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(&'static str, &str)> {
        let at = text.rfind(|letter: char| letter.is_ascii_digit() && letter != '²').map_or(0, |at| at + 1);
        let (unit, end) = after(text, at)?;
        Some((unit.name(), &text[at..end]))
    }

    #[test]
    fn a_unit_follows_its_number() {
        for (text, name, written) in [
            ("1.4 litres", "l", " litres"),
            ("25cm", "cm", "cm"),
            ("a 12-volt", "v", "-volt"),
            ("30 % off", "%", " %"),
            ("20°c", "°c", "°c"),
            ("90 km/h.", "km/h", " km/h"),
            ("5 km/day", "km", " km"),
            ("45리터로", "l", "리터"),
            ("3개월", "month", "개월"),
            ("길이 5m로", "m", "m"),
            ("12매입", "매", "매"),
        ] {
            assert_eq!(read(text), Some((name, written)), "{text}");
        }
        for text in ["12 pads", "12 moths", "12", "model 5, in", "5 cmx"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn values_convert_within_a_dimension() {
        let converted = |value: f64, from: &str, to: &str| named(from).unwrap().convert(value, named(to).unwrap());
        assert_eq!(converted(1.5, "l", "ml"), Some(1_500.0));
        assert_eq!(converted(1.1, "kg", "g"), Some(1_100.0));
        assert_eq!(converted(10.0, "inches", "cm"), Some(25.4));
        assert_eq!(converted(212.0, "°f", "°c"), Some(100.0));
        assert_eq!(converted(2.0, "년", "months"), Some(24.0));
        assert_eq!(converted(45.0, "litres", "cm"), None);
        assert_eq!(converted(3.0, "usd", "krw"), None);
    }

    #[test]
    fn a_sign_of_a_currency_stands_before_its_number() {
        let found = |text: &str, place: Range<usize>| currency_before(text, &place).map(|(unit, start)| (unit.name(), start));
        assert_eq!(found("for $29", 5..7), Some(("usd", 4)));
        assert_eq!(found("₩ 3000", 4..8), Some(("krw", 0)));
        assert_eq!(found("for 29", 4..6), None);
    }

    #[test]
    fn a_spelling_means_one_unit() {
        let mut all: Vec<&str> = spellings().collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
