//! One pipeline at work: a lane for each partition that the source gives out. What a lane does with its records is its own affair:
//! jobs drive lanes of theirs through here.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::FutureExt;
use futures::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::isolation;
use super::partition_worker::{self, PartitionUpdate};
use super::runtime::PipelineRuntime;
use crate::checkpoint::PartitionClaim;
use crate::record::Partition;
use crate::source::{Delivery, KafkaSource, SourceEvent};

/// How long the broker may take to let us go.
const LEAVE: Duration = Duration::from_secs(5);

/// A pipeline that can go on only where an operator says. A new process would find the same: none is needed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pipeline {pipeline} is halted: {reason}")]
pub struct HaltError {
    /// The pipeline.
    pub pipeline: String,
    /// What happened, and what the operator can do.
    pub reason: String,
}

enum End {
    Halted(HaltError),
    Broken(String),
}

struct Lane {
    partition: Partition,
    epoch: i64,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Runs the pipeline until `shutdown` resolves or the pipeline is stopped, then drains for at most `drain`, and leaves the group.
///
/// # Errors
/// [`HaltError`] where the source cannot go on without an operator; another where the process is wedged.
pub async fn run(
    runtime: Arc<PipelineRuntime>,
    source: KafkaSource,
    events: UnboundedReceiver<SourceEvent>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let pipeline = runtime.committer.pipeline.clone();
    let walker = runtime.clone();
    let lane = move |claim, records, stopped, updates| tokio::spawn(watched(walker.clone(), claim, records, stopped, updates));
    drive((&pipeline, Some(runtime)), (source, events), lane, shutdown, drain).await
}

/// Gives every partition of the source a lane, as `lane` starts one, until `shutdown` resolves; then drains for at most `drain`,
/// and leaves the group. Where the lanes walk for a pipeline, its works let go of what they walked on.
///
/// # Errors
/// [`HaltError`] where the source cannot go on without an operator; another where a lane calls the process wedged.
pub async fn drive(
    (pipeline, runtime): (&str, Option<Arc<PipelineRuntime>>),
    (source, mut events): (KafkaSource, UnboundedReceiver<SourceEvent>),
    lane: impl Fn(
        PartitionClaim,
        UnboundedReceiver<Delivery>,
        watch::Receiver<bool>,
        UnboundedSender<PartitionUpdate>,
    ) -> JoinHandle<()>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let (updates, mut inbox) = unbounded_channel();
    let mut lanes: HashMap<Partition, Lane> = HashMap::new();
    tokio::pin!(shutdown);
    let result = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(event) = events.recv() => match event {
                SourceEvent::Assigned(claim, records) => {
                    let (stop, stopped) = watch::channel(false);
                    let (partition, epoch) = (claim.partition.clone(), claim.epoch);
                    let task = lane(claim, records, stopped, updates.clone());
                    if let Some(stale) = lanes.insert(partition.clone(), Lane { partition, epoch, stop, task }) {
                        stale.task.abort();
                    }
                }
                SourceEvent::Revoked { partitions, drain, done } => {
                    let revoked: Vec<Lane> = partitions.iter().filter_map(|partition| lanes.remove(partition)).collect();
                    // Apart from this loop, which must go on reporting what the draining lanes commit.
                    let runtime = runtime.clone();
                    tokio::spawn(async move {
                        stop(runtime.as_deref(), revoked, drain).await;
                        drop(done);
                    });
                }
                SourceEvent::PositionLost(reason) => break Err(End::Halted(HaltError { pipeline: pipeline.to_owned(), reason })),
                SourceEvent::Failed(reason) => break Err(End::Broken(reason)),
            },
            Some(update) = inbox.recv() => match update {
                PartitionUpdate::Committed(partition, next_offset) => source.committed(&partition, next_offset),
                PartitionUpdate::Fenced(partition) => {
                    source.forget(&partition);
                    lanes.remove(&partition);
                }
                PartitionUpdate::Stopped => break Ok(()),
                PartitionUpdate::Wedged(reason) => {
                    if let Some(runtime) = &runtime {
                        runtime.wedged.store(true, Ordering::Relaxed);
                    }
                    break Err(End::Broken(reason));
                }
            },
        }
    };
    source.pause();
    tracing::info!(%pipeline, lanes = lanes.len(), "draining");
    stop(runtime.as_deref(), lanes.into_values().collect(), drain).await;
    while let Ok(update) = inbox.try_recv() {
        if let PartitionUpdate::Committed(partition, next_offset) = update {
            source.committed(&partition, next_offset);
        }
    }
    source.close(LEAVE).await;
    tracing::info!(%pipeline, "stopped");
    match result {
        Ok(()) => Ok(()),
        Err(End::Halted(halt)) => Err(halt.into()),
        Err(End::Broken(reason)) => bail!("pipeline {pipeline} cannot go on: {reason}"),
    }
}

/// Walks the lane, and tells of a panic as of anything else that another attempt would not mend.
async fn watched(
    runtime: Arc<PipelineRuntime>,
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    stopped: watch::Receiver<bool>,
    updates: UnboundedSender<PartitionUpdate>,
) {
    let reason = format!("the walk of {} panicked", claim.partition);
    let walk = AssertUnwindSafe(partition_worker::run(runtime, claim, records, stopped, updates.clone()));
    if walk.catch_unwind().await.is_err() {
        // The runner is gone only where it ends anyway.
        let _ = updates.send(PartitionUpdate::Wedged(reason));
    }
}

/// Lets the lanes finish what is under way, for at most `drain`, ends them, and lets go of their partitions.
async fn stop(runtime: Option<&PipelineRuntime>, lanes: Vec<Lane>, drain: Duration) {
    for lane in &lanes {
        lane.stop.send_replace(true);
    }
    let (mut tasks, claims): (Vec<JoinHandle<()>>, Vec<(Partition, i64)>) =
        lanes.into_iter().map(|lane| (lane.task, (lane.partition, lane.epoch))).unzip();
    if timeout(drain, join_all(tasks.iter_mut())).await.is_err() {
        tracing::warn!("some batches were not finished in time; they will be done again");
        tasks.iter().for_each(JoinHandle::abort);
    }
    let Some(runtime) = runtime else { return };
    join_all(claims.iter().map(|(partition, epoch)| isolation::release_partition(runtime, partition, *epoch))).await;
}
