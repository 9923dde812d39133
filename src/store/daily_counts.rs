//! What each pipeline committed in the last 24 hours, for the dashboard.

use serde::Serialize;
use utoipa::ToSchema;

use super::pipeline_states::PipelineStop;
use super::{Reader, Store, WithDeadline};
use tidemill_base::failure::Transient;

/// Outcomes and costs of task records, the pairs of a record and a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct UsageTotals {
    /// Task records that were computed.
    pub ok: i64,
    /// Task records whose output was taken from an earlier computation.
    pub reused: i64,
    /// Task records that need no output.
    pub skipped: i64,
    /// Task records that became dead letters.
    pub dead: i64,
    /// Tokens that models read.
    pub tokens: i64,
    /// Tokens that models wrote.
    pub generated_tokens: i64,
    /// Device time in microseconds.
    pub device_micros: i64,
}

/// What a pipeline committed in the last 24 hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DailyCounts {
    pub pipeline: String,
    pub records: i64,
    /// Dead letters, without those that were purged since.
    pub dead_letters: i64,
    pub work: UsageTotals,
}

impl Reader {
    /// The counts of each pipeline that committed anything in the last 24 hours.
    pub async fn last_day(&self) -> Result<Vec<DailyCounts>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"WITH recent AS (
                   SELECT id, pipeline, records, units_ok, units_reused, units_skipped, units_dead FROM batches
                   WHERE committed_at > now() - interval '24 hours'
               ), costs AS (
                   SELECT r.pipeline, sum(u.tokens)::bigint AS tokens, sum(u.generated_tokens)::bigint AS generated_tokens,
                          sum(u.device_micros)::bigint AS device_micros
                   FROM recent r JOIN usage u ON u.batch_id = r.id GROUP BY r.pipeline
               ), letters AS (
                   SELECT l.pipeline, count(*) AS letters FROM recent r JOIN dead_letters l ON l.pipeline = r.pipeline AND l.batch_id = r.id
                   WHERE l.created_at > now() - interval '24 hours' GROUP BY l.pipeline
               )
               SELECT pipeline AS "pipeline!", sum(records) AS "records!", sum(units_ok) AS "ok!", sum(units_reused) AS "reused!",
                      sum(units_skipped) AS "skipped!", sum(units_dead) AS "dead!", coalesce(max(tokens), 0) AS "tokens!",
                      coalesce(max(generated_tokens), 0) AS "generated_tokens!", coalesce(max(device_micros), 0) AS "device_micros!",
                      coalesce(max(letters), 0) AS "letters!"
               FROM recent LEFT JOIN costs USING (pipeline) LEFT JOIN letters USING (pipeline) GROUP BY pipeline ORDER BY pipeline"#
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let counts = rows.into_iter().map(|row| DailyCounts {
            pipeline: row.pipeline,
            records: row.records,
            dead_letters: row.letters,
            work: UsageTotals {
                ok: row.ok,
                reused: row.reused,
                skipped: row.skipped,
                dead: row.dead,
                tokens: row.tokens,
                generated_tokens: row.generated_tokens,
                device_micros: row.device_micros,
            },
        });
        Ok(counts.collect())
    }
}

impl Store {
    /// The pipelines that are stopped, and why.
    pub async fn stopped_pipelines(&self) -> Result<Vec<(String, PipelineStop)>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT pipeline, class, coalesce(reason, '') AS "reason!" FROM pipeline_states WHERE state = 'stopped' ORDER BY pipeline"#
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(rows.into_iter().map(|row| (row.pipeline, PipelineStop { class: row.class, reason: row.reason })).collect())
    }
}
