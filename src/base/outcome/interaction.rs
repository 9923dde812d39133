//! What somebody did with a document.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What somebody did with a document of a pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// The pipeline whose document it is.
    pub with: String,
    /// Who did it.
    pub user: String,
    /// The document.
    pub document: String,
    /// What was done, as the pipeline's `recommendations.weights` call it.
    pub kind: String,
    /// How much of it, as a rating has.
    pub value: Option<f64>,
    /// When, in Unix milliseconds; absent where only the record's timestamp tells.
    pub at_ms: Option<i64>,
}

impl Interaction {
    /// The times that there are, in Unix milliseconds: those that people write, and that every database can hold.
    pub const TIMES: RangeInclusive<i64> = 0..=253_402_300_799_999;

    /// See [`Output::view`](super::Output::view).
    pub(super) fn view(&self) -> Value {
        json!({ "user": self.user, "document": self.document, "kind": self.kind, "value": self.value, "at_ms": self.at_ms })
    }
}
