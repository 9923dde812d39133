//! Processes one unit, from its claim in the ledger to its outcome, as a pipeline processes a partition, but from another source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at};

use super::evaluate::measure;
use super::job_pipeline::JobPipeline;
use super::source::{EvaluationTarget, RecordSender, UnitSource, deliver, partition};
use crate::checkpoint::PartitionClaim;
use crate::config::DatasetConfig;
use crate::failure::Transient;
use crate::health::Health;
use crate::metrics::METRICS;
use crate::pipeline::{BATCHES_AT_A_TIME, Backoff, PartitionUpdate, release_partition, run_partition};
use crate::source::{Archive, ArchiveError, Delivery, InFlight};
use crate::store::{Store, UnitFault, UnitOutcome, UnitRow};

/// Processes units of jobs, one after the other.
pub struct UnitWorker {
    pub store: Store,
    pub job_pipelines: BTreeMap<Arc<str>, Arc<JobPipeline>>,
    pub datasets: BTreeMap<String, DatasetConfig>,
    /// Is told which components are unavailable.
    pub health: Health,
    /// The name of this process in the ledger.
    pub owner: String,
    /// Reading pauses while this many bytes of a unit's records are read and not yet committed.
    pub in_flight_bytes: usize,
}

/// Why the processing of a unit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitExit {
    /// The unit has an outcome.
    Ended(UnitOutcome),
    /// The process stops; the next one continues from the unit's position.
    Open,
    /// Another process claimed the unit, because another record of the units topic names it too.
    Fenced,
    /// Its pipeline is stopped; the unit is processed once the pipeline is resumed.
    PipelineStopped,
    /// The process cannot go on, for this reason, and must be restarted.
    Wedged(String),
}

/// How often a unit under way checks whether its job is stopping, and whether it must yield to live records.
const POLL: Duration = Duration::from_millis(500);

type Reader = JoinHandle<Result<(), ArchiveError>>;
type Records = UnboundedReceiver<Delivery>;

/// How one attempt at a unit ended.
enum AttemptEnd {
    /// All records that could be read are processed.
    Finished(Result<(), ArchiveError>),
    /// The job is stopping.
    JobStopping,
    Exit(UnitExit),
}

impl UnitWorker {
    /// Processes the unit until it has an outcome or `stop` turns true, and retries while a component is unavailable.
    pub async fn work(&self, unit: &UnitRow, stop: watch::Receiver<bool>) -> UnitExit {
        let pipeline = &*unit.pipeline;
        let Some(job_pipeline) = self.job_pipelines.get(pipeline) else {
            let reason = format!("this process does not run pipeline `{pipeline}`; give it the pipeline's file");
            return UnitExit::Ended(UnitOutcome::Failed(UnitFault { class: "unknown_pipeline", reason }));
        };
        let opened = UnitSource::of(unit).and_then(|source| Ok((self.archive(&source)?, source.evaluation())));
        let (archive, evaluation) = match opened {
            Ok(opened) => opened,
            Err(fault) => return self.ended(pipeline, UnitOutcome::Failed(fault)),
        };
        let mut backoff = Backoff::default();
        while !*stop.borrow() {
            let attempt = async {
                if !self.store.begin_unit(&unit.id, &self.owner).await? {
                    return Ok(None);
                }
                self.store.claim(pipeline, &partition(unit), &self.owner).await.map(Some)
            };
            let failure: Transient = match attempt.await {
                Ok(None) => return self.ended(pipeline, UnitOutcome::Stopped),
                Ok(Some(claim)) => {
                    let end = match &evaluation {
                        Some(target) => self.evaluate(unit, job_pipeline, archive.clone(), target, stop.clone()).await,
                        None => Ok(self.process(unit, job_pipeline, archive.clone(), claim, stop.clone()).await),
                    };
                    match end {
                        Ok(AttemptEnd::Exit(exit)) => return exit,
                        Ok(AttemptEnd::JobStopping) => return self.ended(pipeline, UnitOutcome::Stopped),
                        Ok(AttemptEnd::Finished(Ok(()))) => return self.ended(pipeline, UnitOutcome::Done),
                        Ok(AttemptEnd::Finished(Err(ArchiveError::Fault(fault)))) => {
                            return self.ended(pipeline, UnitOutcome::Failed(fault));
                        }
                        Ok(AttemptEnd::Finished(Err(ArchiveError::Unavailable(failure)))) | Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            tracing::warn!(unit = unit.id, %failure, "the unit is retried");
            backoff.after(&failure, &self.health).await;
        }
        UnitExit::Open
    }

    fn archive(&self, source: &UnitSource) -> Result<Option<Archive>, UnitFault> {
        let UnitSource::Rows { dataset, .. } = source else { return Ok(None) };
        let Some(config) = self.datasets.get(dataset) else { return Ok(None) };
        let opened = Archive::open(dataset, config);
        opened.map(Some).map_err(|error| UnitFault { class: "unknown_dataset", reason: error.to_string() })
    }

    fn ended(&self, pipeline: &str, outcome: UnitOutcome) -> UnitExit {
        let name = match &outcome {
            UnitOutcome::Done => "done",
            UnitOutcome::Failed(_) => "failed",
            UnitOutcome::Stopped => "stopped",
        };
        METRICS.units_ended.with_label_values(&[pipeline, name]).inc();
        UnitExit::Ended(outcome)
    }

    /// Starts to read the unit from row `from` on, in a task of its own, so that a panic in a decoder ends nothing else.
    fn read(&self, unit: &UnitRow, job_pipeline: &Arc<JobPipeline>, archive: Option<Archive>, from: i64) -> (Reader, Records) {
        let (records, receiver) = unbounded_channel();
        let (store, job_pipeline, unit) = (self.store.clone(), job_pipeline.clone(), unit.clone());
        let gauge = METRICS.in_flight_bytes.with_label_values(&["@units"]);
        // Records that are read are processed even when live records should go first. So no more are read than the partition worker
        // has under way, and one further batch.
        let in_flight =
            InFlight::new(self.in_flight_bytes, gauge).with_limit(job_pipeline.runtime.budget.of(BATCHES_AT_A_TIME + 1));
        job_pipeline.check_live_lag();
        let reader = tokio::spawn(async move {
            let yields = || job_pipeline.yields();
            let sender = RecordSender { records, in_flight, yields: &yields };
            deliver(&store, archive.as_ref(), &job_pipeline, &unit, from, sender).await
        });
        (reader, receiver)
    }

    /// Evaluates the unit's rows and counts how often the task is right, without committing anything.
    async fn evaluate(
        &self,
        unit: &UnitRow,
        job_pipeline: &Arc<JobPipeline>,
        archive: Option<Archive>,
        target: &EvaluationTarget,
        mut stop: watch::Receiver<bool>,
    ) -> Result<AttemptEnd, Transient> {
        let (reader, receiver) = self.read(unit, job_pipeline, archive, unit.from_row);
        let counting = measure(job_pipeline, target, receiver);
        tokio::pin!(counting);
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        let counts = loop {
            tokio::select! {
                counts = &mut counting => break counts?,
                () = stop_requested(&mut stop) => return Ok(AttemptEnd::Exit(UnitExit::Open)),
                _ = poll.tick() => {
                    job_pipeline.check_live_lag();
                    if self.store.is_job_stopping(&unit.job_id).await.unwrap_or(false) {
                        return Ok(AttemptEnd::JobStopping);
                    }
                }
            }
        };
        let read = finished(reader).await;
        if read.is_ok() {
            self.store.report_unit(&unit.id, &serde_json::to_value(counts).unwrap_or_default()).await?;
        }
        Ok(AttemptEnd::Finished(read))
    }

    /// Reads from the claimed position, and runs a partition worker on the records until they end or something stops it.
    async fn process(
        &self,
        unit: &UnitRow,
        job_pipeline: &Arc<JobPipeline>,
        archive: Option<Archive>,
        claim: PartitionClaim,
        mut stop: watch::Receiver<bool>,
    ) -> AttemptEnd {
        let (reader, receiver) = self.read(unit, job_pipeline, archive, claim.next_offset);
        let (stop_worker, worker_stop) = watch::channel(false);
        let (updates, mut inbox) = unbounded_channel();
        let epoch = claim.epoch;
        let mut worker = tokio::spawn(run_partition(job_pipeline.runtime.clone(), claim, receiver, worker_stop, updates));
        let mut poll = interval_at(Instant::now() + POLL, POLL);
        let (mut exit, mut is_stopping) = (None, false);
        loop {
            tokio::select! {
                ended = &mut worker => {
                    if let Err(error) = ended {
                        exit = Some(UnitExit::Wedged(format!("the worker of unit {} panicked: {error}", unit.id)));
                    }
                    break;
                }
                Some(update) = inbox.recv() => match update {
                    PartitionUpdate::Committed(..) => {}
                    PartitionUpdate::Fenced(_) => exit = Some(UnitExit::Fenced),
                    PartitionUpdate::Stopped => exit = Some(UnitExit::PipelineStopped),
                    PartitionUpdate::Wedged(reason) => exit = Some(UnitExit::Wedged(reason)),
                },
                () = stop_requested(&mut stop), if exit.is_none() => {
                    exit = Some(UnitExit::Open);
                    stop_worker.send_replace(true);
                }
                _ = poll.tick() => {
                    job_pipeline.check_live_lag();
                    // The partition worker's commits report a ledger that is unavailable.
                    if !is_stopping && self.store.is_job_stopping(&unit.job_id).await.unwrap_or(false) {
                        is_stopping = true;
                        stop_worker.send_replace(true);
                    }
                }
            }
        }
        while let Ok(update) = inbox.try_recv() {
            match update {
                PartitionUpdate::Fenced(_) => exit = Some(UnitExit::Fenced),
                PartitionUpdate::Wedged(reason) => exit = Some(UnitExit::Wedged(reason)),
                PartitionUpdate::Stopped => exit = Some(UnitExit::PipelineStopped),
                PartitionUpdate::Committed(..) => {}
            }
        }
        if !matches!(exit, Some(UnitExit::Wedged(_))) {
            release_partition(&job_pipeline.runtime, &partition(unit), epoch).await;
        }
        if let Some(exit) = exit {
            reader.abort();
            return AttemptEnd::Exit(exit);
        }
        if is_stopping {
            reader.abort();
            return AttemptEnd::JobStopping;
        }
        AttemptEnd::Finished(finished(reader).await)
    }
}

async fn finished(reader: Reader) -> Result<(), ArchiveError> {
    reader.await.unwrap_or_else(|error| {
        let reason = format!("reading the unit panicked: {error}");
        Err(UnitFault { class: "corrupt_file", reason }.into())
    })
}

/// Resolves when `stop` turns true, or its sender is gone, because the process ends.
pub(super) async fn stop_requested(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
