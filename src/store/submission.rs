//! The rows that one micro-batch brings to its commit.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::{CopySubmission, LeadSubmission, StagedFile};
use tidemill_base::checkpoint::CheckpointDelta;
use tidemill_base::failure::Tolerance;
use tidemill_base::outcome::{Cost, EmbeddedChunk, Fingerprint, Interaction, Lineage};

/// Everything that one micro-batch makes true.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The batch.
    pub batch: BatchRow,
    /// What each task came to.
    pub usage: Vec<UsageRow>,
    /// The latest version of each document in the batch; ids are distinct.
    pub documents: Vec<DocumentRow>,
    /// Outputs to write, of documents in `documents`.
    pub results: Vec<ResultRow>,
    /// Units whose visible row was found to hold the output already: document, task, fingerprint.
    pub unchanged: Vec<(String, String, Fingerprint)>,
    /// Units without an output for this version; what an older version left there goes.
    pub removed: Vec<(String, String)>,
    /// What can never succeed.
    pub dead_letters: Vec<DeadLetterRow>,
    /// What to publish.
    pub events: Vec<Event>,
    /// The file staged for the batch.
    pub file: Option<StagedFile>,
    /// The copy that the batch brings, where the pipeline is a catalogue's.
    pub copy: Option<CopySubmission>,
    /// How many dead letters the pipeline bears, where the commit is to count those of the last records.
    pub tolerance: Option<Tolerance>,
    /// What becomes of the documents' leads, where the pipeline makes leads of them.
    pub leads: Option<LeadSubmission>,
}

/// A row of `batches`.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// The batch's id, by which a lost reply is resolved.
    pub id: Uuid,
    /// The pipeline.
    pub pipeline: String,
    /// The offsets covered.
    pub delta: CheckpointDelta,
    /// Records in it.
    pub records: i32,
    /// Rows of its Parquet file.
    pub parquet_rows: i32,
}

/// A row of `usage`; the counts of a batch are their sums.
#[derive(Debug, Clone, Default)]
pub struct UsageRow {
    /// The task.
    pub task: String,
    /// Units computed, and deletes carried out.
    pub ok: i32,
    /// Units taken over.
    pub reused: i32,
    /// Units rightly not done.
    pub skipped: i32,
    /// Units that can never be done.
    pub dead: i32,
    /// Tokens the model read.
    pub tokens: i64,
    /// Tokens the model wrote.
    pub generated_tokens: i64,
    /// Device time.
    pub device_micros: i64,
}

/// A version of a document.
#[derive(Debug, Clone)]
pub struct DocumentRow {
    /// The document.
    pub id: String,
    /// Its version; `None` for a delete where none is known.
    pub version: Option<i64>,
    /// Whether it stands over whatever version is there: a delete that names none.
    pub wins: bool,
    /// Whether it may bring back a document whose delete has the same version: its record came after the delete. What a job reads, or an
    /// operator sends again, may have been written before it.
    pub revives: bool,
    /// What to store; `None` for a delete.
    pub content: Option<DocumentContent>,
}

/// What is stored of a document.
#[derive(Debug, Clone)]
pub struct DocumentContent {
    /// The text.
    pub text: Arc<str>,
    /// The metadata, a JSON object.
    pub metadata: String,
    /// Every field of the source, a JSON object; `None` where the database cannot hold them.
    pub source: Option<String>,
}

/// An output to write.
#[derive(Debug, Clone)]
pub struct ResultRow {
    /// The document.
    pub document_id: String,
    /// The task.
    pub task: String,
    /// The kind of task.
    pub kind: &'static str,
    /// The document's version.
    pub version: i64,
    /// The first label.
    pub label: Option<String>,
    /// Its probability.
    pub confidence: Option<f32>,
    /// The text output.
    pub text: Option<String>,
    /// Everything else, a JSON object.
    pub fields: String,
    /// Identifies the computation.
    pub fingerprint: Fingerprint,
    /// What it took.
    pub cost: Cost,
    /// Where it comes from.
    pub lineage: Lineage,
    /// Vectors, with the id of their set.
    pub embedding: Option<(i32, Vec<EmbeddedChunk>)>,
    /// What somebody did with another document, with its time where that is known.
    pub interaction: Option<Interaction>,
}

/// A record or unit that can never succeed.
#[derive(Debug, Clone)]
pub struct DeadLetterRow {
    /// Where the record stands.
    pub offset: i64,
    /// The task; empty where the record as a whole is at fault.
    pub task: String,
    /// The document, where the record could be decoded.
    pub document_id: Option<String>,
    /// The class of fault.
    pub class: &'static str,
    /// The sentence that says what is wrong.
    pub reason: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's payload, as it came.
    pub payload: Option<Vec<u8>>,
    /// Names of the headers.
    pub header_names: Vec<String>,
    /// Values of the headers.
    pub header_values: Vec<Option<Vec<u8>>>,
    /// The record's timestamp.
    pub timestamp_ms: Option<i64>,
    /// How often the record was tried.
    pub attempts: i32,
    /// How often it had been sent again before.
    pub replays: i32,
}

/// An event for the outbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// What consumers deduplicate by.
    pub event_id: Uuid,
    /// The topic.
    pub topic: String,
    /// The record's key.
    pub key: Vec<u8>,
    /// The record's payload.
    pub payload: Option<Vec<u8>>,
    /// The record's headers, an object of strings.
    pub headers: Value,
    /// The document whose version must win for the event to be true; `None` where it is true in any case.
    pub document_id: Option<String>,
}
