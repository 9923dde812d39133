//! The copy of documents that a batch made.

use serde_json::Value;

use tidemill_base::outcome::{CheckFailure, FactTrace};

/// The copy of one document, written by a task or by a person.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyDraft {
    /// A JSON object with its keys in order.
    pub content: String,
    /// The page's address; none where the address template failed.
    pub url: Option<String>,
    /// The checks that failed.
    pub reasons: Vec<CheckFailure>,
    /// Where each fact in it comes from.
    pub traces: Vec<FactTrace>,
    /// Values that no two pages may share: the field, and a hash of its normalized value.
    pub keys: Vec<(String, [u8; 32])>,
}

/// The copy of one document in a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyRow {
    pub document_id: String,
    pub document_version: i64,
    pub draft: CopyDraft,
}

/// The copy that a batch made.
#[derive(Debug, Clone, PartialEq)]
pub struct CopySubmission {
    /// The task that made it.
    pub task: String,
    /// Whether copy that passes every check is published without a person's approval.
    pub is_automatic: bool,
    /// One row per document.
    pub rows: Vec<CopyRow>,
}

impl CopyDraft {
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(self.content.as_bytes()).as_bytes()
    }

    pub(crate) fn reasons_json(&self) -> Value {
        // Structs of strings always serialize.
        serde_json::to_value(&self.reasons).unwrap_or_default()
    }

    pub(crate) fn traces_json(&self) -> Value {
        serde_json::to_value(&self.traces).unwrap_or_default()
    }
}
