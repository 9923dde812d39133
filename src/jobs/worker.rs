//! One unit, from its claim in the ledger to its end: the walk of a partition, with another source.

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

/// Works off units.
pub struct UnitWorker {
    /// The ledger.
    pub store: Store,
    /// The pipelines, by name.
    pub job_pipelines: BTreeMap<Arc<str>, Arc<JobPipeline>>,
    /// The datasets, by name.
    pub datasets: BTreeMap<String, DatasetConfig>,
    /// Told what is out of order.
    pub health: Health,
    /// Names this process in the ledger.
    pub owner: String,
    /// Bytes of a unit's records read and not yet committed at which reading pauses.
    pub in_flight_bytes: usize,
}

/// How a unit left the workshop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitExit {
    /// It has come to its end.
    Ended(UnitOutcome),
    /// The process is to stop: whoever comes next goes on from the unit's position.
    Open,
    /// Another record of the units topic names it too, and whoever has that one claimed it.
    Fenced,
    /// Its pipeline is stopped: it is to be taken up again when that is resumed.
    Held,
    /// The process is of no use any more.
    Wedged(String),
}

/// How often a unit under way looks whether its job is to stop, and whether live records go before.
const LOOK: Duration = Duration::from_millis(500);

type Reader = JoinHandle<Result<(), ArchiveError>>;
type Records = UnboundedReceiver<Delivery>;

/// How a lane that worked on a unit ended.
enum WorkerExit {
    Through(Result<(), ArchiveError>),
    Stopped,
    UnitExit(UnitExit),
}

impl UnitWorker {
    /// Works the unit off, as far as it goes, until `stop` turns true.
    pub async fn work(&self, unit: &UnitRow, stop: watch::Receiver<bool>) -> UnitExit {
        let pipeline = &*unit.pipeline;
        let Some(job_pipeline) = self.job_pipelines.get(pipeline) else {
            let reason = format!("this process does not run pipeline `{pipeline}`; give it its file");
            return UnitExit::Ended(UnitOutcome::Failed(UnitFault { class: "unknown_pipeline", reason }));
        };
        let opened = UnitSource::of(unit).and_then(|source| Ok((self.archive(&source)?, source.measured())));
        let (archive, measured) = match opened {
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
                    let walked = match &measured {
                        Some(measured) => self.measure(unit, job_pipeline, (archive.clone(), measured), stop.clone()).await,
                        None => Ok(self.walk(unit, job_pipeline, (archive.clone(), claim), stop.clone()).await),
                    };
                    match walked {
                        Ok(WorkerExit::UnitExit(left)) => return left,
                        Ok(WorkerExit::Stopped) => return self.ended(pipeline, UnitOutcome::Stopped),
                        Ok(WorkerExit::Through(Ok(()))) => return self.ended(pipeline, UnitOutcome::Done),
                        Ok(WorkerExit::Through(Err(ArchiveError::Fault(fault)))) => {
                            return self.ended(pipeline, UnitOutcome::Failed(fault));
                        }
                        Ok(WorkerExit::Through(Err(ArchiveError::Unavailable(failure)))) | Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            tracing::warn!(unit = unit.id, %failure, "the unit is tried again");
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

    fn ended(&self, pipeline: &str, end: UnitOutcome) -> UnitExit {
        let name = match &end {
            UnitOutcome::Done => "done",
            UnitOutcome::Failed(_) => "failed",
            UnitOutcome::Stopped => "stopped",
        };
        METRICS.units_ended.with_label_values(&[pipeline, name]).inc();
        UnitExit::Ended(end)
    }

    /// Begins to read the unit from row `from` on. In a task of its own, so that a decoder that panics takes nothing else along.
    fn read(&self, unit: &UnitRow, job_pipeline: &Arc<JobPipeline>, archive: Option<Archive>, from: i64) -> (Reader, Records) {
        let (records, receiver) = unbounded_channel();
        let (store, job_pipeline, unit) = (self.store.clone(), job_pipeline.clone(), unit.clone());
        let gauge = METRICS.in_flight_bytes.with_label_values(&["@units"]);
        // What is read is worked off, late or not: no more than the lane has under way, and the next batch.
        let in_flight =
            InFlight::new(self.in_flight_bytes, gauge).with_limit(job_pipeline.runtime.budget.of(BATCHES_AT_A_TIME + 1));
        job_pipeline.look();
        let reader = tokio::spawn(async move {
            let yields = || job_pipeline.yields();
            let sender = RecordSender { records, in_flight, yields: &yields };
            deliver((&store, archive.as_ref()), &job_pipeline, (&unit, from), sender).await
        });
        (reader, receiver)
    }

    /// Measures on the unit's rows in place of committing what comes of them.
    async fn measure(
        &self,
        unit: &UnitRow,
        job_pipeline: &Arc<JobPipeline>,
        (archive, measured): (Option<Archive>, &EvaluationTarget),
        mut stop: watch::Receiver<bool>,
    ) -> Result<WorkerExit, Transient> {
        let (reader, receiver) = self.read(unit, job_pipeline, archive, unit.from_row);
        let counting = measure(job_pipeline, measured, receiver);
        tokio::pin!(counting);
        let mut look = interval_at(Instant::now() + LOOK, LOOK);
        let counts = loop {
            tokio::select! {
                counts = &mut counting => break counts?,
                () = told(&mut stop) => return Ok(WorkerExit::UnitExit(UnitExit::Open)),
                _ = look.tick() => {
                    job_pipeline.look();
                    if self.store.is_job_stopping(&unit.job_id).await.unwrap_or(false) {
                        return Ok(WorkerExit::Stopped);
                    }
                }
            }
        };
        let read = finished(reader).await;
        if read.is_ok() {
            self.store.report_unit(&unit.id, &serde_json::to_value(counts).unwrap_or_default()).await?;
        }
        Ok(WorkerExit::Through(read))
    }

    /// Reads from the claimed position and lets a lane take the records through the pipeline, until they end or something else
    /// ends it.
    async fn walk(
        &self,
        unit: &UnitRow,
        job_pipeline: &Arc<JobPipeline>,
        (archive, claim): (Option<Archive>, PartitionClaim),
        mut stop: watch::Receiver<bool>,
    ) -> WorkerExit {
        let (reader, receiver) = self.read(unit, job_pipeline, archive, claim.next_offset);
        let (halt, halted) = watch::channel(false);
        let (updates, mut inbox) = unbounded_channel();
        let epoch = claim.epoch;
        let mut lane = tokio::spawn(run_partition(job_pipeline.runtime.clone(), claim, receiver, halted, updates));
        let mut look = interval_at(Instant::now() + LOOK, LOOK);
        let (mut left, mut stopped) = (None, false);
        loop {
            tokio::select! {
                ended = &mut lane => {
                    if let Err(error) = ended {
                        left = Some(UnitExit::Wedged(format!("the lane of unit {} died: {error}", unit.id)));
                    }
                    break;
                }
                Some(update) = inbox.recv() => match update {
                    PartitionUpdate::Committed(..) => {}
                    PartitionUpdate::Fenced(_) => left = Some(UnitExit::Fenced),
                    PartitionUpdate::Stopped => left = Some(UnitExit::Held),
                    PartitionUpdate::Wedged(reason) => left = Some(UnitExit::Wedged(reason)),
                },
                () = told(&mut stop), if left.is_none() => {
                    left = Some(UnitExit::Open);
                    halt.send_replace(true);
                }
                _ = look.tick() => {
                    job_pipeline.look();
                    // A ledger that does not answer is told by the lane's own commits.
                    if !stopped && self.store.is_job_stopping(&unit.job_id).await.unwrap_or(false) {
                        stopped = true;
                        halt.send_replace(true);
                    }
                }
            }
        }
        while let Ok(update) = inbox.try_recv() {
            match update {
                PartitionUpdate::Fenced(_) => left = Some(UnitExit::Fenced),
                PartitionUpdate::Wedged(reason) => left = Some(UnitExit::Wedged(reason)),
                PartitionUpdate::Stopped => left = Some(UnitExit::Held),
                PartitionUpdate::Committed(..) => {}
            }
        }
        if !matches!(left, Some(UnitExit::Wedged(_))) {
            release_partition(&job_pipeline.runtime, &partition(unit), epoch).await;
        }
        if let Some(left) = left {
            reader.abort();
            return WorkerExit::UnitExit(left);
        }
        if stopped {
            reader.abort();
            return WorkerExit::Stopped;
        }
        WorkerExit::Through(finished(reader).await)
    }
}

async fn finished(reader: Reader) -> Result<(), ArchiveError> {
    reader.await.unwrap_or_else(|error| {
        let reason = format!("reading the unit ended in a panic: {error}");
        Err(UnitFault { class: "corrupt_file", reason }.into())
    })
}

/// Resolves when the process is to stop. The sender is gone only when it ends.
pub(super) async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
