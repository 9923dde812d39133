//! Fires schedules: in every round of the coordinator, each time that has come is decided and stored.

use jiff::Timestamp;

use super::JobCoordinator;
use crate::failure::Transient;
use crate::jobs::schedules::Schedule;
use crate::jobs::schedules::decision::{FiringAction, FiringDecision, decide};
use crate::metrics::METRICS;
use crate::store::{Firing, FiringBatch, FiringOutcome, JobRow, NewJob, StoredSchedule};

impl JobCoordinator {
    /// Decides every time that has come by `now`. `jobs` are the jobs that have not ended.
    pub(super) async fn fire_schedules(&self, now: Timestamp, jobs: &[JobRow]) {
        if self.schedules.is_empty() {
            return;
        }
        let fired = async {
            let known = self.topics.worker.store.known_schedules().await?;
            for schedule in self.schedules.iter() {
                self.fire(schedule, &known, now, jobs).await?;
            }
            Ok::<_, Transient>(())
        };
        if let Err(failure) = fired.await {
            tracing::warn!(%failure, "schedules are decided later");
            self.topics.worker.health.blame(&failure);
        }
    }

    async fn fire(
        &self,
        schedule: &Schedule,
        known: &[StoredSchedule],
        now: Timestamp,
        jobs: &[JobRow],
    ) -> Result<(), Transient> {
        let (store, timing) = (&self.topics.worker.store, schedule.timing());
        let remembered = known.iter().find(|known| known.name == schedule.id && known.timing == timing);
        let decided_to = remembered.and_then(|known| Timestamp::from_millisecond(known.decided_to_ms).ok());
        let Some(decided_to) = decided_to else {
            tracing::info!(schedule = schedule.id, cron = schedule.cron, enabled = schedule.enabled, "a new schedule");
            return store.remember_schedule(&schedule.id, &timing, now.as_millisecond()).await;
        };
        if !schedule.enabled {
            return Ok(());
        }
        let open = jobs.iter().filter(|job| job.schedule.as_deref() == Some(schedule.id.as_str()));
        let open: Vec<&str> = open.map(|job| job.id.as_str()).collect();
        let decisions = decide(schedule, decided_to, now, &open);
        let Some(last) = decisions.last() else { return Ok(()) };
        let (mut cancel, mut job) = (Vec::new(), None);
        let mut times: Vec<Firing> = decisions.iter().map(firing).collect();
        if let (FiringAction::Fire { cancel: open }, Some(fired)) = (&last.action, times.last_mut()) {
            match self.job_of(schedule, last.time) {
                Ok(new_job) => (cancel, job) = (open.clone(), Some(new_job)),
                Err(reason) => (fired.outcome, fired.reason) = (FiringOutcome::Refused, Some(reason)),
            }
        }
        let firings = FiringBatch {
            schedule: &schedule.id,
            timing: &timing,
            by: &self.topics.worker.owner,
            times: &times,
            job: job.as_ref(),
            cancel: &cancel,
        };
        let stored = store.decide_firings(&firings, &self.config.events_topic).await?;
        report(schedule, &stored);
        Ok(())
    }

    /// The job of the time, checked as if it had arrived on the jobs topic.
    fn job_of(&self, schedule: &Schedule, time: Timestamp) -> Result<NewJob, String> {
        let job = schedule.job_at(time)?;
        let names = self.topics.names();
        let tenant = names.check(&job).map_err(|error| error.0)?;
        job.to_new(tenant, self.topics.price_per_device_hour, Some(&schedule.id)).map_err(|error| error.0)
    }
}

fn firing(decision: &FiringDecision) -> Firing {
    let (outcome, reason) = match &decision.action {
        FiringAction::Fire { .. } => (FiringOutcome::Fired, None),
        FiringAction::Skip(reason) => (FiringOutcome::Skipped, Some(reason.clone())),
        FiringAction::Miss(reason) => (FiringOutcome::Missed, Some(reason.clone())),
    };
    Firing { time_ms: decision.time.as_millisecond(), outcome, reason }
}

/// Counts every firing, and logs one line for each, but a single line for all missed times.
fn report(schedule: &Schedule, stored: &[Firing]) {
    let shown = |firing: &Firing| Timestamp::from_millisecond(firing.time_ms).map(|time| time.to_string()).unwrap_or_default();
    let schedule = schedule.id.as_str();
    for firing in stored {
        METRICS.schedule_firings.with_label_values(&[schedule, firing.outcome.as_str()]).inc();
        let (time, outcome, reason) = (shown(firing), firing.outcome.as_str(), firing.reason.as_deref());
        match firing.outcome {
            FiringOutcome::Missed => {}
            FiringOutcome::Refused => tracing::warn!(schedule, time, reason, "the job of a schedule is refused"),
            FiringOutcome::Fired | FiringOutcome::Skipped => {
                tracing::info!(schedule, time, outcome, reason, "a schedule was due");
            }
        }
    }
    let missed: Vec<&Firing> = stored.iter().filter(|firing| firing.outcome == FiringOutcome::Missed).collect();
    if let [first, ..] = missed[..] {
        tracing::warn!(schedule, times = missed.len(), first = shown(first), "a schedule missed times");
    }
}
