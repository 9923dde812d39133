//! The outputs of tasks, and the outcome of every task record.
//!
//! A *task record* is the pair of a record and a task. Each has exactly one [`Outcome`], so that `in = ok + reused + skipped +
//! dead` holds for every batch.

mod claims;
mod composed;
mod generated;
mod interaction;
mod passages;
mod score;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

pub use claims::{ClaimKind, UnsupportedClaim};
pub use composed::{Check, CheckFailure, ComposedObject, FactTrace, Provenance};
pub use generated::{Confidence, Evidence, ExtractedValue, Extraction, MatchKind, SummaryMode, WrittenText};
pub use interaction::Interaction;
pub use passages::RetrievedPassage;
pub use score::{Score, ScorePart};

use crate::failure::Poison;

/// The outcome of one task record.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The output was computed.
    Computed(ComputedOutput),
    /// The output was computed before, for this or another document, and took no device time.
    Reused(ReusedOutput),
    /// The task need not run for this document.
    Skipped(SkipReason),
    /// The task fails for this document, however often it is tried.
    Dead(Poison),
}

/// An output with the cost of computing it.
#[derive(Debug, Clone)]
pub struct ComputedOutput {
    pub output: Output,
    pub fingerprint: Fingerprint,
    pub cost: Cost,
}

/// The cost of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Tokens that the model read.
    pub tokens: u32,
    /// Tokens that the model wrote.
    pub generated: u32,
    /// Device time in microseconds. The time of a batch is divided by tokens.
    pub device_micros: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.generated += other.generated;
        self.device_micros += other.device_micros;
    }
}

/// The model and the prompt that make the outputs of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The model's name in the configuration; none for tasks without a model.
    pub model: Option<Arc<str>>,
    /// The hash of the model's files.
    pub revision: Option<Arc<str>>,
    /// The version of the prompt; none for tasks without a prompt.
    pub prompt: Option<Arc<str>>,
}

/// An output that need not be computed.
#[derive(Debug, Clone)]
pub enum ReusedOutput {
    /// The stored result of this document and task has the same fingerprint. Nothing is written.
    Unchanged {
        /// The fingerprint of the stored result. The commit checks that it has not changed.
        fingerprint: Fingerprint,
        /// The output, if a later task reads it.
        output: Option<Output>,
    },
    /// Another stored result has the same fingerprint. Its output is written for this document.
    Copied(ComputedOutput),
}

/// Why a task need not run for a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The task's `when` is false.
    Condition,
    /// A newer version of the document is stored.
    Superseded,
    /// A task whose output this one reads has none for the document.
    Upstream,
}

/// A BLAKE3 hash of everything that decides an output: the model's revision, the task's parameters and the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// The output of a task for a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Classification(Classification),
    Summary(Summary),
    /// Vectors, one per chunk.
    Embedding(Embedding),
    /// Text that a template makes from the document and the outputs of other tasks.
    Text(String),
    /// Typed fields that a model found in the text.
    Extraction(Extraction),
    /// Text that a model wrote.
    WrittenText(WrittenText),
    /// An object that a template made and checks have examined.
    ComposedObject(ComposedObject),
    /// A number that is the sum of several parts.
    Score(Score),
    /// One output for each item of a list, in the list's order.
    Items(Vec<Output>),
    /// Passages of other documents, the most similar first.
    Passages(Vec<RetrievedPassage>),
    /// An interaction of a person with a document.
    Interaction(Interaction),
}

/// Labels with calibrated probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The labels that apply, the most probable first. A multi-label task may give none.
    pub labels: Vec<String>,
    /// Every label of the task with its probability, in the task's order.
    pub scores: Vec<LabelScore>,
}

/// The probability of one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    pub label: String,
    /// The calibrated probability, 0 to 1.
    pub probability: f32,
}

/// A summary of a document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The summary. An extractive one is the chosen sentences in their original order, joined by a space.
    pub text: String,
    /// Where the sentences of an extractive summary are in the document's text.
    pub spans: Vec<Span>,
    pub mode: SummaryMode,
    /// The model's confidence in an abstractive summary.
    pub confidence: Option<Confidence>,
    /// Claims that the model made without support. Where there are some, sentences of the text take the place of what it wrote.
    pub removed: Vec<UnsupportedClaim>,
}

/// A half-open range of bytes in the document's text, on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// The vectors of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The vector space. Vectors of different sets cannot be compared.
    pub set: Arc<EmbeddingSet>,
    /// At least one chunk, in the order of the text.
    pub chunks: Vec<EmbeddedChunk>,
}

/// A vector space: the vectors of one revision of one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbeddingSet {
    /// The model's name in the configuration.
    pub model: String,
    /// The hash of the model's files.
    pub revision: String,
    /// The number of components of a vector.
    pub dimension: usize,
}

/// One chunk of a text with its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedChunk {
    /// Where the chunk is in the document's text.
    pub span: Span,
    /// The number of tokens, including special tokens.
    pub tokens: u32,
    /// A vector of length 1.
    pub vector: Arc<[f32]>,
}

impl Output {
    /// The kind of task that made it, as in tables and Parquet files.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classification(_) => "classify",
            Self::Summary(_) => "summarize",
            Self::Embedding(_) => "embed",
            Self::Text(_) => "render",
            Self::Extraction(_) => "extract",
            Self::WrittenText(_) => "write",
            Self::ComposedObject(_) => "compose",
            Self::Score(_) => "score",
            Self::Items(_) => "items",
            Self::Passages(_) => "retrieve",
            Self::Interaction(_) => "interact",
        }
    }

    /// The most probable label of a classification.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Classification(c) => c.labels.first().map(String::as_str),
            _ => None,
        }
    }

    /// The model's confidence, 0 to 1.
    ///
    /// | output | confidence |
    /// |---|---|
    /// | classification | the greatest probability of a label, whether the label applies or not |
    /// | extraction | the lowest of its values' mean confidences |
    /// | written text, abstractive summary | the mean over all tokens |
    /// | items | the lowest of the items' confidences |
    pub fn confidence(&self) -> Option<f32> {
        match self {
            Self::Classification(c) => c.scores.iter().map(|s| s.probability).reduce(f32::max),
            Self::Extraction(e) => e.confidence(),
            Self::WrittenText(WrittenText { confidence, .. }) | Self::Summary(Summary { confidence, .. }) => {
                confidence.map(|c| c.mean)
            }
            Self::Items(items) => items.iter().filter_map(Self::confidence).reduce(f32::min),
            Self::Embedding(_) | Self::Text(_) | Self::ComposedObject(_) => None,
            Self::Score(_) | Self::Passages(_) | Self::Interaction(_) => None,
        }
    }

    /// The text of the output; none for kinds without text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Summary(s) => Some(&s.text),
            Self::Text(t) => Some(t),
            Self::WrittenText(w) => Some(&w.text),
            Self::ComposedObject(c) => Some(&c.text),
            Self::Classification(_) | Self::Embedding(_) | Self::Extraction(_) => None,
            Self::Score(_) | Self::Items(_) | Self::Passages(_) | Self::Interaction(_) => None,
        }
    }

    /// The object of the output; none for kinds without an object.
    pub fn object(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Extraction(e) => Some(&e.fields),
            Self::WrittenText(w) => w.fields.as_ref(),
            Self::ComposedObject(c) => Some(&c.fields),
            Self::Classification(_) | Self::Summary(_) | Self::Embedding(_) | Self::Text(_) => None,
            Self::Score(_) | Self::Items(_) | Self::Passages(_) | Self::Interaction(_) => None,
        }
    }

    /// The details that have no column of their own, as stored in the column `fields`.
    pub fn fields(&self) -> Value {
        match self {
            Self::Classification(c) => json!(c),
            Self::Summary(s) => match s.mode {
                SummaryMode::Extractive if s.removed.is_empty() => json!({ "mode": s.mode, "spans": s.spans }),
                SummaryMode::Extractive => json!({ "mode": s.mode, "spans": s.spans, "removed": s.removed }),
                SummaryMode::Abstractive => json!({ "mode": s.mode, "spans": s.spans, "confidence": s.confidence }),
            },
            Self::Embedding(e) => json!({ "model": e.set.model, "revision": e.set.revision, "chunks": e.chunks.len() }),
            Self::Text(_) => json!({}),
            Self::Extraction(e) => json!(e),
            Self::WrittenText(w) => w.stored(),
            Self::ComposedObject(c) => c.stored(),
            Self::Score(s) => json!(s),
            Self::Items(items) => generated::store_items(items),
            Self::Passages(passages) => json!({ "passages": passages }),
            Self::Interaction(i) => json!(i),
        }
    }

    /// The output as templates, `when` conditions and later tasks see it, under the task's name.
    ///
    /// | output | names |
    /// |---|---|
    /// | classification | `label`, `confidence`, `labels`, `scores` (by label) |
    /// | summary | `text`; `confidence`, null if extractive; `sentences` (a count) if extractive |
    /// | embedding | `chunks` (a count) |
    /// | rendered text | `text` |
    /// | extraction | `fields`; `grounded` and `evidence`, which have the structure of `fields`; `confidence`; and every field under its own name, unless it is one of these |
    /// | written text | `text`, `confidence`, `truncated`, `unsupported` (claims without support, each with `kind`, `path`, `says`, `message`); with a schema also `fields` and every field under its own name, unless it is one of these |
    /// | composed object | `text`, `fields`, `passed`, `reasons`, and every field under its own name, unless it is one of these |
    /// | score | `value`, `maximum`, `parts` (by name) |
    /// | items | `items` (as above), `count`, `confidence` |
    /// | passages | `passages` (each with `number`, `document_id`, `start`, `end`, `text`, `similarity`), `count` |
    /// | interaction | `user`, `document`, `kind`, `value`, `at_ms` |
    pub fn view(&self) -> Value {
        match self {
            Self::Classification(c) => {
                let scores: serde_json::Map<_, _> = c.scores.iter().map(|s| (s.label.clone(), json!(s.probability))).collect();
                json!({ "label": self.label(), "confidence": self.confidence(), "labels": c.labels, "scores": scores })
            }
            Self::Summary(s) => match s.mode {
                SummaryMode::Extractive => json!({ "text": s.text, "sentences": s.spans.len(), "confidence": null }),
                SummaryMode::Abstractive => json!({ "text": s.text, "confidence": self.confidence() }),
            },
            Self::Embedding(e) => json!({ "chunks": e.chunks.len() }),
            Self::Text(t) => json!({ "text": t }),
            Self::Extraction(e) => e.view(),
            Self::WrittenText(w) => w.view(),
            Self::ComposedObject(c) => c.view(),
            Self::Score(s) => s.view(),
            Self::Items(items) => {
                let views: Vec<Value> = items.iter().map(Self::view).collect();
                json!({ "items": views, "count": items.len(), "confidence": self.confidence() })
            }
            Self::Passages(passages) => passages::view(passages),
            Self::Interaction(i) => i.view(),
        }
    }
}

impl Output {
    /// The output that was stored as these parts: the inverse of [`Output::kind`], [`Output::text`] and [`Output::fields`].
    ///
    /// None where the parts are not a valid output. An output that another version of this program stored is computed again then.
    pub fn restore(kind: &str, text: Option<String>, fields: Value, chunks: Vec<EmbeddedChunk>) -> Option<Self> {
        #[derive(Deserialize)]
        struct SummaryFields {
            spans: Vec<Span>,
            #[serde(default)]
            mode: SummaryMode,
            #[serde(default)]
            confidence: Option<Confidence>,
            #[serde(default)]
            removed: Vec<UnsupportedClaim>,
        }
        #[derive(Deserialize)]
        struct EmbeddingFields {
            model: String,
            revision: String,
            chunks: usize,
        }
        match kind {
            "classify" => serde_json::from_value(fields).ok().map(Self::Classification),
            "summarize" => {
                let SummaryFields { spans, mode, confidence, removed } = serde_json::from_value(fields).ok()?;
                Some(Self::Summary(Summary { text: text?, spans, mode, confidence, removed }))
            }
            "embed" => {
                let EmbeddingFields { model, revision, chunks: count } = serde_json::from_value(fields).ok()?;
                let dimension = chunks.first()?.vector.len();
                let set = Arc::new(EmbeddingSet { model, revision, dimension });
                (chunks.len() == count).then_some(Self::Embedding(Embedding { set, chunks }))
            }
            "render" => text.map(Self::Text),
            "extract" => serde_json::from_value(fields).ok().map(Self::Extraction),
            "write" => WrittenText::restore(text?, fields).map(Self::WrittenText),
            "retrieve" => passages::restore(fields).map(Self::Passages),
            "compose" => ComposedObject::restore(text?, fields).map(Self::ComposedObject),
            "score" => serde_json::from_value(fields).ok().map(Self::Score),
            "items" => generated::restore_items(fields).map(Self::Items),
            "interact" => serde_json::from_value(fields).ok().map(Self::Interaction),
            _ => None,
        }
    }
}

impl ReusedOutput {
    /// The output, if it was loaded.
    pub fn output(&self) -> Option<&Output> {
        match self {
            Self::Unchanged { output, .. } => output.as_ref(),
            Self::Copied(product) => Some(&product.output),
        }
    }
}

impl Fingerprint {
    /// Hashes `parts`, each after its length, so that two different lists of parts never have the same input of the hash.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

impl SkipReason {
    /// The name in counts and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Condition => "condition",
            Self::Superseded => "superseded",
            Self::Upstream => "upstream",
        }
    }
}

#[cfg(test)]
mod tests;
