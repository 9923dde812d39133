//! Backfills that one process plans and works off by itself. Nobody publishes for them, so they write no events, and the foreman of a
//! fleet on the same ledger leaves them alone, because they are never queued.

use sqlx::PgConnection;

use super::{JobState, NewJob, NewUnit, UnitRow, units};
use crate::{InTime, Store, unavailable};
use tidemill_base::failure::Transient;

/// The kind of such jobs.
pub const LOCAL_JOB_KIND: &str = "local";

/// The right to work on one such job: at most one process holds it. Dropping it ends it.
#[derive(Debug)]
pub struct LocalLease {
    // Not of the pool: a session's lock must end with its connection and never return to another user of it.
    _connection: PgConnection,
}

impl Store {
    /// Tries to become the one who works on the job.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn local_lease(&self, job: &str) -> Result<Option<LocalLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS "got!""#, job)
            .fetch_one(&mut connection)
            .in_time(self.deadline)
            .await?;
        Ok(got.then_some(LocalLease { _connection: connection }))
    }

    /// Every unit of the job, in order; one that is not done waits.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn local_units(&self, job: &str) -> Result<Vec<UnitRow>, Transient> {
        sqlx::query_as!(
            UnitRow,
            r#"SELECT u.id, job_id, j.pipeline, ordinal, topic, source, from_row, to_row, u.state <> 'done' AS "waits!"
               FROM units u JOIN jobs j ON j.id = u.job_id WHERE job_id = $1 ORDER BY ordinal"#,
            job
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Lets the job run, for the first time or again: units that `obsolete` names go, `added` ones come, and all that are not done
    /// wait.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn open_local_job(&self, job: &NewJob, obsolete: &[String], added: &[NewUnit]) -> Result<(), Transient> {
        self.transact(async |connection| {
            sqlx::query!(
                "INSERT INTO jobs (id, kind, pipeline, spec, state, started_at) VALUES ($1, $2, $3, $4, 'running', now())
                 ON CONFLICT (id) DO UPDATE SET state = 'running', stopping = false, reason = NULL, finished_at = NULL, updated_at = now()",
                job.id,
                job.kind,
                job.pipeline,
                job.spec
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
            sqlx::query!("DELETE FROM units WHERE job_id = $1 AND state <> 'done' AND id = ANY($2)", job.id, obsolete)
                .execute(&mut *connection)
                .await
                .map_err(unavailable)?;
            sqlx::query!(
                "UPDATE units SET state = 'waiting', class = NULL, reason = NULL, owner = NULL, started_at = NULL, finished_at = NULL
                 WHERE job_id = $1 AND state <> 'done'",
                job.id
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
            // Positions outlive units that went: a number is never given twice.
            let first = sqlx::query_scalar!(
                r#"SELECT coalesce(max(partition) + 1, 0) AS "first!" FROM positions WHERE pipeline = $1 AND topic = $2"#,
                job.pipeline,
                super::ledger_topic(&job.id)
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable)?;
            units::insert(connection, (&job.id, &job.pipeline), first, added).await.map_err(unavailable)
        })
        .await
    }

    /// Ends the job for now; units that still wait are left for another run.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn end_local_job(&self, id: &str, (state, reason): (JobState, Option<&str>)) -> Result<(), Transient> {
        self.transact(async |connection| {
            sqlx::query!(
                "UPDATE units SET state = 'stopped', reason = $2, finished_at = now() WHERE job_id = $1 AND state = 'waiting'",
                id,
                reason
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
            sqlx::query!(
                "UPDATE jobs SET state = $2, reason = $3, finished_at = now(), updated_at = now()
                 WHERE id = $1 AND state IN ('running', 'cancelling')",
                id,
                state.as_str(),
                reason
            )
            .execute(connection)
            .await
            .map(drop)
            .map_err(unavailable)
        })
        .await
    }
}
