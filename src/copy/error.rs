//! Why the desk does nothing, in sentences for whoever asked.

use crate::failure::Transient;
use crate::store::{CopyDecision, CopyDecisionError};

/// Why the desk does nothing.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// What was asked can never be done.
    #[error("{0}")]
    Invalid(String),
    /// There is no copy of the document.
    #[error("catalogue `{pipeline}` has no copy of document `{document_id}`{}", version.map(|v| format!(" of version {v}")).unwrap_or_default())]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// The document.
        document_id: String,
        /// The version, where one was named.
        version: Option<i32>,
    },
    /// It contradicts what is there, or what a check says.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// What the ledger's refusal means to whoever decided.
pub(super) fn refusal(refused: CopyDecisionError, decision: &CopyDecision) -> CopyError {
    let CopyDecision { pipeline, document_id, version, .. } = decision;
    match refused {
        CopyDecisionError::Unknown => {
            CopyError::Unknown { pipeline: pipeline.clone(), document_id: document_id.clone(), version: Some(*version) }
        }
        CopyDecisionError::Decided(state) => {
            let message =
                format!("version {version} of `{document_id}` does not wait any more: it is {}; look again", state.as_str());
            CopyError::Conflict(message)
        }
        CopyDecisionError::Overtaken { version: later, by } => {
            CopyError::Conflict(format!("{by} has written version {later} of `{document_id}` meanwhile; look again"))
        }
        CopyDecisionError::Moved => CopyError::Conflict(format!("document `{document_id}` changes all the time; look again")),
        CopyDecisionError::Taken { field, document_id: other, is_published } => CopyError::Conflict(match is_published {
            true => format!("the page of document `{other}` has the same `{field}`; edit one of the two"),
            false => {
                format!("document `{other}` waits with the same `{field}`; edit one of the two, or name `unique` under `despite`")
            }
        }),
        CopyDecisionError::Unavailable(transient) => CopyError::Unavailable(transient),
    }
}
