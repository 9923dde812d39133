//! Interactions of people with documents.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An interaction of a person with a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// The pipeline of the document.
    pub with: String,
    pub user: String,
    pub document: String,
    /// What the person did, one of the kinds in the pipeline's `recommendations.weights`.
    pub kind: String,
    /// A rating or an amount.
    pub value: Option<f64>,
    /// Unix milliseconds; none where only the record's timestamp gives the time.
    pub at_ms: Option<i64>,
}

impl Interaction {
    /// The valid times in Unix milliseconds: from 1970 to the end of year 9999, which every database can store.
    pub const TIMES: RangeInclusive<i64> = 0..=253_402_300_799_999;

    /// See [`Output::view`](super::Output::view).
    pub(super) fn view(&self) -> Value {
        json!({ "user": self.user, "document": self.document, "kind": self.kind, "value": self.value, "at_ms": self.at_ms })
    }
}
