//! Everything that the ledger knows of one document.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{InTime, Reader, Store};
use tidemill_base::failure::Transient;

/// Dead letters of a document that are listed.
const LETTERS: i64 = 50;

/// A document as the ledger has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DocumentDetails {
    /// Its version, by which a later one wins.
    pub version: i64,
    /// Whether the latest version is a delete.
    pub deleted: bool,
    /// Its text, whose bytes the places in outputs count.
    pub text: String,
    /// Its metadata.
    pub metadata: Value,
    /// When it was last written, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// The batch that wrote it.
    pub source: Option<BatchSource>,
}

/// The records that a batch was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchSource {
    /// The batch's id.
    pub batch_id: String,
    /// The topic, or that of a job's unit.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The batch's first offset.
    pub from_offset: i64,
    /// One past its last.
    pub to_offset: i64,
    /// When it was committed, in Unix milliseconds.
    pub committed_at_ms: i64,
}

/// What a task made of a document, by what, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutputSummary {
    /// The task.
    pub task: String,
    /// The kind of task.
    pub kind: String,
    /// The version of the document that it was made of.
    pub version: i64,
    /// The first label.
    pub label: Option<String>,
    /// How sure the model was.
    pub confidence: Option<f32>,
    /// The text.
    pub text: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The hash of its files, or where it is served.
    pub model_revision: Option<String>,
    /// The hash of the prompt's wording and parameters.
    pub prompt_version: Option<String>,
    /// Tokens that the model read; of an embedding, for all its chunks.
    pub tokens: i64,
    /// Tokens that it wrote.
    pub generated_tokens: i64,
    /// Device time in microseconds.
    pub device_micros: i64,
}

/// The output of one task, with where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OutputDetails {
    /// What it says, and what it took.
    #[serde(flatten)]
    pub computed: OutputSummary,
    /// Everything else that was found out.
    pub details: Value,
    /// The prompt's name.
    pub prompt: Option<String>,
    /// The schema that the answer was held to.
    pub schema: Option<String>,
    /// Identifies the computation: an equal one is not made again.
    pub fingerprint: String,
    /// Whether it was taken over from an earlier computation; unknown where its batch did both and the row does not tell.
    pub reused: Option<bool>,
    /// Chunks with a vector.
    pub chunks: i64,
    /// When it was written, in Unix milliseconds.
    pub updated_at_ms: i64,
    /// The batch that wrote it.
    pub source: Option<BatchSource>,
}

/// A time that a document could not be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DocumentDeadLetter {
    /// The letter's id.
    pub id: i64,
    /// The task; empty where the record as a whole was at fault.
    pub task: String,
    /// The class of fault.
    pub class: String,
    /// What was wrong.
    pub reason: String,
    /// Topic of the record.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When, in Unix milliseconds.
    pub created_at_ms: i64,
}

/// A live file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveFile {
    /// Its path.
    pub path: String,
    /// Rows in it.
    pub rows: i32,
    /// Its size.
    pub bytes: i64,
}

impl Reader {
    /// The document, whether deleted or not.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(row.map(|row| DocumentDetails {
            version: row.version,
            deleted: row.deleted,
            text: row.text,
            metadata: row.metadata,
            updated_at_ms: row.updated_at_ms,
            source: origin(
                row.batch_id.to_string(),
                row.topic,
                row.partition,
                (row.from_offset, row.to_offset),
                row.committed_at_ms,
            ),
        }))
    }

    /// What of the document became dead letters, the latest first.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn document_dead_letters(&self, pipeline: &str, id: &str) -> Result<Vec<DocumentDeadLetter>, Transient> {
        let mut view = self.view().await?;
        let letters = sqlx::query_as!(
            DocumentDeadLetter,
            r#"SELECT id, task, class, reason, topic, partition, record_offset AS "offset",
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_at_ms!"
               FROM dead_letters WHERE pipeline = $1 AND document_id = $2 ORDER BY id DESC LIMIT $3"#,
            pipeline,
            id,
            LETTERS
        )
        .fetch_all(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(letters)
    }
}

impl Store {
    /// The latest output of each task for the document, by task.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await?;
        let facts = rows.into_iter().map(|row| OutputDetails {
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
            source: origin(
                row.batch_id.to_string(),
                row.topic,
                row.partition,
                (row.from_offset, row.to_offset),
                row.committed_at_ms,
            ),
        });
        Ok(facts.collect())
    }

    /// The latest live files of the pipeline, the newest first, and how many there are in all.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn live_files(&self, pipeline: &str, limit: i64) -> Result<(Vec<LiveFile>, i64), Transient> {
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM parquet_files WHERE pipeline = $1 AND state = 'live'"#,
            pipeline
        )
        .fetch_one(&self.pool)
        .in_time(self.deadline)
        .await?;
        let files = sqlx::query_as!(
            LiveFile,
            r#"SELECT path, rows AS "rows!", bytes AS "bytes!" FROM parquet_files
               WHERE pipeline = $1 AND state = 'live' ORDER BY created_at DESC, path LIMIT $2"#,
            pipeline,
            limit
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok((files, count))
    }
}

/// Where the batch is still known.
fn origin(
    batch_id: String,
    topic: Option<String>,
    partition: Option<i32>,
    (from_offset, to_offset): (Option<i64>, Option<i64>),
    committed_at_ms: Option<i64>,
) -> Option<BatchSource> {
    Some(BatchSource {
        batch_id,
        topic: topic?,
        partition: partition?,
        from_offset: from_offset?,
        to_offset: to_offset?,
        committed_at_ms: committed_at_ms?,
    })
}
