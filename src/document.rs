//! Decoded and identified: what the tasks work on.

use std::sync::Arc;

use serde_json::{Map, Value};

/// One version of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The document's id, from the field that the pipeline names.
    pub id: Arc<str>,
    /// Orders the versions of a document: greater wins, of two equal ones the later arrival.
    pub version: i64,
    /// The text that the pipeline's template makes.
    pub text: Arc<str>,
    /// The fields that the pipeline keeps beside the text, for filters.
    pub metadata: Map<String, Value>,
    /// Every field of the source, for templates and conditions.
    pub fields: Map<String, Value>,
}
