//! `embed`: computes one vector of the text, or one vector per chunk.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Task, TaskStep, TemplateContext, encoder, only};
use crate::document::Document;
use crate::engine::{Chunking, Engine, Prediction, Request, TextKind, Work};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{EmbeddedChunk, Embedding, EmbeddingSet, Output};

/// Parameters of `embed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedSpec {
    /// Name of the encoder in the configuration.
    pub model: String,
    /// How to split long texts. By default a text is one chunk, truncated at the length limit of the model.
    #[serde(default)]
    pub chunk: Option<ChunkSpec>,
}

/// How long texts are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkSpec {
    /// Tokens per chunk, without special tokens.
    pub tokens: usize,
    /// Number of tokens that neighbouring chunks share.
    #[serde(default)]
    pub overlap: usize,
}

struct Embed {
    signature: Vec<u8>,
    model: Arc<str>,
    chunking: Chunking,
    set: Arc<EmbeddingSet>,
}

impl EmbedSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, _base_dir: &Path) -> Vec<String> {
        match self.chunk {
            Some(ChunkSpec { tokens: 0, .. }) => vec!["has chunks of 0 tokens: set `tokens` to a positive number".into()],
            Some(ChunkSpec { tokens, overlap }) if overlap >= tokens => {
                vec![format!("has an overlap of {overlap} in chunks of {tokens} tokens: make `overlap` smaller than `tokens`")]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        Vec::new()
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, _base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let model = encoder(engine, &self.model, "embed")?;
        if let Some(chunk) = self.chunk
            && chunk.tokens > model.max_tokens
        {
            anyhow::bail!(
                "task `{name}` has chunks of {} tokens, but model `{}` accepts {}: reduce `chunk.tokens`",
                chunk.tokens,
                self.model,
                model.max_tokens
            );
        }
        let chunking = match self.chunk {
            Some(ChunkSpec { tokens, overlap }) => Chunking::Split { tokens, overlap },
            None => Chunking::Truncate,
        };
        let set = EmbeddingSet { model: self.model.clone(), revision: model.revision.clone(), dimension: model.dimension };
        let signature = serde_json::to_vec(&("embed", self))?;
        Ok(Arc::new(Embed { signature, model: model.name.clone(), chunking, set: Arc::new(set) }))
    }
}

impl Task for Embed {
    fn kind(&self) -> &'static str {
        "embed"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, document: &Document, _upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let work = Work::Encode { texts: vec![document.text.clone()], chunking: self.chunking, kind: TextKind::Document };
        Ok(TaskStep::Ask(vec![Request { model: self.model.clone(), work }]))
    }

    fn interpret(
        &self,
        document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let Prediction::Vectors(mut texts) = only(predictions)? else {
            return Err(Failure::poison(FailureClass::Model, "the model did not answer with vectors"));
        };
        let chunks = match texts.pop() {
            Some(text) if texts.is_empty() && !text.chunks.is_empty() => text.chunks,
            _ => return Err(Failure::poison(FailureClass::Model, "the model did not answer with the chunks of one text")),
        };
        for chunk in &chunks {
            if chunk.vector.len() != self.set.dimension {
                let reason = format!("the model gave a vector of {} components, not {}", chunk.vector.len(), self.set.dimension);
                return Err(Failure::poison(FailureClass::Model, reason));
            }
            if !chunk.vector.iter().all(|x| x.is_finite()) {
                return Err(Failure::poison(
                    FailureClass::Model,
                    "the model gave a vector with components that are not finite numbers",
                ));
            }
            if document.text.get(chunk.span.start..chunk.span.end).is_none() {
                return Err(Failure::poison(FailureClass::Model, "the model gave a chunk that lies outside the text"));
            }
        }
        let chunks = chunks.into_iter().map(|c| EmbeddedChunk { span: c.span, tokens: c.tokens, vector: c.vector }).collect();
        Ok(TaskStep::Ready(Output::Embedding(Embedding { set: self.set.clone(), chunks })))
    }
}
