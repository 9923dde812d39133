//! A micro-batch: records of one partition that are evaluated together and committed in one transaction.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;

use super::isolation::IsolationMode;
use crate::checkpoint::CheckpointDelta;
use crate::record::Record;
use crate::source::InFlightGuard;

/// Records that are evaluated together. Several parts of one batch may be evaluated one after the other; they are joined before the
/// commit.
#[derive(Debug)]
pub struct MicroBatch {
    /// The offsets covered, gaps included.
    pub delta: CheckpointDelta,
    /// The records in order; at least one.
    pub records: Vec<Record>,
    /// When the first record of the batch arrived, also if an earlier part holds it.
    pub opened: Instant,
    /// Whether further parts of the same batch follow.
    pub is_partial: bool,
    pub isolation: IsolationMode,
    /// How often its records have been tried so far, where that is known.
    pub attempts: i32,
    /// The process-wide permit to evaluate a record alone, once the batch has it.
    pub permit: Option<OwnedSemaphorePermit>,
    /// Dropped with the batch, which lets the source read on.
    pub(super) guards: Vec<InFlightGuard>,
}

impl MicroBatch {
    /// Appends the next part of the same batch.
    pub fn join(&mut self, next: Self) {
        self.delta.to = next.delta.to;
        self.records.extend(next.records);
        self.is_partial = next.is_partial;
        self.guards.extend(next.guards);
    }
}
