//! The foreman and the schedules: at every look, each time that has come is decided and written.

use jiff::Timestamp;

use super::Schedule;
use super::decision::{FiringAction, FiringDecision, decide};
use crate::failure::Transient;
use crate::jobs::coordinator::JobCoordinator;
use crate::metrics::METRICS;
use crate::store::{Firing, FiringBatch, FiringOutcome, JobRow, NewJob, StoredSchedule};

impl JobCoordinator {
    /// Decides every time that has come by `now`; `jobs` are those that have not ended. A schedule that is at fault stands in the
    /// way of no other.
    pub(in crate::jobs) async fn keep_schedules(&self, now: Timestamp, jobs: &[JobRow]) {
        if self.schedules.is_empty() {
            return;
        }
        let kept = async {
            let known = self.topics.worker.store.known_schedules().await?;
            for schedule in self.schedules.iter() {
                self.keep(schedule, &known, now, jobs).await?;
            }
            Ok::<_, Transient>(())
        };
        if let Err(failure) = kept.await {
            tracing::warn!(%failure, "schedules are put off");
            self.topics.worker.health.blame(&failure);
        }
    }

    async fn keep(
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
                Ok(asked) => (cancel, job) = (open.clone(), Some(asked)),
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
        let written = store.decide_firings(&firings, &self.config.events_topic).await?;
        tell(schedule, &written);
        Ok(())
    }

    /// The job, as this process would take it in from its topic.
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

/// One line for each time, save that what was missed in a long absence is one.
fn tell(schedule: &Schedule, written: &[Firing]) {
    let shown = |firing: &Firing| Timestamp::from_millisecond(firing.time_ms).map(|time| time.to_string()).unwrap_or_default();
    let schedule = schedule.id.as_str();
    for firing in written {
        METRICS.schedule_firings.with_label_values(&[schedule, firing.outcome.as_str()]).inc();
        let (time, outcome, reason) = (shown(firing), firing.outcome.as_str(), firing.reason.as_deref());
        match firing.outcome {
            FiringOutcome::Missed => {}
            FiringOutcome::Refused => tracing::warn!(schedule, time, reason, "a time of a schedule is refused its job"),
            FiringOutcome::Fired | FiringOutcome::Skipped => {
                tracing::info!(schedule, time, outcome, reason, "a time of a schedule");
            }
        }
    }
    let missed: Vec<&Firing> = written.iter().filter(|firing| firing.outcome == FiringOutcome::Missed).collect();
    if let [first, ..] = missed[..] {
        tracing::warn!(schedule, times = missed.len(), first = shown(first), "times of a schedule were missed");
    }
}
