//! What the rest of the program may know about a model.

use std::sync::Arc;

/// What the rest of the program may know about a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// The name that pipelines use.
    pub name: Arc<str>,
    /// Where it is: the folder or file it was loaded from, or the address of its server.
    pub origin: String,
    /// What it can be asked for.
    pub kind: ModelKind,
    /// `model_type` of its `config.json`.
    pub architecture: String,
    /// A hash over the names and contents of the files that decide its answers.
    pub revision: String,
    /// Components of a vector. For a classifier: of the vectors it works with inside.
    pub dimension: usize,
    /// The longest sequence it takes, special tokens included.
    pub max_tokens: usize,
    /// A classifier's classes, in the order of its logits.
    pub labels: Vec<String>,
    /// Whether a classifier was trained to give a text several classes or none, each with odds of its own.
    pub several_labels: bool,
}

/// What a model can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// [`Work::Encode`](super::Work::Encode).
    Encoder,
    /// [`Work::Classify`](super::Work::Classify).
    Classifier,
    /// [`Work::Generate`](super::Work::Generate) and [`Work::Score`](super::Work::Score).
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
