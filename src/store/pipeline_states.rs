//! Whether a pipeline may run, and the automatic stop at too many dead letters.
//!
//! Every commit reads the pipeline's state in its own transaction. So no worker commits a batch of a stopped pipeline, even one
//! that has not noticed the stop yet. The records of a refused batch are not lost, because the position does not move.

use sqlx::PgConnection;

use super::submission::Submission;
use super::{Store, WithDeadline, unavailable};
use tidemill_base::failure::{Tolerance, Transient};

/// Why a pipeline is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStop {
    /// The class of which there were too many dead letters; none where a person stopped the pipeline.
    pub class: Option<String>,
    pub reason: String,
}

/// The stored state of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineState {
    pub pipeline: String,
    /// Why the pipeline is stopped; none where it runs.
    pub stop: Option<PipelineStop>,
    /// When it was last stopped or resumed, in Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Who stopped or resumed it last.
    pub by: Option<String>,
    /// How many records it has committed.
    pub records: i64,
    /// How many dead letters are stored.
    pub dead_letters: i64,
}

/// The result of counting the dead letters among a pipeline's last records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RecentFaults {
    /// Whether there are any, so that the next commit has to count again.
    pub faults: bool,
    /// Why the pipeline was stopped, if it was.
    pub stop: Option<PipelineStop>,
}

/// How many characters of a dead letter's reason a stop quotes.
const REASON: usize = 300;

impl Store {
    /// Why the pipeline is stopped; none where it runs.
    pub async fn pipeline_stop(&self, pipeline: &str) -> Result<Option<PipelineStop>, Transient> {
        sqlx::query_as!(
            PipelineStop,
            r#"SELECT class, coalesce(reason, '') AS "reason!" FROM pipeline_states WHERE pipeline = $1 AND state = 'stopped'"#,
            pipeline
        )
        .fetch_optional(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Stops the pipeline. Returns false where it is stopped already.
    pub async fn stop_pipeline(&self, pipeline: &str, reason: &str, by: &str) -> Result<bool, Transient> {
        let stop = PipelineStop { class: None, reason: reason.to_owned() };
        self.connected(async |connection| set_stopped(connection, pipeline, &stop, by).await.map_err(unavailable)).await
    }

    /// Resumes the pipeline; dead letters so far no longer count towards the next stop. Returns false where it was not stopped.
    pub async fn resume_pipeline(&self, pipeline: &str, by: &str) -> Result<bool, Transient> {
        let resumed = sqlx::query!(
            "UPDATE pipeline_states SET state = 'running', class = NULL, reason = NULL, since = now(), by = $2,
                                        counts_from = clock_timestamp()
             WHERE pipeline = $1 AND state = 'stopped'",
            pipeline,
            by
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(resumed.rows_affected() == 1)
    }

    /// Every pipeline that has a position or was ever stopped, in the order of names.
    pub async fn pipeline_states(&self) -> Result<Vec<PipelineState>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT n.pipeline AS "pipeline!", coalesce(s.state = 'stopped', false) AS "stopped!", s.class AS "class?",
                      s.reason AS "reason?", (extract(epoch FROM s.since) * 1000)::bigint AS "since_ms?", s.by AS "by?",
                      (SELECT coalesce(sum(b.records), 0)::bigint FROM batches b WHERE b.pipeline = n.pipeline) AS "records!",
                      (SELECT count(*) FROM dead_letters l WHERE l.pipeline = n.pipeline) AS "dead_letters!"
               FROM (SELECT pipeline FROM positions UNION SELECT pipeline FROM pipeline_states) n
               LEFT JOIN pipeline_states s USING (pipeline) ORDER BY n.pipeline"#
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| PipelineState {
                pipeline: row.pipeline,
                stop: row.stopped.then(|| PipelineStop { class: row.class, reason: row.reason.unwrap_or_default() }),
                since_ms: row.since_ms,
                by: row.by,
                records: row.records,
                dead_letters: row.dead_letters,
            })
            .collect())
    }
}

/// Whether the pipeline is stopped, within this transaction.
pub(super) async fn is_stopped(connection: &mut PgConnection, pipeline: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pipeline_states WHERE pipeline = $1 AND state = 'stopped') AS "stopped!""#,
        pipeline
    )
    .fetch_one(connection)
    .await
}

/// Stores how many records of the batch became dead letters, by class.
pub(super) async fn insert_faults(connection: &mut PgConnection, submission: &Submission) -> sqlx::Result<()> {
    sqlx::query!(
        "INSERT INTO faults (batch_id, class, records)
         SELECT $1, class, count(DISTINCT record_offset) FROM dead_letters WHERE batch_id = $1 GROUP BY class",
        submission.batch.id
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Counts the dead letters among the last records of the pipeline, this batch included, and stops the pipeline where one class
/// exceeds its tolerance. Whole batches are counted, of all partitions and workers, in the order of their commits.
pub(super) async fn check_tolerance(
    connection: &mut PgConnection,
    submission: &Submission,
    tolerance: Tolerance,
) -> sqlx::Result<RecentFaults> {
    let pipeline = submission.batch.pipeline.as_str();
    let counts = sqlx::query!(
        r#"WITH recent AS (
               SELECT id, records, sum(records) OVER (ORDER BY committed_at DESC, id DESC) - records AS later
               FROM (SELECT id, records, committed_at FROM batches
                     WHERE pipeline = $1
                       AND committed_at > coalesce((SELECT counts_from FROM pipeline_states WHERE pipeline = $1), '-infinity')
                     ORDER BY committed_at DESC, id DESC LIMIT $2) b
           ), counted AS (SELECT id, records FROM recent WHERE later < $2)
           SELECT f.class, sum(f.records)::bigint AS "dead!", (SELECT sum(records) FROM counted)::bigint AS "records!"
           FROM counted JOIN faults f ON f.batch_id = counted.id GROUP BY f.class ORDER BY 2 DESC, 1"#,
        pipeline,
        i64::from(tolerance.window)
    )
    .fetch_all(&mut *connection)
    .await?;
    let faults = !counts.is_empty();
    let Some(worst) = counts.into_iter().next().filter(|worst| tolerance.is_exceeded(worst.dead, worst.records)) else {
        return Ok(RecentFaults { faults, stop: None });
    };
    let latest = sqlx::query_scalar!(
        "SELECT left(reason, $3) AS reason FROM dead_letters WHERE pipeline = $1 AND class = $2 ORDER BY created_at DESC, id DESC LIMIT 1",
        pipeline,
        worst.class,
        REASON as i32
    )
    .fetch_optional(&mut *connection)
    .await?
    .flatten()
    .unwrap_or_default();
    let share = 100.0 * worst.dead as f64 / worst.records as f64;
    let reason = format!(
        "{} of the last {} records ({share:.1} %) are dead letters of class {}, more than the {} % that stop_at.dead_share \
         allows; the latest: {latest}; fix the cause, then run `tidemill pipelines resume {pipeline}`",
        worst.dead,
        worst.records,
        worst.class,
        tolerance.share * 100.0
    );
    let stop = PipelineStop { class: Some(worst.class), reason };
    let stopped = set_stopped(connection, pipeline, &stop, "tidemill").await?;
    Ok(RecentFaults { faults, stop: stopped.then_some(stop) })
}

async fn set_stopped(connection: &mut PgConnection, pipeline: &str, stop: &PipelineStop, by: &str) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "INSERT INTO pipeline_states AS s (pipeline, state, class, reason, by) VALUES ($1, 'stopped', $2, $3, $4)
         ON CONFLICT (pipeline) DO UPDATE
         SET state = 'stopped', class = excluded.class, reason = excluded.reason, since = now(), by = excluded.by
         WHERE s.state <> 'stopped'",
        pipeline,
        stop.class,
        stop.reason,
        by
    )
    .execute(connection)
    .await?;
    Ok(set.rows_affected() == 1)
}
