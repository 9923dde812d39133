//! Passages of stored documents that were found for a document.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Span;

/// A passage that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievedPassage {
    /// The document that it is of.
    pub document_id: String,
    /// Its place in that document's text, as it was then.
    #[serde(flatten)]
    pub span: Span,
    /// What it says.
    pub text: String,
    /// The cosine of the angle between it and the query, where vectors were compared.
    pub similarity: Option<f64>,
}

/// See [`Output::view`](super::Output::view): each with its number, from 1.
pub(super) fn view(passages: &[RetrievedPassage]) -> Value {
    let numbered = passages.iter().enumerate().map(|(index, passage)| {
        let mut view = json!(passage);
        view["number"] = json!(index + 1);
        view
    });
    json!({ "passages": numbered.collect::<Vec<_>>(), "count": passages.len() })
}

/// The inverse of what is stored.
pub(super) fn restore(stored: Value) -> Option<Vec<RetrievedPassage>> {
    #[derive(Deserialize)]
    struct Stored {
        passages: Vec<RetrievedPassage>,
    }
    serde_json::from_value(stored).ok().map(|stored: Stored| stored.passages)
}
