//! Processes the records of one partition: evaluates several batches side by side and commits them in order, one at a time. Suspect
//! offsets, which may have ended the partition's last owner, are processed one batch at a time.
//!
//! While nothing is evaluated, the records of a batch that is still being collected are evaluated early, part by part. The parts
//! are joined before the commit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::attempts::{self, AttemptDecision};
use super::backoff::Backoff;
use super::batch::MicroBatch;
use super::batcher::Batcher;
use super::committer::CommitRefusal;
use super::isolation::IsolationMode;
use super::record_outcome::RecordOutcome;
use super::runtime::PipelineRuntime;
use super::versions;
use crate::checkpoint::PartitionClaim;
use crate::failure::{Component, Transient};
use crate::metrics::METRICS;
use crate::record::Partition;
use crate::source::Delivery;

/// What a partition worker reports to the pipeline runner.
#[derive(Debug)]
pub enum PartitionUpdate {
    /// The partition's committed position.
    Committed(Partition, i64),
    /// Another process owns the partition; the worker has ended.
    Fenced(Partition),
    /// The pipeline is stopped; the worker has ended.
    Stopped,
    /// The process cannot go on, for this reason, and must be restarted.
    Wedged(String),
}

/// Batches of one partition that are evaluated at a time: one on the device, one prefetched, one being prepared or finished.
pub const BATCHES_AT_A_TIME: usize = 3;

/// Runs until the records end, `stop` turns true, or another process owns the partition. Batches under way when `stop` turns true
/// are still committed. Records that are not yet evaluated are dropped; the next owner reads them again.
pub async fn run(
    runtime: Arc<PipelineRuntime>,
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    mut stop: watch::Receiver<bool>,
    updates: UnboundedSender<PartitionUpdate>,
) {
    let partition = claim.partition.clone();
    let suspect = tokio::select! {
        suspect = attempts::suspect_range(&runtime, &claim) => suspect,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let (suspect, mut isolation_guard) = suspect.unzip();
    let mut batcher = Some(Batcher::new(claim, records, runtime.budget.clone(), suspect));
    let mut mode = IsolationMode::Off;
    let mut evaluating = FuturesOrdered::new();
    let mut evaluated = EvaluatedBatches::default();
    let mut committing: Option<JoinHandle<CommitEnd>> = None;
    loop {
        if committing.is_none()
            && let Some((batch, record_outcomes)) = evaluated.pop(batcher.is_none() && evaluating.is_empty())
        {
            // In a task of its own, because a transaction that is cancelled between its statements makes its pooled connection
            // unusable.
            committing = Some(tokio::spawn(commit(runtime.clone(), batch, record_outcomes)));
        }
        let idle = evaluating.is_empty() && evaluated.0.is_empty() && committing.is_none();
        if batcher.is_none() && idle {
            return;
        }
        let next_mode = batcher.as_ref().map_or(IsolationMode::Off, Batcher::mode);
        if idle && next_mode == IsolationMode::Off {
            drop(isolation_guard.take());
        }
        let may_take = match (mode, next_mode) {
            (IsolationMode::Off, IsolationMode::Off) => evaluating.len() + evaluated.complete() < BATCHES_AT_A_TIME,
            _ => idle,
        };
        let may_start_early = evaluating.is_empty();
        tokio::select! {
            biased;
            end = join(&mut committing) => {
                committing = None;
                match end {
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
            // An error means that the runner, which holds the sender, has ended.
            changed = stop.wait_for(|stop| *stop), if batcher.is_some() => {
                drop(changed);
                batcher = None;
            }
            batch = next(&mut batcher, may_start_early), if batcher.is_some() && may_take => match batch {
                Some(batch) => {
                    mode = batch.isolation;
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

/// Why a batch is not evaluated.
enum EvaluationEnd {
    Fenced,
    Wedged(String),
}

/// Batches with the outcomes of their records, the oldest first. The last one may be incomplete.
#[derive(Default)]
struct EvaluatedBatches(VecDeque<(MicroBatch, Vec<RecordOutcome>)>);

impl EvaluatedBatches {
    fn push(&mut self, batch: MicroBatch, record_outcomes: Vec<RecordOutcome>) {
        match self.0.back_mut().filter(|(last, _)| last.is_partial) {
            Some((last, so_far)) => {
                last.join(batch);
                versions::join(so_far, record_outcomes);
            }
            None => self.0.push_back((batch, record_outcomes)),
        }
    }

    /// The oldest batch, if it is complete or `is_last`, so that no further part will come.
    fn pop(&mut self, is_last: bool) -> Option<(MicroBatch, Vec<RecordOutcome>)> {
        self.0.pop_front_if(|(batch, _)| is_last || !batch.is_partial)
    }

    /// How many are complete.
    fn complete(&self) -> usize {
        self.0.iter().filter(|(batch, _)| !batch.is_partial).count()
    }
}

async fn next(batcher: &mut Option<Batcher>, may_start_early: bool) -> Option<MicroBatch> {
    match batcher {
        Some(batcher) => batcher.next(may_start_early).await,
        None => None,
    }
}

async fn join(handle: &mut Option<JoinHandle<CommitEnd>>) -> CommitEnd {
    match handle {
        Some(handle) => handle.await.unwrap_or_else(|error| CommitEnd::Wedged(format!("a commit panicked: {error}"))),
        None => std::future::pending().await,
    }
}

/// Evaluates the batch, and retries while a component is unavailable.
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
            // If the attempt cannot be withdrawn now, the next attempt does it.
            let _ = runtime.isolation.withdraw(&runtime.committer.store, pipeline, &batch.delta.partition).await;
            batch.permit = None;
        }
        backoff.after(&failure, &runtime.health).await;
    }
}

async fn attempt(
    runtime: &PipelineRuntime,
    batch: &mut MicroBatch,
) -> Result<Result<Vec<RecordOutcome>, Transient>, EvaluationEnd> {
    match attempts::note(runtime, batch).await {
        Ok(AttemptDecision::Evaluate) => {}
        Ok(AttemptDecision::DeadLetter(poison)) => return Ok(Ok(vec![RecordOutcome::Dead(poison)])),
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

/// Commits the batch, and evaluates it again whenever a result that it relies on has changed.
async fn commit(runtime: Arc<PipelineRuntime>, mut batch: MicroBatch, mut record_outcomes: Vec<RecordOutcome>) -> CommitEnd {
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
                tracing::warn!(%pipeline, delta = %batch.delta, "fenced: another process owns the partition, the batch is dropped");
                // The record did not end this process. If the attempt cannot be withdrawn now, it counts.
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
