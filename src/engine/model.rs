//! A model of the engine: loaded from its folder, ready to run.

use std::path::Path;
use std::sync::Arc;

use super::encoder::Encoder;
use super::error::EngineError;
use super::folder::Folder;
use super::tokens::TextTokenizer;
use super::weights::Weights;
use crate::config::ModelConfig;

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

/// A model in memory.
pub(super) struct Model {
    pub(super) info: ModelInfo,
    pub(super) tokenizer: TextTokenizer,
    pub(super) encoder: Encoder,
}

impl Model {
    /// Loads the model that pipelines call `name`.
    pub(super) fn load(name: &str, config: &ModelConfig) -> Result<Self, EngineError> {
        let path = config.path.as_deref().unwrap_or(Path::new(""));
        let mut folder = Folder::open(name, path)?;
        let (shape, family) = folder.shape()?;
        let positions = shape.max_position_embeddings.saturating_sub(shape.first_position(family));
        let max_tokens = folder.max_tokens(positions)?;
        let tokenizer = TextTokenizer::load(&mut folder, shape.vocab_size, max_tokens)?;
        let kind = if shape.classifies() { ModelKind::Classifier } else { ModelKind::Encoder };
        let pooling = match kind {
            ModelKind::Encoder => Some(folder.pooling()?),
            ModelKind::Classifier | ModelKind::Generator => None,
        };
        let mut weights = Weights::read(&mut folder)?;
        let encoder = Encoder::load(&shape, family, pooling, &mut weights)?;
        let info = ModelInfo {
            name: name.into(),
            origin: path.display().to_string(),
            kind,
            architecture: shape.model_type.clone(),
            revision: folder.revision(),
            dimension: shape.hidden_size,
            max_tokens,
            labels: if kind == ModelKind::Classifier { shape.labels(encoder.dimension()) } else { Vec::new() },
        };
        Ok(Self { info, tokenizer, encoder })
    }
}
