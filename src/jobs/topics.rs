//! The two topics that jobs live on, as lanes: one record after the other, each committed with what came of it.
//!
//! | topic | a record is | committed with it |
//! |---|---|---|
//! | jobs | a job that somebody asks for | the job, or a dead letter |
//! | units | a unit that waits | the unit's end |
//!
//! Both positions are the ledger's, as everywhere: a record that is delivered again finds its work done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use super::names::KnownNames;
use super::spec::JobSpec;
use super::worker::{UnitExit, UnitWorker, told};
use crate::checkpoint::{CheckpointDelta, PartitionClaim};
use crate::failure::FailureClass;
use crate::pipeline::{Backoff, PartitionUpdate};
use crate::record::Record;
use crate::source::Delivery;
use crate::store::{BatchRow, CommitError, DeadLetterRow, NewJob, Submission, SubmitOutcome, UnitOutcome, UnitRow, UsageRow};

/// The name under which the ledger keeps books on the jobs topic; no pipeline can be called that.
pub const JOBS: &str = "@jobs";
/// The same of the units topic.
pub const UNITS: &str = "@units";

/// What the lanes of both topics share.
pub struct JobTopics {
    /// Works off units.
    pub worker: UnitWorker,
    /// Units that this process works on at a time.
    pub places: Semaphore,
    /// The topic that changes of jobs are told on.
    pub events_topic: String,
    /// What an hour of a device costs.
    pub price_per_device_hour: Option<f64>,
}

/// How an errand went.
enum RecordEnd {
    Committed,
    Fenced,
    Open,
    Wedged(String),
}

/// How often a lane looks whether a unit that is worked on elsewhere has ended.
const ELSEWHERE: Duration = Duration::from_secs(1);
/// A job that is refused longer than this is cut.
const REASON: usize = 2_000;

/// Which of the two topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobTopic {
    /// Jobs arrive.
    Jobs,
    /// Units are handed out.
    Units,
}

/// Runs the errands of one partition, one record after the other.
pub(super) async fn serve(
    (topics, topic): (Arc<JobTopics>, JobTopic),
    mut claim: PartitionClaim,
    mut records: UnboundedReceiver<Delivery>,
    mut stop: watch::Receiver<bool>,
    updates: UnboundedSender<PartitionUpdate>,
) {
    loop {
        let delivery = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            delivery = records.recv() => delivery,
        };
        let Some(Delivery { record, guard }) = delivery else { return };
        let to = record.place.offset + 1;
        let delta = CheckpointDelta { partition: claim.partition.clone(), epoch: claim.epoch, from: claim.next_offset, to };
        let done = match topic {
            JobTopic::Jobs => topics.take_in(&record, delta).await,
            JobTopic::Units => topics.work_off(&record, delta, stop.clone()).await,
        };
        let update = match done {
            RecordEnd::Committed => {
                claim.next_offset = to;
                PartitionUpdate::Committed(claim.partition.clone(), to)
            }
            RecordEnd::Fenced => PartitionUpdate::Fenced(claim.partition.clone()),
            RecordEnd::Wedged(reason) => PartitionUpdate::Wedged(reason),
            RecordEnd::Open => return,
        };
        drop(guard);
        let ends = !matches!(update, PartitionUpdate::Committed(..));
        if updates.send(update).is_err() || ends {
            return;
        }
    }
}

impl JobTopics {
    async fn take_in(&self, record: &Record, delta: CheckpointDelta) -> RecordEnd {
        let asked = self.read(record);
        let (mut job, mut fault) = match asked {
            Ok(job) => (Some(job), None),
            Err(reason) => (None, Some(reason)),
        };
        let mut backoff = Backoff::default();
        let id = Uuid::now_v7();
        loop {
            let submission = submission(JOBS, "job", (id, &delta), fault.as_deref().map(|reason| letter(record, reason)));
            let store = &self.worker.store;
            match store.commit_job_record(&submission, job.as_ref(), &self.events_topic).await {
                Ok(Some(SubmitOutcome::Conflict)) => {
                    let id = job.take().map(|job| job.id).unwrap_or_default();
                    fault = Some(format!("the id `{id}` stands for another job; give this one an id of its own"));
                }
                Ok(submitted) => {
                    tracing::info!(place = %record.place, job = job.as_ref().map(|job| job.id.as_str()), ?submitted, "job taken in");
                    return RecordEnd::Committed;
                }
                Err(CommitError::Fenced) => match store.is_committed(id).await {
                    Ok(true) => return RecordEnd::Committed,
                    Ok(false) => return RecordEnd::Fenced,
                    Err(failure) => backoff.after(&failure, &self.worker.health).await,
                },
                Err(CommitError::Unavailable(failure)) => {
                    backoff.after(&failure, &self.worker.health).await;
                    if store.is_committed(id).await.unwrap_or(false) {
                        return RecordEnd::Committed;
                    }
                }
                Err(error @ (CommitError::Stale | CommitError::Swept | CommitError::Stopped)) => {
                    (job, fault) = (None, Some(error.to_string()));
                }
            }
        }
    }

    /// What jobs may name.
    pub(super) fn names(&self) -> KnownNames {
        KnownNames::new(self.worker.job_pipelines.values().map(|job_pipeline| &job_pipeline.definition), &self.worker.datasets)
    }

    fn read(&self, record: &Record) -> Result<NewJob, String> {
        let payload = record.payload.as_deref().ok_or("the record has no payload, which must be a job")?;
        let spec = JobSpec::asked(payload, None).map_err(|error| error.0)?;
        let names = self.names();
        let tenant = names.check(&spec).map_err(|error| error.0)?;
        spec.to_new(tenant, self.price_per_device_hour, None).map_err(|error| error.0)
    }

    async fn work_off(&self, record: &Record, delta: CheckpointDelta, stop: watch::Receiver<bool>) -> RecordEnd {
        let store = &self.worker.store;
        let mut backoff = Backoff::default();
        let unit = loop {
            let Some(id) = unit_id(record) else { break None };
            match store.unit(&id).await {
                Ok(unit) => break unit,
                Err(failure) => backoff.after(&failure, &self.worker.health).await,
            }
            if *stop.borrow() {
                return RecordEnd::Open;
            }
        };
        // Any other was done before, or names no unit of this ledger.
        let mut end = None;
        if let Some(unit) = unit.as_ref().filter(|unit| unit.waits) {
            match self.work_through(unit, stop).await {
                Ok(how) => end = how.map(|how| (unit.id.as_str(), how)),
                Err(done) => return done,
            }
        }
        self.commit_unit(end.as_ref().map(|(id, end)| (*id, end)), delta).await
    }

    /// Works the unit off, once there is a place; `None` where somebody else has ended it.
    async fn work_through(&self, unit: &UnitRow, mut stop: watch::Receiver<bool>) -> Result<Option<UnitOutcome>, RecordEnd> {
        loop {
            let place = tokio::select! {
                place = self.places.acquire() => place,
                () = told(&mut stop) => return Err(RecordEnd::Open),
            };
            let left = self.worker.work(unit, stop.clone()).await;
            drop(place);
            match left {
                UnitExit::Ended(how) => return Ok(Some(how)),
                UnitExit::Open => return Err(RecordEnd::Open),
                UnitExit::Wedged(reason) => return Err(RecordEnd::Wedged(reason)),
                UnitExit::Fenced if self.ends_elsewhere(&unit.id, stop.clone()).await => return Ok(None),
                UnitExit::Held if self.resumes(&unit.pipeline, stop.clone()).await => {}
                UnitExit::Fenced | UnitExit::Held => return Err(RecordEnd::Open),
            }
        }
    }

    /// Waits until the pipeline may run again; false where the process is to stop before.
    async fn resumes(&self, pipeline: &str, mut stop: watch::Receiver<bool>) -> bool {
        loop {
            match self.worker.store.pipeline_stop(pipeline).await {
                Ok(None) => return true,
                Ok(Some(_)) => {}
                Err(failure) => self.worker.health.blame(&failure),
            }
            tokio::select! {
                () = sleep(ELSEWHERE) => {}
                () = told(&mut stop) => return false,
            }
        }
    }

    /// Waits until whoever claimed the unit has ended it; false where the process is to stop before. To claim it back would only
    /// take it from one who works on it.
    async fn ends_elsewhere(&self, unit: &str, mut stop: watch::Receiver<bool>) -> bool {
        loop {
            tokio::select! {
                () = sleep(ELSEWHERE) => {}
                () = told(&mut stop) => return false,
            }
            match self.worker.store.unit(unit).await {
                Ok(Some(unit)) if unit.waits => {}
                Ok(_) => return true,
                Err(failure) => self.worker.health.blame(&failure),
            }
        }
    }

    async fn commit_unit(&self, end: Option<(&str, &UnitOutcome)>, delta: CheckpointDelta) -> RecordEnd {
        let id = Uuid::now_v7();
        let submission = submission(UNITS, "unit", (id, &delta), None);
        let store = &self.worker.store;
        let mut backoff = Backoff::default();
        loop {
            let failure = match store.end_unit(end, Some(&submission)).await {
                Ok(()) => return RecordEnd::Committed,
                Err(CommitError::Unavailable(failure)) => failure,
                Err(_) => match store.is_committed(id).await {
                    Ok(true) => return RecordEnd::Committed,
                    Ok(false) => return RecordEnd::Fenced,
                    Err(failure) => failure,
                },
            };
            backoff.after(&failure, &self.worker.health).await;
            if store.is_committed(id).await.unwrap_or(false) {
                return RecordEnd::Committed;
            }
        }
    }
}

fn unit_id(record: &Record) -> Option<String> {
    let payload: Value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
    // The ledger has no unit with U+0000 in its id, and cannot be asked for one.
    payload.get("unit")?.as_str().filter(|id| !id.contains('\0')).map(str::to_owned)
}

/// The books of one record: one unit of one task, ok or dead.
fn submission(pipeline: &str, task: &str, (id, delta): (Uuid, &CheckpointDelta), letter: Option<DeadLetterRow>) -> Submission {
    let dead = i32::from(letter.is_some());
    Submission {
        batch: BatchRow { id, pipeline: pipeline.to_owned(), delta: delta.clone(), records: 1, parquet_rows: 0 },
        usage: vec![UsageRow { task: task.to_owned(), ok: 1 - dead, dead, ..UsageRow::default() }],
        documents: Vec::new(),
        results: Vec::new(),
        unchanged: Vec::new(),
        removed: Vec::new(),
        dead_letters: letter.into_iter().collect(),
        events: Vec::new(),
        file: None,
        copy: None,
        tolerance: None,
        leads: None,
    }
}

fn letter(record: &Record, reason: &str) -> DeadLetterRow {
    DeadLetterRow {
        offset: record.place.offset,
        task: String::new(),
        document_id: None,
        class: FailureClass::InvalidJob.as_str(),
        reason: reason.chars().take(REASON).collect::<String>().replace('\0', "\u{fffd}"),
        key: record.key.as_ref().map(|key| key.to_vec()),
        payload: record.payload.as_ref().map(|payload| payload.to_vec()),
        header_names: record.headers.iter().map(|header| header.name.clone()).collect(),
        header_values: record.headers.iter().map(|header| header.value.as_ref().map(|value| value.to_vec())).collect(),
        timestamp_ms: record.timestamp_ms,
        attempts: 1,
        replays: 0,
    }
}
