//! Isolation: finding the record that ends the process, and dead-lettering it.
//!
//! Before a batch is evaluated, the ledger notes it; a worker that releases its partition in an orderly way removes the note. A new
//! owner that finds such a note of an earlier owner beyond the committed position treats the noted offsets as suspect, and reads
//! them like this:
//!
//! | under way when the last owner ended | what the new owner does |
//! |---|---|
//! | several batches side by side, of more than [`FEW`] offsets | batches of at most [`FEW`] records, one at a time |
//! | one such batch, or few records | one record at a time, each attempt noted before it starts |
//! | a record that [`ATTEMPTS`] attempts did not finish | a dead letter, without another attempt |
//!
//! The first step makes it cheap when something outside kills the process: thousands of harmless records pass in dozens of batches.
//! Of all records that a process tries alone, only one is under way at a time, so that no two of them can be blamed for the same
//! end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::Transient;
use crate::metrics::METRICS;
use crate::record::{Partition, RecordLocation};
use crate::store::{Store, SuspectRange};

/// The most records of a batch that is under way by itself.
pub const FEW: usize = 32;
/// How often a record may be started alone without being finished.
pub const ATTEMPTS: i32 = 3;

/// How a batch is kept apart from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationMode {
    /// Several batches of a partition are under way side by side.
    Off,
    /// The batch has at most [`FEW`] records and is the only one of its partition.
    SmallBatches,
    /// The batch has one record and is the only such batch of the process.
    OneRecord,
}

/// What all pipelines of a process share about records that are tried alone.
#[derive(Debug, Clone)]
pub struct Isolation {
    permit: Arc<Semaphore>,
    under_way: Arc<Mutex<RecordsUnderWay>>,
}

/// The record under way alone in each partition of each pipeline.
type RecordsUnderWay = HashMap<(Arc<str>, Partition), RecordLocation>;

/// Counts the partition as isolated, in the metric `tidemill_isolated_partitions`, for as long as it lives.
pub(super) struct IsolationGuard {
    pipeline: Arc<str>,
    partition: Partition,
}

impl Default for Isolation {
    fn default() -> Self {
        Self { permit: Arc::new(Semaphore::new(1)), under_way: Arc::default() }
    }
}

impl Isolation {
    /// The permit to evaluate a record alone, of which the process has one.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // An error would mean that the semaphore is closed, which never happens.
        self.permit.clone().acquire_owned().await.ok()
    }

    fn under_way(&self) -> MutexGuard<'_, RecordsUnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that an attempt to evaluate the record has started.
    pub(super) fn started(&self, pipeline: &Arc<str>, record: &RecordLocation) {
        self.under_way().insert((pipeline.clone(), record.partition.clone()), record.clone());
    }

    /// Forgets the record under way in the partition, because it is committed.
    pub(super) fn finished(&self, pipeline: &Arc<str>, partition: &Partition) {
        self.under_way().remove(&(pipeline.clone(), partition.clone()));
    }

    /// Takes back the attempt under way in the partition, if there is one: the process lives, so the record did not end it.
    pub(super) async fn withdraw(&self, store: &Store, pipeline: &Arc<str>, partition: &Partition) -> Result<(), Transient> {
        let record = self.under_way().remove(&(pipeline.clone(), partition.clone()));
        match record {
            Some(record) => store.withdraw_attempt(pipeline, &record).await,
            None => Ok(()),
        }
    }
}

impl IsolationGuard {
    pub(super) fn new(pipeline: &Arc<str>, partition: &Partition, next_offset: i64, range: SuspectRange) -> Self {
        tracing::warn!(%pipeline, %partition, from = next_offset, to = range.to, mode = ?mode(range, next_offset),
                       "the last owner of the partition ended without releasing it: the offsets that it had started are isolated");
        METRICS.isolated.with_label_values(&[pipeline]).inc();
        Self { pipeline: pipeline.clone(), partition: partition.clone() }
    }
}

impl Drop for IsolationGuard {
    fn drop(&mut self) {
        tracing::info!(pipeline = %self.pipeline, partition = %self.partition, "isolation of the partition ends");
        METRICS.isolated.with_label_values(&[&self.pipeline]).dec();
    }
}

/// How the offsets of `range` are read by an owner whose position is `next_offset`.
pub(super) fn mode(range: SuspectRange, next_offset: i64) -> IsolationMode {
    match range.narrowed || range.to - next_offset <= FEW as i64 {
        true => IsolationMode::OneRecord,
        false => IsolationMode::SmallBatches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_offsets_in_doubt_are_first_made_few() {
        let mode = |to, narrowed| mode(SuspectRange { to, narrowed }, 100);
        assert_eq!(mode(100 + FEW as i64, false), IsolationMode::OneRecord);
        assert_eq!(mode(101 + FEW as i64, false), IsolationMode::SmallBatches);
        assert_eq!(mode(5_000, true), IsolationMode::OneRecord, "a small batch may span many offsets of a compacted topic");
    }
}
