//! Where everything that is said of a document comes from: the ledger's rows, and what the Parquet files remember of earlier ones.
//!
//! | asked | answered by |
//! |---|---|
//! | what is there now, by which model and prompt, what it took, whether it was taken over | the ledger |
//! | what was there before, and from which record exactly | the files, the newest first, as far as is bearable |
//! | what never became an output | dead letters |

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

/// Files that are looked into at most.
const FILES: i64 = 500;

/// How long they are looked into.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files that could not be read and are named.
const NAMED: usize = 5;

/// Answers where documents of some pipelines come from. Clones share everything.
#[derive(Debug, Clone)]
pub struct Explainer {
    store: Store,
    reader: Reader,
    /// The pipelines, and whose each is.
    pipelines: Arc<BTreeMap<String, Arc<str>>>,
    price_per_device_hour: Option<f64>,
}

/// Everything that is known of a document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DocumentExplanation {
    /// The pipeline.
    pub pipeline: String,
    /// The document's id.
    pub document_id: String,
    /// The document as it is; absent where only dead letters or files know it.
    pub document: Option<DocumentDetails>,
    /// The latest output of each task.
    pub outputs: Vec<ExplainedOutput>,
    /// What of it became dead letters, the latest first.
    pub dead_letters: Vec<DocumentDeadLetter>,
    /// What was computed of it, the latest first.
    pub history: OutputHistory,
}

/// The output of one task.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainedOutput {
    /// What the ledger knows.
    #[serde(flatten)]
    pub facts: OutputDetails,
    /// Device time in milliseconds.
    pub device_milliseconds: f64,
    /// What that costs, where the configuration has a price.
    pub cost: Option<f64>,
    /// The record that it was computed from, where a file that was read knows it.
    pub record: Option<RecordPosition>,
}

/// The place of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What the Parquet files remember.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct OutputHistory {
    /// Outputs when they were computed, the latest first.
    pub outputs: Vec<PastOutput>,
    /// Live files of the pipeline.
    pub files: i64,
    /// Files that were looked into, the newest ones.
    pub files_read: i64,
    /// Files that could not be read from here.
    pub files_unreadable: i64,
    /// Why, of the first few.
    pub faults: Vec<String>,
    /// What the history cannot know, in sentences.
    pub unknown: Vec<String>,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The question is at fault: one sentence with the mend.
    #[error("{0}")]
    Invalid(String),
    /// Nothing is known of the document.
    #[error("pipeline `{pipeline}` has no document `{id}`: no record of that id was committed")]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// The id that was asked for.
        id: String,
    },
    /// The database is out of order for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl Explainer {
    /// Answers for these pipelines.
    pub fn new<'a>(
        store: Store,
        definitions: impl IntoIterator<Item = &'a Definition>,
        price_per_device_hour: Option<f64>,
    ) -> Self {
        let pipelines = definitions.into_iter().map(|definition| (definition.name.to_string(), definition.tenant.clone()));
        Self { reader: store.reader(None), store, pipelines: Arc::new(pipelines.collect()), price_per_device_hour }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.pipelines.iter().filter(|(name, owner)| tenant.owns(name, owner));
        let pipelines = theirs.map(|(name, owner)| (name.clone(), owner.clone())).collect();
        Self { reader: self.reader.of(tenant.name.clone()), pipelines: Arc::new(pipelines), ..self.clone() }
    }

    /// Everything that is known of the document. The pipeline may be left out where there is one.
    ///
    /// # Errors
    /// Where there is no such pipeline or document, or the database is out of order.
    pub async fn explain(&self, pipeline: Option<&str>, id: &str) -> Result<DocumentExplanation, ExplainError> {
        let pipeline = self.pipeline(pipeline)?;
        if id.contains('\0') {
            return Err(ExplainError::Invalid("the id holds U+0000, which no document's does; remove it".into()));
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
        let within = |past: &&PastOutput| {
            past.computed.task == facts.computed.task
                && facts.source.as_ref().is_some_and(|source| {
                    (&past.topic, past.partition) == (&source.topic, source.partition)
                        && (source.from_offset..source.to_offset).contains(&past.offset)
                })
        };
        let record = history.outputs.iter().find(within);
        let record =
            record.map(|past| RecordPosition { topic: past.topic.clone(), partition: past.partition, offset: past.offset });
        let micros = facts.computed.device_micros as f64;
        let cost = self.price_per_device_hour.map(|price| micros / 3.6e9 * price);
        ExplainedOutput { device_milliseconds: micros / 1_000.0, cost, record, facts }
    }

    async fn history(&self, pipeline: &str, id: &str) -> Result<OutputHistory, Transient> {
        let (files, count) = self.store.live_files(pipeline, FILES).await?;
        let document = id.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + PATIENCE;
            let mut history = OutputHistory { files: count, ..OutputHistory::default() };
            for file in &files {
                if Instant::now() > deadline || history.outputs.len() >= history::ROWS {
                    break;
                }
                match history::read(&file.path, &document, deadline) {
                    Ok(found) => {
                        history.files_read += 1;
                        history.outputs.extend(found);
                    }
                    Err(error) => {
                        history.files_unreadable += 1;
                        if history.faults.len() < NAMED {
                            history.faults.push(format!("{} cannot be read: {error}", file.path));
                        }
                    }
                }
            }
            history.outputs.sort_by_key(|past| std::cmp::Reverse(past.processed_at_ms));
            history.outputs.truncate(history::ROWS);
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

/// What nobody can know from the files that were read.
fn unknown(history: &OutputHistory) -> Vec<String> {
    let mut sentences = vec![
        "a file has what a batch computed or copied: outputs that were found unchanged, skips and deletes are in none".to_owned(),
    ];
    if history.files == 0 {
        sentences = vec!["the pipeline has no Parquet files, so that only the latest outputs are known".to_owned()];
    }
    let untouched = history.files - history.files_read - history.files_unreadable;
    if untouched > 0 {
        sentences.push(format!("{untouched} older files were not looked into: what they say of the document is not told"));
    }
    if history.files_unreadable > 0 {
        let unreadable = history.files_unreadable;
        sentences.push(format!("{unreadable} files cannot be read from here: they may lie on the disk of another machine"));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_read_is_said() {
        let read = OutputHistory { files: 10, files_read: 7, files_unreadable: 1, ..OutputHistory::default() };
        let said = unknown(&read).join("; ");
        assert!(
            said.contains("2 older files were not looked into") && said.contains("1 files cannot be read from here"),
            "{said}"
        );
        assert_eq!(unknown(&OutputHistory { files: 3, files_read: 3, ..OutputHistory::default() }).len(), 1);
        assert!(unknown(&OutputHistory::default())[0].contains("no Parquet files"));
    }
}
