//! Passages of stored documents that a `retrieve` task found for a document.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Span;

/// A passage of another document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetrievedPassage {
    pub document_id: String,
    /// Where the passage was in that document's text at the time.
    #[serde(flatten)]
    pub span: Span,
    pub text: String,
    /// The cosine similarity to the query; none where the passage was found by words.
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

/// See [`Output::restore`](super::Output::restore).
pub(super) fn restore(stored: Value) -> Option<Vec<RetrievedPassage>> {
    #[derive(Deserialize)]
    struct Stored {
        passages: Vec<RetrievedPassage>,
    }
    serde_json::from_value(stored).ok().map(|stored: Stored| stored.passages)
}
