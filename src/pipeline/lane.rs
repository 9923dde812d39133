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

use super::batcher::{Batcher, Care, MicroBatch};
use super::committer::{Backoff, Refusal};
use super::evaluator::Fate;
use super::isolation::{self, Verdict};
use super::standing;
use super::works::Works;
use crate::checkpoint::Claim;
use crate::failure::{Component, Transient};
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
    /// The pipeline is stopped; the lane has ended.
    Stopped,
    /// The process is of no use any more.
    Wedged(String),
}

impl Works {
    /// Whether the process can vouch for what is under way: nothing of it brought the process, or the model host, to an end.
    pub fn is_sound(&self) -> bool {
        !self.wedged.load(Ordering::Relaxed) && self.engine.health().is_ok()
    }
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
    let doubt = tokio::select! {
        doubt = isolation::doubt(&works, &claim) => doubt,
        _ = stop.wait_for(|stop| *stop) => return,
    };
    let (doubt, mut isolated) = doubt.unzip();
    let mut batcher = Some(Batcher::new(claim, records, works.budget.clone(), doubt));
    let mut care = Care::None;
    let mut evaluating = FuturesOrdered::new();
    let mut evaluated = Evaluated::default();
    let mut committing: Option<JoinHandle<Settled>> = None;
    loop {
        if committing.is_none()
            && let Some((batch, fates)) = evaluated.pop(batcher.is_none() && evaluating.is_empty())
        {
            // Spawned, because a transaction that is cancelled between its statements poisons its pooled connection.
            committing = Some(tokio::spawn(settle(works.clone(), batch, fates)));
        }
        let idle = evaluating.is_empty() && evaluated.0.is_empty() && committing.is_none();
        if batcher.is_none() && idle {
            return;
        }
        let next_care = batcher.as_ref().map_or(Care::None, Batcher::care);
        if idle && next_care == Care::None {
            drop(isolated.take());
        }
        let has_room = match (care, next_care) {
            (Care::None, Care::None) => evaluating.len() + evaluated.complete() < AHEAD,
            _ => idle,
        };
        let may_begin = evaluating.is_empty();
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
                    Settled::Stopped => {
                        let _ = notices.send(Notice::Stopped);
                        return;
                    }
                    Settled::Wedged(reason) => {
                        let _ = notices.send(Notice::Wedged(reason));
                        return;
                    }
                }
            }
            Some(outcome) = evaluating.next() => match outcome {
                Ok((batch, fates)) => evaluated.push(batch, fates),
                Err(Ended::Fenced) => {
                    let _ = notices.send(Notice::Fenced(partition));
                    return;
                }
                Err(Ended::Wedged(reason)) => {
                    let _ = notices.send(Notice::Wedged(reason));
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
                    evaluating.push_back(evaluate(works.clone(), batch));
                }
                None => batcher = None,
            },
        }
    }
}

enum Settled {
    Committed(i64),
    Fenced,
    Stopped,
    Wedged(String),
}

/// Why there is no use in evaluating a batch.
enum Ended {
    Fenced,
    Wedged(String),
}

/// Batches with the fates of their records, the oldest first; of the last one more may be to come.
#[derive(Default)]
struct Evaluated(VecDeque<(MicroBatch, Vec<Fate>)>);

impl Evaluated {
    fn push(&mut self, batch: MicroBatch, fates: Vec<Fate>) {
        match self.0.back_mut().filter(|(last, _)| last.is_open) {
            Some((last, so_far)) => {
                last.join(batch);
                standing::join(so_far, fates);
            }
            None => self.0.push_back((batch, fates)),
        }
    }

    /// The oldest one, if all of it is there or nothing more `ends` it.
    fn pop(&mut self, ends: bool) -> Option<(MicroBatch, Vec<Fate>)> {
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

async fn join(handle: &mut Option<JoinHandle<Settled>>) -> Settled {
    match handle {
        Some(handle) => handle.await.unwrap_or_else(|error| Settled::Wedged(format!("a commit died: {error}"))),
        None => std::future::pending().await,
    }
}

/// Evaluates the batch for as long as the world is to blame for its failing.
async fn evaluate(works: Arc<Works>, mut batch: MicroBatch) -> Result<(MicroBatch, Vec<Fate>), Ended> {
    let pipeline = &works.committer.pipeline;
    observe(pipeline, "wait", batch.opened);
    let mut backoff = Backoff::default();
    loop {
        let failure = match attempt(&works, &mut batch).await? {
            Ok(fates) => return Ok((batch, fates)),
            Err(failure) => failure,
        };
        tracing::warn!(%pipeline, delta = %batch.delta, %failure, "the batch is evaluated again");
        if works.is_sound() {
            // Where it cannot be taken back now, the next attempt does.
            let _ = works.isolation.withdraw(&works.committer.store, pipeline, &batch.delta.partition).await;
            batch.turn = None;
        }
        backoff.after(&failure, &works.health).await;
    }
}

async fn attempt(works: &Works, batch: &mut MicroBatch) -> Result<Result<Vec<Fate>, Transient>, Ended> {
    match isolation::note(works, batch).await {
        Ok(Verdict::Evaluate) => {}
        Ok(Verdict::Condemned(poison)) => return Ok(Ok(vec![Fate::Dead(poison)])),
        Ok(Verdict::Fenced) => return Err(Ended::Fenced),
        Err(failure) => return Ok(Err(failure)),
    }
    let started = Instant::now();
    match timeout(works.watchdog, works.evaluator.evaluate(batch)).await {
        Ok(Ok(fates)) => {
            observe(&works.committer.pipeline, "evaluate", started);
            works.health.up(Component::Model);
            Ok(Ok(fates))
        }
        Ok(Err(failure)) => Ok(Err(failure)),
        Err(_) => Err(Ended::Wedged(format!("batch {} was not evaluated within {:?}", batch.delta, works.watchdog))),
    }
}

/// Commits the batch, evaluating it again whenever the ledger has moved under it.
async fn settle(works: Arc<Works>, mut batch: MicroBatch, mut fates: Vec<Fate>) -> Settled {
    let (pipeline, partition) = (works.committer.pipeline.clone(), batch.delta.partition.clone());
    loop {
        let started = Instant::now();
        match works.committer.commit(&batch, &fates).await {
            Ok(()) => {
                works.isolation.finished(&pipeline, &partition);
                observe(&pipeline, "commit", started);
                observe(&pipeline, "total", batch.opened);
                return Settled::Committed(batch.delta.to);
            }
            Err(Refusal::Fenced) => {
                tracing::warn!(%pipeline, delta = %batch.delta, "fenced: another worker owns the partition, the batch is dropped");
                // The record is another's, and the attempt was none of its doing. Where that cannot be said now, it counts.
                let _ = works.isolation.withdraw(&works.committer.store, &pipeline, &partition).await;
                return Settled::Fenced;
            }
            Err(Refusal::Stopped) => {
                tracing::warn!(%pipeline, delta = %batch.delta, "the pipeline is stopped, the batch is dropped");
                return Settled::Stopped;
            }
            Err(Refusal::Stale) => match evaluate(works.clone(), batch).await {
                Ok(again) => (batch, fates) = again,
                Err(Ended::Fenced) => return Settled::Fenced,
                Err(Ended::Wedged(reason)) => return Settled::Wedged(reason),
            },
        }
    }
}

fn observe(pipeline: &str, stage: &str, since: Instant) {
    METRICS.batch_seconds.with_label_values(&[pipeline, stage]).observe(since.elapsed().as_secs_f64());
}
