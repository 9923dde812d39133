//! Moves jobs from state to state: starts queued jobs, plans their units, enforces limits, ends finished jobs, and fires schedules.
//!
//! One process of a fleet holds the coordinator lease at a time. If it dies, another process takes the lease and continues from the
//! state in the ledger.

mod schedules;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::evaluate;
use super::plan::{PlanError, Planner};
use super::schedules::Schedule;
use super::spec::{JobKind, JobSpec};
use super::topics::JobTopics;
use crate::config::JobsConfig;
use crate::failure::Transient;
use crate::metrics::METRICS;
use crate::source::Archive;
use crate::store::{JobProgress, JobRow, JobState, LOCAL_JOB_KIND};

/// Moves jobs from state to state.
pub struct JobCoordinator {
    /// Has the ledger, the pipelines and the datasets.
    pub topics: Arc<JobTopics>,
    pub config: JobsConfig,
    /// Whether units are published to their topic; otherwise their processor reads them from the ledger.
    pub publishes_units: bool,
    pub schedules: Vec<Schedule>,
}

/// How often the coordinator looks at the jobs.
const POLL: Duration = Duration::from_millis(500);
/// How often another process tries to take the lease.
const STANDBY: Duration = Duration::from_secs(2);

impl JobCoordinator {
    /// Runs until dropped. Of all processes on one ledger, only the one with the lease moves jobs.
    pub async fn run(self) {
        loop {
            match self.topics.worker.store.coordinator_lease().await {
                Ok(Some(mut lease)) => loop {
                    let round = async {
                        lease.check().await?;
                        self.run_once().await
                    };
                    if let Err(failure) = round.await {
                        self.topics.worker.health.blame(&failure);
                        break;
                    }
                    sleep(POLL).await;
                },
                Ok(None) => sleep(STANDBY).await,
                // The pipelines report a database that is unavailable.
                Err(_) => sleep(STANDBY).await,
            }
        }
    }

    /// Moves every open job as far as possible without waiting.
    ///
    /// # Errors
    /// Where the ledger is unavailable.
    pub async fn run_once(&self) -> Result<(), Transient> {
        self.run_once_at(Timestamp::now()).await
    }

    /// [`JobCoordinator::run_once`] at a given time.
    ///
    /// # Errors
    /// As [`JobCoordinator::run_once`].
    pub async fn run_once_at(&self, now: Timestamp) -> Result<(), Transient> {
        let mut jobs = self.topics.worker.store.open_jobs().await?;
        // A local backfill is moved by its own process.
        jobs.retain(|job| job.kind != LOCAL_JOB_KIND);
        self.fire_schedules(now, &jobs).await;
        for state in JobState::ALL {
            let count = jobs.iter().filter(|job| job.state == state).count();
            METRICS.jobs.with_label_values(&[state.as_str()]).set(count as i64);
        }
        let mut running = jobs.iter().filter(|job| job.state == JobState::Running).count();
        let mut under_way: BTreeSet<&str> =
            jobs.iter().filter(|job| job.state != JobState::Queued).filter_map(|job| job.schedule.as_deref()).collect();
        let mut unavailable = None;
        for job in &jobs {
            let starts = match job.state {
                // Of the jobs of one schedule, one runs at a time.
                JobState::Queued if job.schedule.as_deref().is_some_and(|schedule| under_way.contains(schedule)) => Ok(false),
                JobState::Queued if running < self.config.jobs_at_a_time => {
                    under_way.extend(job.schedule.as_deref());
                    self.start(job).await
                }
                // An earlier coordinator ended while it planned the job.
                JobState::Planning => self.plan(job).await,
                JobState::Running => self.check_running(job).await.map(|()| false),
                JobState::Cancelling => self.end_cancelled(job).await.map(|()| false),
                _ => Ok(false),
            };
            match starts {
                Ok(starts) => running += usize::from(starts),
                Err(failure) => unavailable = unavailable.or(self.handle_failure(job, failure).await?),
            }
        }
        unavailable.map_or(Ok(()), Err)
    }

    /// Handles the failure of one job, so that the others go on. A value that the ledger refuses ends the job; anything else is
    /// retried in the next round.
    ///
    /// # Errors
    /// Where the ledger is unavailable, so that no other job can be moved either.
    async fn handle_failure(&self, job: &JobRow, failure: Transient) -> Result<Option<Transient>, Transient> {
        if failure.is_refusal {
            let reason = format!("the database refuses a value of the job: {}", failure.reason);
            self.set_state(job, &JobState::OPEN, (JobState::Failed, Some(&reason))).await?;
            return Ok(None);
        }
        self.topics.worker.store.ping().await?;
        tracing::warn!(job = job.id, reason = failure.to_string(), "the job is retried later");
        Ok(Some(failure))
    }

    async fn start(&self, job: &JobRow) -> Result<bool, Transient> {
        let now = jiff::Timestamp::now().as_millisecond();
        if job.deadline_ms.is_some_and(|deadline| deadline <= now) {
            return self.fail(job, JobState::Queued, "its deadline passed before it could start").await;
        }
        let moved = self.set_state(job, &[JobState::Queued], (JobState::Planning, None)).await?;
        if moved { self.plan(job).await } else { Ok(false) }
    }

    async fn plan(&self, job: &JobRow) -> Result<bool, Transient> {
        let worker = &self.topics.worker;
        let refuse = |reason: String| async move { self.fail(job, JobState::Planning, &reason).await };
        let spec = match JobSpec::parse(job.spec.as_bytes(), None) {
            Ok(spec) => JobSpec { id: job.id.clone(), ..spec },
            Err(error) => return refuse(error.to_string()).await,
        };
        let Some(job_pipeline) = worker.job_pipelines.get(spec.pipeline.as_str()) else {
            return refuse(format!("no pipeline is named `{}`", spec.pipeline)).await;
        };
        let dataset = spec.kind.rows().and_then(|rows| Some((&rows.dataset, worker.datasets.get(&rows.dataset)?)));
        let archive = match dataset.map(|(name, config)| Archive::open(name, config)).transpose() {
            Ok(archive) => archive,
            Err(error) => return refuse(error.to_string()).await,
        };
        let planner = Planner {
            store: &worker.store,
            job_pipeline,
            archive: archive.as_ref(),
            unit_seconds: self.config.unit_seconds,
            created_ms: job.created_ms,
        };
        match planner.units(&spec).await {
            Ok(units) => {
                tracing::info!(job = job.id, units = units.len(), "planned");
                let topic = self.publishes_units.then_some(self.config.units_topic.as_str());
                worker.store.plan_job(job, &units, topic, &self.config.events_topic).await
            }
            Err(PlanError::Refused(reason)) => refuse(reason).await,
            Err(PlanError::Unavailable(failure)) => Err(failure),
        }
    }

    /// Ends a job whose units have all ended, and stops a job that has reached a limit.
    async fn check_running(&self, job: &JobRow) -> Result<(), Transient> {
        let store = &self.topics.worker.store;
        if !store.has_waiting_units(&job.id).await? {
            let (mut state, mut reason) = ending(job, &store.job_progress(job).await?);
            let reports = store.unit_reports(&job.id).await?;
            if !reports.is_empty() {
                let counts = evaluate::sum(reports);
                store.report_job(&job.id, &counts.report()).await?;
                if let Some(empty) = JobSpec::parse(job.spec.as_bytes(), None).ok().and_then(|spec| emptiness(&spec, &counts)) {
                    (state, reason) = (JobState::Failed, Some(empty));
                }
            }
            self.set_state(job, &[JobState::Running], (state, reason.as_deref())).await?;
            return Ok(());
        }
        // Adding up the device time takes longer the longer a job runs, so it is done only for jobs with a budget.
        let spent = match job.budget_micros {
            Some(_) => store.job_progress(job).await?.work.device_micros,
            None => 0,
        };
        if let Some(reason) = limit_reached(job, spent, jiff::Timestamp::now().as_millisecond())
            && store.stop_job(&job.id, &reason, &self.config.events_topic).await?
        {
            tracing::info!(job = job.id, reason, "the job stops");
        }
        Ok(())
    }

    async fn end_cancelled(&self, job: &JobRow) -> Result<(), Transient> {
        if !self.topics.worker.store.has_waiting_units(&job.id).await? {
            self.set_state(job, &[JobState::Cancelling], (JobState::Cancelled, None)).await?;
        }
        Ok(())
    }

    async fn fail(&self, job: &JobRow, from: JobState, reason: &str) -> Result<bool, Transient> {
        self.set_state(job, &[from], (JobState::Failed, Some(reason))).await.map(|_| false)
    }

    async fn set_state(&self, job: &JobRow, from: &[JobState], to: (JobState, Option<&str>)) -> Result<bool, Transient> {
        // A reason may quote a value, and Postgres cannot store U+0000.
        let reason = to.1.map(|reason| reason.replace('\0', "\u{fffd}"));
        let to = (to.0, reason.as_deref());
        let moved = self.topics.worker.store.move_job(&job.id, from, to.0, to.1, &self.config.events_topic).await?;
        if moved {
            tracing::info!(job = job.id, state = %to.0, reason = to.1, "job");
        }
        Ok(moved)
    }
}

/// The final state of a job whose units have all ended, and the reason for it.
pub(super) fn ending(job: &JobRow, progress: &JobProgress) -> (JobState, Option<String>) {
    let JobProgress { units, units_done, units_failed, units_stopped, rows, rows_done, .. } = *progress;
    if units == units_done {
        let empty = (units == 0).then(|| "there was nothing to do".to_owned());
        return (JobState::Succeeded, empty);
    }
    if units == units_failed {
        return (JobState::Failed, Some(format!("all of its {units} units failed; `tidemill jobs show` shows why")));
    }
    let mut parts: Vec<String> = job.reason.clone().into_iter().collect();
    if units_failed > 0 {
        parts.push(format!("{units_failed} of {units} units failed"));
    }
    if units_stopped > 0 {
        parts.push(format!("{units_stopped} of {units} units are left to do, with about {} rows", (rows - rows_done).max(0)));
    }
    (JobState::Partial, Some(parts.join("; ")))
}

/// Why an evaluation has no meaning, if it has none.
fn emptiness(spec: &JobSpec, counts: &evaluate::EvaluationCounts) -> Option<String> {
    match &spec.kind {
        JobKind::Evaluate { expected, .. } => counts.emptiness(expected),
        _ => None,
    }
}

/// The limit that the job has reached, if it has.
fn limit_reached(job: &JobRow, spent_micros: i64, now_ms: i64) -> Option<String> {
    if job.deadline_ms.is_some_and(|deadline| deadline <= now_ms) {
        return Some("its deadline has passed".into());
    }
    let budget = job.budget_micros.filter(|budget| spent_micros >= *budget)?;
    Some(format!("its budget of {:?} of device time is spent", Duration::from_micros(budget.unsigned_abs())))
}

/// A running job for tests, which started at the Unix epoch.
#[cfg(test)]
pub(super) fn running_job(deadline_ms: Option<i64>, budget_micros: Option<i64>) -> JobRow {
    JobRow {
        id: "j".into(),
        kind: "backfill".into(),
        pipeline: "p".into(),
        spec: "{}".into(),
        state: JobState::Running,
        reason: None,
        priority: 0,
        deadline_ms,
        budget_micros,
        schedule: None,
        stopping: false,
        report: None,
        created_ms: 0,
        started_ms: Some(0),
        finished_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_ends_as_its_units_did() {
        let progress = |done, failed, stopped| JobProgress {
            units: done + failed + stopped,
            units_done: done,
            units_failed: failed,
            units_stopped: stopped,
            rows: 100,
            rows_done: 60,
            ..JobProgress::default()
        };
        let job = running_job(None, None);
        assert_eq!(ending(&job, &progress(3, 0, 0)), (JobState::Succeeded, None));
        assert_eq!(ending(&job, &progress(0, 0, 0)).0, JobState::Succeeded);
        assert_eq!(ending(&job, &progress(0, 2, 0)).0, JobState::Failed);
        assert_eq!(ending(&job, &progress(1, 1, 0)), (JobState::Partial, Some("1 of 2 units failed".into())));
        let (state, reason) = ending(&JobRow { reason: Some("its deadline has passed".into()), ..job }, &progress(1, 0, 2));
        assert_eq!(state, JobState::Partial);
        assert_eq!(reason.as_deref(), Some("its deadline has passed; 2 of 3 units are left to do, with about 40 rows"));
    }

    #[test]
    fn limits_are_reached_and_not_before() {
        assert_eq!(limit_reached(&running_job(Some(10), Some(1_000_001)), 1_000_000, 9), None);
        assert!(limit_reached(&running_job(Some(10), None), 0, 10).unwrap().contains("deadline"));
        assert!(limit_reached(&running_job(None, Some(1_000_000)), 1_000_000, 0).unwrap().contains("budget of 1s of"));
    }
}
