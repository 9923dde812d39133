//! What a document says, in its fields and in its text.

use std::cell::OnceCell;

use serde_json::Value;

use super::facts::{Fact, FactKind, is_same_unit, unit};
use super::words;
use crate::document::Document;
use crate::outcome::{MatchKind, Provenance};
use crate::task::evidence::folded::FoldedText;
use crate::task::evidence::{EvidenceFinder, number};

/// Values of a record that are looked at: a catalogue's record has dozens.
const MOST_FIELDS: usize = 2_000;

/// A document that is looked into again and again.
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
        // Where the database could not hold the source, what it keeps beside the text is left.
        let all = if document.fields.is_empty() { &document.metadata } else { &document.fields };
        let mut fields = Vec::new();
        for (name, value) in all {
            collect(name.clone(), value, &mut fields);
        }
        Self { text: &document.text, searcher: EvidenceFinder::new(&document.text), fields }
    }

    /// What says all of `value`. Of a value by itself a field is asked first, for that is where a fact stands by its name; of a
    /// sentence the text, where a reader can be shown the place.
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

    /// What says the fact: the text first, where a reader can be shown the place.
    pub(super) fn fact(&self, fact: &Fact) -> Option<Provenance> {
        let in_text = match &fact.kind {
            FactKind::Name(name) => words::find(self.searcher.folded().text(), name),
            FactKind::Number { .. } => says_number(self.searcher.folded().text(), &fact.kind),
        };
        if let Some(place) = in_text {
            return Some(self.place(place));
        }
        self.field(|field| match (&fact.kind, field.value) {
            (FactKind::Name(name), Value::String(_)) => words::find(field.folded(), name).is_some(),
            (FactKind::Number { value, .. }, Value::Number(own)) => {
                fact.kind.is_plain() && value.is_some() && own.as_f64() == *value
            }
            (FactKind::Number { .. }, Value::String(_)) => says_number(field.folded(), &fact.kind).is_some(),
            _ => false,
        })
    }

    /// What says a folded word.
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

/// Where a folded text says the number, with the same unit where it has one.
fn says_number(text: &str, wanted: &FactKind) -> Option<std::ops::Range<usize>> {
    let FactKind::Number { digits, value, unit: wanted_unit } = wanted else { return None };
    for (place, found) in number::all(text) {
        let same = &text[place.clone()] == digits || value.is_some() && found == *value;
        if !same {
            continue;
        }
        match (wanted_unit, unit(text, place.end)) {
            (None, _) => return Some(place),
            (Some(wanted), Some((unit, end))) if is_same_unit(unit, wanted) => return Some(place.start..end),
            _ => {}
        }
    }
    match (wanted_unit, value) {
        // A number inside a list or a date is found in parts.
        (None, Some(value)) => number::find(text, *value),
        _ => None,
    }
}
