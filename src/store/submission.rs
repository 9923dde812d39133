//! The rows of one micro-batch, in the form in which its commit takes them.
//!
//! A *task record* is the pair of a record and a task: a batch of 100 records in a pipeline with three tasks has 300 task records.

mod copy;
mod leads;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::StagedFile;
use tidemill_base::checkpoint::CheckpointDelta;
use tidemill_base::failure::Tolerance;
use tidemill_base::outcome::{Cost, EmbeddedChunk, Fingerprint, Interaction, Lineage};

pub use copy::{CopyDraft, CopyRow, CopySubmission};
pub use leads::{AccountTopic, LeadRow, LeadSubmission};

/// Everything that one micro-batch writes.
#[derive(Debug, Clone)]
pub struct Submission {
    pub batch: BatchRow,
    /// Counts and costs, one row per task.
    pub usage: Vec<UsageRow>,
    /// The latest version of each document in the batch; ids are distinct.
    pub documents: Vec<DocumentRow>,
    /// Outputs to write, all of them of documents in `documents`.
    pub results: Vec<ResultRow>,
    /// Task records whose stored result already is their output: document, task, fingerprint. The commit checks that it still is.
    pub unchanged: Vec<(String, String, Fingerprint)>,
    /// Document and task of results to delete, because the new version of the document has no such output.
    pub removed: Vec<(String, String)>,
    pub dead_letters: Vec<DeadLetterRow>,
    /// Events to publish after the commit.
    pub events: Vec<Event>,
    /// The Parquet file that was staged for the batch.
    pub file: Option<StagedFile>,
    /// The copy that the batch made, in a pipeline that writes copy.
    pub copy: Option<CopySubmission>,
    /// How many dead letters the pipeline tolerates; none where this commit need not count them.
    pub tolerance: Option<Tolerance>,
    /// Changes of leads, in a pipeline that scores leads.
    pub leads: Option<LeadSubmission>,
}

impl Submission {
    /// Ids of the documents that the batch deletes, of those that were accepted: a delete is a document without content.
    pub(super) fn deleted_ids<'a>(&'a self, accepted: &HashSet<String>) -> Vec<&'a str> {
        let deleted = self.documents.iter().filter(|document| document.content.is_none() && accepted.contains(&document.id));
        deleted.map(|document| document.id.as_str()).collect()
    }
}

/// A row of `batches`.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// A process that lost the reply to its commit looks the batch up by this id.
    pub id: Uuid,
    pub pipeline: String,
    pub delta: CheckpointDelta,
    /// How many records the batch has.
    pub records: i32,
    /// How many rows its Parquet file has.
    pub parquet_rows: i32,
}

/// A row of `usage`: one task in one batch. The counts of the batch are the sums of its rows.
#[derive(Debug, Clone, Default)]
pub struct UsageRow {
    pub task: String,
    /// Task records that were computed, and deletes that were carried out.
    pub ok: i32,
    /// Task records whose output was taken from an earlier computation.
    pub reused: i32,
    /// Task records that need no output.
    pub skipped: i32,
    /// Task records that became dead letters.
    pub dead: i32,
    /// Tokens that models read.
    pub tokens: i64,
    /// Tokens that models wrote.
    pub generated_tokens: i64,
    pub device_micros: i64,
}

/// A version of a document.
#[derive(Debug, Clone)]
pub struct DocumentRow {
    pub id: String,
    /// None for a delete that names no version, where no version is stored.
    pub version: Option<i64>,
    /// Whether it replaces the stored version whatever its number: a delete that names no version.
    pub wins: bool,
    /// Whether it may bring back a document whose delete has the same version, because its record came after the delete. Rows of a
    /// job and records that an operator sent again may be older than the delete, and may not.
    pub revives: bool,
    /// None for a delete.
    pub content: Option<DocumentContent>,
}

/// What is stored of a document.
#[derive(Debug, Clone)]
pub struct DocumentContent {
    pub text: Arc<str>,
    pub metadata: String,
    /// Every field of the source, as a JSON object; none where the database cannot store them.
    pub source: Option<String>,
}

/// A row of `results`.
#[derive(Debug, Clone)]
pub struct ResultRow {
    pub document_id: String,
    pub task: String,
    /// The kind of task.
    pub kind: &'static str,
    pub version: i64,
    /// The most probable label of a classification.
    pub label: Option<String>,
    pub confidence: Option<f32>,
    pub text: Option<String>,
    /// The details that have no column of their own, as a JSON object.
    pub fields: String,
    pub fingerprint: Fingerprint,
    pub cost: Cost,
    pub lineage: Lineage,
    /// The id of the embedding set, and the vectors.
    pub embedding: Option<(i32, Vec<EmbeddedChunk>)>,
    /// The interaction that the result records, with its time where that is known.
    pub interaction: Option<Interaction>,
}

/// A row of `dead_letters`: a record, or one task of a record, that fails however often it is tried.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    /// The record's offset in the batch's partition.
    pub offset: i64,
    /// Empty where the whole record failed.
    pub task: String,
    /// None where the record could not be decoded.
    pub document_id: Option<String>,
    /// The name of a [`FailureClass`](tidemill_base::failure::FailureClass).
    pub class: &'static str,
    /// One sentence that says what is wrong.
    pub reason: String,
    pub key: Option<Vec<u8>>,
    /// The record's payload as it came.
    pub payload: Option<Vec<u8>>,
    pub header_names: Vec<String>,
    pub header_values: Vec<Option<Vec<u8>>>,
    pub timestamp_ms: Option<i64>,
    /// How often the record was tried.
    pub attempts: i32,
    /// How often the record had been replayed before.
    pub replays: i32,
}

/// A row of `outbox`.
#[derive(Debug, Clone)]
pub struct Event {
    /// Consumers deduplicate by this id.
    pub event_id: Uuid,
    pub topic: String,
    pub key: Vec<u8>,
    pub payload: Option<Vec<u8>>,
    /// An object of strings.
    pub headers: Value,
    /// The event is published only if this document's version is accepted; none publishes it in any case.
    pub document_id: Option<String>,
}
