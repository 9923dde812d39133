//! Computes how much document text fits into the context of a generator besides the prompt.

use std::sync::Arc;

use anyhow::Context;

use super::TemplateContext;
use super::task_prompt::TaskPrompt;
use crate::engine::{Engine, ModelInfo};
use crate::failure::Failure;
use crate::outcome::Span;

/// Counts tokens and splits texts with the tokenizer of one model.
pub(super) trait TokenSplitter: Send + Sync {
    /// Number of tokens of the text, without special tokens.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    fn count(&self, text: &str) -> Result<usize, Failure>;

    /// Splits the text into one or more pieces of at most `tokens` tokens. Neighbouring pieces share `overlap` tokens.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure>;
}

/// Most tokens that a chat template adds around the messages: roles, dates and default instructions.
const MARGIN: usize = 64;

/// The margin is at most the context divided by this, because models with a small context have short templates.
const MARGIN_SHARE: usize = 8;

/// The context of a model, as available to document text in a prompt.
pub(super) struct ContextBudget {
    splitter: Arc<dyn TokenSplitter>,
    context: usize,
}

impl ContextBudget {
    /// The context of `model`, which must be a generator of `engine`.
    pub(super) fn of(engine: &Engine, model: &ModelInfo) -> anyhow::Result<Self> {
        let splitter = engine.splitter(&model.name).context("the engine no longer has the model")?;
        Ok(Self::new(Arc::new(splitter), model.max_tokens))
    }

    pub(super) fn new(splitter: Arc<dyn TokenSplitter>, context: usize) -> Self {
        Self { splitter, context }
    }

    /// Number of tokens of document text that fit besides the prompt and its answer.
    pub(super) fn tokens(&self, prompt: &TaskPrompt, upstream: &TemplateContext) -> Result<usize, Failure> {
        let around = prompt.render(&upstream.with_text(""), Vec::new())?;
        let mut taken = prompt.max_tokens + MARGIN.min(self.context / MARGIN_SHARE);
        for message in &around.messages {
            taken += self.splitter.count(&message.content)?;
        }
        Ok(self.context.saturating_sub(taken))
    }

    /// Whether the text has at most `tokens` tokens.
    pub(super) fn fits(&self, text: &str, tokens: usize) -> Result<bool, Failure> {
        // Each token covers at least one byte, except one that some tokenizers put before the text. So most texts need no counting.
        Ok(text.len() < tokens || self.splitter.count(text)? <= tokens)
    }

    pub(super) fn count(&self, text: &str) -> Result<usize, Failure> {
        self.splitter.count(text)
    }

    pub(super) fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        self.splitter.split(text, tokens, overlap)
    }
}

impl std::fmt::Debug for ContextBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContextBudget").field("context", &self.context).finish_non_exhaustive()
    }
}

impl TokenSplitter for crate::engine::TextSplitter {
    fn count(&self, text: &str) -> Result<usize, Failure> {
        self.count(text)
    }

    fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        self.split(text, tokens, overlap)
    }
}
