//! Consumes the two topics of jobs: one record after the other, each committed together with its result.
//!
//! | topic | a record is | committed with it |
//! |---|---|---|
//! | jobs | a requested job | the job, or a dead letter |
//! | units | a unit to process | the outcome of the unit |
//!
//! The ledger holds the positions of both topics, so that a record which is delivered again is not processed again.

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
use super::worker::{UnitExit, UnitWorker, stop_requested};
use crate::checkpoint::{CheckpointDelta, PartitionClaim};
use crate::failure::FailureClass;
use crate::pipeline::{Backoff, PartitionUpdate};
use crate::record::Record;
use crate::source::Delivery;
use crate::store::{BatchRow, CommitError, DeadLetterRow, NewJob, Submission, SubmitOutcome, UnitOutcome, UnitRow, UsageRow};

/// The pipeline name of the jobs topic in the ledger, which no pipeline can have.
pub const JOBS: &str = "@jobs";
/// The pipeline name of the units topic in the ledger.
pub const UNITS: &str = "@units";

/// What the consumers of both topics share.
pub struct JobTopics {
    pub worker: UnitWorker,
    /// One permit for each unit that this process may process at a time.
    pub unit_permits: Semaphore,
    /// The topic to which changes of jobs are published.
    pub events_topic: String,
    pub price_per_device_hour: Option<f64>,
}

/// How the processing of a record ended.
enum RecordEnd {
    Committed,
    Fenced,
    /// The process stops; the record is delivered again.
    Open,
    Wedged(String),
}

/// How often a consumer checks a unit that another process works on, or a stopped pipeline.
const POLL: Duration = Duration::from_secs(1);
/// The longest reason of a dead letter, in characters; the rest is cut off.
const REASON_CHARACTERS: usize = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobTopic {
    Jobs,
    /// Holds units to process.
    Units,
}

/// Consumes one partition, one record after the other.
pub(super) async fn consume(
    topics: Arc<JobTopics>,
    topic: JobTopic,
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
            JobTopic::Jobs => topics.store_job(&record, delta).await,
            JobTopic::Units => topics.process_unit(&record, delta, stop.clone()).await,
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
    async fn store_job(&self, record: &Record, delta: CheckpointDelta) -> RecordEnd {
        let (mut job, mut problem) = match self.read(record) {
            Ok(job) => (Some(job), None),
            Err(reason) => (None, Some(reason)),
        };
        let mut backoff = Backoff::default();
        let id = Uuid::now_v7();
        loop {
            let dead_letter = problem.as_deref().map(|reason| dead_letter(record, reason));
            let submission = submission(JOBS, "job", id, &delta, dead_letter);
            let store = &self.worker.store;
            match store.commit_job_record(&submission, job.as_ref(), &self.events_topic).await {
                Ok(Some(SubmitOutcome::Conflict)) => {
                    let id = job.take().map(|job| job.id).unwrap_or_default();
                    problem = Some(format!("the id `{id}` belongs to another job; give this job an id of its own"));
                }
                Ok(submitted) => {
                    tracing::info!(place = %record.place, job = job.as_ref().map(|job| job.id.as_str()), ?submitted, "a job is stored");
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
                    (job, problem) = (None, Some(error.to_string()));
                }
            }
        }
    }

    /// The pipelines and datasets that jobs may name.
    pub(super) fn names(&self) -> KnownNames {
        KnownNames::new(self.worker.job_pipelines.values().map(|job_pipeline| &job_pipeline.definition), &self.worker.datasets)
    }

    fn read(&self, record: &Record) -> Result<NewJob, String> {
        let payload = record.payload.as_deref().ok_or("the record has no payload; the payload must be a job")?;
        let spec = JobSpec::parse_request(payload, None).map_err(|error| error.0)?;
        let names = self.names();
        let tenant = names.check(&spec).map_err(|error| error.0)?;
        spec.to_new(tenant, self.price_per_device_hour, None).map_err(|error| error.0)
    }

    async fn process_unit(&self, record: &Record, delta: CheckpointDelta, stop: watch::Receiver<bool>) -> RecordEnd {
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
        // Any other record names a unit that has ended, or one that this ledger does not have.
        let mut end = None;
        if let Some(unit) = unit.as_ref().filter(|unit| unit.waits) {
            match self.work_on(unit, stop).await {
                Ok(outcome) => end = outcome.map(|outcome| (unit.id.as_str(), outcome)),
                Err(done) => return done,
            }
        }
        self.commit_unit(end.as_ref().map(|(id, end)| (*id, end)), delta).await
    }

    /// Processes the unit once a permit is free; `None` where another process has ended it.
    async fn work_on(&self, unit: &UnitRow, mut stop: watch::Receiver<bool>) -> Result<Option<UnitOutcome>, RecordEnd> {
        loop {
            let permit = tokio::select! {
                permit = self.unit_permits.acquire() => permit,
                () = stop_requested(&mut stop) => return Err(RecordEnd::Open),
            };
            let exit = self.worker.work(unit, stop.clone()).await;
            drop(permit);
            match exit {
                UnitExit::Ended(outcome) => return Ok(Some(outcome)),
                UnitExit::Open => return Err(RecordEnd::Open),
                UnitExit::Wedged(reason) => return Err(RecordEnd::Wedged(reason)),
                UnitExit::Fenced if self.ends_elsewhere(&unit.id, stop.clone()).await => return Ok(None),
                UnitExit::PipelineStopped if self.resumes(&unit.pipeline, stop.clone()).await => {}
                UnitExit::Fenced | UnitExit::PipelineStopped => return Err(RecordEnd::Open),
            }
        }
    }

    /// Waits until the pipeline may run again; false where the process stops before.
    async fn resumes(&self, pipeline: &str, mut stop: watch::Receiver<bool>) -> bool {
        loop {
            match self.worker.store.pipeline_stop(pipeline).await {
                Ok(None) => return true,
                Ok(Some(_)) => {}
                Err(failure) => self.worker.health.blame(&failure),
            }
            tokio::select! {
                () = sleep(POLL) => {}
                () = stop_requested(&mut stop) => return false,
            }
        }
    }

    /// Waits until the process that claimed the unit has ended it; false where this process stops before. Claiming the unit back
    /// would only take it from a process that works on it.
    async fn ends_elsewhere(&self, unit: &str, mut stop: watch::Receiver<bool>) -> bool {
        loop {
            tokio::select! {
                () = sleep(POLL) => {}
                () = stop_requested(&mut stop) => return false,
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
        let submission = submission(UNITS, "unit", id, &delta, None);
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
    // No id in the ledger contains U+0000, and Postgres refuses a query with it.
    payload.get("unit")?.as_str().filter(|id| !id.contains('\0')).map(str::to_owned)
}

/// The submission of one record, which counts as one ok or one dead.
fn submission(pipeline: &str, task: &str, id: Uuid, delta: &CheckpointDelta, dead_letter: Option<DeadLetterRow>) -> Submission {
    let dead = i32::from(dead_letter.is_some());
    Submission {
        batch: BatchRow { id, pipeline: pipeline.to_owned(), delta: delta.clone(), records: 1, parquet_rows: 0 },
        usage: vec![UsageRow { task: task.to_owned(), ok: 1 - dead, dead, ..UsageRow::default() }],
        documents: Vec::new(),
        results: Vec::new(),
        unchanged: Vec::new(),
        removed: Vec::new(),
        dead_letters: dead_letter.into_iter().collect(),
        events: Vec::new(),
        file: None,
        copy: None,
        tolerance: None,
        leads: None,
    }
}

fn dead_letter(record: &Record, reason: &str) -> DeadLetterRow {
    DeadLetterRow {
        offset: record.place.offset,
        task: String::new(),
        document_id: None,
        class: FailureClass::InvalidJob.as_str(),
        reason: reason.chars().take(REASON_CHARACTERS).collect::<String>().replace('\0', "\u{fffd}"),
        key: record.key.as_ref().map(|key| key.to_vec()),
        payload: record.payload.as_ref().map(|payload| payload.to_vec()),
        header_names: record.headers.iter().map(|header| header.name.clone()).collect(),
        header_values: record.headers.iter().map(|header| header.value.as_ref().map(|value| value.to_vec())).collect(),
        timestamp_ms: record.timestamp_ms,
        attempts: 1,
        replays: 0,
    }
}
