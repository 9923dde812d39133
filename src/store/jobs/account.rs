//! Queries about one job for people: how fast it goes, and which rows and units failed.

use serde_json::Value;

use super::{JobRow, ledger_topic};
use crate::{Reader, WithDeadline};
use tidemill_base::failure::Transient;

/// A dead letter of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDeadLetterRow {
    pub unit: i32,
    /// The row of the unit's source.
    pub row: i64,
    /// Empty where the whole row failed.
    pub task: String,
    /// None where the row could not be decoded.
    pub document_id: Option<String>,
    pub class: String,
    /// One sentence that says what is wrong.
    pub reason: String,
}

impl Reader {
    /// How many rows the job committed within the last minute.
    pub async fn rows_last_minute(&self, job: &JobRow) -> Result<i64, Transient> {
        let mut view = self.view().await?;
        let records = sqlx::query_scalar!(
            r#"SELECT coalesce(sum(records), 0)::bigint AS "records!" FROM batches
               WHERE pipeline = $1 AND topic = $2 AND committed_at > now() - interval '1 minute'"#,
            job.pipeline,
            ledger_topic(&job.id)
        )
        .fetch_one(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(records)
    }

    /// How many dead letters of each class the job has, the most frequent class first, and the first `limit` dead letters.
    pub async fn job_dead_letters(
        &self,
        job: &JobRow,
        limit: i64,
    ) -> Result<(Vec<(String, i64)>, Vec<JobDeadLetterRow>), Transient> {
        let mut view = self.view().await?;
        let topic = ledger_topic(&job.id);
        let classes = sqlx::query!(
            r#"SELECT class, count(*) AS "count!" FROM dead_letters WHERE pipeline = $1 AND topic = $2
               GROUP BY class ORDER BY count(*) DESC, class"#,
            job.pipeline,
            topic
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        let dead_letters = sqlx::query_as!(
            JobDeadLetterRow,
            r#"SELECT partition AS unit, record_offset AS row, task, document_id, class, reason FROM dead_letters
               WHERE pipeline = $1 AND topic = $2 ORDER BY partition, record_offset, task LIMIT $3"#,
            job.pipeline,
            topic,
            limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok((classes.into_iter().map(|row| (row.class, row.count)).collect(), dead_letters))
    }

    /// Number, source, class and reason of the job's failed units, at most `limit` of them.
    pub async fn unit_faults(&self, job: &str, limit: i64) -> Result<Vec<(i32, Value, String, String)>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT ordinal, source, class AS "class!", reason AS "reason!" FROM units
               WHERE job_id = $1 AND state = 'failed' ORDER BY ordinal LIMIT $2"#,
            job,
            limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(rows.into_iter().map(|row| (row.ordinal, row.source, row.class, row.reason)).collect())
    }
}
