//! Everything that the ledger stores about one document.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Reader, Store, WithDeadline};
use tidemill_base::failure::Transient;

/// How many dead letters of a document are listed.
const DEAD_LETTERS: i64 = 50;

/// A stored document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocumentDetails {
    /// The latest version.
    pub version: i64,
    /// Whether the latest version is a delete.
    pub deleted: bool,
    /// The text; offsets in outputs are bytes of it.
    pub text: String,
    /// The metadata.
    pub metadata: Value,
    /// When it was last written, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// The batch that wrote it.
    pub source: Option<BatchSource>,
}

/// A batch and the records that it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchSource {
    /// The batch's id.
    pub batch_id: String,
    /// The Kafka topic, or the topic that stands for a job.
    pub topic: String,
    /// The partition, or the number of a job's unit.
    pub partition: i32,
    /// The batch's first offset.
    pub from_offset: i64,
    /// One past its last offset.
    pub to_offset: i64,
    /// When it was committed, in Unix milliseconds.
    pub committed_at_ms: i64,
}

/// An output of a task with the model that made it and its cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutputSummary {
    /// The task.
    pub task: String,
    /// The kind of task.
    pub kind: String,
    /// The version of the document that it was made from.
    pub version: i64,
    /// The most probable label.
    pub label: Option<String>,
    /// The model's confidence, 0 to 1.
    pub confidence: Option<f32>,
    /// The text, where the output is one.
    pub text: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The hash of the model's files, or the address of its server.
    pub model_revision: Option<String>,
    /// The hash of the prompt's text and parameters.
    pub prompt_version: Option<String>,
    /// Tokens that the model read, for an embedding in all chunks.
    pub tokens: i64,
    /// Tokens that the model wrote.
    pub generated_tokens: i64,
    /// Device time in microseconds.
    pub device_micros: i64,
}

/// A stored output with everything that it was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutputDetails {
    /// The output and its cost.
    #[serde(flatten)]
    pub computed: OutputSummary,
    /// The details that have no field of their own.
    pub details: Value,
    /// The prompt's name.
    pub prompt: Option<String>,
    /// The JSON Schema of the answer.
    pub schema: Option<String>,
    /// Identifies the computation: one with an equal fingerprint is not repeated.
    pub fingerprint: String,
    /// Whether it was taken from an earlier computation; null where the batch both computed and reused, and the row does not show
    /// which.
    pub reused: Option<bool>,
    /// How many chunks have a vector.
    pub chunks: i64,
    /// When it was written, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// The batch that wrote it.
    pub source: Option<BatchSource>,
}

/// A dead letter of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentDeadLetter {
    /// The dead letter's id.
    pub id: i64,
    /// The task; empty where the whole record failed.
    pub task: String,
    /// The class of fault.
    pub class: String,
    /// What was wrong.
    pub reason: String,
    /// The record's topic.
    pub topic: String,
    /// The record's partition.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// When it was written, in Unix milliseconds.
    pub created_at_ms: i64,
}

/// A Parquet file that is part of its dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    pub path: String,
    pub rows: i32,
    pub bytes: i64,
}

/// The [`BatchSource`] of a row with the batch's columns; none where the batch is not stored any more.
macro_rules! batch_source {
    ($row:expr) => {
        match ($row.topic, $row.partition, $row.from_offset, $row.to_offset, $row.committed_at_ms) {
            (Some(topic), Some(partition), Some(from_offset), Some(to_offset), Some(committed_at_ms)) => {
                let batch_id = $row.batch_id.to_string();
                Some(BatchSource { batch_id, topic, partition, from_offset, to_offset, committed_at_ms })
            }
            _ => None,
        }
    };
}

impl Reader {
    /// The document, whether deleted or not.
    pub async fn document_details(&self, pipeline: &str, id: &str) -> Result<Option<DocumentDetails>, Transient> {
        let mut view = self.view().await?;
        let row = sqlx::query!(
            r#"SELECT d.version, d.deleted, d.text, d.metadata,
                      (extract(epoch FROM d.updated_at) * 1000)::bigint AS "updated_at_ms!", d.batch_id,
                      b.topic AS "topic?", b.partition AS "partition?", b.from_offset AS "from_offset?", b.to_offset AS "to_offset?",
                      (extract(epoch FROM b.committed_at) * 1000)::bigint AS "committed_at_ms?"
               FROM documents d LEFT JOIN batches b ON b.id = d.batch_id
               WHERE d.pipeline = $1 AND d.id = $2"#,
            pipeline,
            id
        )
        .fetch_optional(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(row.map(|row| DocumentDetails {
            version: row.version,
            deleted: row.deleted,
            text: row.text,
            metadata: row.metadata,
            updated_at_ms: row.updated_at_ms,
            source: batch_source!(row),
        }))
    }

    /// The document's dead letters, the latest first.
    pub async fn document_dead_letters(&self, pipeline: &str, id: &str) -> Result<Vec<DocumentDeadLetter>, Transient> {
        let mut view = self.view().await?;
        let dead_letters = sqlx::query_as!(
            DocumentDeadLetter,
            r#"SELECT id, task, class, reason, topic, partition, record_offset AS "offset",
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_at_ms!"
               FROM dead_letters WHERE pipeline = $1 AND document_id = $2 ORDER BY id DESC LIMIT $3"#,
            pipeline,
            id,
            DEAD_LETTERS
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(dead_letters)
    }
}

impl Store {
    /// The document's latest output of each task, in the order of task names.
    pub async fn document_outputs(&self, pipeline: &str, id: &str) -> Result<Vec<OutputDetails>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT r.task, r.kind, r.version, r.label, r.confidence, r.text, r.fields, r.model, r.model_revision, r.prompt,
                      p.name AS "prompt_name?", p.schema AS "schema?", encode(r.fingerprint, 'hex') AS "fingerprint!",
                      r.tokens, r.generated_tokens, r.device_micros, r.batch_id,
                      CASE WHEN r.model IS NULL THEN NULL
                           WHEN u.reused = 0 OR r.device_micros > 0 THEN false
                           WHEN u.ok = 0 THEN true END AS reused,
                      (SELECT count(*) FROM embeddings e
                       WHERE e.pipeline = r.pipeline AND e.document_id = r.document_id AND e.task = r.task) AS "chunks!",
                      (extract(epoch FROM r.updated_at) * 1000)::bigint AS "updated_at_ms!",
                      b.topic AS "topic?", b.partition AS "partition?", b.from_offset AS "from_offset?", b.to_offset AS "to_offset?",
                      (extract(epoch FROM b.committed_at) * 1000)::bigint AS "committed_at_ms?"
               FROM results r
               LEFT JOIN batches b ON b.id = r.batch_id
               LEFT JOIN usage u ON u.batch_id = r.batch_id AND u.task = r.task
               LEFT JOIN prompts p ON p.version = r.prompt
               WHERE r.pipeline = $1 AND r.document_id = $2
               ORDER BY r.task"#,
            pipeline,
            id
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        let outputs = rows.into_iter().map(|row| OutputDetails {
            computed: OutputSummary {
                task: row.task,
                kind: row.kind,
                version: row.version,
                label: row.label,
                confidence: row.confidence,
                text: row.text,
                model: row.model,
                model_revision: row.model_revision,
                prompt_version: row.prompt,
                tokens: row.tokens.into(),
                generated_tokens: row.generated_tokens.into(),
                device_micros: row.device_micros,
            },
            details: row.fields,
            prompt: row.prompt_name,
            schema: row.schema,
            fingerprint: row.fingerprint,
            reused: row.reused,
            chunks: row.chunks,
            updated_at_ms: row.updated_at_ms,
            source: batch_source!(row),
        });
        Ok(outputs.collect())
    }

    /// The pipeline's newest files that are part of a dataset, and how many there are in all.
    pub async fn live_files(&self, pipeline: &str, limit: i64) -> Result<(Vec<LiveFile>, i64), Transient> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM parquet_files WHERE pipeline = $1 AND state = 'live'"#,
            pipeline
        )
        .fetch_one(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        let files = sqlx::query_as!(
            LiveFile,
            r#"SELECT path, rows AS "rows!", bytes AS "bytes!" FROM parquet_files
               WHERE pipeline = $1 AND state = 'live' ORDER BY created_at DESC, path LIMIT $2"#,
            pipeline,
            limit
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok((files, count))
    }
}
