//! Finds quantities: numbers with a unit, also several that share one unit, such as `40 x 25 cm` and `10 to 15 minutes`.

use std::ops::Range;

use super::number;
use crate::task::units::{self, Unit};
use crate::task::words::is_hangul;

/// Numbers that share one unit.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::task) struct Quantity {
    /// The place of all of it in the folded text, with the unit.
    pub place: Range<usize>,
    pub values: Vec<f64>,
    pub unit: Unit,
}

/// What can stand between two numbers that share a unit.
const BETWEEN: [&str; 12] = [" x ", "x", " × ", "×", " * ", "-", " - ", "~", " ~ ", " to ", " by ", " and "];

/// Every quantity in the folded `text`, in text order.
pub(in crate::task) fn all(text: &str) -> Vec<Quantity> {
    let numbers = number::all(text);
    let mut found: Vec<Quantity> = Vec::new();
    let mut index = 0;
    while index < numbers.len() {
        let last = run_end(text, &numbers, index);
        let run = &numbers[index..=last];
        index = last + 1;
        let values: Vec<f64> = run.iter().filter_map(|(_, value)| *value).collect();
        let (start, end) = (run[0].0.start, run[run.len() - 1].0.end);
        if values.len() < run.len() || is_inside_word(text, start) {
            continue;
        }
        if let Some((unit, start)) = units::before(text, start) {
            found.push(Quantity { place: start..end, values, unit });
        } else if let Some((unit, end)) = units::after(text, end) {
            found.push(Quantity { place: start..end, values, unit });
        }
    }
    found
}

/// The last number of the run that starts at `first`: numbers joined by a mark, of which only the last has a unit.
fn run_end(text: &str, numbers: &[(Range<usize>, Option<f64>)], first: usize) -> usize {
    let mut last = first;
    while let Some((next, _)) = numbers.get(last + 1)
        && BETWEEN.contains(&&text[numbers[last].0.end..next.start])
    {
        last += 1;
    }
    last
}

/// Whether the digits at `start` belong to a name such as X200. Digits after the x of 40x25 or after Hangul do not.
pub(in crate::task) fn is_inside_word(text: &str, start: usize) -> bool {
    let mut before = text[..start].chars().rev();
    match before.next() {
        Some('x') => !before.next().is_some_and(char::is_numeric),
        Some(letter) => letter.is_alphabetic() && !is_hangul(letter),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, Vec<f64>, &str)> {
        all(text).into_iter().map(|quantity| (&text[quantity.place], quantity.values, quantity.unit.quantity)).collect()
    }

    #[test]
    fn a_number_and_its_unit_are_one_quantity() {
        assert_eq!(found("holds 1.4 litres, weighs 0.9kg"), [("1.4 litres", vec![1.4], "volume"), ("0.9kg", vec![0.9], "mass")]);
        assert_eq!(found("₩ 39,000 or $29.50"), [("₩ 39,000", vec![39_000.0], "krw"), ("$29.50", vec![29.5], "usd")]);
        assert_eq!(found("3만 5천원에 45리터"), [("3만 5천원", vec![35_000.0], "krw"), ("45리터", vec![45.0], "volume")]);
        assert_eq!(found("boils in two minutes"), [("two minutes", vec![2.0], "time")]);
    }

    #[test]
    fn numbers_that_share_a_unit_are_one_quantity() {
        assert_eq!(found("40 x 25 cm"), [("40 x 25 cm", vec![40.0, 25.0], "length")]);
        assert_eq!(found("60x40x30cm"), [("60x40x30cm", vec![60.0, 40.0, 30.0], "length")]);
        assert_eq!(found("10 to 15 minutes"), [("10 to 15 minutes", vec![10.0, 15.0], "time")]);
        assert_eq!(found("40 cm x 25 cm"), [("40 cm", vec![40.0], "length"), ("25 cm", vec![25.0], "length")]);
    }

    #[test]
    fn a_number_without_unit_is_none() {
        for text in ["12 pads", "model x200 cm", "5 in a row", "sizes 1, 2 and 3"] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
