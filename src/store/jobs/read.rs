//! Queries of jobs, and the lease of the job coordinator.

use std::time::Duration;

use sqlx::PgConnection;

use super::{JobProgress, JobRow, JobState, ledger_topic};
use crate::{Reader, Store, UsageTotals, WithDeadline, unavailable};
use tidemill_base::failure::Transient;

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    pub pipeline: Option<String>,
    /// Jobs in one of these states; empty for every state.
    pub states: Vec<JobState>,
    pub schedule: Option<String>,
    /// How many jobs to list, the latest first.
    pub limit: i64,
}

/// The right to coordinate jobs: to plan them, start them and end them. At most one process of a fleet holds it. Dropping the lease
/// releases it. Where the database becomes unavailable, the lease is lost.
#[derive(Debug)]
pub struct CoordinatorLease {
    // Detached from the pool: the advisory lock belongs to the session and must end with its connection.
    connection: PgConnection,
    deadline: Duration,
}

/// The key of the lease's advisory lock.
const COORDINATOR_LOCK: i64 = 0x7469_6465_666f_7265;

impl CoordinatorLease {
    /// Checks that the lease still holds.
    pub async fn check(&mut self) -> Result<(), Transient> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&mut self.connection).with_deadline(self.deadline).await.map(drop)
    }
}

/// Reads jobs. The first argument is the rest of the statement after the table's name.
macro_rules! jobs {
    ($rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query!(
            r#"SELECT id, kind, pipeline, spec, state, reason, priority, budget_micros, schedule, stopping, report,
                      (extract(epoch FROM deadline) * 1000)::bigint AS deadline_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!",
                      (extract(epoch FROM started_at) * 1000)::bigint AS started_ms,
                      (extract(epoch FROM finished_at) * 1000)::bigint AS finished_ms
               FROM jobs"# + $rest
            $(, $argument)*
        )
        .map(|row| JobRow {
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
        })
    };
}

impl Store {
    /// Takes the coordinator's lease; none where another process holds it.
    pub async fn coordinator_lease(&self) -> Result<Option<CoordinatorLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, COORDINATOR_LOCK)
            .fetch_one(&mut connection)
            .with_deadline(self.deadline)
            .await?;
        Ok(got.then_some(CoordinatorLease { connection, deadline: self.deadline }))
    }

    /// [`Reader::job`] for the service itself.
    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, Transient> {
        self.reader(None).job(id).await
    }

    /// The jobs that have not ended, in the order in which they are to be started.
    pub async fn open_jobs(&self) -> Result<Vec<JobRow>, Transient> {
        let open = jobs!(
            " WHERE state IN ('queued', 'planning', 'running', 'cancelling')
               ORDER BY priority DESC, created_at, id"
        );
        open.fetch_all(&self.pool).with_deadline(self.deadline).await
    }

    /// [`Reader::job_progress`] for the service itself.
    pub async fn job_progress(&self, job: &JobRow) -> Result<JobProgress, Transient> {
        self.reader(None).job_progress(job).await
    }

    /// Records and microseconds of device time of the pipeline's last 200 batches that computed anything, to estimate how long
    /// further records take.
    pub async fn recent_throughput(&self, pipeline: &str) -> Result<(i64, i64), Transient> {
        let row = sqlx::query!(
            r#"SELECT coalesce(sum(t.records), 0)::bigint AS "records!", coalesce(sum(t.micros), 0)::bigint AS "micros!"
               FROM (SELECT b.records, (SELECT sum(u.device_micros) FROM usage u WHERE u.batch_id = b.id AND u.ok > 0) AS micros
                     FROM batches b WHERE b.pipeline = $1 AND b.units_ok > 0 ORDER BY b.id DESC LIMIT 200) t"#,
            pipeline
        )
        .fetch_one(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok((row.records, row.micros))
    }
}

impl Reader {
    /// The job with this id; none where it is of another tenant.
    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, Transient> {
        let mut view = self.view().await?;
        let job = jobs!(" WHERE id = $1", id);
        let job = job.fetch_optional(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(job)
    }

    /// The jobs that match the filter, the latest first.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<JobRow>, Transient> {
        let mut view = self.view().await?;
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let jobs = jobs!(
            "
               WHERE ($1::text IS NULL OR pipeline = $1) AND (cardinality($2::text[]) = 0 OR state = ANY($2))
                 AND ($3::text IS NULL OR schedule = $3)
               ORDER BY created_at DESC, id DESC LIMIT $4",
            filter.pipeline,
            &states as &[&str],
            filter.schedule,
            filter.limit
        );
        let jobs = jobs.fetch_all(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(jobs)
    }

    /// How far the job has come, and what it has cost.
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
        .with_deadline(self.deadline())
        .await?;
        let topic = ledger_topic(&job.id);
        let records = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(records), 0)::bigint AS "records!" FROM batches WHERE pipeline = $1 AND topic = $2"#,
            job.pipeline,
            topic
        )
        .fetch_one(view.connection())
        .with_deadline(self.deadline())
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
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(JobProgress {
            units: units.units,
            units_done: units.done,
            units_failed: units.failed,
            units_stopped: units.stopped,
            rows: units.rows,
            // Units that only measure commit no records. Their reports hold the number of rows.
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
