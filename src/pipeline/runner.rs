//! Runs one pipeline: starts a worker for each partition that the source assigns, and drains the workers at shutdown. The two
//! topics of jobs run through here too, with workers of their own.

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

use super::attempts;
use super::partition_worker::{self, PartitionUpdate};
use super::runtime::PipelineRuntime;
use crate::checkpoint::PartitionClaim;
use crate::record::Partition;
use crate::source::{Delivery, KafkaSource, SourceEvent};

/// How long leaving the consumer group may take.
const LEAVE: Duration = Duration::from_secs(5);

/// A pipeline that cannot go on until an operator says where. Restarting the process would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pipeline {pipeline} is halted: {reason}")]
pub struct HaltError {
    pub pipeline: String,
    /// What happened, and what the operator can do.
    pub reason: String,
}

enum End {
    Halted(HaltError),
    Broken(String),
}

struct Worker {
    partition: Partition,
    epoch: i64,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Runs the pipeline until `shutdown` resolves or the pipeline is stopped, then drains for at most `drain`, and leaves the group.
///
/// # Errors
/// [`HaltError`] where the source cannot go on without an operator; another error where the process is wedged.
pub async fn run(
    runtime: Arc<PipelineRuntime>,
    source: KafkaSource,
    events: UnboundedReceiver<SourceEvent>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let pipeline = runtime.committer.pipeline.clone();
    let shared = runtime.clone();
    let start = move |claim, records, stopped, updates| tokio::spawn(watched(shared.clone(), claim, records, stopped, updates));
    run_workers(&pipeline, Some(runtime), source, events, start, shutdown, drain).await
}

/// Runs a worker, as `start` starts one, for every partition of the source until `shutdown` resolves. Then drains for at most
/// `drain` and leaves the group. Where the workers belong to a pipeline, `runtime` releases their partitions.
///
/// # Errors
/// [`HaltError`] where the source cannot go on without an operator; another error where a worker reports the process as wedged.
pub async fn run_workers(
    pipeline: &str,
    runtime: Option<Arc<PipelineRuntime>>,
    source: KafkaSource,
    mut events: UnboundedReceiver<SourceEvent>,
    start: impl Fn(
        PartitionClaim,
        UnboundedReceiver<Delivery>,
        watch::Receiver<bool>,
        UnboundedSender<PartitionUpdate>,
    ) -> JoinHandle<()>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let (updates, mut inbox) = unbounded_channel();
    let mut workers: HashMap<Partition, Worker> = HashMap::new();
    tokio::pin!(shutdown);
    let result = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(event) = events.recv() => match event {
                SourceEvent::Assigned(claim, records) => {
                    let (stop, stopped) = watch::channel(false);
                    let (partition, epoch) = (claim.partition.clone(), claim.epoch);
                    let task = start(claim, records, stopped, updates.clone());
                    if let Some(stale) = workers.insert(partition.clone(), Worker { partition, epoch, stop, task }) {
                        stale.task.abort();
                    }
                }
                SourceEvent::Revoked { partitions, drain, done } => {
                    let revoked: Vec<Worker> = partitions.iter().filter_map(|partition| workers.remove(partition)).collect();
                    // In a task of its own: this loop must go on reporting what the draining workers commit.
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
                    workers.remove(&partition);
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
    tracing::info!(%pipeline, partitions = workers.len(), "draining");
    stop(runtime.as_deref(), workers.into_values().collect(), drain).await;
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

/// Runs the partition worker, and reports a panic as wedged, because another attempt would panic again.
async fn watched(
    runtime: Arc<PipelineRuntime>,
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    stopped: watch::Receiver<bool>,
    updates: UnboundedSender<PartitionUpdate>,
) {
    let reason = format!("the worker of partition {} panicked", claim.partition);
    let work = AssertUnwindSafe(partition_worker::run(runtime, claim, records, stopped, updates.clone()));
    if work.catch_unwind().await.is_err() {
        // An error means that the runner has ended, and then nobody needs the update.
        let _ = updates.send(PartitionUpdate::Wedged(reason));
    }
}

/// Lets the workers finish what is under way, for at most `drain`, then ends them and releases their partitions.
async fn stop(runtime: Option<&PipelineRuntime>, workers: Vec<Worker>, drain: Duration) {
    for worker in &workers {
        worker.stop.send_replace(true);
    }
    let (mut tasks, claims): (Vec<JoinHandle<()>>, Vec<(Partition, i64)>) =
        workers.into_iter().map(|worker| (worker.task, (worker.partition, worker.epoch))).unzip();
    if timeout(drain, join_all(tasks.iter_mut())).await.is_err() {
        tracing::warn!("some batches were not finished in time; they will be processed again");
        tasks.iter().for_each(JoinHandle::abort);
    }
    let Some(runtime) = runtime else { return };
    join_all(claims.iter().map(|(partition, epoch)| attempts::release_partition(runtime, partition, *epoch))).await;
}
