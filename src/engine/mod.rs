//! The model host.
//!
//! The signatures that tasks and pipelines are written against; no device is behind them yet, and every call says so.

mod request;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use request::{Answer, Chunking, EncodedChunk, EncodedText, Prediction, Request, Work};

use crate::config::{EngineConfig, ModelConfig};
use crate::failure::{Component, Failure, Transient};

/// The models of this process.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    models: Vec<ModelInfo>,
}

/// What is known of a loaded model.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// The folder.
    pub path: PathBuf,
    /// What it can do.
    pub kind: ModelKind,
    /// The architecture, as `config.json` names it.
    pub architecture: String,
    /// The hash of its files.
    pub revision: String,
    /// Components of a vector.
    pub dimension: usize,
    /// Tokens that it takes at once.
    pub max_tokens: usize,
    /// The labels of a classifier.
    pub labels: Vec<String>,
}

/// What a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// Texts to vectors.
    Encoder,
    /// Texts to scores of classes.
    Classifier,
}

/// Why the model host cannot start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct EngineError(String);

impl Engine {
    /// Loads `models`.
    pub fn start(_config: &EngineConfig, models: &BTreeMap<String, ModelConfig>) -> Result<Self, EngineError> {
        match models.keys().next() {
            Some(name) => Err(EngineError(format!("model `{name}` cannot be loaded: this build has no model host"))),
            None => Ok(Self::default()),
        }
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&ModelInfo> {
        self.models.iter().find(|model| &*model.name == name)
    }

    /// All models.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.models.iter()
    }

    /// Answers each of `requests`, in order.
    pub async fn run(&self, _requests: Vec<Request>) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        Err(Transient { component: Component::Model, reason: "this build has no model host".into() })
    }

    /// Counts the tokens of each of `texts`, special tokens left out.
    pub async fn count_tokens(&self, _model: &str, _texts: Vec<Arc<str>>) -> Result<Vec<usize>, Failure> {
        Err(Failure::transient(Component::Model, "this build has no model host"))
    }
}
