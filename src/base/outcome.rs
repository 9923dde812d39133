//! What a task makes of a document, and what became of every (record, task) unit.
//!
//! Each unit ends as exactly one [`Outcome`], which is what makes `in = ok + reused + skipped + dead` hold.

mod composed;
mod generated;
mod interaction;
mod passages;
mod score;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

pub use composed::{Check, CheckFailure, ComposedObject, FactTrace, Provenance};
pub use generated::{Confidence, Evidence, ExtractedValue, Extraction, MatchKind, SummaryMode, WrittenText};
pub use interaction::Interaction;
pub use passages::RetrievedPassage;
pub use score::{Score, ScorePart};

use crate::failure::Poison;

/// What became of one (record, task) unit.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Computed now.
    Computed(ComputedOutput),
    /// Computed before, for this or another document, and taken over without device time.
    Reused(ReusedOutput),
    /// Rightly not done.
    Skipped(SkipReason),
    /// Could not be done, and never can.
    Dead(Poison),
}

/// An output with what it took to make it.
#[derive(Debug, Clone)]
pub struct ComputedOutput {
    /// The output.
    pub output: Output,
    /// Identifies the computation: see [`Fingerprint`].
    pub fingerprint: Fingerprint,
    /// What it took to make it.
    pub cost: Cost,
}

/// What an output took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Tokens the model read.
    pub tokens: u32,
    /// Tokens the model wrote.
    pub generated: u32,
    /// Device time, shared out over a batch by tokens, in microseconds.
    pub device_micros: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.generated += other.generated;
        self.device_micros += other.device_micros;
    }
}

/// Where the outputs of a task come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The model's name in the configuration, where a model made them.
    pub model: Option<Arc<str>>,
    /// The hash of the model's files.
    pub revision: Option<Arc<str>>,
    /// The version of the prompt, where there is one.
    pub prompt: Option<Arc<str>>,
}

/// A result that need not be computed.
#[derive(Debug, Clone)]
pub enum ReusedOutput {
    /// The visible row of this document and task already is this very result; nothing is written.
    Unchanged {
        /// The fingerprint that the row was found to have; the commit checks that it still has.
        fingerprint: Fingerprint,
        /// The output, where a task downstream reads it.
        output: Option<Output>,
    },
    /// Another row, or an older version of this one, holds the result; it is written again under this document.
    Copied(ComputedOutput),
}

/// Why a unit was rightly not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The task's `when` is false.
    Condition,
    /// A newer version of the document is known.
    Superseded,
    /// A task that this one needs has no output for the document.
    Upstream,
}

/// A BLAKE3 hash over everything that decides an output: model revision, task parameters and the request itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

/// What a task makes of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// One or several labels.
    Classification(Classification),
    /// What the text says in short.
    Summary(Summary),
    /// Vectors, one a chunk.
    Embedding(Embedding),
    /// Text made from the document and upstream outputs.
    Text(String),
    /// Typed fields taken out of the text.
    Extraction(Extraction),
    /// Text that a model wrote.
    WrittenText(WrittenText),
    /// An object that a template put together, gone over by checks.
    ComposedObject(ComposedObject),
    /// A number with the parts that it is the sum of.
    Score(Score),
    /// One output for each item of a list, in the list's order.
    Items(Vec<Output>),
    /// Passages of other documents, the nearest first.
    Passages(Vec<RetrievedPassage>),
    /// What somebody did with a document.
    Interaction(Interaction),
}

/// Labels with calibrated probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// The labels given, the most probable first. A multi-label task may give none.
    pub labels: Vec<String>,
    /// Every label of the task with its probability, in the task's order.
    pub scores: Vec<LabelScore>,
}

/// The probability of one label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelScore {
    /// The label.
    pub label: String,
    /// Its probability after calibration, 0 to 1.
    pub probability: f32,
}

/// A summary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// The summary; an extractive one is the chosen sentences in their original order, joined by a space.
    pub text: String,
    /// Where each sentence of an extractive summary stands in the document's text.
    pub spans: Vec<Span>,
    /// How it was made.
    pub mode: SummaryMode,
    /// How sure the model was of an abstractive one.
    pub confidence: Option<Confidence>,
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
    /// Names the vector space: model and revision. Vectors of two sets are never compared.
    pub set: Arc<EmbeddingSet>,
    /// At least one chunk, in order of the text.
    pub chunks: Vec<EmbeddedChunk>,
}

/// A vector space.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmbeddingSet {
    /// The model's name in the configuration.
    pub model: String,
    /// The hash of the model's files.
    pub revision: String,
    /// Components of a vector.
    pub dimension: usize,
}

/// One chunk of a text and its vector.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedChunk {
    /// Where the chunk stands in the document's text.
    pub span: Span,
    /// Tokens of the chunk, special tokens included.
    pub tokens: u32,
    /// The vector, of length 1.
    pub vector: Arc<[f32]>,
}

impl Output {
    /// The kind as it stands in tables and Parquet.
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

    /// The first label, where there is one.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Classification(c) => c.labels.first().map(String::as_str),
            _ => None,
        }
    }

    /// How sure the model was, 0 to 1.
    ///
    /// | output | its confidence |
    /// |---|---|
    /// | classification | the probability of the first label, or of the likeliest one where none was given |
    /// | extraction | the mean over the tokens of the value that it was least sure of |
    /// | written text, abstractive summary | the mean over all tokens |
    /// | items | that of the least sure item |
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

    /// The text, where the output is one.
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

    /// The object, where the output is one.
    pub fn object(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Extraction(e) => Some(&e.fields),
            Self::WrittenText(w) => w.fields.as_ref(),
            Self::ComposedObject(c) => Some(&c.fields),
            Self::Classification(_) | Self::Summary(_) | Self::Embedding(_) | Self::Text(_) => None,
            Self::Score(_) | Self::Items(_) | Self::Passages(_) | Self::Interaction(_) => None,
        }
    }

    /// The details that have no column of their own.
    pub fn fields(&self) -> Value {
        match self {
            Self::Classification(c) => json!(c),
            Self::Summary(s) => match s.mode {
                SummaryMode::Extractive => json!({ "mode": s.mode, "spans": s.spans }),
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

    /// The output as templates, `when` expressions and downstream tasks see it under the task's name.
    ///
    /// | output | names |
    /// |---|---|
    /// | classification | `label`, `confidence`, `labels`, `scores` (by label) |
    /// | summary | `text`, `sentences` (a count, of an extractive one), `confidence` (of an abstractive one) |
    /// | embedding | `chunks` (a count) |
    /// | rendered text | `text` |
    /// | extraction | `fields`; `grounded` and `evidence`, which have the shape of `fields`; `confidence`; and every field by its own name that is none of these |
    /// | written text | `text`, `confidence`, `truncated`; `fields`, and every field by its own name that is none of these, where the prompt has a schema |
    /// | composed object | `text`, `fields`, `passed`, `reasons`, and every field by its own name that is none of these |
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
                SummaryMode::Extractive => json!({ "text": s.text, "sentences": s.spans.len() }),
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
    /// The output that was stored as these parts; the inverse of [`Output::kind`], [`Output::text`] and [`Output::fields`].
    ///
    /// `None` where the parts are not an output, so that one written by another version of this program is computed anew.
    pub fn restore(kind: &str, text: Option<String>, fields: Value, chunks: Vec<EmbeddedChunk>) -> Option<Self> {
        #[derive(Deserialize)]
        struct SummaryFields {
            spans: Vec<Span>,
            #[serde(default)]
            mode: SummaryMode,
            #[serde(default)]
            confidence: Option<Confidence>,
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
                let SummaryFields { spans, mode, confidence } = serde_json::from_value(fields).ok()?;
                Some(Self::Summary(Summary { text: text?, spans, mode, confidence }))
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
    /// The output, where it is at hand.
    pub fn output(&self) -> Option<&Output> {
        match self {
            Self::Unchanged { output, .. } => output.as_ref(),
            Self::Copied(product) => Some(&product.output),
        }
    }
}

impl Fingerprint {
    /// Hashes `parts` so that no two different lists of parts share an encoding: each is preceded by its length.
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
    /// The reason as it stands in counts and logs.
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
