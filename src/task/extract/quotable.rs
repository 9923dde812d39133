//! What strict extraction may take from a document: spans of its text, and the numbers, dates and quantities in it.
//!
//! The text is cut into chunks (see `chunks.rs`), and a span is a run of neighbouring chunks.

use std::ops::Range;

use serde_json::{Number, Value};

use super::chunks;
use super::leaf::{LeafRule, StringRule};
use crate::engine::{LeafType, LeafValues, PASSAGE_END};
use crate::outcome::Span;
use crate::task::evidence::{date, number, quantity};
use crate::task::folded_text::FoldedText;
use crate::task::units::Unit;

/// The largest integer that every JSON reader keeps exactly.
const LARGEST_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Most chunks of a span that must match a pattern or a format.
const MOST_MATCHED_CHUNKS: usize = 24;

/// Most spans of a document that are matched against a pattern or a format. Longer documents are searched for shorter spans.
const MOST_MATCHES: usize = 50_000;

/// A document prepared for strict extraction.
pub(super) struct QuotableDocument<'a> {
    text: &'a str,
    folded: FoldedText,
    numbers: Vec<(Range<usize>, f64)>,
    quantities: Vec<quantity::Quantity>,
    dates: Vec<(Range<usize>, jiff::civil::Date)>,
    chunks: Vec<&'a str>,
}

impl<'a> QuotableDocument<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let folded = FoldedText::of(text);
        let numbers = numbers(folded.text());
        let quantities = quantity::all(folded.text());
        let dates = date::all(folded.text());
        let mut document = Self { text, folded, numbers, quantities, dates, chunks: Vec::new() };
        document.chunks = chunks::cut(text, &document.glued());
        document
    }

    /// The chunks of the text.
    pub(super) fn chunks(&self) -> &[&'a str] {
        &self.chunks
    }

    /// What a string or number of the answer may be under `rule`.
    pub(super) fn values(&self, rule: &LeafRule, of: LeafType) -> LeafValues {
        let listed = |values: Vec<Value>| {
            let mut allowed: Vec<Value> = Vec::new();
            for value in values {
                if !allowed.contains(&value) && rule.allows(&value) {
                    allowed.push(value);
                }
            }
            LeafValues::Listed(allowed)
        };
        match of {
            LeafType::String => match rule.strings() {
                StringRule::Spans { most } => LeafValues::Spans { most },
                StringRule::Dates => listed(self.dates.iter().map(|(_, date)| date.to_string().into()).collect()),
                StringRule::Quantities => {
                    let measured = self.quantities.iter().filter(|quantity| rule.measures(quantity.unit));
                    listed(measured.map(|quantity| self.quoted(&quantity.place).into()).collect())
                }
                StringRule::Matches => listed(self.matches().map(Value::from).collect()),
            },
            LeafType::Number | LeafType::Integer => {
                let numbers = self.stated(rule.units()).filter_map(|(_, value)| json_number(value));
                listed(numbers.filter(|value| of == LeafType::Number || value.is_i64()).collect())
            }
        }
    }

    /// The numbers of the document, each with its place in the folded text: those with a unit that converts into one of `units`, converted, or
    /// all if `units` is empty.
    fn stated<'s>(&'s self, units: &'s [Unit]) -> impl Iterator<Item = (Range<usize>, f64)> + 's {
        let plain = self.numbers.iter().filter(move |_| units.is_empty()).cloned();
        let measured = self.quantities.iter().flat_map(move |quantity| {
            let converted = |value: &f64| units.iter().find_map(|unit| quantity.unit.convert(*value, unit));
            quantity.values.iter().filter_map(move |value| Some((quantity.place.clone(), converted(value)?)))
        });
        plain.chain(measured)
    }

    /// The place of a date or of a converted number that the text writes in another notation.
    pub(super) fn place_of(&self, value: &Value, units: &[Unit]) -> Option<Span> {
        let place = match value {
            Value::String(date) => {
                self.dates.iter().find(|(_, known)| known.to_string() == *date).map(|(place, _)| place.clone())
            }
            Value::Number(_) => {
                let mut stated = self.stated(units);
                stated.find(|(_, stated)| json_number(*stated).as_ref() == Some(value)).map(|(place, _)| place)
            }
            _ => None,
        }?;
        Some(self.folded.original(place))
    }

    /// The text at a place of the folded text, its white space collapsed.
    fn quoted(&self, place: &Range<usize>) -> String {
        let span = self.folded.original(place.clone());
        self.text[span.start..span.end].split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The spans that stay whole, in order and without overlap.
    fn glued(&self) -> Vec<Span> {
        let places = self.dates.iter().map(|(place, _)| place).chain(self.quantities.iter().map(|quantity| &quantity.place));
        let places = places.chain(self.numbers.iter().map(|(place, _)| place));
        let mut spans: Vec<Span> = places.map(|place| self.folded.original(place.clone())).collect();
        // Of two spans that start together, the longer one counts.
        spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
        let mut end = 0;
        spans.retain(|span| {
            let is_apart = span.start >= end;
            end = end.max(span.end);
            is_apart
        });
        spans
    }

    /// Every span of few chunks, for patterns.
    fn matches(&self) -> impl Iterator<Item = String> + '_ {
        let longest = (MOST_MATCHES / self.chunks.len().max(1)).clamp(1, MOST_MATCHED_CHUNKS);
        (0..self.chunks.len()).flat_map(move |start| {
            let passage = self.chunks[start..].iter().take_while(|chunk| **chunk != PASSAGE_END).count().min(longest);
            let ends = (1..=passage).map(move |count| start + count);
            let edge = |chunk: &str| chunk != " ";
            ends.filter(move |end| edge(self.chunks[start]) && edge(self.chunks[end - 1]))
                .map(move |end| self.chunks[start..end].concat())
        })
    }
}

/// The numbers of the folded text that no name contains, each with every value that it can have.
fn numbers(text: &str) -> Vec<(Range<usize>, f64)> {
    let mut found = Vec::new();
    for (place, _) in number::all(text) {
        if quantity::is_inside_word(text, place.start) {
            continue;
        }
        let sign = if number::is_negative(&text[..place.start]) { -1.0 } else { 1.0 };
        found.extend(number::values(text, &place).into_iter().map(|value| (place.clone(), sign * value)));
    }
    found
}

/// The number as JSON; none if it has no exact form there.
fn json_number(value: f64) -> Option<Value> {
    if value.fract() == 0.0 && value.abs() <= LARGEST_INTEGER {
        return Some((value as i64).into());
    }
    Number::from_f64(value).map(Value::Number)
}
