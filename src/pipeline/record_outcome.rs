//! What a record became.

use std::sync::Arc;

use crate::document::Document;
use crate::failure::Poison;
use crate::outcome::Outcome;

/// What one record became. The outcomes of the tasks on its document are in [`RecordOutcome::Document`].
#[derive(Debug, Clone)]
pub enum RecordOutcome {
    /// It cannot be decoded, or it ended the process too often.
    Dead(Poison),
    /// A newer version of its document is known, or follows in the batch.
    Superseded,
    /// It deletes whatever version of a document is stored, and a later record of the batch brings one.
    SupersededDelete { id: Arc<str> },
    /// It deletes a document.
    Deleted {
        id: Arc<str>,
        /// The version that the delete ends; absent where neither the record nor the ledger knows one.
        version: Option<i64>,
        /// Whether it also ends any other version that is stored by then, because the record names none.
        any_version: bool,
    },
    /// It brings a version of a document, with one outcome a task.
    Document(Document, Vec<Outcome>),
}
