//! Statistics of a pipeline and samples of its documents, for people.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Store, unavailable};
use tidemill_base::failure::Transient;

/// What a pipeline made of the records of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PipelineStatistics {
    pub records: i64,
    /// Documents that are not deleted and whose latest version came from the topic.
    pub documents: i64,
    /// Results by task, computed or reused.
    pub results: BTreeMap<String, i64>,
    /// How many of the results were reused, without device time.
    pub reused: i64,
    /// Task records that need no output.
    pub skipped: i64,
    pub dead_letters: i64,
    /// Tokens that models read.
    pub tokens: i64,
    /// Rows of the pipeline's live Parquet files, of all topics.
    pub parquet_rows: i64,
}

/// A document with one output of each kind.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleDocument {
    pub id: String,
    /// The beginning of the document's text.
    pub beginning: String,
    /// The label of the first classification task, in the order of names.
    pub label: Option<String>,
    pub confidence: Option<f32>,
    /// The first summary or rendered text.
    pub text: Option<String>,
    /// The stored details of the first extraction.
    pub facts: Option<Value>,
    /// The first text that a `write` task made.
    pub copy: Option<String>,
}

impl Store {
    /// A few documents with as many different labels as possible, those with most outputs first.
    pub async fn sample_documents(&self, pipeline: &str, limit: i64) -> Result<Vec<SampleDocument>, Transient> {
        sqlx::query_as!(
            SampleDocument,
            r#"SELECT id AS "id!", beginning AS "beginning!", label, confidence, summary AS text, facts AS "facts?", copy AS "copy?" FROM (
                   SELECT d.id, left(d.text, 200) AS beginning, l.label, l.confidence, t.text AS summary, e.fields AS facts,
                          w.text AS copy,
                          row_number() OVER (PARTITION BY l.label ORDER BY e.fields IS NULL, t.text IS NULL, d.id) AS turn
                   FROM documents d
                   LEFT JOIN LATERAL (SELECT label, confidence FROM results r WHERE r.pipeline = d.pipeline
                                      AND r.document_id = d.id AND r.kind = 'classify' ORDER BY task LIMIT 1) l ON true
                   LEFT JOIN LATERAL (SELECT text FROM results r WHERE r.pipeline = d.pipeline
                                      AND r.document_id = d.id AND r.kind IN ('summarize', 'render') ORDER BY task LIMIT 1) t ON true
                   LEFT JOIN LATERAL (SELECT fields FROM results r WHERE r.pipeline = d.pipeline
                                      AND r.document_id = d.id AND r.kind = 'extract' ORDER BY task LIMIT 1) e ON true
                   LEFT JOIN LATERAL (SELECT text FROM results r WHERE r.pipeline = d.pipeline
                                      AND r.document_id = d.id AND r.kind = 'write' ORDER BY task LIMIT 1) w ON true
                   WHERE d.pipeline = $1 AND NOT d.deleted
               ) g ORDER BY turn, label, id LIMIT $2"#,
            pipeline,
            limit
        )
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)
    }

    /// Statistics of everything that the pipeline committed from the topic.
    pub async fn statistics(&self, pipeline: &str, topic: &str) -> Result<PipelineStatistics, Transient> {
        let totals = sqlx::query!(
            r#"SELECT (SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE pipeline = $1 AND topic = $2) AS "records!",
                      (SELECT count(*) FROM documents d JOIN batches b ON b.id = d.batch_id
                       WHERE d.pipeline = $1 AND b.topic = $2 AND NOT d.deleted) AS "documents!",
                      (SELECT count(*) FROM dead_letters WHERE pipeline = $1 AND topic = $2) AS "dead_letters!",
                      (SELECT coalesce(sum(rows), 0)::bigint FROM parquet_files
                       WHERE pipeline = $1 AND state = 'live') AS "parquet_rows!""#,
            pipeline,
            topic
        )
        .fetch_one(&self.pool)
        .await
        .map_err(unavailable)?;
        let tasks = sqlx::query!(
            r#"SELECT u.task, sum(u.ok + u.reused) AS "results!", sum(u.reused) AS "reused!", sum(u.skipped) AS "skipped!",
                      sum(u.tokens)::bigint AS "tokens!"
               FROM usage u JOIN batches b ON b.id = u.batch_id WHERE b.pipeline = $1 AND b.topic = $2 GROUP BY u.task"#,
            pipeline,
            topic
        )
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(PipelineStatistics {
            records: totals.records,
            documents: totals.documents,
            reused: tasks.iter().map(|t| t.reused).sum(),
            skipped: tasks.iter().map(|t| t.skipped).sum(),
            tokens: tasks.iter().map(|t| t.tokens).sum(),
            results: tasks.into_iter().map(|t| (t.task, t.results)).collect(),
            dead_letters: totals.dead_letters,
            parquet_rows: totals.parquet_rows,
        })
    }
}
