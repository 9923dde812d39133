//! What is known of jobs.

use std::time::Duration;

use sqlx::PgConnection;

use super::{JobProgress, JobRow, JobState, ledger_topic};
use crate::{InTime, Reader, Store, UsageTotals, unavailable};
use tidemill_base::failure::Transient;

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only of this pipeline.
    pub pipeline: Option<String>,
    /// Only in one of these states; in any, where there is none.
    pub states: Vec<JobState>,
    /// Only of this schedule.
    pub schedule: Option<String>,
    /// At most so many, the latest first.
    pub limit: i64,
}

/// The right to move jobs on: at most one process of a fleet holds it. Dropping it ends it.
#[derive(Debug)]
pub struct CoordinatorLease {
    // Not of the pool: a session's lock must end with its connection and never return to another user of it.
    connection: PgConnection,
    deadline: Duration,
}

/// Names the lease among advisory locks.
const COORDINATOR_LOCK: i64 = 0x7469_6465_666f_7265;

impl CoordinatorLease {
    /// Makes sure that the lease still holds.
    ///
    /// # Errors
    /// Where the database is unavailable; the lease is gone then.
    pub async fn check(&mut self) -> Result<(), Transient> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&mut self.connection).in_time(self.deadline).await.map(drop)
    }
}

macro_rules! job {
    ($row:expr) => {{
        let row = $row;
        JobRow {
            state: JobState::named(&row.state).unwrap_or(JobState::Failed),
            id: row.id,
            kind: row.kind,
            pipeline: row.pipeline,
            spec: row.spec,
            reason: row.reason,
            priority: row.priority,
            deadline_ms: row.deadline_ms,
            budget_micros: row.budget_micros,
            schedule: row.schedule,
            stopping: row.stopping,
            report: row.report,
            created_ms: row.created_ms,
            started_ms: row.started_ms,
            finished_ms: row.finished_ms,
        }
    }};
}

impl Store {
    /// Tries to become the one who moves jobs on.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn coordinator_lease(&self) -> Result<Option<CoordinatorLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, COORDINATOR_LOCK)
            .fetch_one(&mut connection)
            .in_time(self.deadline)
            .await?;
        Ok(got.then_some(CoordinatorLease { connection, deadline: self.deadline }))
    }

    /// [`Reader::job`] for the service.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, Transient> {
        self.reader(None).job(id).await
    }

    /// The jobs that are not at their end, in the order in which they are to be taken up.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn open_jobs(&self) -> Result<Vec<JobRow>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT id, kind, pipeline, spec, state, reason, priority, budget_micros, schedule, stopping, report,
                      (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM started_at) * 1000)::bigint AS started_ms,
                      (extract(epoch FROM finished_at) * 1000)::bigint AS finished_ms
               FROM jobs WHERE state IN ('queued', 'planning', 'running', 'cancelling')
               ORDER BY priority DESC, created_at, id"#
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok(rows.into_iter().map(|row| job!(row)).collect())
    }

    /// [`Reader::job_progress`] for the service.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn job_progress(&self, job: &JobRow) -> Result<JobProgress, Transient> {
        self.reader(None).job_progress(job).await
    }

    /// Device time and records that the pipeline has spent and committed of late, to tell how long further ones will take.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn recent_throughput(&self, pipeline: &str) -> Result<(i64, i64), Transient> {
        let row = sqlx::query!(
            r#"SELECT coalesce(sum(t.records), 0)::bigint AS "records!", coalesce(sum(t.micros), 0)::bigint AS "micros!"
               FROM (SELECT b.records, (SELECT sum(u.device_micros) FROM usage u WHERE u.batch_id = b.id AND u.ok > 0) AS micros
                     FROM batches b WHERE b.pipeline = $1 AND b.units_ok > 0 ORDER BY b.id DESC LIMIT 200) t"#,
            pipeline
        )
        .fetch_one(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok((row.records, row.micros))
    }
}

impl Reader {
    /// The job of that id.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, Transient> {
        let mut view = self.view().await?;
        let row = sqlx::query!(
            r#"SELECT id, kind, pipeline, spec, state, reason, priority, budget_micros, schedule, stopping, report,
                      (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM started_at) * 1000)::bigint AS started_ms,
                      (extract(epoch FROM finished_at) * 1000)::bigint AS finished_ms
               FROM jobs WHERE id = $1"#,
            id
        )
        .fetch_optional(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(row.map(|row| job!(row)))
    }

    /// The jobs that the filter lets through, the latest first.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Transient> {
        let mut view = self.view().await?;
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let rows = sqlx::query!(
            r#"SELECT id, kind, pipeline, spec, state, reason, priority, budget_micros, schedule, stopping, report,
                      (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM started_at) * 1000)::bigint AS started_ms,
                      (extract(epoch FROM finished_at) * 1000)::bigint AS finished_ms
               FROM jobs
               WHERE ($1::text IS NULL OR pipeline = $1) AND (cardinality($2::text[]) = 0 OR state = ANY($2))
                 AND ($3::text IS NULL OR schedule = $3)
               ORDER BY created_at DESC, id DESC LIMIT $4"#,
            filter.pipeline,
            &states as &[&str],
            filter.schedule,
            filter.limit
        )
        .fetch_all(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(rows.into_iter().map(|row| job!(row)).collect())
    }

    /// How far the job is.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn job_progress(&self, job: &JobRow) -> Result<JobProgress, Transient> {
        let mut view = self.view().await?;
        let units = sqlx::query!(
            r#"SELECT count(*) AS "units!", count(*) FILTER (WHERE state = 'done') AS "done!",
                      count(*) FILTER (WHERE state = 'failed') AS "failed!", count(*) FILTER (WHERE state = 'stopped') AS "stopped!",
                      coalesce(sum(rows), 0)::bigint AS "rows!",
                      coalesce(sum((report ->> 'rows')::bigint), 0)::bigint AS "measured!",
                      coalesce(sum((report ->> 'device_micros')::bigint), 0)::bigint AS "device_micros!"
               FROM units WHERE job_id = $1"#,
            job.id
        )
        .fetch_one(view.connection())
        .in_time(self.deadline())
        .await?;
        let topic = ledger_topic(&job.id);
        let records = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(records), 0)::bigint AS "records!" FROM batches WHERE pipeline = $1 AND topic = $2"#,
            job.pipeline,
            topic
        )
        .fetch_one(view.connection())
        .in_time(self.deadline())
        .await?;
        let usage = sqlx::query!(
            r#"SELECT coalesce(sum(u.ok), 0)::bigint AS "ok!", coalesce(sum(u.reused), 0)::bigint AS "reused!",
                      coalesce(sum(u.skipped), 0)::bigint AS "skipped!", coalesce(sum(u.dead), 0)::bigint AS "dead!",
                      coalesce(sum(u.tokens), 0)::bigint AS "tokens!", coalesce(sum(u.generated_tokens), 0)::bigint AS "generated!",
                      coalesce(sum(u.device_micros), 0)::bigint AS "device_micros!"
               FROM usage u JOIN batches b ON b.id = u.batch_id WHERE b.pipeline = $1 AND b.topic = $2"#,
            job.pipeline,
            topic
        )
        .fetch_one(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(JobProgress {
            units: units.units,
            units_done: units.done,
            units_failed: units.failed,
            units_stopped: units.stopped,
            rows: units.rows,
            // A unit that only measures commits nothing, and counts by itself.
            rows_done: records + units.measured,
            work: UsageTotals {
                ok: usage.ok,
                reused: usage.reused,
                skipped: usage.skipped,
                dead: usage.dead,
                tokens: usage.tokens,
                generated_tokens: usage.generated,
                device_micros: usage.device_micros + units.device_micros,
            },
        })
    }
}
