//! The desk: what people and programs ask about jobs, over HTTP or from the command line.
//!
//! It needs the ledger alone. What it changes, the foreman of the running fleet finds there. A desk for one tenant knows of no job but
//! those of the tenant's pipelines, and takes none for others.

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
    /// Whose jobs it knows of; all of them, where there is none.
    tenant: Option<Arc<str>>,
}

/// Why the desk refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobServiceError {
    /// What was asked can never be done.
    #[error("{0}")]
    Invalid(String),
    /// There is no such job.
    #[error("there is no job `{0}`; `tidemill jobs list` shows those that there are")]
    Unknown(String),
    /// The job is not in a state in which it could be done, or its id is taken.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// A job, and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct JobSummary {
    /// Its id.
    pub id: String,
    /// The kind.
    pub kind: String,
    /// The pipeline.
    pub pipeline: String,
    /// The state.
    pub state: JobState,
    /// Why it is in that state, where there is more to say.
    pub reason: Option<String>,
    /// Greater goes first.
    pub priority: i32,
    /// The schedule that asked for it.
    pub schedule: Option<String>,
    /// When it was asked for.
    pub created_at: Option<Timestamp>,
    /// When its first unit could begin.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When it is to stop.
    pub deadline: Option<Timestamp>,
    /// Device time after which it is to stop.
    pub budget_device_seconds: Option<f64>,
    /// Units, rows and what became of them.
    pub progress: JobProgress,
    /// Rows a second: of late while it runs, on average once it has ended.
    pub rows_per_second: Option<f64>,
    /// How long it will still take at that pace.
    pub seconds_left: Option<f64>,
    /// Device time spent.
    pub device_seconds: f64,
    /// What that cost, where an hour has a price.
    pub cost: Option<f64>,
}

/// Everything that is known of a job.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct JobDetails {
    /// The job.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// What was asked for.
    pub spec: Value,
    /// What it found out, where finding out is what it was for.
    pub report: Option<Value>,
    /// Units that failed, the first of them.
    pub faults: Vec<UnitFailure>,
    /// Rows and tasks that could not be done.
    pub dead_letters: JobDeadLetters,
}

/// A unit that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnitFailure {
    /// Its number.
    pub unit: i32,
    /// The file that it reads, where it reads one.
    pub file: Option<String>,
    /// The class of fault.
    pub class: String,
    /// The thing, the place and the mend.
    pub reason: String,
}

/// Dead letters of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobDeadLetters {
    /// How many.
    pub count: i64,
    /// How many of each class, the most frequent first.
    pub classes: Vec<ClassCount>,
    /// The first of them.
    pub first: Vec<JobDeadLetter>,
}

/// Dead letters of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClassCount {
    /// The class.
    pub class: String,
    /// How many.
    pub count: i64,
}

/// A dead letter, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobDeadLetter {
    /// The unit's number.
    pub unit: i32,
    /// The row of the unit's source.
    pub row: i64,
    /// The task, where the row as such is sound.
    pub task: Option<String>,
    /// The document, where the row names one.
    pub document_id: Option<String>,
    /// The class of fault.
    pub class: String,
    /// The thing, the place and the mend.
    pub reason: String,
}

/// Faults and dead letters shown of a job.
const SHOWN: i64 = 20;
/// The most jobs of one list.
pub const MOST_LISTED: i64 = 100;
/// Jobs of a list where nobody says how many.
pub const LISTED: i64 = 20;
/// The span of which "of late" speaks.
const OF_LATE_MS: i64 = 60_000;

impl JobService {
    /// A desk for the ledger, where jobs may name `names`.
    pub fn new(store: Store, config: &JobsConfig, names: KnownNames) -> Self {
        Self { reader: store.reader(None), store, config: config.clone(), names, tenant: None }
    }

    /// The same desk for one tenant; for whoever sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        Self {
            reader: self.reader.of(tenant.name.clone()),
            names: self.names.of(tenant),
            tenant: Some(tenant.name.clone()),
            ..self.clone()
        }
    }

    /// Queues the job. One whose id is known in the same words stays the job that it is.
    ///
    /// # Errors
    /// Where it names what there is not, its id stands for another job, or the ledger is unavailable.
    pub async fn submit(&self, spec: &JobSpec) -> Result<(SubmitOutcome, JobDetails), JobServiceError> {
        let invalid = |error: SpecError| JobServiceError::Invalid(error.0);
        let tenant = self.names.check(spec).map_err(invalid)?;
        if let Some(own) = &self.tenant {
            // What this process believes of pipelines is seconds old, and what a job does cannot be taken back.
            let owners = self.store.tenants().await?;
            if owners.iter().any(|(name, owner)| *name == spec.pipeline && **owner != **own) {
                return Err(JobServiceError::Invalid(format!("no pipeline is named `{}`; there are none", spec.pipeline)));
            }
        }
        let job = spec.to_new(tenant, self.config.price_per_device_hour, None).map_err(invalid)?;
        let submitted = self.store.submit_job(&job, &self.config.events_topic).await?;
        if submitted == SubmitOutcome::Conflict {
            let message = format!("the id `{}` stands for another job; give this one an id of its own", spec.id);
            return Err(JobServiceError::Conflict(message));
        }
        Ok((submitted, self.show(&self.told(job.id)).await?))
    }

    /// The jobs that the filter lets through, the latest first.
    ///
    /// # Errors
    /// Where more are asked for than one list holds, or the ledger is unavailable.
    pub async fn list(&self, filter: &JobFilter) -> Result<Vec<JobSummary>, JobServiceError> {
        if !(1..=MOST_LISTED).contains(&filter.limit) {
            return Err(JobServiceError::Invalid(format!("`limit` is {}; ask for 1 to {MOST_LISTED} jobs", filter.limit)));
        }
        if filter.pipeline.as_deref().is_some_and(|name| name.contains('\0')) {
            return Err(JobServiceError::Invalid("`pipeline` holds U+0000, which no name does; remove it".into()));
        }
        let mut summaries = Vec::new();
        for job in self.reader.jobs(filter).await? {
            summaries.push(self.summary(job).await?);
        }
        Ok(summaries)
    }

    /// Everything that is known of the job.
    ///
    /// # Errors
    /// Where there is none of that id, or the ledger is unavailable.
    pub async fn show(&self, id: &str) -> Result<JobDetails, JobServiceError> {
        let job = self.job(id).await?;
        let faults = self.reader.unit_faults(&job.id, SHOWN).await?.into_iter().map(fault).collect();
        let (classes, first) = self.reader.job_dead_letters(&job, SHOWN).await?;
        let dead_letters = JobDeadLetters {
            count: classes.iter().map(|(_, count)| count).sum(),
            classes: classes.into_iter().map(|(class, count)| ClassCount { class, count }).collect(),
            first: first.into_iter().map(letter).collect(),
        };
        // Whoever wrote it wrote JSON.
        let spec = serde_json::from_str(&job.spec).unwrap_or_else(|_| Value::String(job.spec.clone()));
        let report = job.report.clone();
        Ok(JobDetails { summary: self.summary(job).await?, spec, report, faults, dead_letters })
    }

    /// Calls the job off. One that is called off already stays so.
    ///
    /// # Errors
    /// Where there is none of that id, it has ended, or the ledger is unavailable.
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

    /// Opens an ended job again: units that failed or were stopped are tried anew, finished ones stay finished. It is granted its
    /// budget once more, and a deadline that has passed no longer counts.
    ///
    /// # Errors
    /// Where there is none of that id, there is nothing to try again, or the ledger is unavailable.
    pub async fn retry(&self, id: &str) -> Result<JobDetails, JobServiceError> {
        let job = self.job(id).await?;
        if job.kind == LOCAL_JOB_KIND {
            let message =
                format!("job `{id}` belongs to one process alone; run the same `tidemill backfill` again to go on with it");
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
            JobState::Succeeded => format!("job `{id}` has succeeded; there is nothing to try again"),
            state => format!("job `{id}` is {state}; it can be tried again once it has ended"),
        };
        Err(JobServiceError::Conflict(message))
    }

    async fn job(&self, id: &str) -> Result<JobRow, JobServiceError> {
        let known = match id.contains('\0') {
            // No text of the ledger holds that character, and it would refuse the question.
            true => None,
            false => match self.tenant.as_deref().map(|tenant| job_key(tenant, id)) {
                Some(key) if key != id => match self.reader.job(&key).await? {
                    Some(job) => Some(job),
                    // One that was asked for before its pipeline was this tenant's.
                    None => self.reader.job(id).await?,
                },
                _ => self.reader.job(id).await?,
            },
        };
        known.ok_or_else(|| JobServiceError::Unknown(id.to_owned()))
    }

    /// The id as this desk's callers know it: a tenant's own ids are its alone, and it need not say whose.
    fn told(&self, key: String) -> String {
        let own = self.tenant.as_deref().and_then(|tenant| key.strip_prefix(&job_key(tenant, "")));
        own.map(str::to_owned).unwrap_or(key)
    }

    async fn summary(&self, job: JobRow) -> Result<JobSummary, JobServiceError> {
        let progress = self.reader.job_progress(&job).await?;
        let of_late = if job.state.is_final() { 0 } else { self.reader.rows_last_minute(&job).await? };
        let (rows_per_second, seconds_left) = pace(&job, &progress, of_late, Timestamp::now().as_millisecond());
        let device_seconds = progress.work.device_micros as f64 / 1e6;
        let time = |ms: i64| Timestamp::from_millisecond(ms).ok();
        Ok(JobSummary {
            id: self.told(job.id),
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

/// Rows a second, and the seconds that the rest takes at that pace; nothing where there is no telling.
fn pace(job: &JobRow, progress: &JobProgress, of_late: i64, now_ms: i64) -> (Option<f64>, Option<f64>) {
    let Some(started) = job.started_ms else { return (None, None) };
    if let Some(finished) = job.finished_ms {
        let seconds = (finished - started) as f64 / 1e3;
        return ((seconds > 0.0).then(|| progress.rows_done as f64 / seconds), None);
    }
    let seconds = (now_ms - started).clamp(1, OF_LATE_MS) as f64 / 1e3;
    let rate = of_late as f64 / seconds;
    let left = (progress.rows - progress.rows_done).max(0) as f64;
    (Some(rate), (rate > 0.0).then(|| left / rate))
}

fn fault((unit, source, class, reason): (i32, Value, String, String)) -> UnitFailure {
    let file = match serde_json::from_value(source) {
        Ok(UnitSource::Rows { file, .. }) => Some(file.key),
        _ => None,
    };
    UnitFailure { unit, file, class, reason }
}

fn letter(letter: JobDeadLetterRow) -> JobDeadLetter {
    let JobDeadLetterRow { unit, row, task, document_id, class, reason } = letter;
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
        assert_eq!(pace(&running, &progress, 120, 600_000), (Some(2.0), Some(300.0)));
        assert_eq!(pace(&running, &progress, 120, 30_000), (Some(4.0), Some(150.0)), "it is younger than a minute");
        assert_eq!(pace(&running, &progress, 0, 600_000), (Some(0.0), None), "no telling how long a job takes that stands still");
        let ended = JobRow { finished_ms: Some(200_000), ..running.clone() };
        assert_eq!(pace(&ended, &progress, 0, 900_000), (Some(2.0), None));
        assert_eq!(pace(&JobRow { started_ms: None, ..running }, &progress, 0, 1), (None, None));
    }
}
