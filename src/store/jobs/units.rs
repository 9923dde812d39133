//! Units, the parts of a job: planned all at once, handed out by the units topic, ended once.

use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::state::move_job;
use super::{JobRow, JobState, ledger_topic};
use crate::submission::Submission;
use crate::{CommitError, Store, WithDeadline, commit, unavailable};
use tidemill_base::failure::Transient;

/// A planned unit that is not stored yet.
#[derive(Debug, Clone, PartialEq)]
pub struct NewUnit {
    /// A hash of the job, the source with its version, and the range of rows.
    pub id: String,
    /// What the unit reads. Only the jobs module knows its fields.
    pub source: Value,
    pub from_row: i64,
    /// One past the last row.
    pub to_row: i64,
    /// How many of these rows the job wants.
    pub rows: i64,
}

/// A unit as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitRow {
    pub id: String,
    pub job_id: String,
    pub pipeline: String,
    /// The number of the unit within the job. The ledger uses it as the partition.
    pub ordinal: i32,
    /// The job's topic in the ledger.
    pub topic: String,
    /// What the unit reads.
    pub source: Value,
    pub from_row: i64,
    /// One past the last row.
    pub to_row: i64,
    /// Whether the unit is still to be done.
    pub waits: bool,
}

/// Why a unit failed. Trying it again cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class}: {reason}")]
pub struct UnitFault {
    pub class: &'static str,
    /// One sentence that says what is wrong, where, and how to fix it.
    pub reason: String,
}

/// How a unit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitOutcome {
    /// Every row is committed.
    Done,
    /// The unit failed for good. Rows that were committed before stay.
    Failed(UnitFault),
    /// The job was stopped before the unit was done.
    Stopped,
}

impl Store {
    /// Inserts the units of a job in state `planning` with their first positions, sends them to `units_topic` if there is one, and
    /// moves the job to `running`. Returns whether the job was still in state `planning`.
    pub async fn plan_job(
        &self,
        job: &JobRow,
        units: &[NewUnit],
        units_topic: Option<&str>,
        events: &str,
    ) -> Result<bool, Transient> {
        self.transact(async |connection| plan(connection, job, units, units_topic, events).await.map_err(unavailable)).await
    }

    /// The unit with this id, with its job's pipeline.
    pub async fn unit(&self, id: &str) -> Result<Option<UnitRow>, Transient> {
        sqlx::query_as!(
            UnitRow,
            r#"SELECT u.id, job_id, j.pipeline, ordinal, topic, source, from_row, to_row, u.state = 'waiting' AS "waits!"
               FROM units u JOIN jobs j ON j.id = u.job_id WHERE u.id = $1"#,
            id
        )
        .fetch_optional(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Units of the job that are still to be done, in order.
    pub async fn waiting_units(&self, job: &str) -> Result<Vec<UnitRow>, Transient> {
        sqlx::query_as!(
            UnitRow,
            r#"SELECT u.id, job_id, j.pipeline, ordinal, topic, source, from_row, to_row, true AS "waits!"
               FROM units u JOIN jobs j ON j.id = u.job_id WHERE job_id = $1 AND u.state = 'waiting' ORDER BY ordinal"#,
            job
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Whether any unit of the job is still to be done.
    pub async fn has_waiting_units(&self, job: &str) -> Result<bool, Transient> {
        sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM units WHERE job_id = $1 AND state = 'waiting') AS "waiting!""#, job)
            .fetch_one(&self.pool)
            .with_deadline(self.deadline)
            .await
    }

    /// Records that `owner` starts the unit. Returns whether it may: the unit must be waiting, and its job running and not
    /// stopping.
    pub async fn begin_unit(&self, id: &str, owner: &str) -> Result<bool, Transient> {
        let begun = sqlx::query!(
            "UPDATE units u SET owner = $2, attempts = attempts + 1, started_at = coalesce(u.started_at, now())
             FROM jobs j WHERE u.id = $1 AND u.state = 'waiting' AND j.id = u.job_id AND j.state = 'running' AND NOT j.stopping",
            id,
            owner
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(begun.rows_affected() > 0)
    }

    /// Whether running units of the job are to stop.
    pub async fn is_job_stopping(&self, job: &str) -> Result<bool, Transient> {
        sqlx::query_scalar!(r#"SELECT stopping OR state <> 'running' AS "stopping!" FROM jobs WHERE id = $1"#, job)
            .fetch_optional(&self.pool)
            .with_deadline(self.deadline)
            .await
            .map(|stopping| stopping.unwrap_or(true))
    }

    /// Stores the report of a unit that is not done yet.
    pub async fn report_unit(&self, id: &str, report: &Value) -> Result<(), Transient> {
        sqlx::query!("UPDATE units SET report = $2 WHERE id = $1 AND state = 'waiting'", id, report)
            .execute(&self.pool)
            .with_deadline(self.deadline)
            .await
            .map(drop)
    }

    /// The reports of the units that are done, in order.
    pub async fn unit_reports(&self, job: &str) -> Result<Vec<Value>, Transient> {
        sqlx::query_scalar!(
            r#"SELECT report AS "report!" FROM units WHERE job_id = $1 AND state = 'done' AND report IS NOT NULL ORDER BY ordinal"#,
            job
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Ends a unit. `submission` commits the record of the units topic that named it, if one did.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn end_unit(&self, end: Option<(&str, &UnitOutcome)>, submission: Option<&Submission>) -> Result<(), CommitError> {
        self.transact(async |connection| end_unit(connection, end, submission).await).await
    }
}

/// See [`Store::plan_job`].
async fn plan(
    connection: &mut PgConnection,
    job: &JobRow,
    units: &[NewUnit],
    units_topic: Option<&str>,
    events: &str,
) -> sqlx::Result<bool> {
    let planned = move_job(connection, &job.id, &[JobState::Planning], JobState::Running, None, events).await?;
    if planned {
        insert(connection, &job.id, &job.pipeline, 0, units).await?;
        if let Some(topic) = units_topic {
            let ids: Vec<String> = units.iter().map(|unit| unit.id.clone()).collect();
            dispatch(connection, topic, &ids).await?;
        }
    }
    Ok(planned)
}

async fn end_unit(
    connection: &mut PgConnection,
    end: Option<(&str, &UnitOutcome)>,
    submission: Option<&Submission>,
) -> Result<(), CommitError> {
    if let Some(submission) = submission {
        commit::advance(connection, &submission.batch).await?;
        commit::write(connection, submission).await?;
    }
    if let Some((id, end)) = end {
        let (state, class, reason) = match end {
            UnitOutcome::Done => ("done", None, None),
            UnitOutcome::Failed(fault) => ("failed", Some(fault.class), Some(fault.reason.replace('\0', "\u{fffd}"))),
            UnitOutcome::Stopped => ("stopped", None, None),
        };
        sqlx::query!(
            "UPDATE units SET state = $2, class = $3, reason = coalesce($4, reason), finished_at = now()
             WHERE id = $1 AND state = 'waiting'",
            id,
            state,
            class,
            reason
        )
        .execute(connection)
        .await
        .map_err(unavailable)?;
    }
    Ok(())
}

/// Inserts units of the job, numbered from `first`, and their first positions.
pub(super) async fn insert(
    connection: &mut PgConnection,
    job: &str,
    pipeline: &str,
    first: i32,
    units: &[NewUnit],
) -> sqlx::Result<()> {
    let topic = ledger_topic(job);
    let ids: Vec<&str> = units.iter().map(|unit| unit.id.as_str()).collect();
    let ordinals: Vec<i32> = (first..first + units.len() as i32).collect();
    let sources: Vec<Value> = units.iter().map(|unit| unit.source.clone()).collect();
    let column = |field: fn(&NewUnit) -> i64| units.iter().map(field).collect::<Vec<_>>();
    sqlx::query!(
        "INSERT INTO units (job_id, topic, id, ordinal, source, from_row, to_row, rows)
         SELECT $1, $2, * FROM unnest($3::text[], $4::integer[], $5::jsonb[], $6::bigint[], $7::bigint[], $8::bigint[])",
        job,
        topic,
        &ids as &[&str],
        &ordinals,
        &sources,
        &column(|unit| unit.from_row),
        &column(|unit| unit.to_row),
        &column(|unit| unit.rows)
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "INSERT INTO positions (pipeline, topic, partition, seed_offset, next_offset)
         SELECT $1, $2, ordinal, seed, seed FROM unnest($3::integer[], $4::bigint[]) AS s (ordinal, seed)
         ON CONFLICT DO NOTHING",
        pipeline,
        topic,
        &ordinals,
        &column(|unit| unit.from_row)
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Writes the records of the units topic, from which workers take units.
pub(super) async fn dispatch(connection: &mut PgConnection, topic: &str, units: &[String]) -> sqlx::Result<()> {
    let events: Vec<Uuid> = units.iter().map(|_| Uuid::now_v7()).collect();
    let keys: Vec<&[u8]> = units.iter().map(|unit| unit.as_bytes()).collect();
    let payloads: Vec<Vec<u8>> =
        units.iter().map(|unit| json!({ "version": 1, "unit": unit }).to_string().into_bytes()).collect();
    sqlx::query!(
        "INSERT INTO outbox (event_id, topic, key, payload, headers)
         SELECT event, $1, key, payload, '{}'::jsonb FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS u (event, key, payload)",
        topic,
        &events,
        &keys as &[&[u8]],
        &payloads
    )
    .execute(connection)
    .await
    .map(drop)
}
