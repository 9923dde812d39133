//! What became of the times of schedules. A time is decided once: the row of the schedule moves on, the firing is written and its
//! job is queued in one transaction, so that of two foremen who live for a moment only one asks for the job.

use sqlx::PgConnection;

use super::jobs::{cancel, submit};
use super::{InTime, JobState, NewJob, Store, SubmitOutcome, unavailable};
use tidemill_base::failure::Transient;

/// What became of a time of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FiringOutcome {
    /// Its job was asked for.
    Fired,
    /// The schedule's own policy lets it pass.
    Skipped,
    /// Nobody was there in time.
    Missed,
    /// Its job cannot be asked for as things are.
    Refused,
}

impl FiringOutcome {
    /// The outcome as it stands in tables, metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fired => "fired",
            Self::Skipped => "skipped",
            Self::Missed => "missed",
            Self::Refused => "refused",
        }
    }
}

/// A time of a schedule, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The time, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What becomes of it.
    pub outcome: FiringOutcome,
    /// Why, where it is not fired.
    pub reason: Option<String>,
}

/// Times that are decided together.
#[derive(Debug, Clone, Copy)]
pub struct FiringBatch<'a> {
    /// The schedule.
    pub schedule: &'a str,
    /// The hash of what decides its times.
    pub timing: &'a str,
    /// The process that decides.
    pub by: &'a str,
    /// One after the other, the earliest first.
    pub times: &'a [Firing],
    /// The job of the last of them.
    pub job: Option<&'a NewJob>,
    /// Jobs that it puts an end to.
    pub cancel: &'a [String],
}

/// What is remembered of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSchedule {
    /// Its name.
    pub name: String,
    /// The hash of what decides its times.
    pub timing: String,
    /// Every time up to here is decided, in milliseconds since the Unix epoch.
    pub decided_to_ms: i64,
}

/// The last time of a schedule that was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFiring {
    /// The schedule.
    pub schedule: String,
    /// The time, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// What became of it: fired, skipped, missed or refused.
    pub outcome: String,
    /// Why, where it was not fired.
    pub reason: Option<String>,
    /// The job.
    pub job_id: Option<String>,
    /// How the job stands.
    pub job_state: Option<String>,
}

impl Store {
    /// What is remembered of schedules.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn known_schedules(&self) -> Result<Vec<StoredSchedule>, Transient> {
        sqlx::query_as!(
            StoredSchedule,
            r#"SELECT name, timing, (extract(epoch FROM decided_to) * 1000)::bigint AS "decided_to_ms!" FROM schedules"#
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Remembers a schedule that is new or has other times than before: times up to `now_ms` are none of its own.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// Writes what becomes of the times, and asks for the job of the last of them where it fires. Gives back those that nobody else
    /// had decided, as they were written: a job whose id stands for another one is refused.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
                    fired.reason = Some(format!("the id `{}` stands for another job", job.id));
                }
                name_job(connection, firings.schedule, fired, job).await.map_err(unavailable)?;
            }
            Ok(written)
        })
        .await
    }

    /// Asks for a job of the schedule that no time of it asks for.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn fire_now(&self, (schedule, by): (&str, &str), now_ms: i64, job: &NewJob, events: &str) -> Result<(), Transient> {
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

    /// The last time of each schedule that was decided.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn last_firings(&self) -> Result<Vec<LastFiring>, Transient> {
        sqlx::query_as!(
            LastFiring,
            r#"SELECT DISTINCT ON (schedule) f.schedule, (extract(epoch FROM f.fire_at) * 1000)::bigint AS "time_ms!", f.outcome,
                      f.reason, f.job_id, j.state AS "job_state?"
               FROM firings f LEFT JOIN jobs j ON j.id = f.job_id ORDER BY f.schedule, f.fire_at DESC"#
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Jobs of the schedule that have not ended.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn open_jobs_of(&self, schedule: &str) -> Result<Vec<String>, Transient> {
        let ended: Vec<&str> = JobState::ALL.iter().filter(|state| state.is_final()).map(|state| state.as_str()).collect();
        sqlx::query_scalar!(
            "SELECT id FROM jobs WHERE schedule = $1 AND state <> ALL($2) ORDER BY created_at",
            schedule,
            &ended as &[&str]
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await
    }
}

/// Writes those of the times that are not written yet, and tells which.
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

/// Writes the job of a time that fires, or why it has none.
async fn name_job(connection: &mut PgConnection, schedule: &str, firing: &Firing, job: &NewJob) -> sqlx::Result<()> {
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
