//! A record that ends the process: found by what was under way when the process ended, and dead-lettered.
//!
//! Before a batch is evaluated the ledger is told of it; whoever lets go of a partition in good order takes that back. An owner
//! that finds such a note of another's, beyond the position, takes the partition up with care, until it is past what was noted:
//!
//! | what was under way | what comes next |
//! |---|---|
//! | several batches side by side, of more than [`FEW`] offsets | batches of at most [`FEW`] records, one at a time |
//! | one such batch, or few records | one record at a time, each attempt noted before it |
//! | a record that [`ATTEMPTS`] such attempts did not finish | a dead letter, without another attempt |
//!
//! The first step keeps a kill from outside cheap: thousands of records that are blameless pass in dozens of batches.
//! Of all records that a process tries alone, one at a time is under way, so that no two of them can blame each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::batcher::{IsolationMode, MicroBatch};
use super::committer::Backoff;
use super::runtime::PipelineRuntime;
use crate::checkpoint::PartitionClaim;
use crate::failure::{FailureClass, Poison, Transient};
use crate::metrics::METRICS;
use crate::record::{Partition, RecordLocation};
use crate::store::{Attempts, Store, SuspectRange};

/// Records of a batch that is under way by itself.
pub const FEW: usize = 32;
/// How often a record may be begun alone without being finished.
pub const ATTEMPTS: i32 = 3;
/// How long letting go of a partition may take; a note that stays costs the next owner some care, and nothing else.
const LET_GO: Duration = Duration::from_secs(2);

/// What all pipelines of a process share about records that are tried alone.
#[derive(Debug, Clone)]
pub struct Isolation {
    turn: Arc<Semaphore>,
    noted: Arc<Mutex<RecordsUnderWay>>,
}

/// The record under way alone in each partition of each pipeline.
type RecordsUnderWay = HashMap<(Arc<str>, Partition), RecordLocation>;

/// What is to be done with a batch.
pub(super) enum AttemptDecision {
    /// Evaluate it.
    Evaluate,
    /// Its only record was tried often enough.
    Condemned(Poison),
    /// Someone else owns the partition.
    Fenced,
}

/// Counts the partition as one taken up with care for as long as it lives.
pub(super) struct IsolationGuard {
    pipeline: Arc<str>,
    partition: Partition,
}

impl Default for Isolation {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), noted: Arc::default() }
    }
}

impl Isolation {
    /// The right to have a record under way alone.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        self.turn.clone().acquire_owned().await.ok()
    }

    fn noted(&self) -> MutexGuard<'_, RecordsUnderWay> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record is no longer under way, for it is committed.
    pub(super) fn finished(&self, pipeline: &Arc<str>, partition: &Partition) {
        self.noted().remove(&(pipeline.clone(), partition.clone()));
    }

    /// Takes the attempt under way in the partition back, if there is one: this process lives.
    pub(super) async fn withdraw(&self, store: &Store, pipeline: &Arc<str>, partition: &Partition) -> Result<(), Transient> {
        let noted = self.noted().remove(&(pipeline.clone(), partition.clone()));
        match noted {
            Some(place) => store.withdraw_attempt(pipeline, &place).await,
            None => Ok(()),
        }
    }
}

/// What is in doubt of the partition, asked for as long as the ledger takes to answer.
pub(super) async fn suspect_range(runtime: &PipelineRuntime, claim: &PartitionClaim) -> Option<(SuspectRange, IsolationGuard)> {
    let committer = &runtime.committer;
    let mut backoff = Backoff::default();
    loop {
        match committer.store.suspect_range(&committer.pipeline, claim).await {
            Ok(doubt) => {
                return doubt
                    .map(|doubt| (doubt, IsolationGuard::new(&committer.pipeline, &claim.partition, claim.next_offset, doubt)));
            }
            Err(failure) => backoff.after(&failure, &runtime.health).await,
        }
    }
}

/// How the offsets in doubt are taken up.
pub(super) fn care(doubt: SuspectRange, next_offset: i64) -> IsolationMode {
    match doubt.narrowed || doubt.to - next_offset <= FEW as i64 {
        true => IsolationMode::Alone,
        false => IsolationMode::Narrow,
    }
}

/// Notes that the batch is about to be evaluated.
pub(super) async fn note(runtime: &PipelineRuntime, batch: &mut MicroBatch) -> Result<AttemptDecision, Transient> {
    let (pipeline, store, isolation) = (&runtime.committer.pipeline, &runtime.committer.store, &runtime.isolation);
    let record = match batch.care {
        IsolationMode::None | IsolationMode::Narrow => {
            store.note_batch_started(pipeline, &batch.delta, batch.care == IsolationMode::Narrow).await?;
            return Ok(AttemptDecision::Evaluate);
        }
        IsolationMode::Alone => &batch.records[0],
    };
    if batch.turn.is_none() {
        batch.turn = isolation.turn().await;
    }
    // What an earlier call could not take back.
    isolation.withdraw(store, pipeline, &batch.delta.partition).await?;
    let Some(attempts) = store.begin_attempt(pipeline, &record.place, batch.delta.epoch, ATTEMPTS).await? else {
        return Ok(AttemptDecision::Fenced);
    };
    batch.attempts = attempts.earlier.max(1);
    if attempts.earlier >= ATTEMPTS {
        let poison = Poison { class: FailureClass::KilledProcess, reason: reason(attempts) };
        tracing::error!(%pipeline, place = %record.place, reason = poison.reason, "the record is given up");
        return Ok(AttemptDecision::Condemned(poison));
    }
    if attempts.earlier > 0 {
        tracing::warn!(%pipeline, place = %record.place, earlier = attempts.earlier, "trying a record that was not finished before");
    }
    isolation.noted().insert((pipeline.clone(), batch.delta.partition.clone()), record.place.clone());
    Ok(AttemptDecision::Evaluate)
}

fn reason(attempts: Attempts) -> String {
    let time = |ms| Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"));
    format!(
        "the process ended {} times while this record alone was under way, first in the attempt of {}, last in that of {}; \
         look for its crash or its lack of memory in the logs of those times, and replay the letter once that is mended",
        attempts.earlier,
        time(attempts.first_ms),
        time(attempts.last_ms)
    )
}

/// Tells the ledger that what is under way in the partition is no longer, and that the process lives. Where it cannot vouch for
/// that, it says nothing: what was under way may do the same to the next owner, who is to take it up with care.
pub async fn release_partition(runtime: &PipelineRuntime, partition: &Partition, epoch: i64) {
    if !runtime.is_sound() {
        return;
    }
    let (pipeline, store) = (&runtime.committer.pipeline, &runtime.committer.store);
    let told = timeout(LET_GO, async {
        runtime.isolation.withdraw(store, pipeline, partition).await?;
        store.release_partition(pipeline, partition, epoch).await
    });
    match told.await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => tracing::warn!(%pipeline, %partition, %failure, "the next owner takes the partition up with care"),
        Err(_) => tracing::warn!(%pipeline, %partition, "the ledger is slow: the next owner takes the partition up with care"),
    }
}

impl IsolationGuard {
    fn new(pipeline: &Arc<str>, partition: &Partition, next_offset: i64, doubt: SuspectRange) -> Self {
        tracing::warn!(%pipeline, %partition, from = next_offset, to = doubt.to, care = ?care(doubt, next_offset),
                       "the last owner of the partition ended without letting go: what it had begun is taken up with care");
        METRICS.isolated.with_label_values(&[pipeline]).inc();
        Self { pipeline: pipeline.clone(), partition: partition.clone() }
    }
}

impl Drop for IsolationGuard {
    fn drop(&mut self) {
        tracing::info!(pipeline = %self.pipeline, partition = %self.partition, "care for the partition ends");
        METRICS.isolated.with_label_values(&[&self.pipeline]).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_offsets_in_doubt_are_first_made_few() {
        let doubt = |to, narrowed| care(SuspectRange { to, narrowed }, 100);
        assert_eq!(doubt(100 + FEW as i64, false), IsolationMode::Alone);
        assert_eq!(doubt(101 + FEW as i64, false), IsolationMode::Narrow);
        assert_eq!(doubt(5_000, true), IsolationMode::Alone, "a small batch may span many offsets of a compacted topic");
    }

    #[test]
    fn a_reason_says_how_often_and_when() {
        let reason = reason(Attempts { earlier: 3, first_ms: 0, last_ms: 60_000 });
        assert!(reason.contains("ended 3 times"), "{reason}");
        assert!(reason.contains("1970-01-01T00:00:00Z") && reason.contains("1970-01-01T00:01:00Z"), "{reason}");
    }
}
