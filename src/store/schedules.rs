//! Schedules and their firings. Each time of a schedule is decided once: one transaction moves the schedule's row forward, inserts
//! the firing and queues its job. So only one job is queued, even if two processes act as coordinator for a moment.

use sqlx::PgConnection;

use super::jobs::{cancel, submit};
use super::{JobState, NewJob, Store, SubmitOutcome, WithDeadline, unavailable};
use tidemill_base::failure::Transient;

/// The outcome of a time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiringOutcome {
    /// Its job was submitted.
    Fired,
    /// The schedule's overlap policy skipped it.
    Skipped,
    /// No coordinator was running in time.
    Missed,
    /// Its job was refused.
    Refused,
}

impl FiringOutcome {
    /// The name in tables, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Refused => "refused",
        }
    }
}

/// A time of a schedule with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The time in Unix milliseconds.
    pub time_ms: i64,
    pub outcome: FiringOutcome,
    /// Why the outcome is not `Fired`.
    pub reason: Option<String>,
}

/// Times of one schedule that are decided together.
#[derive(Debug, Clone, Copy)]
pub struct FiringBatch<'a> {
    pub schedule: &'a str,
    /// A hash of the settings that decide the schedule's times.
    pub timing: &'a str,
    /// The process that decides.
    pub by: &'a str,
    /// The times, the earliest first.
    pub times: &'a [Firing],
    /// The job of the last time.
    pub job: Option<&'a NewJob>,
    /// Jobs that are cancelled for the new one.
    pub cancel: &'a [String],
}

/// A row of `schedules`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchedule {
    pub name: String,
    /// A hash of the settings that decide the schedule's times.
    pub timing: String,
    /// Every time up to this one is decided, in Unix milliseconds.
    pub decided_to_ms: i64,
}

/// The last time of a schedule that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFiring {
    pub schedule: String,
    /// The time in Unix milliseconds.
    pub time_ms: i64,
    /// `fired`, `skipped`, `missed` or `refused`.
    pub outcome: String,
    /// Why it was not fired.
    pub reason: Option<String>,
    pub job_id: Option<String>,
    /// The state of the job.
    pub job_state: Option<String>,
}

impl Store {
    /// Every stored schedule, in no particular order.
    pub async fn known_schedules(&self) -> Result<Vec<StoredSchedule>, Transient> {
        sqlx::query_as!(
            StoredSchedule,
            r#"SELECT name, timing, (extract(epoch FROM decided_to) * 1000)::bigint AS "decided_to_ms!" FROM schedules"#
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Stores a schedule that is new or whose times have changed. Times up to `now_ms` are not fired.
    pub async fn remember_schedule(&self, name: &str, timing: &str, now_ms: i64) -> Result<(), Transient> {
        sqlx::query!(
            "INSERT INTO schedules (name, timing, since, decided_to)
             SELECT $1, $2, now, now FROM to_timestamp($3::double precision / 1000) AS now
             ON CONFLICT (name) DO UPDATE SET timing = excluded.timing, since = excluded.since, decided_to = excluded.decided_to
             WHERE schedules.timing <> excluded.timing",
            name,
            timing,
            now_ms as f64
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Stores the outcomes of the times, and submits the job of the last one if it fires. Returns the times that no other process
    /// had decided before, with their stored outcomes: a job whose id belongs to another job is refused.
    pub async fn decide_firings(&self, firings: &FiringBatch<'_>, events: &str) -> Result<Vec<Firing>, Transient> {
        let Some(last) = firings.times.last() else { return Ok(Vec::new()) };
        self.transact(async |connection| {
            let moved = sqlx::query!(
                "UPDATE schedules SET decided_to = t FROM to_timestamp($3::double precision / 1000) AS t
                 WHERE name = $1 AND timing = $2 AND decided_to < t",
                firings.schedule,
                firings.timing,
                last.time_ms as f64
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?
            .rows_affected()
                > 0;
            if !moved {
                return Ok(Vec::new());
            }
            let mut written = insert(connection, firings).await.map_err(unavailable)?;
            if let Some(job) = firings.job
                && let Some(fired) = written.last_mut().filter(|firing| firing.time_ms == last.time_ms)
            {
                for id in firings.cancel {
                    cancel(connection, id, events).await.map_err(unavailable)?;
                }
                let submitted = submit(connection, job, events).await.map_err(unavailable)?;
                if submitted == SubmitOutcome::Conflict {
                    fired.outcome = FiringOutcome::Refused;
                    fired.reason = Some(format!("the id `{}` belongs to another job", job.id));
                }
                set_job(connection, firings.schedule, fired, job).await.map_err(unavailable)?;
            }
            Ok(written)
        })
        .await
    }

    /// Submits a job of the schedule at a time that is not one of its own.
    pub async fn fire_now(&self, schedule: &str, by: &str, now_ms: i64, job: &NewJob, events: &str) -> Result<(), Transient> {
        self.transact(async |connection| {
            submit(connection, job, events).await.map_err(unavailable)?;
            sqlx::query!(
                "INSERT INTO firings (schedule, fire_at, outcome, job_id, decided_by)
                 VALUES ($1, to_timestamp($2::double precision / 1000), 'fired', $3, $4)",
                schedule,
                now_ms as f64,
                job.id,
                by
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
            Ok(())
        })
        .await
    }

    /// The last decided time of each schedule.
    pub async fn last_firings(&self) -> Result<Vec<LastFiring>, Transient> {
        sqlx::query_as!(
            LastFiring,
            r#"SELECT DISTINCT ON (schedule) f.schedule, (extract(epoch FROM f.fire_at) * 1000)::bigint AS "time_ms!", f.outcome,
                      f.reason, f.job_id, j.state AS "job_state?"
               FROM firings f LEFT JOIN jobs j ON j.id = f.job_id ORDER BY f.schedule, f.fire_at DESC"#
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Ids of the schedule's jobs that have not ended.
    pub async fn open_jobs_of(&self, schedule: &str) -> Result<Vec<String>, Transient> {
        let ended: Vec<&str> = JobState::ALL.iter().filter(|state| state.is_final()).map(|state| state.as_str()).collect();
        sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE schedule = $1 AND state <> ALL($2) ORDER BY created_at",
            schedule,
            &ended as &[&str]
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }
}

/// Inserts the times that are not stored yet, and returns them.
async fn insert(connection: &mut PgConnection, firings: &FiringBatch<'_>) -> sqlx::Result<Vec<Firing>> {
    let times: Vec<f64> = firings.times.iter().map(|firing| firing.time_ms as f64).collect();
    let outcomes: Vec<&str> = firings.times.iter().map(|firing| firing.outcome.as_str()).collect();
    let reasons: Vec<Option<&str>> = firings.times.iter().map(|firing| firing.reason.as_deref()).collect();
    let written = sqlx::query_scalar!(
        r#"INSERT INTO firings (schedule, fire_at, outcome, reason, decided_by)
           SELECT $1, to_timestamp(ms / 1000), outcome, reason, $2
           FROM unnest($3::double precision[], $4::text[], $5::text[]) AS f (ms, outcome, reason)
           ON CONFLICT DO NOTHING RETURNING (extract(epoch FROM fire_at) * 1000)::bigint AS "ms!""#,
        firings.schedule,
        firings.by,
        &times,
        &outcomes as &[&str],
        &reasons as &[Option<&str>]
    )
    .fetch_all(connection)
    .await?;
    Ok(firings.times.iter().filter(|firing| written.contains(&firing.time_ms)).cloned().collect())
}

/// Stores the job of a time that fired, or why it has none.
async fn set_job(connection: &mut PgConnection, schedule: &str, firing: &Firing, job: &NewJob) -> sqlx::Result<()> {
    let id = (firing.outcome == FiringOutcome::Fired).then_some(job.id.as_str());
    sqlx::query!(
        "UPDATE firings SET outcome = $3, reason = $4, job_id = $5
         WHERE schedule = $1 AND fire_at = to_timestamp($2::double precision / 1000)",
        schedule,
        firing.time_ms as f64,
        firing.outcome.as_str(),
        firing.reason,
        id
    )
    .execute(connection)
    .await
    .map(drop)
}
