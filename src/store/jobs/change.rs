//! What callers do with jobs: submit, stop, cancel, retry.

use serde_json::Value;
use sqlx::{Acquire, PgConnection};

use super::state::{insert_event, move_job};
use super::{JobState, NewJob, SubmitOutcome, ledger_topic};
use crate::submission::Submission;
use crate::{CommitError, Store, WithDeadline, commit, unavailable};
use tidemill_base::failure::Transient;

impl Store {
    /// Queues the job and writes its event to the topic `events`, unless there is a job of that id.
    pub async fn submit_job(&self, job: &NewJob, events: &str) -> Result<SubmitOutcome, Transient> {
        self.transact(async |connection| submit(connection, job, events).await.map_err(unavailable)).await
    }

    /// Commits a record of the jobs topic: the job that it submits, or the dead letter that `submission` holds for it. Where the id
    /// belongs to another job, nothing is committed and the answer is [`SubmitOutcome::Conflict`].
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit_job_record(
        &self,
        submission: &Submission,
        job: Option<&NewJob>,
        events: &str,
    ) -> Result<Option<SubmitOutcome>, CommitError> {
        self.connected(async |connection| commit_job_record(connection, submission, job, events).await).await
    }

    /// Moves the job from one of the states `from` to `to`, and writes its event. Returns whether it was in one of them.
    pub async fn move_job(
        &self,
        id: &str,
        from: &[JobState],
        to: JobState,
        reason: Option<&str>,
        events: &str,
    ) -> Result<bool, Transient> {
        self.transact(async |connection| move_job(connection, id, from, to, reason, events).await.map_err(unavailable)).await
    }

    /// Starts no further unit of a running job. Units that have not started are stopped at once. Returns whether the job was
    /// running and not stopping before.
    pub async fn stop_job(&self, id: &str, reason: &str, events: &str) -> Result<bool, Transient> {
        self.transact(async |connection| stop(connection, id, reason, events).await.map_err(unavailable)).await
    }

    /// Cancels the job. Units that have not started are stopped at once; those that run stop as soon as they can. Returns false
    /// where the job has ended or is being cancelled already.
    pub async fn cancel_job(&self, id: &str, events: &str) -> Result<bool, Transient> {
        self.transact(async |connection| cancel(connection, id, events).await.map_err(unavailable)).await
    }

    /// Opens an ended job again. Units that failed or were stopped go out to `units_topic` again; finished ones stay finished. A
    /// job that was never planned is queued. Its budget becomes `budget_micros` on top of what it has spent, and a deadline that
    /// has passed is removed: either would stop the job again at once. Returns whether the job had ended without success.
    pub async fn retry_job(
        &self,
        id: &str,
        budget_micros: Option<i64>,
        units_topic: &str,
        events: &str,
    ) -> Result<bool, Transient> {
        self.transact(async |connection| retry(connection, id, budget_micros, units_topic, events).await.map_err(unavailable))
            .await
    }

    /// Stores the report of the job.
    pub async fn report_job(&self, id: &str, report: &Value) -> Result<(), Transient> {
        sqlx::query!("UPDATE jobs SET report = $2, updated_at = now() WHERE id = $1", id, report)
            .execute(&self.pool)
            .with_deadline(self.deadline)
            .await
            .map(drop)
    }
}

async fn commit_job_record(
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
        insert_event(connection, &job.id, events).await?;
        return Ok(SubmitOutcome::New);
    }
    let same = sqlx::query_scalar!(r#"SELECT spec = $2 AS "same!" FROM jobs WHERE id = $1"#, job.id, job.spec)
        .fetch_one(connection)
        .await?;
    Ok(if same { SubmitOutcome::Known } else { SubmitOutcome::Conflict })
}

/// Cancels the job; see [`Store::cancel_job`].
pub(crate) async fn cancel(connection: &mut PgConnection, id: &str, events: &str) -> sqlx::Result<bool> {
    const OPEN: [JobState; 3] = [JobState::Queued, JobState::Planning, JobState::Running];
    let moved = move_job(connection, id, &OPEN, JobState::Cancelling, None, events).await?;
    if moved {
        sqlx::query!("UPDATE jobs SET stopping = true WHERE id = $1", id).execute(&mut *connection).await?;
        stop_units(connection, id, "the job was cancelled").await?;
    }
    Ok(moved)
}

/// See [`Store::stop_job`].
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
        insert_event(connection, id, events).await?;
    }
    Ok(stopped)
}

/// See [`Store::retry_job`].
async fn retry(
    connection: &mut PgConnection,
    id: &str,
    budget_micros: Option<i64>,
    units_topic: &str,
    events: &str,
) -> sqlx::Result<bool> {
    const ENDED: [JobState; 3] = [JobState::Failed, JobState::Partial, JobState::Cancelled];
    let planned = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM units WHERE job_id = $1) AS "planned!""#, id)
        .fetch_one(&mut *connection)
        .await?;
    let to = if planned { JobState::Running } else { JobState::Queued };
    let moved = move_job(connection, id, &ENDED, to, None, events).await?;
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
        let reopened = sqlx::query_scalar!(
            "UPDATE units SET state = 'waiting', class = NULL, reason = NULL, owner = NULL, started_at = NULL, finished_at = NULL
             WHERE job_id = $1 AND state IN ('failed', 'stopped') RETURNING id",
            id
        )
        .fetch_all(&mut *connection)
        .await?;
        super::units::dispatch(connection, units_topic, &reopened).await?;
    }
    Ok(moved)
}

/// Stops the units that no worker has started.
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
