//! What a template put together, with what checks said of it and where each fact in it comes from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::MatchKind;

/// An object for people to read, gone over by checks.
#[derive(Debug, Clone, PartialEq)]
pub struct ComposedObject {
    /// The object as compact JSON.
    pub text: String,
    /// The object.
    pub fields: Map<String, Value>,
    /// What checks said against it, in their order; nothing where all passed.
    pub reasons: Vec<CheckFailure>,
    /// Where its facts come from, in the object's order.
    pub traces: Vec<FactTrace>,
}

/// What a check says against an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckFailure {
    /// Which check.
    pub check: Check,
    /// Where in the object, as a JSON Pointer; empty for the object as a whole.
    pub path: String,
    /// What stands there and should not.
    pub says: String,
    /// A sentence for people.
    pub message: String,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// The schema: lengths, patterns, what must be there.
    Schema,
    /// Words that must not stand there.
    Banned,
    /// Words that state a fact which the source does not.
    Claims,
    /// Values that are not the source's own.
    Quoted,
    /// Numbers and names that the source does not say.
    Grounded,
    /// The address of the page.
    Url,
    /// A value that another document of the catalogue has.
    Unique,
}

/// Where a fact comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FactTrace {
    /// Where the fact stands in the object, as a JSON Pointer.
    pub path: String,
    /// The fact, as the object says it.
    pub says: String,
    /// What says it of the document.
    #[serde(flatten)]
    pub from: Provenance,
}

/// What says a fact of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Provenance {
    /// A field of the source.
    Field {
        /// Its name, a dotted path where it is nested.
        field: String,
    },
    /// A place in the document's text, in bytes.
    Text {
        /// The first byte.
        start: usize,
        /// The byte behind the last.
        end: usize,
        /// How alike text and fact are.
        #[serde(rename = "match")]
        #[schema(value_type = String)]
        likeness: MatchKind,
    },
}

impl Check {
    /// Every check.
    pub const ALL: [Self; 7] = [Self::Schema, Self::Banned, Self::Claims, Self::Quoted, Self::Grounded, Self::Url, Self::Unique];

    /// The word for it, as it stands in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Banned => "banned",
            Self::Claims => "claims",
            Self::Quoted => "quoted",
            Self::Grounded => "grounded",
            Self::Url => "url",
            Self::Unique => "unique",
        }
    }

    /// Whether a person may decide that it does not matter. What breaks the schema, or has no address, cannot be published at all.
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
        // The database forgets the order of keys; the text has it.
        let fields = serde_json::from_str(&text).ok()?;
        Some(Self { text, fields, reasons, traces })
    }
}
