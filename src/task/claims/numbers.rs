//! The numbers of a text with their units.
//!
//! | written | read as |
//! |---|---|
//! | `2-litre`, `two litres`, `2리터` | 2 with the unit litre |
//! | `$29.50` | 29.5 with the unit dollar |
//! | `40 x 25 cm`, `2–3 minutes`, `2 or 3 minutes` | the first number has the unit of the second |
//! | `twice`; in a source also `a litre` | 2 times; 1 litre |
//! | `1 hour 30 minutes`, `1시간 30분` | one number, 1.5 hours |

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::task::evidence::number;
use crate::task::units::{self, Unit};
use crate::task::words::is_hangul;

/// A number with its unit, as a folded text states it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::task) struct StatedNumber {
    /// The number with its unit, in bytes of the folded text.
    pub place: Range<usize>,
    /// The digits or the words of the number alone.
    pub digits: String,
    /// Its value, if it can be parsed.
    pub value: Option<f64>,
    pub unit: Option<Unit>,
}

/// Which number words count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::task) enum NumberWords {
    /// All that may be a number, as in a source.
    All,
    /// Only those that cannot mean anything else, as in a text that is judged.
    Certain,
}

/// The numbers of a folded text, in text order.
pub(in crate::task) fn numbers(text: &str, words: NumberWords) -> Vec<StatedNumber> {
    let all = match words {
        NumberWords::All => number::all(text),
        NumberWords::Certain => number::claimed(text),
    };
    let mut found: Vec<StatedNumber> = Vec::with_capacity(all.len());
    for (place, value) in all.into_iter().filter(|(place, _)| !belongs_to_a_name(&text[..place.start])) {
        let digits = text[place.clone()].to_owned();
        let is_year = value.is_some_and(|value| value >= 1000.0 && value.fract() == 0.0);
        let (place, unit) = match (units::after(text, place.end), units::before(text, place.start)) {
            // 2026년 is a date and no duration.
            (Some((unit, _)), None) if is_year && unit.quantity == "months" => (place, None),
            (Some((unit, end)), None) => (place.start..end, Some(unit)),
            (_, Some((unit, start))) => (start..place.end, Some(unit)),
            (None, None) => (place, None),
        };
        found.push(StatedNumber { place, digits, value, unit });
    }
    found.extend(spoken(text, words));
    found.sort_by_key(|number| number.place.start);
    for index in (1..found.len()).rev() {
        let between = &text[found[index - 1].place.end.min(found[index].place.start)..found[index].place.start];
        let shares = matches!(between.trim(), "x" | "×" | "*" | "-" | "~" | "to" | "or" | "by" | "/" | "에서" | "또는");
        if found[index - 1].unit.is_none() && shares {
            found[index - 1].unit = found[index].unit;
        }
    }
    joined(text, found)
}

/// Adverbs of number, and a unit after an article: `twice`, `a litre`.
fn spoken(text: &str, words: NumberWords) -> Vec<StatedNumber> {
    let mut found = Vec::new();
    let times = Unit { quantity: "time-of-many", factor: 1.0 };
    for (start, word) in text.unicode_word_indices() {
        let (value, place, unit) = match word {
            "once" if words == NumberWords::All => (1.0, start..start + 4, times),
            "twice" => (2.0, start..start + 5, times),
            "thrice" => (3.0, start..start + 6, times),
            "a" | "an" | "per" if words == NumberWords::All => match units::after(text, start + word.len()) {
                Some((unit, end)) => (1.0, start..end, unit),
                None => continue,
            },
            _ => continue,
        };
        found.push(StatedNumber { digits: word.to_owned(), place, value: Some(value), unit: Some(unit) });
    }
    found
}

/// Joins `1 hour 30 minutes` into one number.
fn joined(text: &str, found: Vec<StatedNumber>) -> Vec<StatedNumber> {
    let mut all: Vec<StatedNumber> = Vec::with_capacity(found.len());
    for next in found {
        if let Some(last) = all.last_mut()
            && let (Some(unit), Some(smaller)) = (last.unit, next.unit)
            && let (Some(value), Some(more)) = (last.value, next.value)
            && unit.quantity == smaller.quantity
            && smaller.factor < unit.factor
            && matches!(text.get(last.place.end..next.place.start), Some("" | " " | " and "))
        {
            last.value = Some(value + more * smaller.factor / unit.factor);
            last.place.end = next.place.end;
            last.digits = text[last.place.clone()].to_owned();
            continue;
        }
        all.push(next);
    }
    all
}

impl StatedNumber {
    /// Whether this number of a source supports `claim`: the same value, in the same unit or in one that converts to it exactly.
    pub(in crate::task) fn supports(&self, claim: &Self) -> bool {
        match (&self.unit, &claim.unit) {
            (_, None) => self.equals(claim, 1.0),
            (Some(own), Some(unit)) if own.is_comparable(unit) => self.equals(claim, unit.factor / own.factor),
            (None, Some(unit)) => unit.is_counter() && self.equals(claim, 1.0),
            _ => false,
        }
    }

    /// Whether both are numbers of one kind, so that one could be mistaken for the other.
    pub(in crate::task) fn rivals(&self, claim: &Self) -> bool {
        match (&self.unit, &claim.unit) {
            (Some(own), Some(unit)) => own.is_comparable(unit),
            (None, None) => true,
            _ => false,
        }
    }

    fn equals(&self, claim: &Self, factor: f64) -> bool {
        if self.digits == claim.digits && factor == 1.0 {
            return true;
        }
        let near = |own: f64, other: f64| (own - other).abs() <= 1e-9 * own.abs().max(other.abs());
        self.readings().any(|own| claim.readings().any(|other| near(own, other * factor)))
    }

    /// The value, and what the digits are as a plain decimal number: `1.250` may be 1250 or 1.25.
    fn readings(&self) -> impl Iterator<Item = f64> {
        self.value.into_iter().chain(self.digits.parse().ok())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn supports(source: &str, claim: &str) -> bool {
        let claim = numbers(claim, NumberWords::Certain);
        assert_eq!(claim.len(), 1, "{claim:?}");
        numbers(source, NumberWords::All).iter().any(|number| number.supports(&claim[0]))
    }

    #[test]
    fn a_number_is_the_same_in_any_notation_and_in_units_that_convert_exactly() {
        for (source, claim) in [
            ("1,500 ml", "1.5 l"),
            ("1.5리터", "1500 ml"),
            ("boils in two minutes", "2 min"),
            ("90분", "1 hour 30 minutes"),
            ("1시간 30분", "90 minutes"),
            ("40 x 25 cm", "40 cm"),
            ("2–3 minutes".replace('–', "-").as_str(), "2 minutes"),
            ("12 in wide", "12"),
            ("0.4 m", "40센티미터"),
            ("29,50 €", "29.5"),
            ("2 years", "24개월"),
            ("sleeps 3", "three people"),
            ("연필 12자루", "12개"),
            ("20 °c", "20도"),
        ] {
            assert!(supports(source, claim), "`{source}` says {claim}");
        }
        for (source, claim) in [
            ("45 litres", "45 cm"),
            ("1.2 kg", "1.2 g"),
            ("1.5 l", "15 l"),
            ("$29.50", "€29.50"),
            ("29.5 eur", "29.5 usd"),
            ("40매", "40권"),
            ("45", "45 cm"),
            ("2시간", "2분"),
            ("1 hour 30 minutes", "30 minutes"),
        ] {
            assert!(!supports(source, claim), "`{source}` does not say {claim}");
        }
    }
}
