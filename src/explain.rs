//! Provenance: where the outputs of a document come from, by the database and by the Parquet files of earlier outputs.
//!
//! | question | source |
//! |---|---|
//! | the current outputs, their models, prompts and costs, and whether they were reused | the database |
//! | earlier outputs, and the exact record of each | the files, the newest first, within limits of number and time |
//! | records and tasks that failed | dead letters |

mod history;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Tenant;
use crate::did_you_mean;
use crate::failure::Transient;
use crate::pipeline::definition::Definition;
use crate::store::{DocumentDeadLetter, DocumentDetails, OutputDetails, Reader, Store};

pub use history::PastOutput;

/// The maximum number of files that are read.
const MAX_FILES: i64 = 500;

/// The maximum time for reading files.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// How many unreadable files are named.
const MAX_NAMED_FAULTS: usize = 5;

/// Explains where documents of some pipelines come from. Clones share everything.
#[derive(Debug, Clone)]
pub struct Explainer {
    store: Store,
    reader: Reader,
    /// The pipelines, with the tenants that own them.
    pipelines: Arc<BTreeMap<String, Arc<str>>>,
    price_per_device_hour: Option<f64>,
}

/// Everything that is known about a document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Explained)]
pub struct DocumentExplanation {
    pub pipeline: String,
    pub document_id: String,
    /// The current document; absent if only dead letters or files have it.
    pub document: Option<DocumentDetails>,
    /// The latest output of each task.
    pub outputs: Vec<ExplainedOutput>,
    /// Its dead letters, the latest first.
    pub dead_letters: Vec<DocumentDeadLetter>,
    /// Its outputs of all times, the latest first.
    pub history: OutputHistory,
}

/// The output of one task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedOutput {
    #[serde(flatten)]
    pub facts: OutputDetails,
    /// Device time in milliseconds.
    pub device_milliseconds: f64,
    /// The cost of the device time, if a price is configured.
    pub cost: Option<f64>,
    /// The record that the output was computed from, if one of the files that were read has it.
    pub record: Option<RecordPosition>,
}

/// The position of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RecordPlace)]
pub struct RecordPosition {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// Outputs of all times, from the Parquet files.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = History)]
pub struct OutputHistory {
    /// The outputs, the latest first.
    pub outputs: Vec<PastOutput>,
    /// The number of the pipeline's current files.
    pub files: i64,
    /// How many files were read, the newest ones.
    pub files_read: i64,
    /// How many files could not be read.
    pub files_unreadable: i64,
    /// Why they could not be read, for the first few.
    pub faults: Vec<String>,
    /// What the history lacks, in sentences.
    pub unknown: Vec<String>,
}

/// Why a document cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The request is not valid: a sentence that says how to fix it.
    #[error("{0}")]
    Invalid(String),
    /// There is no such document.
    #[error("pipeline `{pipeline}` has no document `{id}`: no record of that id was committed")]
    Unknown { pipeline: String, id: String },
    /// A component is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl Explainer {
    /// Explains documents of these pipelines.
    pub fn new<'a>(
        store: Store,
        definitions: impl IntoIterator<Item = &'a Definition>,
        price_per_device_hour: Option<f64>,
    ) -> Self {
        let pipelines = definitions.into_iter().map(|definition| (definition.name.to_string(), definition.tenant.clone()));
        Self { reader: store.reader(None), store, pipelines: Arc::new(pipelines.collect()), price_per_device_hour }
    }

    /// The same explainer with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let pipelines = Arc::new(tenant.select(&self.pipelines, |owner| owner));
        Self { reader: self.reader.of(tenant.name.clone()), pipelines, ..self.clone() }
    }

    /// Everything that is known about a document. The pipeline may be omitted if there is only one.
    ///
    /// # Errors
    /// See [`ExplainError`].
    pub async fn explain(&self, pipeline: Option<&str>, id: &str) -> Result<DocumentExplanation, ExplainError> {
        let pipeline = self.pipeline(pipeline)?;
        if id.contains('\0') {
            return Err(ExplainError::Invalid("the id contains U+0000, which no id can; remove it".into()));
        }
        let document = self.reader.document_details(pipeline, id).await?;
        let outputs = self.store.document_outputs(pipeline, id).await?;
        let dead_letters = self.reader.document_dead_letters(pipeline, id).await?;
        let history = self.history(pipeline, id).await?;
        if document.is_none() && dead_letters.is_empty() && history.outputs.is_empty() {
            return Err(ExplainError::Unknown { pipeline: pipeline.to_owned(), id: id.to_owned() });
        }
        let outputs = outputs.into_iter().map(|facts| self.output(facts, &history)).collect();
        Ok(DocumentExplanation {
            pipeline: pipeline.to_owned(),
            document_id: id.to_owned(),
            document,
            outputs,
            dead_letters,
            history,
        })
    }

    fn pipeline(&self, name: Option<&str>) -> Result<&str, ExplainError> {
        did_you_mean::pipeline(&self.pipelines, name, "").map(|(name, _)| name).map_err(ExplainError::Invalid)
    }

    fn output(&self, facts: OutputDetails, history: &OutputHistory) -> ExplainedOutput {
        let is_source = |past: &&PastOutput| {
            past.computed.task == facts.computed.task
                && facts.source.as_ref().is_some_and(|source| {
                    (&past.topic, past.partition) == (&source.topic, source.partition)
                        && (source.from_offset..source.to_offset).contains(&past.offset)
                })
        };
        let record = history.outputs.iter().find(is_source);
        let record =
            record.map(|past| RecordPosition { topic: past.topic.clone(), partition: past.partition, offset: past.offset });
        let micros = facts.computed.device_micros as f64;
        let cost = self.price_per_device_hour.map(|price| micros / 3.6e9 * price);
        ExplainedOutput { device_milliseconds: micros / 1_000.0, cost, record, facts }
    }

    async fn history(&self, pipeline: &str, id: &str) -> Result<OutputHistory, Transient> {
        let (files, count) = self.store.live_files(pipeline, MAX_FILES).await?;
        let document = id.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + READ_TIMEOUT;
            let mut history = OutputHistory { files: count, ..OutputHistory::default() };
            for file in &files {
                if Instant::now() > deadline || history.outputs.len() >= history::MAX_OUTPUTS {
                    break;
                }
                match history::read(&file.path, &document, deadline) {
                    Ok(found) => {
                        history.files_read += 1;
                        history.outputs.extend(found);
                    }
                    Err(error) => {
                        history.files_unreadable += 1;
                        if history.faults.len() < MAX_NAMED_FAULTS {
                            history.faults.push(format!("{} cannot be read: {error}", file.path));
                        }
                    }
                }
            }
            history.outputs.sort_by_key(|past| std::cmp::Reverse(past.processed_at_ms));
            history.outputs.truncate(history::MAX_OUTPUTS);
            history
        });
        let mut history = read.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => OutputHistory::default(),
        });
        history.unknown = unknown(&history);
        Ok(history)
    }
}

/// What the files that were read cannot show.
fn unknown(history: &OutputHistory) -> Vec<String> {
    let mut sentences = vec![
        "files contain outputs that a batch computed or reused, but no unchanged outputs, no skipped tasks and no deletions"
            .to_owned(),
    ];
    if history.files == 0 {
        sentences = vec!["the pipeline has no Parquet files, so only the latest outputs are known".to_owned()];
    }
    let untouched = history.files - history.files_read - history.files_unreadable;
    if untouched > 0 {
        sentences.push(format!("{untouched} older files were not read, so their outputs are missing"));
    }
    if history.files_unreadable > 0 {
        let unreadable = history.files_unreadable;
        sentences.push(format!("{unreadable} files cannot be read; they may be on the disk of another machine"));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_is_said() {
        let read = OutputHistory { files: 10, files_read: 7, files_unreadable: 1, ..OutputHistory::default() };
        let sentences = unknown(&read).join("; ");
        assert!(sentences.contains("2 older files were not read") && sentences.contains("1 files cannot be read"), "{sentences}");
        assert_eq!(unknown(&OutputHistory { files: 3, files_read: 3, ..OutputHistory::default() }).len(), 1);
        assert!(unknown(&OutputHistory::default())[0].contains("no Parquet files"));
    }
}
