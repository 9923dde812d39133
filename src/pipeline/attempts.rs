//! What the ledger is told around the evaluation of a batch, so that the next owner knows what was under way: see
//! [`isolation`](super::isolation).

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::batch::MicroBatch;
use super::isolation::{ATTEMPTS, IsolationGuard, IsolationMode};
use super::runtime::PipelineRuntime;
use crate::checkpoint::PartitionClaim;
use crate::failure::{FailureClass, Poison, Transient};
use crate::record::Partition;
use crate::store::{Attempts, SuspectRange};

/// How long releasing a partition may take. A note that stays only makes the next owner isolate some records.
const RELEASE: Duration = Duration::from_secs(2);

/// What is to be done with a batch once its attempt is noted.
pub(super) enum AttemptDecision {
    Evaluate,
    /// Its only record was tried often enough.
    DeadLetter(Poison),
    /// Another process owns the partition.
    Fenced,
}

/// The suspect offsets of a newly claimed partition. Asks the ledger until it answers.
pub(super) async fn suspect_range(runtime: &PipelineRuntime, claim: &PartitionClaim) -> Option<(SuspectRange, IsolationGuard)> {
    let committer = &runtime.committer;
    let mut backoff = Backoff::default();
    loop {
        match committer.store.suspect_range(&committer.pipeline, claim).await {
            Ok(range) => {
                return range
                    .map(|range| (range, IsolationGuard::new(&committer.pipeline, &claim.partition, claim.next_offset, range)));
            }
            Err(failure) => backoff.after(&failure, &runtime.health).await,
        }
    }
}

/// Notes that the batch is about to be evaluated.
pub(super) async fn note(runtime: &PipelineRuntime, batch: &mut MicroBatch) -> Result<AttemptDecision, Transient> {
    let (pipeline, store, isolation) = (&runtime.committer.pipeline, &runtime.committer.store, &runtime.isolation);
    let record = match batch.isolation {
        IsolationMode::Off | IsolationMode::SmallBatches => {
            store.note_batch_started(pipeline, &batch.delta, batch.isolation == IsolationMode::SmallBatches).await?;
            return Ok(AttemptDecision::Evaluate);
        }
        IsolationMode::OneRecord => &batch.records[0],
    };
    if batch.permit.is_none() {
        batch.permit = isolation.permit().await;
    }
    // An earlier call may have failed to withdraw its attempt.
    isolation.withdraw(store, pipeline, &batch.delta.partition).await?;
    let Some(attempts) = store.begin_attempt(pipeline, &record.place, batch.delta.epoch, ATTEMPTS).await? else {
        return Ok(AttemptDecision::Fenced);
    };
    batch.attempts = attempts.earlier.max(1);
    if attempts.earlier >= ATTEMPTS {
        let poison = Poison { class: FailureClass::KilledProcess, reason: reason(attempts) };
        tracing::error!(%pipeline, place = %record.place, reason = poison.reason, "the record becomes a dead letter");
        return Ok(AttemptDecision::DeadLetter(poison));
    }
    if attempts.earlier > 0 {
        tracing::warn!(%pipeline, place = %record.place, earlier = attempts.earlier, "an unfinished record is tried again");
    }
    isolation.started(pipeline, &record.place);
    Ok(AttemptDecision::Evaluate)
}

fn reason(attempts: Attempts) -> String {
    let time = |ms| Timestamp::from_millisecond(ms).map_or_else(|_| "?".to_owned(), |time| format!("{time:.0}"));
    format!(
        "the process ended {} times while this record alone was under way, first in the attempt of {}, last in that of {}; \
         look for a crash or a lack of memory in the logs of those times, fix the cause, then replay the dead letter",
        attempts.earlier,
        time(attempts.first_ms),
        time(attempts.last_ms)
    )
}

/// Removes the note of what is under way in the partition, because the process lives. A process that is not sound leaves the note:
/// what was under way may end the next owner too, which then isolates it.
pub async fn release_partition(runtime: &PipelineRuntime, partition: &Partition, epoch: i64) {
    if !runtime.is_sound() {
        return;
    }
    let (pipeline, store) = (&runtime.committer.pipeline, &runtime.committer.store);
    let released = timeout(RELEASE, async {
        runtime.isolation.withdraw(store, pipeline, partition).await?;
        store.release_partition(pipeline, partition, epoch).await
    });
    match released.await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => {
            tracing::warn!(%pipeline, %partition, %failure, "not released: the next owner of the partition isolates what was under way");
        }
        Err(_) => {
            tracing::warn!(%pipeline, %partition, "not released in time: the next owner of the partition isolates what was under way");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_says_how_often_and_when() {
        let reason = reason(Attempts { earlier: 3, first_ms: 0, last_ms: 60_000 });
        assert!(reason.contains("ended 3 times"), "{reason}");
        assert!(reason.contains("1970-01-01T00:00:00Z") && reason.contains("1970-01-01T00:01:00Z"), "{reason}");
    }
}
