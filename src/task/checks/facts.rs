//! Finds the facts in a text that can be looked up without understanding it: numbers and names.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::outcome::Span;
use crate::task::evidence::number;
use crate::task::folded_text::FoldedText;
use crate::task::words::is_hangul;

/// Units of measurement that belong to the number before them. Folded, separated by spaces. Any other word after a number is
/// ignored.
const UNITS: &str = "mm cm m km in inch inches ft mg g kg oz lb lbs ml cl dl l litre litres liter liters w kw wh v a ah mah hz khz \
    mhz ghz kb mb gb tb mp dpi rpm bar db lm lumen lumens px ppm lux h hours hour min minutes minute sec seconds second days \
    day weeks week months month years year usd eur gbp krw jpy °c °f % 원 개 매 장 병 권 켤레 롤 인치 센티미터 밀리미터 미터 그램 킬로그램 킬로 리터 밀리리터 시간 분 초 일 개월 년 도";

/// Spellings of the same unit.
const SAME: &[&[&str]] = &[
    &["min", "minute", "minutes"],
    &["h", "hour", "hours"],
    &["sec", "second", "seconds"],
    &["day", "days"],
    &["week", "weeks"],
    &["month", "months"],
    &["year", "years"],
    &["l", "litre", "litres", "liter", "liters"],
    &["in", "inch", "inches"],
    &["lb", "lbs"],
    &["lm", "lumen", "lumens"],
];

/// Units of money. A numeric field can be a price, although it has no unit.
const MONEY: &[&str] = &["usd", "eur", "gbp", "krw", "jpy", "원"];

/// If more than this share of the words of a text is capitalized, capitals are ignored.
const TITLE_CASE: f64 = 0.6;

/// A number or a name in a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fact {
    /// Its place in the text.
    pub place: Span,
    pub kind: FactKind,
}

/// The kind of a fact.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum FactKind {
    /// A number with its unit.
    Number {
        digits: String,
        /// Its value, if it can be parsed.
        value: Option<f64>,
        unit: Option<String>,
    },
    Name(String),
}

impl FactKind {
    /// Whether a field with a plain number can state this fact.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Number { unit, .. } if unit.as_deref().is_none_or(|unit| MONEY.contains(&unit)))
    }
}

/// The facts of `text`, in text order.
pub(super) fn facts(text: &str) -> Vec<Fact> {
    let folded = FoldedText::of(text);
    let mut found = Vec::new();
    for (place, value) in number::claimed(folded.text()) {
        if belongs_to_a_name(&folded.text()[..place.start]) {
            continue;
        }
        let (unit, end) = unit(folded.text(), place.end).unzip();
        let digits = folded.text()[place.clone()].to_owned();
        let kind = FactKind::Number { digits, value, unit: unit.map(str::to_owned) };
        found.push(Fact { place: folded.original(place.start..end.unwrap_or(place.end)), kind });
    }
    for place in names(text) {
        let name = FoldedText::of(&text[place.clone()]).text().to_owned();
        found.push(Fact { place: Span { start: place.start, end: place.end }, kind: FactKind::Name(name) });
    }
    found.sort_by_key(|fact| fact.place.start);
    found
}

/// Whether digits after `before` belong to a name such as X200. Digits after the x of 40x25 or after Hangul do not.
fn belongs_to_a_name(before: &str) -> bool {
    let mut letters = before.chars().rev();
    match letters.next() {
        Some('x') => !letters.next().is_some_and(char::is_numeric),
        Some(letter) => letter.is_alphabetic() && !is_hangul(letter),
        None => false,
    }
}

/// Whether two spellings mean the same unit.
pub(super) fn is_same_unit(one: &str, other: &str) -> bool {
    one == other || SAME.iter().any(|units| units.contains(&one) && units.contains(&other))
}

/// The unit after the number that ends at `at` of a folded text, and where the unit ends.
pub(super) fn unit(text: &str, at: usize) -> Option<(&str, usize)> {
    let rest = &text[at..];
    let start = at + usize::from(rest.starts_with(' '));
    let word = text[start..].split(|letter: char| !(letter.is_alphabetic() || matches!(letter, '°' | '%'))).next()?;
    let is_latin = word.is_ascii();
    // A Korean unit can be followed by particles. The longest unit that the word starts with is taken.
    let known = UNITS.split(' ').filter(|unit| if is_latin { *unit == word } else { word.starts_with(unit) });
    let unit = known.max_by_key(|unit| unit.len())?;
    Some((unit, start + unit.len()))
}

fn names(text: &str) -> Vec<Range<usize>> {
    let is_capital = |word: &str| word.chars().next().is_some_and(char::is_uppercase);
    let words: Vec<(usize, &str)> =
        text.unicode_word_indices().filter(|(_, word)| word.chars().any(char::is_alphabetic)).collect();
    let cased =
        words.iter().filter(|(_, word)| word.chars().any(|letter| letter.is_lowercase() || letter.is_uppercase())).count();
    let capitals = words.iter().filter(|(_, word)| is_capital(word)).count();
    let is_title = cased > 2 && capitals as f64 > TITLE_CASE * cased as f64;
    let is_loud = !text.chars().any(char::is_lowercase);
    let mut found = Vec::new();
    for (at, word) in words {
        let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        // A word that starts with a digit is a number with a suffix.
        if word.chars().nth(1).is_none() || word.starts_with(|letter: char| letter.is_numeric()) {
            continue;
        }
        let mut pairs = word.chars().zip(word.chars().skip(1));
        let mixed = pairs.any(|(left, right)| left.is_alphabetic() && !is_hangul(left) && right.is_numeric());
        let loud = !is_loud && word.chars().filter(|letter| letter.is_uppercase()).count() > 1;
        let named = is_capital(word) && !is_title && !is_loud && !begins(&text[..at]);
        if mixed || loud || named {
            found.push(at..at + word.len());
        }
    }
    found
}

/// Whether a sentence or a part of a heading starts after `before`.
fn begins(before: &str) -> bool {
    let before =
        before.trim_end_matches(|letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '“' | '‘' | '(' | '«'));
    before.is_empty() || before.ends_with(['.', '!', '?', ':', ';', '|', '–', '—', '-', '•', '·', '/', '。'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Vec<&str> {
        facts(text).iter().map(|fact| &text[fact.place.start..fact.place.end]).collect()
    }

    #[test]
    fn numbers_take_their_units_along() {
        assert_eq!(said("made of oak, 40 x 25 cm and 1.2kg for 29.50"), ["40", "25 cm", "1.2kg", "29.50"]);
        assert_eq!(said("set of 12 pads, 30 % off"), ["12", "30 %"]);
        assert_eq!(said("길이 5m, 8롤을 3만 5천원에"), ["5m", "8롤", "3만 5천원"]);
        assert_eq!(said("boils in nine minutes, one of the best"), ["nine minutes"]);
        assert!(is_same_unit("min", "minutes") && !is_same_unit("min", "hours"));
        assert_eq!(unit("12 months", 2), Some(("months", 9)));
        assert_eq!(unit("12 moths", 2), None);
    }

    #[test]
    fn names_are_words_with_capitals_that_no_sentence_begins_with() {
        assert_eq!(said("A bread board by Hazel & Sons. Made in Norway."), ["Hazel", "Sons", "Norway"]);
        assert_eq!(said("Radio: Works with DAB and USB-C."), ["DAB", "USB"]);
        assert_eq!(said("Hazel's best board, from Hazel's workshop"), ["Hazel"]);
        assert_eq!(said("The Oak Bread Board | Solid Oak"), [""; 0], "in a title every word has a capital");
        assert_eq!(said("BUY NOW"), [""; 0]);
        assert_eq!(said("다이어리에 쓰는 Umbra 펜"), ["Umbra"]);
        assert_eq!(said("model X200, sensor PM2.5"), ["X200", "PM2.5"]);
        assert_eq!(said("40x25cm, 약3kg, 갤럭시S24"), ["40", "25cm", "3kg", "갤럭시S24"]);
    }
}
