//! The public description of a model.

use std::sync::Arc;

/// The public description of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name that pipelines use.
    pub name: Arc<str>,
    /// The folder or file that the model was loaded from, or the address of its server.
    pub origin: String,
    pub kind: ModelKind,
    /// `model_type` of its `config.json`.
    pub architecture: String,
    /// A hash over the names and contents of all files that influence its answers.
    pub revision: String,
    /// Components of a vector; for a classifier, of its hidden vectors.
    pub dimension: usize,
    /// The longest sequence it accepts, including special tokens.
    pub max_tokens: usize,
    /// The classes of a classifier, in the order of its logits.
    pub labels: Vec<String>,
    /// Whether a classifier assigns any number of classes to a text, each with a probability of its own.
    pub several_labels: bool,
}

/// The kind of work that a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// Does [`Work::Encode`](super::Work::Encode).
    Encoder,
    /// Does [`Work::Classify`](super::Work::Classify).
    Classifier,
    /// Does [`Work::Generate`](super::Work::Generate) and [`Work::Score`](super::Work::Score).
    Generator,
}

impl ModelKind {
    /// The kind as commands print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encoder => "encoder",
            Self::Classifier => "classifier",
            Self::Generator => "generator",
        }
    }
}
