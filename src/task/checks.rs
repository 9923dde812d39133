//! Checks of an object that people will read, against the object itself and against its source document. The checks have no side
//! effects.
//!
//! | check | reads | reports |
//! |---|---|---|
//! | `banned` | every text | banned words |
//! | `claims` | every text | words of the list that the source does not contain |
//! | `quoted` | the named fields | each string or number that is neither a field of the source nor part of its text |
//! | `grounded` | the named fields | each number (in digits or words, with its unit) and each name that the source does not contain |
//! | `supported` | the named fields | each claim that the source does not support, by the rules of `claims.rs` |
//!
//! Values that the schema lists (`enum`, `const`) are choices and are not checked. A name is a capitalized word that does not start
//! a sentence, or a word with several capitals or with digits after letters. If most words of a text are capitalized, as in titles,
//! capitals are ignored. Korean has no capitals; for Korean text the checks cover numbers, Latin words and the words under
//! `claims`.

mod facts;
mod source;

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use self::facts::facts;
use self::source::SourceDocument;
use super::claims::Sources;
use super::evidence::is_choice;
use super::folded_text::FoldedText;
use super::json_spans::escaped_key;
use super::words;
use crate::did_you_mean::suggestion;
use crate::document::Document;
use crate::outcome::{Check, CheckFailure, FactTrace, UnsupportedClaim};

/// Most characters of a value quoted in a message.
const QUOTED: usize = 80;

/// The share of the words of a sentence under `supported` that the source may lack.
const NOVEL_WORDS: f64 = 0.2;

/// The checks, as configured in pipeline files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// Words that must not occur in any text.
    pub banned: Vec<String>,
    /// Words that state a fact. If a text contains one, the source must contain it too.
    pub claims: Vec<String>,
    /// Fields whose values must occur in the source as a whole.
    pub quoted: CheckedFields,
    /// Fields whose numbers and names must occur in the source.
    pub grounded: CheckedFields,
    /// Fields whose claims the source must support: numbers, names, negations, superlatives, and most words.
    #[serde(skip_serializing_if = "CheckedFields::is_none")]
    pub supported: CheckedFields,
}

/// Some fields of an object, by name, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckedFields {
    All,
    Named(Vec<String>),
}

impl Default for CheckedFields {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl CheckedFields {
    /// Whether no field is checked.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|known| known == name),
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Named(names) => names,
        }
    }
}

impl Checks {
    /// Problems of the checks for an object with these fields.
    pub(super) fn problems(&self, fields: &[String]) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, checked) in [("quoted", &self.quoted), ("grounded", &self.grounded), ("supported", &self.supported)] {
            for name in checked.names().iter().filter(|name| !fields.contains(name)) {
                let near = suggestion(name, fields.iter().map(String::as_str));
                problems.push(format!("has `checks.{key}` with `{name}`, which is not a field of its schema; {near}"));
            }
        }
        for (key, words) in [("banned", &self.banned), ("claims", &self.claims)] {
            if words.iter().any(|word| FoldedText::of(word).text().trim().is_empty()) {
                problems.push(format!("has an empty word in `checks.{key}`: remove it"));
            }
        }
        problems
    }

    /// Checks `fields`, which describe `document`. Returns the failed checks, and for each fact the place in the source that
    /// supports it.
    pub(super) fn run(
        &self,
        document: &Document,
        fields: &Map<String, Value>,
        schema: &Value,
    ) -> (Vec<CheckFailure>, Vec<FactTrace>) {
        let source = SourceDocument::of(document);
        let lists = [(Check::Banned, &self.banned), (Check::Claims, &self.claims)];
        let words: Vec<(Check, FoldedText)> =
            lists.into_iter().flat_map(|(check, words)| words.iter().map(move |word| (check, FoldedText::of(word)))).collect();
        let mut run =
            CheckRun { source, words, schema, failures: self.unsupported(document, fields, schema), traces: Vec::new() };
        for (name, value) in fields {
            let checks = FieldChecks { quoted: self.quoted.contains(name), grounded: self.grounded.contains(name) };
            run.walk(&format!("/{}", escaped_key(name)), value, checks);
        }
        // Failures of words come first: a person sees them at once, while facts have to be looked up.
        run.failures.sort_by_key(|failure| failure.check);
        (run.failures, run.traces)
    }
}

impl Checks {
    fn unsupported(&self, document: &Document, fields: &Map<String, Value>, schema: &Value) -> Vec<CheckFailure> {
        if self.supported.is_none() {
            return Vec::new();
        }
        let mut sources = Sources::default();
        sources.add_text(&document.text);
        [&document.metadata, &document.fields].into_iter().flatten().for_each(|(_, value)| sources.add_value(value));
        let checked = fields.iter().filter(|(name, _)| self.supported.contains(name));
        let checked = checked.map(|(name, value)| (name.clone(), value.clone())).collect();
        let claims = sources.unsupported_in(&checked, schema, NOVEL_WORDS).into_iter();
        let failure = |claim: UnsupportedClaim| {
            let message = format!("`{}`: {}", &claim.path[1..], claim.message);
            CheckFailure { check: Check::Supported, path: claim.path, says: claim.says, message }
        };
        claims.map(failure).collect()
    }
}

#[derive(Debug, Clone, Copy)]
struct FieldChecks {
    quoted: bool,
    grounded: bool,
}

/// The state of one run of the checks.
struct CheckRun<'a> {
    source: SourceDocument<'a>,
    words: Vec<(Check, FoldedText)>,
    schema: &'a Value,
    failures: Vec<CheckFailure>,
    traces: Vec<FactTrace>,
}

impl CheckRun<'_> {
    fn walk(&mut self, path: &str, value: &Value, checks: FieldChecks) {
        match value {
            Value::Object(fields) => {
                for (name, inner) in fields {
                    self.walk(&format!("{path}/{}", escaped_key(name)), inner, checks);
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    self.walk(&format!("{path}/{index}"), inner, checks);
                }
            }
            _ if is_choice(self.schema, path, value) => {}
            Value::String(text) if !text.trim().is_empty() => {
                self.check_words(path, text);
                self.check_facts(path, value, text, checks);
            }
            Value::Number(number) => self.check_facts(path, value, &number.to_string(), checks),
            Value::String(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    fn check_words(&mut self, path: &str, text: &str) {
        let folded = FoldedText::of(text);
        for (check, word) in &self.words {
            let Some(place) = words::find(folded.text(), word.text().trim()) else { continue };
            let span = folded.original(place);
            let says = text[span.start..span.end].to_owned();
            let message = match check {
                Check::Banned => format!("`{}` contains \"{says}\", which the pipeline bans", &path[1..]),
                _ => match self.source.word(word.text().trim()) {
                    Some(from) => {
                        self.traces.push(FactTrace { path: path.to_owned(), says, from });
                        continue;
                    }
                    None => format!("`{}` contains \"{says}\", which the source does not", &path[1..]),
                },
            };
            self.failures.push(CheckFailure { check: *check, path: path.to_owned(), says, message });
        }
    }

    fn check_facts(&mut self, path: &str, value: &Value, text: &str, checks: FieldChecks) {
        if !(checks.quoted || checks.grounded) {
            return;
        }
        if let Some(from) = self.source.whole(value, checks.quoted) {
            self.traces.push(FactTrace { path: path.to_owned(), says: text.to_owned(), from });
            return;
        }
        if checks.quoted || value.is_number() {
            let says = shortened(text);
            let message = format!("`{}` is \"{says}\", which is neither a field of the source nor in its text", &path[1..]);
            let check = if checks.quoted { Check::Quoted } else { Check::Grounded };
            self.failures.push(CheckFailure { check, path: path.to_owned(), says, message });
            return;
        }
        for fact in facts(text) {
            let says = text[fact.place.start..fact.place.end].to_owned();
            match self.source.fact(&fact) {
                Some(from) => self.traces.push(FactTrace { path: path.to_owned(), says, from }),
                None => {
                    let message = format!("`{}` contains \"{says}\", which the source does not", &path[1..]);
                    self.failures.push(CheckFailure { check: Check::Grounded, path: path.to_owned(), says, message });
                }
            }
        }
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

impl Serialize for CheckedFields {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CheckedFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AllOrNames;

        impl<'de> Visitor<'de> for AllOrNames {
            type Value = CheckedFields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`all` or a list of fields")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<CheckedFields, E> {
                match word {
                    "all" => Ok(CheckedFields::All),
                    _ => Err(E::custom(format!("`{word}` is not a list of fields: write `all` or a list of field names"))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<CheckedFields, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(CheckedFields::Named)
            }
        }

        deserializer.deserialize_any(AllOrNames)
    }
}

#[cfg(test)]
mod tests;
