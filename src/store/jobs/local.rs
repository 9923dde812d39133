//! Local jobs: backfills that one process plans and runs by itself. They write no events, because no process publishes for them.
//! The coordinator of a fleet with the same ledger ignores them, because they are never queued.

use sqlx::PgConnection;

use super::{JobState, NewJob, NewUnit, UnitRow, units};
use crate::{Store, WithDeadline, unavailable};
use tidemill_base::failure::Transient;

/// The kind of a local job.
pub const LOCAL_JOB_KIND: &str = "local";

/// The right to run one local job. At most one process holds it. Dropping the lease releases it.
#[derive(Debug)]
pub struct LocalLease {
    // Detached from the pool: the advisory lock belongs to the session and must end with its connection.
    _connection: PgConnection,
}

impl Store {
    /// Takes the job's lease; none where another process holds it.
    pub async fn local_lease(&self, job: &str) -> Result<Option<LocalLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS "got!""#, job)
            .fetch_one(&mut connection)
            .with_deadline(self.deadline)
            .await?;
        Ok(got.then_some(LocalLease { _connection: connection }))
    }

    /// Every unit of the job, in order. All that are not done count as waiting.
    pub async fn local_units(&self, job: &str) -> Result<Vec<UnitRow>, Transient> {
        sqlx::query_as!(
            UnitRow,
            r#"SELECT u.id, job_id, j.pipeline, ordinal, topic, source, from_row, to_row, u.state <> 'done' AS "waits!"
               FROM units u JOIN jobs j ON j.id = u.job_id WHERE job_id = $1 ORDER BY ordinal"#,
            job
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Starts the job, for the first time or again: deletes the units that `obsolete` names, inserts `added`, and sets all that are
    /// not done to waiting.
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
            // Positions of deleted units stay, so the numbers of new units start after all of them.
            let first = sqlx::query_scalar!(
                r#"SELECT coalesce(max(partition) + 1, 0) AS "first!" FROM positions WHERE pipeline = $1 AND topic = $2"#,
                job.pipeline,
                super::ledger_topic(&job.id)
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable)?;
            units::insert(connection, &job.id, &job.pipeline, first, added).await.map_err(unavailable)
        })
        .await
    }

    /// Ends the job. Units that are still waiting are left for another run.
    pub async fn end_local_job(&self, id: &str, state: JobState, reason: Option<&str>) -> Result<(), Transient> {
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
