//! Submits, lists, shows, cancels and retries jobs, for HTTP and the command line.
//!
//! The service needs only the ledger, from which the coordinator of the running fleet reads the changes. A service for one tenant
//! knows only the jobs of the tenant's pipelines, and accepts jobs only for them.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::names::KnownNames;
use super::source::UnitSource;
use super::spec::{JobSpec, SpecError, job_key};
use crate::access::Tenant;
use crate::config::JobsConfig;
use crate::failure::Transient;
use crate::store::{JobDeadLetterRow, JobFilter, JobProgress, JobRow, JobState, LOCAL_JOB_KIND, Reader, Store, SubmitOutcome};

/// Answers for the jobs of one ledger. Clones share it.
#[derive(Debug, Clone)]
pub struct JobService {
    store: Store,
    reader: Reader,
    config: JobsConfig,
    names: KnownNames,
    /// The tenant whose jobs it serves; absent where it serves all.
    tenant: Option<Arc<str>>,
}

/// Why a request about jobs is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobServiceError {
    /// The request is wrong as it is.
    #[error("{0}")]
    Invalid(String),
    #[error("there is no job `{0}`; `tidemill jobs list` shows the jobs")]
    Unknown(String),
    /// The state of the job does not allow it, or the id is taken.
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

// The names in the API document are older than the names here, and stay.

/// A job and its progress.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Summary)]
pub struct JobSummary {
    pub id: String,
    pub kind: String,
    pub pipeline: String,
    pub state: JobState,
    /// Why it is in this state, where there is a reason.
    pub reason: Option<String>,
    /// Jobs with a greater priority run first.
    pub priority: i32,
    /// The schedule that submitted it.
    pub schedule: Option<String>,
    /// When it was submitted.
    pub created_at: Option<Timestamp>,
    /// When its first unit could start.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// When it stops at the latest.
    pub deadline: Option<Timestamp>,
    /// The device time after which it stops.
    pub budget_device_seconds: Option<f64>,
    /// Counts of units, of rows and of their outcomes.
    pub progress: JobProgress,
    /// Rows a second: over the last minute while it runs, on average once it has ended.
    pub rows_per_second: Option<f64>,
    /// How long the rest takes at this rate.
    pub seconds_left: Option<f64>,
    /// Device time spent so far.
    pub device_seconds: f64,
    /// The cost of that device time, where an hour has a price.
    pub cost: Option<f64>,
}

/// A job with its specification, report, failed units and dead letters.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Details)]
pub struct JobDetails {
    #[serde(flatten)]
    pub summary: JobSummary,
    /// The job as it was submitted.
    pub spec: Value,
    /// The result of an evaluation.
    pub report: Option<Value>,
    /// The first units that failed.
    pub faults: Vec<UnitFailure>,
    /// Rows and tasks that failed.
    pub dead_letters: JobDeadLetters,
}

/// A unit that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Fault)]
pub struct UnitFailure {
    /// The unit's number.
    pub unit: i32,
    /// The file that it reads, if it reads one.
    pub file: Option<String>,
    /// The class of failure.
    pub class: String,
    /// What is wrong, where, and how to fix it.
    pub reason: String,
}

/// The dead letters of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Letters)]
pub struct JobDeadLetters {
    pub count: i64,
    /// The number of each class, the most frequent class first.
    pub classes: Vec<ClassCount>,
    /// The first dead letters.
    pub first: Vec<JobDeadLetter>,
}

/// The number of dead letters of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClassCount {
    pub class: String,
    pub count: i64,
}

/// A dead letter without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Letter)]
pub struct JobDeadLetter {
    /// The unit's number.
    pub unit: i32,
    /// The row within the unit's source.
    pub row: i64,
    /// The task; absent where the row itself is invalid.
    pub task: Option<String>,
    /// The document, where the row names one.
    pub document_id: Option<String>,
    /// The class of failure.
    pub class: String,
    /// What is wrong, where, and how to fix it.
    pub reason: String,
}

/// Failed units and dead letters that are shown of a job.
const SHOWN: i64 = 20;
/// The most jobs of one list.
pub const MOST_LISTED: i64 = 100;
/// The default number of jobs of a list.
pub const LISTED: i64 = 20;
/// The span over which the rate of a running job is measured.
const RATE_SPAN_MS: i64 = 60_000;

impl JobService {
    /// A service for the ledger whose jobs may name `names`.
    pub fn new(store: Store, config: &JobsConfig, names: KnownNames) -> Self {
        Self { reader: store.reader(None), store, config: config.clone(), names, tenant: None }
    }

    /// The same service for one tenant, or for all tenants where `tenant` is absent.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        Self {
            reader: self.reader.of(tenant.name.clone()),
            names: self.names.of(tenant),
            tenant: Some(tenant.name.clone()),
            ..self.clone()
        }
    }

    /// Queues the job. Submitting an equal job with the same id again changes nothing.
    ///
    /// # Errors
    /// Where the job names something that does not exist, or its id belongs to another job.
    pub async fn submit(&self, spec: &JobSpec) -> Result<(SubmitOutcome, JobDetails), JobServiceError> {
        let invalid = |error: SpecError| JobServiceError::Invalid(error.0);
        let tenant = self.names.check(spec).map_err(invalid)?;
        if let Some(own) = &self.tenant {
            // What this process knows of owners may be seconds old, and the effects of a job cannot be undone.
            let owners = self.store.tenants().await?;
            if owners.iter().any(|(name, owner)| *name == spec.pipeline && **owner != **own) {
                return Err(JobServiceError::Invalid(format!("no pipeline is named `{}`; there are none", spec.pipeline)));
            }
        }
        let job = spec.to_new(tenant, self.config.price_per_device_hour, None).map_err(invalid)?;
        let submitted = self.store.submit_job(&job, &self.config.events_topic).await?;
        if submitted == SubmitOutcome::Conflict {
            let message = format!("the id `{}` belongs to another job; give this job an id of its own", spec.id);
            return Err(JobServiceError::Conflict(message));
        }
        Ok((submitted, self.show(&self.caller_id(job.id)).await?))
    }

    /// The jobs that match the filter, the latest first.
    ///
    /// # Errors
    /// Where the limit is more than one list may hold.
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, JobServiceError> {
        if !(1..=MOST_LISTED).contains(&filter.limit) {
            return Err(JobServiceError::Invalid(format!("`limit` is {}; ask for 1 to {MOST_LISTED} jobs", filter.limit)));
        }
        if filter.pipeline.as_deref().is_some_and(|name| name.contains('\0')) {
            return Err(JobServiceError::Invalid("`pipeline` contains U+0000, which no name does; remove it".into()));
        }
        let mut summaries = Vec::new();
        for job in self.reader.jobs(filter).await? {
            summaries.push(self.summary(job).await?);
        }
        Ok(summaries)
    }

    /// The job with all its details.
    ///
    /// # Errors
    /// Where there is no such job.
    pub async fn show(&self, id: &str) -> Result<JobDetails, JobServiceError> {
        let job = self.job(id).await?;
        let faults = self.reader.unit_faults(&job.id, SHOWN).await?;
        let faults = faults.into_iter().map(|(unit, source, class, reason)| failure(unit, source, class, reason)).collect();
        let (classes, first) = self.reader.job_dead_letters(&job, SHOWN).await?;
        let dead_letters = JobDeadLetters {
            count: classes.iter().map(|(_, count)| count).sum(),
            classes: classes.into_iter().map(|(class, count)| ClassCount { class, count }).collect(),
            first: first.into_iter().map(dead_letter).collect(),
        };
        // Every process writes JSON here; should it ever be something else, it is shown as text.
        let spec = serde_json::from_str(&job.spec).unwrap_or_else(|_| Value::String(job.spec.clone()));
        let report = job.report.clone();
        Ok(JobDetails { summary: self.summary(job).await?, spec, report, faults, dead_letters })
    }

    /// Cancels the job. Cancelling a cancelled job changes nothing.
    ///
    /// # Errors
    /// Where there is no such job, or it has ended.
    pub async fn cancel(&self, id: &str) -> Result<JobDetails, JobServiceError> {
        let key = self.job(id).await?.id;
        let moved = self.store.cancel_job(&key, &self.config.events_topic).await?;
        let details = self.show(id).await?;
        match details.summary.state {
            _ if moved => Ok(details),
            JobState::Cancelling | JobState::Cancelled => Ok(details),
            state => Err(JobServiceError::Conflict(format!("job `{id}` has ended as {state}; there is nothing left to cancel"))),
        }
    }

    /// Reopens an ended job: units that failed or were stopped are tried again, finished units stay finished. The job gets its
    /// budget once more, and a deadline that has passed no longer applies.
    ///
    /// # Errors
    /// Where there is no such job, or nothing to try again.
    pub async fn retry(&self, id: &str) -> Result<JobDetails, JobServiceError> {
        let job = self.job(id).await?;
        if job.kind == LOCAL_JOB_KIND {
            let message =
                format!("job `{id}` is a local backfill; run the same `tidemill backfill` command again to continue it");
            return Err(JobServiceError::Conflict(message));
        }
        let invalid = |error: SpecError| JobServiceError::Invalid(error.0);
        let spec = JobSpec::parse(job.spec.as_bytes(), None).map_err(invalid)?;
        let budget = spec.budget_micros(self.config.price_per_device_hour).map_err(invalid)?;
        let (units, events) = (&self.config.units_topic, &self.config.events_topic);
        if self.store.retry_job(&job.id, budget, units, events).await? {
            return self.show(id).await;
        }
        let message = match self.job(id).await?.state {
            JobState::Succeeded => format!("job `{id}` has succeeded; there is nothing to retry"),
            state => format!("job `{id}` is {state}; it can be retried once it has ended"),
        };
        Err(JobServiceError::Conflict(message))
    }

    async fn job(&self, id: &str) -> Result<JobRow, JobServiceError> {
        let known = match id.contains('\0') {
            // No id in the ledger contains U+0000, and Postgres refuses a query with it.
            true => None,
            false => match self.tenant.as_deref().map(|tenant| job_key(tenant, id)) {
                Some(key) if key != id => match self.reader.job(&key).await? {
                    Some(job) => Some(job),
                    // A job that was submitted before its pipeline belonged to this tenant.
                    None => self.reader.job(id).await?,
                },
                _ => self.reader.job(id).await?,
            },
        };
        known.ok_or_else(|| JobServiceError::Unknown(id.to_owned()))
    }

    /// The id as callers of this service write it: a tenant's own ids are written without the tenant.
    fn caller_id(&self, key: String) -> String {
        let own = self.tenant.as_deref().and_then(|tenant| key.strip_prefix(&job_key(tenant, "")));
        own.map(str::to_owned).unwrap_or(key)
    }

    async fn summary(&self, job: JobRow) -> Result<JobSummary, JobServiceError> {
        let progress = self.reader.job_progress(&job).await?;
        let last_minute = if job.state.is_final() { 0 } else { self.reader.rows_last_minute(&job).await? };
        let (rows_per_second, seconds_left) = rate(&job, &progress, last_minute, Timestamp::now().as_millisecond());
        let device_seconds = progress.work.device_micros as f64 / 1e6;
        let time = |ms: i64| Timestamp::from_millisecond(ms).ok();
        Ok(JobSummary {
            id: self.caller_id(job.id),
            kind: job.kind,
            pipeline: job.pipeline,
            state: job.state,
            reason: job.reason,
            priority: job.priority,
            schedule: job.schedule,
            created_at: time(job.created_ms),
            started_at: job.started_ms.and_then(time),
            finished_at: job.finished_ms.and_then(time),
            deadline: job.deadline_ms.and_then(time),
            budget_device_seconds: job.budget_micros.map(|micros| micros as f64 / 1e6),
            progress,
            rows_per_second,
            seconds_left,
            device_seconds,
            cost: self.config.price_per_device_hour.map(|price| device_seconds / 3600.0 * price),
        })
    }
}

/// Rows a second, and the seconds that the rest takes at this rate, as far as they are known.
fn rate(job: &JobRow, progress: &JobProgress, last_minute: i64, now_ms: i64) -> (Option<f64>, Option<f64>) {
    let Some(started) = job.started_ms else { return (None, None) };
    if let Some(finished) = job.finished_ms {
        let seconds = (finished - started) as f64 / 1e3;
        return ((seconds > 0.0).then(|| progress.rows_done as f64 / seconds), None);
    }
    let seconds = (now_ms - started).clamp(1, RATE_SPAN_MS) as f64 / 1e3;
    let rate = last_minute as f64 / seconds;
    let left = (progress.rows - progress.rows_done).max(0) as f64;
    (Some(rate), (rate > 0.0).then(|| left / rate))
}

fn failure(unit: i32, source: Value, class: String, reason: String) -> UnitFailure {
    let file = match serde_json::from_value(source) {
        Ok(UnitSource::Rows { file, .. }) => Some(file.key),
        _ => None,
    };
    UnitFailure { unit, file, class, reason }
}

fn dead_letter(row: JobDeadLetterRow) -> JobDeadLetter {
    let JobDeadLetterRow { unit, row, task, document_id, class, reason } = row;
    JobDeadLetter { unit, row, task: Some(task).filter(|task| !task.is_empty()), document_id, class, reason }
}

#[cfg(test)]
mod tests {
    use super::super::coordinator::running_job;
    use super::*;

    #[test]
    fn the_pace_is_that_of_the_last_minute_while_a_job_runs_and_the_whole_once_it_has_ended() {
        let running = running_job(None, None);
        let progress = JobProgress { rows: 1_000, rows_done: 400, ..JobProgress::default() };
        assert_eq!(rate(&running, &progress, 120, 600_000), (Some(2.0), Some(300.0)));
        assert_eq!(rate(&running, &progress, 120, 30_000), (Some(4.0), Some(150.0)), "it is younger than a minute");
        assert_eq!(rate(&running, &progress, 0, 600_000), (Some(0.0), None), "unknown while no row is processed");
        let ended = JobRow { finished_ms: Some(200_000), ..running.clone() };
        assert_eq!(rate(&ended, &progress, 0, 900_000), (Some(2.0), None));
        assert_eq!(rate(&JobRow { started_ms: None, ..running }, &progress, 0, 1), (None, None));
    }
}
