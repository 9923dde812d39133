//! Looks up values, facts and words in the fields and the text of a document.

use std::cell::OnceCell;

use serde_json::Value;

use super::facts::{Fact, FactKind};
use crate::document::Document;
use crate::outcome::{MatchKind, Provenance};
use crate::task::claims::{NumberWords, StatedNumber, numbers};
use crate::task::evidence::{EvidenceFinder, number};
use crate::task::folded_text::FoldedText;
use crate::task::words;

/// Most values of a record that are searched. A typical product record has dozens.
const MOST_FIELDS: usize = 2_000;

/// A document prepared for repeated searches.
pub(super) struct SourceDocument<'a> {
    text: &'a str,
    searcher: EvidenceFinder<'a>,
    fields: Vec<SourceField<'a>>,
}

struct SourceField<'a> {
    name: String,
    value: &'a Value,
    folded: OnceCell<FoldedText>,
}

impl SourceField<'_> {
    fn folded(&self) -> &str {
        let text = || match self.value {
            Value::String(text) => FoldedText::of(text),
            other => FoldedText::of(&other.to_string()),
        };
        self.folded.get_or_init(text).text().trim()
    }
}

impl<'a> SourceDocument<'a> {
    pub(super) fn of(document: &'a Document) -> Self {
        // If the database could not store the source fields, only the metadata is available.
        let all = if document.fields.is_empty() { &document.metadata } else { &document.fields };
        let mut fields = Vec::new();
        for (name, value) in all {
            collect(name.clone(), value, &mut fields);
        }
        Self { text: &document.text, searcher: EvidenceFinder::new(&document.text), fields }
    }

    /// Where the source contains `value` as a whole. For a single value, fields are searched first, because they name the fact. For
    /// a sentence, the text is searched first, because a reader can be shown the place.
    pub(super) fn whole(&self, value: &Value, is_value: bool) -> Option<Provenance> {
        match value {
            Value::String(text) => {
                let folded = FoldedText::of(text);
                let wanted = folded.text().trim();
                let number = number::written(wanted);
                let equal = |field: &SourceField<'_>| match field.value {
                    Value::Number(own) => number.is_some() && own.as_f64() == number,
                    _ => field.folded() == wanted,
                };
                let in_text = || {
                    let evidence = self.searcher.string(text).filter(|evidence| evidence.likeness != MatchKind::Fuzzy)?;
                    let span = evidence.span;
                    Some(Provenance::Text { start: span.start, end: span.end, likeness: evidence.likeness })
                };
                let part = || self.field(|field| field.value.is_string() && words::find(field.folded(), wanted).is_some());
                match is_value {
                    true => self.field(equal).or_else(in_text).or_else(part),
                    false => in_text().or_else(|| self.field(equal)).or_else(part),
                }
            }
            Value::Number(number) => {
                let wanted = number.as_f64()?;
                let equal = |field: &SourceField<'_>| match field.value {
                    Value::Number(own) => own.as_f64() == Some(wanted),
                    _ => number::written(field.folded()) == Some(wanted),
                };
                let in_text = || {
                    let evidence = self.searcher.number(number)?;
                    let span = evidence.span;
                    Some(Provenance::Text { start: span.start, end: span.end, likeness: evidence.likeness })
                };
                let part = || self.field(|field| field.value.is_string() && number::find(field.folded(), wanted).is_some());
                self.field(equal).or_else(in_text).or_else(part)
            }
            _ => None,
        }
    }

    /// Where the source contains the fact. The text is searched first, because a reader can be shown the place.
    pub(super) fn fact(&self, fact: &Fact) -> Option<Provenance> {
        let in_text = match &fact.kind {
            FactKind::Name(name) => words::find(self.searcher.folded().text(), name),
            FactKind::Number(number) => says_number(self.searcher.folded().text(), number),
        };
        if let Some(place) = in_text {
            return Some(self.place(place));
        }
        self.field(|field| match (&fact.kind, field.value) {
            (FactKind::Name(name), Value::String(_)) => words::find(field.folded(), name).is_some(),
            (FactKind::Number(number), Value::Number(own)) => {
                fact.kind.is_plain() && number.value.is_some() && own.as_f64() == number.value
            }
            (FactKind::Number(number), Value::String(_)) => says_number(field.folded(), number).is_some(),
            _ => false,
        })
    }

    /// Where the source contains a folded word.
    pub(super) fn word(&self, word: &str) -> Option<Provenance> {
        match words::find(self.searcher.folded().text(), word) {
            Some(place) => Some(self.place(place)),
            None => self.field(|field| field.value.is_string() && words::find(field.folded(), word).is_some()),
        }
    }

    fn field(&self, says: impl Fn(&SourceField<'_>) -> bool) -> Option<Provenance> {
        self.fields.iter().find(|field| says(field)).map(|field| Provenance::Field { field: field.name.clone() })
    }

    fn place(&self, place: std::ops::Range<usize>) -> Provenance {
        let folded = self.searcher.folded();
        let exact = folded.text()[place.clone()].to_owned();
        let span = folded.original(place);
        let likeness = if self.text[span.start..span.end] == exact { MatchKind::Exact } else { MatchKind::Normalized };
        Provenance::Text { start: span.start, end: span.end, likeness }
    }
}

fn collect<'a>(name: String, value: &'a Value, fields: &mut Vec<SourceField<'a>>) {
    if fields.len() >= MOST_FIELDS {
        return;
    }
    match value {
        Value::Object(inner) => inner.iter().for_each(|(key, value)| collect(format!("{name}.{key}"), value, fields)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(format!("{name}.{index}"), value, fields))
        }
        Value::String(_) | Value::Number(_) => fields.push(SourceField { name, value, folded: OnceCell::new() }),
        Value::Bool(_) | Value::Null => {}
    }
}

/// Where a folded text contains the number, with the same unit or one that converts to it if it has one.
fn says_number(text: &str, wanted: &StatedNumber) -> Option<std::ops::Range<usize>> {
    if let Some(number) = numbers(text, NumberWords::All).into_iter().find(|number| number.supports(wanted)) {
        return Some(number.place);
    }
    match (wanted.unit, wanted.value) {
        // A number can be a part of a list or a date.
        (None, Some(value)) => number::find(text, value),
        _ => None,
    }
}
