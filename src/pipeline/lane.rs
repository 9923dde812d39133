//! The walk of one partition: batches are evaluated side by side and committed in order, one at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::batcher::{Batcher, MicroBatch};
use super::committer::{Backoff, Refusal};
use super::evaluator::Fate;
use super::works::Works;
use crate::checkpoint::Claim;
use crate::failure::Component;
use crate::metrics::METRICS;
use crate::record::Partition;
use crate::source::Delivery;

/// What a lane tells the runner.
#[derive(Debug)]
pub enum Notice {
    /// The partition's position is now this.
    Committed(Partition, i64),
    /// Someone else owns the partition; the lane has ended.
    Fenced(Partition),
    /// The process is of no use any more.
    Wedged(String),
}

/// Batches of one partition that are evaluated at a time: one in the device, one prefetched, one being prepared or finished.
pub const AHEAD: usize = 3;

/// Runs until the records end, `stop` turns true, or the partition is someone else's. What is under way when `stop` turns true
/// is still committed; what is not yet evaluated is dropped, and read again by whoever comes next.
pub async fn run(
    works: Arc<Works>,
    claim: Claim,
    records: UnboundedReceiver<Delivery>,
    mut stop: watch::Receiver<bool>,
    notices: UnboundedSender<Notice>,
) {
    let partition = claim.partition.clone();
    let mut batcher = Some(Batcher::new(claim, records, works.budget.clone()));
    let mut evaluating = FuturesOrdered::new();
    let mut evaluated: VecDeque<(MicroBatch, Vec<Fate>)> = VecDeque::new();
    let mut committing: Option<JoinHandle<Settled>> = None;
    loop {
        if committing.is_none()
            && let Some((batch, fates)) = evaluated.pop_front()
        {
            // Spawned, because a transaction that is cancelled between its statements poisons its pooled connection.
            committing = Some(tokio::spawn(settle(works.clone(), batch, fates)));
        }
        if batcher.is_none() && evaluating.is_empty() && committing.is_none() {
            return;
        }
        tokio::select! {
            biased;
            settled = join(&mut committing) => {
                committing = None;
                match settled {
                    Settled::Committed(next_offset) => {
                        let _ = notices.send(Notice::Committed(partition.clone(), next_offset));
                    }
                    Settled::Fenced => {
                        let _ = notices.send(Notice::Fenced(partition));
                        return;
                    }
                    Settled::Wedged(reason) => {
                        let _ = notices.send(Notice::Wedged(reason));
                        return;
                    }
                }
            }
            Some(outcome) = evaluating.next() => match outcome {
                Ok(batch_and_fates) => evaluated.push_back(batch_and_fates),
                Err(reason) => {
                    let _ = notices.send(Notice::Wedged(reason));
                    return;
                }
            },
            // The sender is gone only when the runner is.
            changed = stop.wait_for(|stop| *stop), if batcher.is_some() => {
                drop(changed);
                batcher = None;
            }
            batch = next(&mut batcher), if batcher.is_some() && evaluating.len() + evaluated.len() < AHEAD => match batch {
                Some(batch) => evaluating.push_back(evaluate(works.clone(), batch)),
                None => batcher = None,
            },
        }
    }
}

enum Settled {
    Committed(i64),
    Fenced,
    Wedged(String),
}

async fn next(batcher: &mut Option<Batcher>) -> Option<MicroBatch> {
    match batcher {
        Some(batcher) => batcher.next().await,
        None => None,
    }
}

async fn join(handle: &mut Option<JoinHandle<Settled>>) -> Settled {
    match handle {
        Some(handle) => handle.await.unwrap_or_else(|error| Settled::Wedged(format!("a commit died: {error}"))),
        None => std::future::pending().await,
    }
}

/// Evaluates the batch for as long as the world is to blame for its failing.
async fn evaluate(works: Arc<Works>, batch: MicroBatch) -> Result<(MicroBatch, Vec<Fate>), String> {
    let pipeline = &works.committer.pipeline;
    observe(pipeline, "wait", batch.opened);
    let mut backoff = Backoff::default();
    loop {
        let started = Instant::now();
        match timeout(works.watchdog, works.evaluator.evaluate(&batch)).await {
            Ok(Ok(fates)) => {
                observe(pipeline, "evaluate", started);
                works.health.up(Component::Model);
                return Ok((batch, fates));
            }
            Ok(Err(failure)) => {
                tracing::warn!(%pipeline, delta = %batch.delta, %failure, "the batch is evaluated again");
                backoff.after(&failure, &works.health).await;
            }
            Err(_) => return Err(format!("batch {} was not evaluated within {:?}", batch.delta, works.watchdog)),
        }
    }
}

/// Commits the batch, evaluating it again whenever the ledger has moved under it.
async fn settle(works: Arc<Works>, mut batch: MicroBatch, mut fates: Vec<Fate>) -> Settled {
    loop {
        let started = Instant::now();
        match works.committer.commit(&batch, &fates).await {
            Ok(()) => {
                observe(&works.committer.pipeline, "commit", started);
                observe(&works.committer.pipeline, "total", batch.opened);
                return Settled::Committed(batch.delta.to);
            }
            Err(Refusal::Fenced) => {
                tracing::warn!(pipeline = %works.committer.pipeline, delta = %batch.delta,
                               "fenced: another worker owns the partition, the batch is dropped");
                return Settled::Fenced;
            }
            Err(Refusal::Stale) => match evaluate(works.clone(), batch).await {
                Ok(again) => (batch, fates) = again,
                Err(reason) => return Settled::Wedged(reason),
            },
        }
    }
}

fn observe(pipeline: &str, stage: &str, since: Instant) {
    METRICS.batch_seconds.with_label_values(&[pipeline, stage]).observe(since.elapsed().as_secs_f64());
}
