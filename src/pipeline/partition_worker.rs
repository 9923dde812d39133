//! The walk of one partition: batches are evaluated side by side and committed in order, one at a time. What may have ended the
//! partition's last owner is walked one batch at a time.
//!
//! While nothing is evaluated, a batch that still takes records in is begun with; its pieces meet before they are committed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::batcher::{Batcher, IsolationMode, MicroBatch};
use super::committer::{Backoff, CommitRefusal};
use super::evaluator::RecordOutcome;
use super::isolation::{self, AttemptDecision};
use super::runtime::PipelineRuntime;
use super::versions;
use crate::checkpoint::PartitionClaim;
use crate::failure::{Component, Transient};
use crate::metrics::METRICS;
use crate::record::Partition;
use crate::source::Delivery;

/// What a lane tells the runner.
#[derive(Debug)]
pub enum PartitionUpdate {
    /// The partition's position is now this.
    Committed(Partition, i64),
    /// Someone else owns the partition; the lane has ended.
    Fenced(Partition),
    /// The pipeline is stopped; the lane has ended.
    Stopped,
    /// The process is of no use any more.
    Wedged(String),
}

impl PipelineRuntime {
    /// Whether the process can vouch for what is under way: nothing of it brought the process, or the model host, to an end.
    pub fn is_sound(&self) -> bool {
        !self.wedged.load(Ordering::Relaxed) && self.engine.health().is_ok()
    }
}

/// Batches of one partition that are evaluated at a time: one in the device, one prefetched, one being prepared or finished.
pub const BATCHES_AT_A_TIME: usize = 3;

/// Runs until the records end, `stop` turns true, or the partition is someone else's. What is under way when `stop` turns true
/// is still committed; what is not yet evaluated is dropped, and read again by whoever comes next.
pub async fn run(
    runtime: Arc<PipelineRuntime>,
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    mut stop: watch::Receiver<bool>,
    updates: UnboundedSender<PartitionUpdate>,
) {
    let partition = claim.partition.clone();
    let doubt = tokio::select! {
        doubt = isolation::suspect_range(&runtime, &claim) => doubt,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let (doubt, mut isolated) = doubt.unzip();
    let mut batcher = Some(Batcher::new(claim, records, runtime.budget.clone(), doubt));
    let mut care = IsolationMode::None;
    let mut evaluating = FuturesOrdered::new();
    let mut evaluated = EvaluatedBatches::default();
    let mut committing: Option<JoinHandle<CommitEnd>> = None;
    loop {
        if committing.is_none()
            && let Some((batch, record_outcomes)) = evaluated.pop(batcher.is_none() && evaluating.is_empty())
        {
            // Spawned, because a transaction that is cancelled between its statements poisons its pooled connection.
            committing = Some(tokio::spawn(settle(runtime.clone(), batch, record_outcomes)));
        }
        let idle = evaluating.is_empty() && evaluated.0.is_empty() && committing.is_none();
        if batcher.is_none() && idle {
            return;
        }
        let next_care = batcher.as_ref().map_or(IsolationMode::None, Batcher::care);
        if idle && next_care == IsolationMode::None {
            drop(isolated.take());
        }
        let has_room = match (care, next_care) {
            (IsolationMode::None, IsolationMode::None) => evaluating.len() + evaluated.complete() < BATCHES_AT_A_TIME,
            _ => idle,
        };
        let may_begin = evaluating.is_empty();
        tokio::select! {
            biased;
            settled = join(&mut committing) => {
                committing = None;
                match settled {
                    CommitEnd::Committed(next_offset) => {
                        let _ = updates.send(PartitionUpdate::Committed(partition.clone(), next_offset));
                    }
                    CommitEnd::Fenced => {
                        let _ = updates.send(PartitionUpdate::Fenced(partition));
                        return;
                    }
                    CommitEnd::Stopped => {
                        let _ = updates.send(PartitionUpdate::Stopped);
                        return;
                    }
                    CommitEnd::Wedged(reason) => {
                        let _ = updates.send(PartitionUpdate::Wedged(reason));
                        return;
                    }
                }
            }
            Some(outcome) = evaluating.next() => match outcome {
                Ok((batch, record_outcomes)) => evaluated.push(batch, record_outcomes),
                Err(EvaluationEnd::Fenced) => {
                    let _ = updates.send(PartitionUpdate::Fenced(partition));
                    return;
                }
                Err(EvaluationEnd::Wedged(reason)) => {
                    let _ = updates.send(PartitionUpdate::Wedged(reason));
                    return;
                }
            },
            // The sender is gone only when the runner is.
            changed = stop.wait_for(|stop| *stop), if batcher.is_some() => {
                drop(changed);
                batcher = None;
            }
            batch = next(&mut batcher, may_begin), if batcher.is_some() && has_room => match batch {
                Some(batch) => {
                    care = batch.care;
                    evaluating.push_back(evaluate(runtime.clone(), batch));
                }
                None => batcher = None,
            },
        }
    }
}

enum CommitEnd {
    Committed(i64),
    Fenced,
    Stopped,
    Wedged(String),
}

/// Why there is no use in evaluating a batch.
enum EvaluationEnd {
    Fenced,
    Wedged(String),
}

/// Batches with the fates of their records, the oldest first; of the last one more may be to come.
#[derive(Default)]
struct EvaluatedBatches(VecDeque<(MicroBatch, Vec<RecordOutcome>)>);

impl EvaluatedBatches {
    fn push(&mut self, batch: MicroBatch, record_outcomes: Vec<RecordOutcome>) {
        match self.0.back_mut().filter(|(last, _)| last.is_open) {
            Some((last, so_far)) => {
                last.join(batch);
                versions::join(so_far, record_outcomes);
            }
            None => self.0.push_back((batch, record_outcomes)),
        }
    }

    /// The oldest one, if all of it is there or nothing more `ends` it.
    fn pop(&mut self, ends: bool) -> Option<(MicroBatch, Vec<RecordOutcome>)> {
        self.0.pop_front_if(|(batch, _)| ends || !batch.is_open)
    }

    /// Those of which all is there.
    fn complete(&self) -> usize {
        self.0.iter().filter(|(batch, _)| !batch.is_open).count()
    }
}

async fn next(batcher: &mut Option<Batcher>, may_begin: bool) -> Option<MicroBatch> {
    match batcher {
        Some(batcher) => batcher.next(may_begin).await,
        None => None,
    }
}

async fn join(handle: &mut Option<JoinHandle<CommitEnd>>) -> CommitEnd {
    match handle {
        Some(handle) => handle.await.unwrap_or_else(|error| CommitEnd::Wedged(format!("a commit died: {error}"))),
        None => std::future::pending().await,
    }
}

/// Evaluates the batch for as long as the world is to blame for its failing.
async fn evaluate(
    runtime: Arc<PipelineRuntime>,
    mut batch: MicroBatch,
) -> Result<(MicroBatch, Vec<RecordOutcome>), EvaluationEnd> {
    let pipeline = &runtime.committer.pipeline;
    observe(pipeline, "wait", batch.opened);
    let mut backoff = Backoff::default();
    loop {
        let failure = match attempt(&runtime, &mut batch).await? {
            Ok(record_outcomes) => return Ok((batch, record_outcomes)),
            Err(failure) => failure,
        };
        tracing::warn!(%pipeline, delta = %batch.delta, %failure, "the batch is evaluated again");
        if runtime.is_sound() {
            // Where it cannot be taken back now, the next attempt does.
            let _ = runtime.isolation.withdraw(&runtime.committer.store, pipeline, &batch.delta.partition).await;
            batch.turn = None;
        }
        backoff.after(&failure, &runtime.health).await;
    }
}

async fn attempt(
    runtime: &PipelineRuntime,
    batch: &mut MicroBatch,
) -> Result<Result<Vec<RecordOutcome>, Transient>, EvaluationEnd> {
    match isolation::note(runtime, batch).await {
        Ok(AttemptDecision::Evaluate) => {}
        Ok(AttemptDecision::Condemned(poison)) => return Ok(Ok(vec![RecordOutcome::Dead(poison)])),
        Ok(AttemptDecision::Fenced) => return Err(EvaluationEnd::Fenced),
        Err(failure) => return Ok(Err(failure)),
    }
    let started = Instant::now();
    match timeout(runtime.watchdog, runtime.evaluator.evaluate(batch)).await {
        Ok(Ok(record_outcomes)) => {
            observe(&runtime.committer.pipeline, "evaluate", started);
            runtime.health.up(Component::Model);
            Ok(Ok(record_outcomes))
        }
        Ok(Err(failure)) => Ok(Err(failure)),
        Err(_) => Err(EvaluationEnd::Wedged(format!("batch {} was not evaluated within {:?}", batch.delta, runtime.watchdog))),
    }
}

/// Commits the batch, evaluating it again whenever the ledger has moved under it.
async fn settle(runtime: Arc<PipelineRuntime>, mut batch: MicroBatch, mut record_outcomes: Vec<RecordOutcome>) -> CommitEnd {
    let (pipeline, partition) = (runtime.committer.pipeline.clone(), batch.delta.partition.clone());
    loop {
        let started = Instant::now();
        match runtime.committer.commit(&batch, &record_outcomes).await {
            Ok(()) => {
                runtime.isolation.finished(&pipeline, &partition);
                observe(&pipeline, "commit", started);
                observe(&pipeline, "total", batch.opened);
                return CommitEnd::Committed(batch.delta.to);
            }
            Err(CommitRefusal::Fenced) => {
                tracing::warn!(%pipeline, delta = %batch.delta, "fenced: another worker owns the partition, the batch is dropped");
                // The record is another's, and the attempt was none of its doing. Where that cannot be said now, it counts.
                let _ = runtime.isolation.withdraw(&runtime.committer.store, &pipeline, &partition).await;
                return CommitEnd::Fenced;
            }
            Err(CommitRefusal::Stopped) => {
                tracing::warn!(%pipeline, delta = %batch.delta, "the pipeline is stopped, the batch is dropped");
                return CommitEnd::Stopped;
            }
            Err(CommitRefusal::Stale) => match evaluate(runtime.clone(), batch).await {
                Ok(again) => (batch, record_outcomes) = again,
                Err(EvaluationEnd::Fenced) => return CommitEnd::Fenced,
                Err(EvaluationEnd::Wedged(reason)) => return CommitEnd::Wedged(reason),
            },
        }
    }
}

fn observe(pipeline: &str, stage: &str, since: Instant) {
    METRICS.batch_seconds.with_label_values(&[pipeline, stage]).observe(since.elapsed().as_secs_f64());
}
