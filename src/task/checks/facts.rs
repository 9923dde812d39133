//! Finds the facts in a text that can be looked up without understanding it: numbers and names.

use crate::outcome::Span;
use crate::task::claims::{NumberWords, StatedNumber, names, numbers};
use crate::task::folded_text::FoldedText;

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
    Number(StatedNumber),
    Name(String),
}

impl FactKind {
    /// Whether a field with a plain number can state this fact: it has no unit, or is an amount of money.
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Number(number) if number.unit.is_none_or(|unit| unit.is_money()))
    }
}

/// The facts of `text`, in text order.
pub(super) fn facts(text: &str) -> Vec<Fact> {
    let folded = FoldedText::of(text);
    let mut found = Vec::new();
    for number in numbers(folded.text(), NumberWords::Certain) {
        found.push(Fact { place: folded.original(number.place.clone()), kind: FactKind::Number(number) });
    }
    for place in names(text) {
        let name = FoldedText::of(&text[place.clone()]).text().to_owned();
        found.push(Fact { place: Span { start: place.start, end: place.end }, kind: FactKind::Name(name) });
    }
    found.sort_by_key(|fact| fact.place.start);
    found
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
