//! What changes a job's state.

use serde_json::Value;
use sqlx::{Acquire, PgConnection};
use uuid::Uuid;

use super::{JobState, NewJob, SubmitOutcome, ledger_topic};
use crate::submission::Submission;
use crate::{CommitError, InTime, Store, commit, unavailable};
use tidemill_base::failure::Transient;

impl Store {
    /// Queues the job and announces it on the topic `events`, unless its id is known.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn submit_job(&self, job: &NewJob, events: &str) -> Result<SubmitOutcome, Transient> {
        self.transact(async |connection| submit(connection, job, events).await.map_err(unavailable)).await
    }

    /// Commits a record of the jobs topic: the job it asked for, or the dead letter that `submission` holds for it.
    /// Tells what came of the job. Nothing is committed where its id stands for another one.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_job_record(
        &self,
        submission: &Submission,
        job: Option<&NewJob>,
        events: &str,
    ) -> Result<Option<SubmitOutcome>, CommitError> {
        self.connected(async |connection| take_in(connection, submission, job, events).await).await
    }

    /// Moves the job from one of the states `from` to `to`, and announces it. Tells whether it was in one of them.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn move_job(
        &self,
        id: &str,
        from: &[JobState],
        (to, reason): (JobState, Option<&str>),
        events: &str,
    ) -> Result<bool, Transient> {
        self.transact(async |connection| shift(connection, id, from, (to, reason), events).await.map_err(unavailable)).await
    }

    /// Lets no further unit of a running job begin, because of `reason`; what has not begun is stopped at once.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn stop_job(&self, id: &str, reason: &str, events: &str) -> Result<bool, Transient> {
        self.transact(async |connection| stop(connection, id, reason, events).await.map_err(unavailable)).await
    }

    /// Calls the job off: at once where nothing is under way, else as soon as what is has come to a stop.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn cancel_job(&self, id: &str, events: &str) -> Result<bool, Transient> {
        self.transact(async |connection| cancel(connection, id, events).await.map_err(unavailable)).await
    }

    /// Opens an ended job again: units that failed or were stopped wait anew and go out to `units_topic`, finished ones stay
    /// finished. One that never had units is queued. It is granted `budget_micros` on top of what it has spent, and a deadline
    /// that has passed no longer counts: either would stop it again at once. Tells whether there was anything to try again.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn retry_job(
        &self,
        id: &str,
        budget_micros: Option<i64>,
        units_topic: &str,
        events: &str,
    ) -> Result<bool, Transient> {
        let topics = (units_topic, events);
        self.transact(async |connection| reopen(connection, id, budget_micros, topics).await.map_err(unavailable)).await
    }

    /// Keeps what the job found out.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn report_job(&self, id: &str, report: &Value) -> Result<(), Transient> {
        sqlx::query!("UPDATE jobs SET report = $2, updated_at = now() WHERE id = $1", id, report)
            .execute(&self.pool)
            .in_time(self.deadline)
            .await
            .map(drop)
    }
}

async fn take_in(
    connection: &mut PgConnection,
    submission: &Submission,
    job: Option<&NewJob>,
    events: &str,
) -> Result<Option<SubmitOutcome>, CommitError> {
    let mut transaction = connection.begin().await.map_err(unavailable)?;
    commit::advance(&mut transaction, &submission.batch).await?;
    commit::write(&mut transaction, submission).await?;
    let submitted = match job {
        Some(job) => Some(submit(&mut transaction, job, events).await.map_err(unavailable)?),
        None => None,
    };
    match submitted {
        Some(SubmitOutcome::Conflict) => transaction.rollback().await.map_err(unavailable)?,
        _ => transaction.commit().await.map_err(unavailable)?,
    }
    Ok(submitted)
}

pub(crate) async fn submit(connection: &mut PgConnection, job: &NewJob, events: &str) -> sqlx::Result<SubmitOutcome> {
    let inserted = sqlx::query!(
        "INSERT INTO jobs (id, kind, pipeline, spec, state, priority, deadline, budget_micros, schedule)
         VALUES ($1, $2, $3, $4, 'queued', $5, to_timestamp($6::double precision / 1000), $7, $8) ON CONFLICT (id) DO NOTHING",
        job.id,
        job.kind,
        job.pipeline,
        job.spec,
        job.priority,
        job.deadline_ms.map(|ms| ms as f64),
        job.budget_micros,
        job.schedule
    )
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if inserted == 1 {
        announce(connection, &job.id, events).await?;
        return Ok(SubmitOutcome::New);
    }
    let same = sqlx::query_scalar!(r#"SELECT spec = $2 AS "same!" FROM jobs WHERE id = $1"#, job.id, job.spec)
        .fetch_one(connection)
        .await?;
    Ok(if same { SubmitOutcome::Known } else { SubmitOutcome::Conflict })
}

/// Calls the job off; false where it has ended, or is being called off already.
pub(crate) async fn cancel(connection: &mut PgConnection, id: &str, events: &str) -> sqlx::Result<bool> {
    const OPEN: [JobState; 3] = [JobState::Queued, JobState::Planning, JobState::Running];
    let moved = shift(connection, id, &OPEN, (JobState::Cancelling, None), events).await?;
    if moved {
        sqlx::query!("UPDATE jobs SET stopping = true WHERE id = $1", id).execute(&mut *connection).await?;
        stop_units(connection, id, "the job was cancelled").await?;
    }
    Ok(moved)
}

/// Lets no further unit of a running job begin; false where it does not run, or is stopping already.
async fn stop(connection: &mut PgConnection, id: &str, reason: &str, events: &str) -> sqlx::Result<bool> {
    let stopped = sqlx::query!(
        "UPDATE jobs SET stopping = true, reason = $2, updated_at = now() WHERE id = $1 AND state = 'running' AND NOT stopping",
        id,
        reason
    )
    .execute(&mut *connection)
    .await?
    .rows_affected()
        > 0;
    if stopped {
        stop_units(connection, id, reason).await?;
        announce(connection, id, events).await?;
    }
    Ok(stopped)
}

/// Opens an ended job again; false where it has not ended.
async fn reopen(
    connection: &mut PgConnection,
    id: &str,
    budget_micros: Option<i64>,
    (units_topic, events): (&str, &str),
) -> sqlx::Result<bool> {
    const ENDED: [JobState; 3] = [JobState::Failed, JobState::Partial, JobState::Cancelled];
    let planned = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM units WHERE job_id = $1) AS "planned!""#, id)
        .fetch_one(&mut *connection)
        .await?;
    let to = if planned { JobState::Running } else { JobState::Queued };
    let moved = shift(connection, id, &ENDED, (to, None), events).await?;
    if moved {
        sqlx::query!(
            "UPDATE jobs j SET stopping = false, reason = NULL, finished_at = NULL,
                               deadline = CASE WHEN deadline > now() THEN deadline END,
                               budget_micros = $2
                                   + (SELECT coalesce(sum(u.device_micros), 0)::bigint FROM usage u
                                      JOIN batches b ON b.id = u.batch_id WHERE b.pipeline = j.pipeline AND b.topic = $3)
                                   + (SELECT coalesce(sum((report ->> 'device_micros')::bigint), 0)::bigint FROM units
                                      WHERE job_id = j.id)
             WHERE id = $1",
            id,
            budget_micros,
            ledger_topic(id)
        )
        .execute(&mut *connection)
        .await?;
        let again = sqlx::query_scalar!(
            "UPDATE units SET state = 'waiting', class = NULL, reason = NULL, owner = NULL, started_at = NULL, finished_at = NULL
             WHERE job_id = $1 AND state IN ('failed', 'stopped') RETURNING id",
            id
        )
        .fetch_all(&mut *connection)
        .await?;
        super::units::dispatch(connection, units_topic, &again).await?;
    }
    Ok(moved)
}

/// Changes the state and announces it; false where the job is in none of the states `from`.
pub(super) async fn shift(
    connection: &mut PgConnection,
    id: &str,
    from: &[JobState],
    (to, reason): (JobState, Option<&str>),
    events: &str,
) -> sqlx::Result<bool> {
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let moved = sqlx::query!(
        "UPDATE jobs SET state = $2, reason = CASE $2 WHEN 'succeeded' THEN $3 ELSE coalesce($3, reason) END, updated_at = now(),
                         started_at = CASE WHEN $2 = 'running' THEN coalesce(started_at, now()) ELSE started_at END,
                         finished_at = CASE WHEN $4 THEN now() END
         WHERE id = $1 AND state = ANY($5)",
        id,
        to.as_str(),
        reason,
        to.is_final(),
        &from as &[&str]
    )
    .execute(&mut *connection)
    .await?
    .rows_affected()
        > 0;
    if moved {
        announce(connection, id, events).await?;
    }
    Ok(moved)
}

/// Units that nobody has begun never will be.
async fn stop_units(connection: &mut PgConnection, job: &str, reason: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE units SET state = 'stopped', reason = $2, finished_at = now() WHERE job_id = $1 AND state = 'waiting' AND owner IS NULL",
        job,
        reason
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Writes the event of the job as it stands.
async fn announce(connection: &mut PgConnection, id: &str, events: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO outbox (pipeline, event_id, topic, key, payload, headers)
         SELECT pipeline, $1, $2, convert_to(id, 'UTF8'),
                convert_to(jsonb_build_object(
                    'version', 1, 'job', id, 'kind', kind, 'pipeline', pipeline, 'state', state, 'stopping', stopping, 'reason', reason,
                    'at', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'))::text, 'UTF8'),
                '{}'::jsonb
         FROM jobs WHERE id = $3",
        Uuid::now_v7(),
        events,
        id
    )
    .execute(connection)
    .await
    .map(drop)
}
