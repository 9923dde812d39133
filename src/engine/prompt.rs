//! Converts conversations to tokens and back: chat templates, protection of control tokens, and constraints by schema.

mod added_tokens;
mod chat_settings;
mod chat_template;
mod constraint;
mod definition;
mod encoding;
mod gguf_vocabulary;
mod grammar;
mod number_digits;
mod placeholders;
mod python_compat;
mod shortest_answer;
mod token_bytes;

#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file;

pub(crate) use constraint::{GrammarCache, SchemaConstraint, TokenMask};
pub(crate) use token_bytes::IncrementalText;

use super::error::EngineError;
use super::folder::ModelFolder;
use super::request::{Chunking, Message};
use super::schema::Schema;
use super::text_tokenizer::TextTokenizer;
use chat_settings::ChatSettings;
use chat_template::{ChatTemplate, TemplateMessage};
use definition::TokenizerDefinition;
use gguf_vocabulary::GgufMetadata;
use placeholders::Placeholders;
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_base::outcome::Span;

/// A generator's tokenizer and chat template.
pub(crate) struct ChatTokenizer {
    definition: TokenizerDefinition,
    template: ChatTemplate,
    /// Characters without which no control token can be written.
    control_characters: BTreeSet<char>,
    /// Counts and splits plain text.
    text: TextTokenizer,
    end_ids: Arc<[u32]>,
    end_id: u32,
    /// The token that starts every prompt, if the template does not write it.
    begin: Option<u32>,
    grammars: GrammarCache,
}

/// The model's token limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenLimits {
    /// The number of logits of a step, which may exceed the number of tokens.
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
}

const FILE: &str = "tokenizer.json";

impl ChatTokenizer {
    /// Reads a Hugging Face folder.
    pub(crate) fn load(folder: &mut ModelFolder, limits: TokenLimits) -> Result<Self, EngineError> {
        let bytes = folder.read(FILE, "tokenizer.json turns text into tokens")?;
        let invalid = |reason| EngineError::invalid(folder.join(FILE), reason);
        let definition = TokenizerDefinition::parse(&bytes).map_err(invalid)?;
        let settings = ChatSettings::read(folder)?;
        Self::new(definition, settings, limits).map_err(|reason| EngineError::invalid(folder.join(FILE), reason))
    }

    /// Reads the vocabulary and the template of a GGUF file.
    pub(crate) fn from_gguf(
        path: &Path,
        metadata: &HashMap<String, gguf_file::Value>,
        limits: TokenLimits,
    ) -> Result<Self, EngineError> {
        let invalid = |reason| EngineError::invalid(path, reason);
        let metadata = GgufMetadata(metadata);
        let definition = TokenizerDefinition::new(metadata.definition().map_err(invalid)?).map_err(invalid)?;
        Self::new(definition, metadata.settings().map_err(invalid)?, limits).map_err(invalid)
    }

    /// # Errors
    /// One sentence without its subject, the file that the tokenizer comes from.
    fn new(definition: TokenizerDefinition, settings: ChatSettings, limits: TokenLimits) -> Result<Self, String> {
        if definition.pieces.len() > limits.vocabulary {
            return Err(format!(
                "has token ids up to {} and the model has {} word vectors; take tokenizer and weights from the same model",
                definition.pieces.len() - 1,
                limits.vocabulary
            ));
        }
        let template = ChatTemplate::new(&settings.template, settings.specials.clone())
            .map_err(|reason| format!("comes with a chat template that {reason}; use a model whose template is plain Jinja"))?;
        let end_ids: Arc<[u32]> = settings.end_ids(&definition, limits.vocabulary).into();
        let Some(first) = end_ids.first().copied() else {
            return Err("names no token that ends an answer; set eos_token_id in generation_config.json".into());
        };
        let end_id = end_of_turn(&definition, &template, &end_ids).unwrap_or(first);
        let grammars = GrammarCache::new(&definition, limits.vocabulary, end_ids.clone())?;
        let text = TextTokenizer::bare(definition.plain.clone(), limits.context);
        let control_characters = definition.added.control_characters();
        Ok(Self { definition, template, control_characters, text, end_ids, end_id, begin: settings.begin, grammars })
    }

    /// The prompt as text, as Hugging Face's `apply_chat_template` renders it with a generation prompt.
    #[cfg(test)]
    pub(crate) fn render(&self, messages: &[Message], thinking: Option<bool>) -> Result<String, Poison> {
        let turns: Vec<TemplateMessage<'_>> =
            messages.iter().map(|message| TemplateMessage { role: message.role.as_str(), content: &message.content }).collect();
        self.template.render(&turns, true, thinking).map_err(|reason| refused(&reason))
    }

    /// The prompt as tokens. Only the template can write control tokens; the messages' content is always plain text.
    pub(crate) fn encode(&self, messages: &[Message]) -> Result<Vec<u32>, Poison> {
        let Some(placeholders) = Placeholders::choose(&self.control_characters, messages.iter().map(|message| &*message.content))
        else {
            return Err(refused("a message contains every character that Unicode sets aside for private use"));
        };
        let contents: Vec<String> = messages.iter().map(|message| placeholders.insert(&message.content)).collect();
        let turns: Vec<TemplateMessage<'_>> = messages
            .iter()
            .zip(&contents)
            .map(|(message, content)| TemplateMessage { role: message.role.as_str(), content })
            .collect();
        // Reasoning is turned off: tasks do not use it, and it would cost tokens for every document.
        let rendered = self.template.render(&turns, true, Some(false)).map_err(|reason| refused(&reason))?;
        let (text, found) = placeholders.restore(&rendered, self.definition.added.find(&rendered));
        let mut ids = encoding::encode(&self.definition.plain, &text, &found).map_err(|e| untokenizable(&e))?;
        if let Some(begin) = self.begin.filter(|begin| ids.first() != Some(begin)) {
            ids.insert(0, begin);
        }
        Ok(ids)
    }

    /// The tokens of plain text at the start of the model's turn.
    pub(crate) fn encode_text(&self, text: &str) -> Result<Vec<u32>, Poison> {
        encoding::encode_after(&self.definition.plain, text).map_err(|e| untokenizable(&e))
    }

    /// The bytes that a token stands for; empty for control tokens.
    pub(crate) fn piece(&self, id: u32) -> &[u8] {
        self.definition.pieces.get(id)
    }

    /// An empty text for this model's tokens.
    pub(crate) fn incremental_text(&self) -> IncrementalText {
        IncrementalText::new(self.definition.drops_first_space)
    }

    /// All tokens that end an answer.
    pub(crate) fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// The token that the template writes after an answer.
    pub(crate) fn end_id(&self) -> u32 {
        self.end_id
    }

    /// Tokens of plain text.
    pub(crate) fn count(&self, text: &str) -> Result<usize, Poison> {
        self.text.count(text).map_err(|e| untokenizable(&e))
    }

    /// Splits plain text into spans of at most `tokens` tokens. Neighbouring spans share `overlap` tokens.
    pub(crate) fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Poison> {
        let chunks = self.text.chunks(text, Chunking::Split { tokens, overlap }).map_err(|e| untokenizable(&e))?;
        Ok(chunks.into_iter().map(|chunk| chunk.span).collect())
    }

    pub(crate) fn grammar_cache(&self) -> &GrammarCache {
        &self.grammars
    }

    /// Whether answers can be constrained to `schema`.
    ///
    /// # Errors
    /// One sentence that names the unsupported part of the schema.
    pub(crate) fn check_schema(&self, schema: &Schema) -> Result<(), String> {
        self.grammars.check(schema)
    }

    /// The approximate number of tokens of the shortest answer that `schema` allows; none if no answer is of a sensible length.
    pub(crate) fn shortest_answer_tokens(&self, schema: &Schema) -> Option<usize> {
        let text = shortest_answer::shortest_answer(schema.value())?;
        Some(self.encode_text(&text).ok()?.len())
    }
}

/// The control token that the template writes directly after an answer, if it is one that ends an answer.
fn end_of_turn(definition: &TokenizerDefinition, template: &ChatTemplate, end_ids: &[u32]) -> Option<u32> {
    const ANSWER: &str = "answer";
    let turns = [TemplateMessage { role: "user", content: "question" }, TemplateMessage { role: "assistant", content: ANSWER }];
    let text = template.render(&turns, false, None).ok()?;
    let after = text.rfind(ANSWER)? + ANSWER.len();
    let next = definition.added.find(&text).into_iter().find(|found| found.range.start >= after)?;
    end_ids.contains(&next.id).then_some(next.id)
}

fn refused(reason: &str) -> Poison {
    let reason =
        format!("the model's chat template refuses the conversation: {reason}; give it messages that the model was trained on");
    Poison { class: FailureClass::Template, reason }
}

fn untokenizable(error: &tokenizers::Error) -> Poison {
    Poison { class: FailureClass::Model, reason: format!("the text cannot be tokenized: {error}") }
}
