//! How much of a document fits a generator's context beside the words of a prompt.

use std::sync::Arc;

use super::TemplateContext;
use super::task_prompt::TaskPrompt;
use crate::failure::Failure;
use crate::outcome::Span;

/// Counts and cuts texts as one model's tokenizer does.
pub trait Splitter: Send + Sync {
    /// Tokens of the text, special tokens not counted.
    ///
    /// # Errors
    /// Where the text cannot be tokenized.
    fn count(&self, text: &str) -> Result<usize, Failure>;

    /// Pieces of the text of at most `tokens` tokens, neighbours sharing `overlap` of them; at least one.
    ///
    /// # Errors
    /// Where the text cannot be tokenized.
    fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure>;
}

/// Tokens that a chat template may put around the messages, at most: roles, dates and standing orders.
const MARGIN: usize = 64;

/// The share of the context that the margin takes at most, for models whose context is small and whose templates are, too.
const MARGIN_SHARE: usize = 8;

/// A model's context, seen from a text that is to be put into a prompt.
pub(super) struct ContextBudget {
    splitter: Arc<dyn Splitter>,
    context: usize,
}

impl ContextBudget {
    pub(super) fn new(splitter: Arc<dyn Splitter>, context: usize) -> Self {
        Self { splitter, context }
    }

    /// Tokens of document text that the prompt and its answer leave room for.
    pub(super) fn tokens(&self, prompting: &TaskPrompt, upstream: &TemplateContext) -> Result<usize, Failure> {
        let around = prompting.prompt(&upstream.with_text(""), Vec::new())?;
        let mut taken = prompting.max_tokens + MARGIN.min(self.context / MARGIN_SHARE);
        for message in &around.messages {
            taken += self.splitter.count(&message.content)?;
        }
        Ok(self.context.saturating_sub(taken))
    }

    /// Whether the text has at most so many tokens.
    pub(super) fn fits(&self, text: &str, tokens: usize) -> Result<bool, Failure> {
        // A token stands for a byte at least, save one that some tokenizers put before the text: most texts need no counting.
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
        f.debug_struct("Room").field("context", &self.context).finish_non_exhaustive()
    }
}

impl Splitter for crate::engine::TextSplitter {
    fn count(&self, text: &str) -> Result<usize, Failure> {
        self.count(text)
    }

    fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        self.split(text, tokens, overlap)
    }
}
