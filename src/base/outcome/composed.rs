//! Objects that a template made, with the failures of checks and the source of each fact.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::MatchKind;

/// An object for people to read, with the results of the checks.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposedObject {
    /// The object as compact JSON.
    pub text: String,
    pub fields: Map<String, Value>,
    /// The checks that failed, in the order of checks; empty where all passed.
    pub reasons: Vec<CheckFailure>,
    /// The source of each fact, in the object's order.
    pub traces: Vec<FactTrace>,
}

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckFailure {
    /// The check that failed.
    pub check: Check,
    /// A JSON Pointer to the value at fault; empty for the object as a whole.
    pub path: String,
    /// The text at fault.
    pub says: String,
    /// A sentence for people.
    pub message: String,
}

/// A check of a composed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The object is valid under its schema: lengths, patterns, required fields.
    Schema,
    /// No text has a banned word.
    Banned,
    /// No text has words for a claim that the source does not make.
    Claims,
    /// Values that must be quoted are exactly the source's.
    Quoted,
    /// Numbers and names are in the source.
    Grounded,
    /// Every claim of a text is supported by the source, and no text of a model is quoted that has unsupported claims.
    Supported,
    /// The page's address can be made.
    Url,
    /// No other document of the pipeline has the same value.
    Unique,
}

/// The source of a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FactTrace {
    /// A JSON Pointer to the value with the fact.
    pub path: String,
    /// The fact, in the words of the object.
    pub says: String,
    /// Where the document has it.
    #[serde(flatten)]
    pub from: Provenance,
}

/// Where a document has a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Provenance {
    /// In a field of the source.
    Field {
        /// The name of the field, a dotted path if it is nested.
        field: String,
    },
    /// In the document's text, in bytes.
    Text {
        /// The first byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// How the text and the fact match.
        #[serde(rename = "match")]
        #[schema(value_type = String)]
        likeness: MatchKind,
    },
}

impl Check {
    /// In the order of this enum.
    pub const ALL: [Self; 8] =
        [Self::Schema, Self::Banned, Self::Claims, Self::Quoted, Self::Grounded, Self::Supported, Self::Url, Self::Unique];

    /// The name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Banned => "banned",
            Self::Claims => "claims",
            Self::Quoted => "quoted",
            Self::Grounded => "grounded",
            Self::Supported => "supported",
            Self::Url => "url",
            Self::Unique => "unique",
        }
    }

    /// Whether a person may overrule the check. An object that breaks its schema or has no address cannot be published.
    pub const fn may_be_overruled(self) -> bool {
        !matches!(self, Self::Schema | Self::Url)
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ComposedObject {
    /// See [`super::Output::view`].
    pub(super) fn view(&self) -> Value {
        let mut view = self.fields.clone();
        let own = [
            ("text", json!(self.text)),
            ("fields", json!(self.fields)),
            ("passed", json!(self.reasons.is_empty())),
            ("reasons", json!(self.reasons)),
        ];
        view.extend(own.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(view)
    }

    /// See [`super::Output::fields`].
    pub(super) fn stored(&self) -> Value {
        json!({ "fields": self.fields, "reasons": self.reasons, "traces": self.traces })
    }

    /// See [`super::Output::restore`].
    pub(super) fn restore(text: String, stored: Value) -> Option<Self> {
        #[derive(Deserialize)]
        struct Stored {
            reasons: Vec<CheckFailure>,
            traces: Vec<FactTrace>,
        }
        let Stored { reasons, traces } = serde_json::from_value(stored).ok()?;
        // The `jsonb` column does not keep the order of keys; the text does.
        let fields = serde_json::from_str(&text).ok()?;
        Some(Self { text, fields, reasons, traces })
    }
}
