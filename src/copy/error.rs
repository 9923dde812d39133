//! Errors of decisions on copy, in sentences for the caller.

use crate::failure::Transient;
use crate::store::{CopyDecision, CopyDecisionError};

/// Why copy was not read or changed.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The request is not valid.
    #[error("{0}")]
    Invalid(String),
    /// There is no such copy.
    #[error("pipeline `{pipeline}` has no copy of document `{document_id}`{}", version.map(|v| format!(" with version {v}")).unwrap_or_default())]
    Unknown {
        pipeline: String,
        document_id: String,
        /// The version, if the request names one.
        version: Option<i32>,
    },
    /// The request contradicts the current state, or a check.
    #[error("{0}")]
    Conflict(String),
    /// A component is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// The error of a decision, as a sentence for the person who decided.
pub(super) fn decision_error(error: CopyDecisionError, decision: &CopyDecision) -> CopyError {
    let CopyDecision { pipeline, document_id, version, .. } = decision;
    match error {
        CopyDecisionError::Unknown => {
            CopyError::Unknown { pipeline: pipeline.clone(), document_id: document_id.clone(), version: Some(*version) }
        }
        CopyDecisionError::Decided(state) => {
            let message =
                format!("version {version} of `{document_id}` is no longer in review, it is {}; reload it", state.as_str());
            CopyError::Conflict(message)
        }
        CopyDecisionError::Overtaken { version: later, by } => {
            CopyError::Conflict(format!("{by} has added version {later} of `{document_id}` in the meantime; reload it"))
        }
        CopyDecisionError::Moved => CopyError::Conflict(format!("document `{document_id}` is changing; reload it and try again")),
        CopyDecisionError::Taken { field, document_id: other, is_published } => CopyError::Conflict(match is_published {
            true => format!("the page of document `{other}` has the same `{field}`; edit one of them"),
            false => {
                format!(
                    "document `{other}` is in review with the same `{field}`; edit one of them, or name `unique` in `despite`"
                )
            }
        }),
        CopyDecisionError::Unavailable(transient) => CopyError::Unavailable(transient),
    }
}
