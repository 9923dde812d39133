//! Requests and responses of recommendations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::failure::Transient;
use crate::store::{HitLabel, SearchFilter};

/// What to recommend documents for.
#[derive(Debug, Clone, Default)]
pub struct RecommendRequest {
    /// The pipeline; may be omitted if there is only one.
    pub pipeline: Option<String>,
    /// Recommend documents that are similar to this one.
    pub document: Option<String>,
    /// Recommend documents for this user. With `document`, similar documents that this user has not seen.
    pub user: Option<String>,
    /// The maximum number of documents; the default is 10.
    pub limit: Option<usize>,
    /// The conditions that every document must meet.
    pub filter: SearchFilter,
}

impl RecommendRequest {
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(super::DEFAULT_LIMIT)
    }
}

/// Recommended documents.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Recommended)]
pub struct RecommendResponse {
    pub pipeline: String,
    /// The documents, the best first.
    pub hits: Vec<Recommendation>,
}

/// A recommended document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Recommendation {
    pub document_id: String,
    /// How well the document fits, before diversity reorders the documents. Scores are comparable within one response, among
    /// documents whose first reasons are of one kind.
    pub score: f64,
    /// Why it is recommended, the decisive reason first.
    pub reasons: Vec<Reason>,
    /// The result of each classification task.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, if a task wrote one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
}

/// Why a document is recommended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = RecommendationReason)]
pub enum Reason {
    /// It is similar to the document of the request.
    Similar {
        document: String,
        /// The cosine of the two vectors, -1 to 1.
        similarity: f64,
    },
    /// It is similar to a document that the user liked: the nearest of those.
    Liked {
        document: String,
        /// The cosine of the two vectors, -1 to 1.
        similarity: f64,
    },
    /// It has the same label as the document of the previous reason.
    Label {
        /// The classification task.
        task: String,
        label: String,
    },
    /// Many people liked it recently.
    Popular {
        /// The number of people, within the latest interactions.
        people: usize,
    },
}

impl Reason {
    /// The document that the reason names.
    pub(super) fn document(&self) -> Option<&str> {
        match self {
            Self::Similar { document, .. } | Self::Liked { document, .. } => Some(document),
            Self::Label { .. } | Self::Popular { .. } => None,
        }
    }
}

/// Why nothing can be recommended.
#[derive(Debug, thiserror::Error)]
pub enum RecommendError {
    /// The request is not valid: a sentence that says how to fix it.
    #[error("{0}")]
    Invalid(String),
    /// There is no such document.
    #[error("pipeline `{pipeline}` has no document `{id}`")]
    Unknown { pipeline: String, id: String },
    /// A component is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// A label of each task that both documents have.
pub(super) fn shared_labels(
    tasks: &[String],
    own: &BTreeMap<String, HitLabel>,
    other: &BTreeMap<String, HitLabel>,
) -> Vec<Reason> {
    let shared = tasks.iter().filter_map(|task| {
        let (own, other) = (own.get(task)?, other.get(task)?);
        let label = own.labels.iter().find(|label| other.labels.contains(label))?;
        Some(Reason::Label { task: task.clone(), label: label.clone() })
    });
    shared.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_reason_where_both_documents_have_it() {
        let labels = |label: &str| {
            let given = HitLabel { label: Some(label.into()), confidence: Some(0.9), labels: vec![label.into()] };
            BTreeMap::from([("topic".to_owned(), given)])
        };
        let tasks = ["topic".to_owned(), "tone".to_owned()];
        let garden = Reason::Label { task: "topic".into(), label: "garden".into() };
        assert_eq!(shared_labels(&tasks, &labels("garden"), &labels("garden")), [garden]);
        assert_eq!(shared_labels(&tasks, &labels("garden"), &labels("toys")), []);
        assert_eq!(shared_labels(&[], &labels("garden"), &labels("garden")), []);
    }

    #[test]
    fn reasons_are_told_apart_by_their_kind() {
        let reason = Reason::Liked { document: "d".into(), similarity: 0.5 };
        assert_eq!(serde_json::json!(reason), serde_json::json!({"kind": "liked", "document": "d", "similarity": 0.5}));
    }
}
