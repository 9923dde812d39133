//! Converts text to sequences of token ids, and maps each token to its place in the text.

use std::ops::Range;
use std::sync::Arc;

use tokenizers::Tokenizer;

use super::error::EngineError;
use super::folder::ModelFolder;
use super::request::{Chunking, TextKind};
use super::sentence_transformers::PromptPrefixes;
use super::tokenizer_settings::TokenizerSettings;
use super::wordpiece::{self, WordPieceTokenizer};
use tidemill_base::outcome::Span;

/// A model's tokenizer and the limits of its input.
pub(super) struct TextTokenizer {
    tokenizer: Arc<Tokenizer>,
    /// The faster tokenizer for plain words, if the model's is of the BERT family.
    words: Option<WordPieceTokenizer>,
    /// Special tokens before and after every sequence.
    before: Vec<u32>,
    after: Vec<u32>,
    /// Tokens of one sequence, without special tokens.
    capacity: usize,
    prompts: PromptPrefixes,
}

/// One sequence for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TextChunk {
    /// The part of the text that the sequence covers.
    pub(super) span: Span,
    /// Token ids, including special tokens.
    pub(super) ids: Arc<[u32]>,
    /// Whether any token comes from the text, rather than from the prompt or the special tokens.
    pub(super) has_text: bool,
}

/// Tokens of a text without special tokens, and the place of each.
#[derive(Default)]
struct TextTokens {
    ids: Vec<u32>,
    places: Vec<Span>,
    /// Bytes of the text that have been tokenized.
    read: usize,
}

impl TextTokens {
    /// The part of the text that the tokens in `range` cover.
    ///
    /// Characters without a token (a joiner, a variation selector) belong to the token before them, or else to the first one, so
    /// that only white space is left out between two spans.
    fn span(&self, text: &str, range: Range<usize>) -> Span {
        if range.is_empty() {
            return Span { start: 0, end: 0 };
        }
        let Span { mut start, .. } = self.places[range.start];
        let Span { mut end, .. } = self.places[range.end - 1];
        if range.start == 0 {
            start = start.min(text.len() - text.trim_start().len());
        }
        let next = self.places.get(range.end).map_or(self.read, |place| place.start);
        if next > end {
            end += text[end..next].trim_end().len();
        }
        Span { start, end }
    }
}

const FILE: &str = "tokenizer.json";

impl TextTokenizer {
    /// Reads `tokenizer.json`, with the settings that override it, for a model with `vocabulary` word vectors and sequences of up
    /// to `max_tokens` tokens, including special tokens.
    pub(super) fn load(
        folder: &mut ModelFolder,
        settings: &TokenizerSettings,
        vocabulary: usize,
        max_tokens: usize,
    ) -> Result<Self, EngineError> {
        let bytes = folder.read(FILE, "tokenizer.json turns text into tokens")?;
        let path = folder.join(FILE);
        let invalid = |reason: String| EngineError::invalid(&path, reason);
        let malformed =
            |e: tokenizers::Error| invalid(format!("is not a tokenizer: {e}; take the file from the model's publisher"));
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(malformed)?;
        let changed = settings.apply(&mut tokenizer).map_err(invalid)?;
        if !changed.is_empty() {
            // The hash already covers both files. It must also differ from revisions of this program that ignored the overriding
            // file.
            folder.count("over tokenizer.json", changed.as_bytes());
        }
        // Only the model's limits, applied below, are used: some publishers leave the limits of a training run in the file.
        tokenizer.with_truncation(None).map_err(malformed)?.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0) as usize;
        if largest >= vocabulary {
            return Err(invalid(format!(
                "has token ids up to {largest} and the model has {vocabulary} word vectors; take tokenizer and weights from the same model"
            )));
        }
        let sample = tokenizer.encode("a", true).map_err(malformed)?;
        if settings.has_types() && sample.get_type_ids().iter().any(|kind| *kind != 0) {
            return Err(invalid(
                "gives single texts a token type other than 0, which is not supported; use another model".into(),
            ));
        }
        let special = sample.get_special_tokens_mask();
        let leading = special.iter().take_while(|mark| **mark == 1).count();
        let trailing = special[leading..].iter().rev().take_while(|mark| **mark == 1).count();
        let ids = sample.get_ids();
        let (before, after) = (ids[..leading].to_vec(), ids[ids.len() - trailing..].to_vec());
        let capacity = max_tokens.saturating_sub(leading + trailing);
        if capacity == 0 {
            return Err(invalid(format!(
                "adds {} special tokens and the model accepts {max_tokens}, so that no text fits; use another model",
                leading + trailing
            )));
        }
        let words = WordPieceTokenizer::of(&tokenizer);
        Ok(Self { tokenizer: Arc::new(tokenizer), words, before, after, capacity, prompts: PromptPrefixes::default() })
    }

    /// The same tokenizer with prompts before the texts.
    ///
    /// # Errors
    /// One sentence without its subject, the prompts, if one leaves no space for a text.
    pub(super) fn with_prompts(self, prompts: PromptPrefixes) -> Result<Self, String> {
        for prompt in prompts.all() {
            let tokens = self.count(prompt).map_err(|e| format!("cannot be tokenized: {e}"))?;
            if tokens >= self.capacity {
                let most = self.capacity;
                return Err(format!(
                    "have one of {tokens} tokens and the model accepts {most}, so that no text fits; shorten it"
                ));
            }
        }
        Ok(Self { prompts, ..self })
    }

    /// A tokenizer that adds no special tokens, for a model with sequences of `capacity` tokens.
    pub(super) fn bare(tokenizer: Arc<Tokenizer>, capacity: usize) -> Self {
        Self { tokenizer, words: None, before: Vec::new(), after: Vec::new(), capacity, prompts: PromptPrefixes::default() }
    }

    /// Tokens of the text, without special tokens.
    pub(super) fn count(&self, text: &str) -> Result<usize, tokenizers::Error> {
        let mut count = 0;
        for segment in segments(text, self.segment_bytes()) {
            count += match &self.words {
                Some(words) => words.encode(&self.tokenizer, &text[segment])?.len(),
                None => self.tokenizer.encode_fast(&text[segment], false)?.len(),
            };
        }
        Ok(count)
    }

    /// The sequences of a text, each starting with the model's prompt for this kind of text. Prompt and text are tokenized
    /// together.
    pub(super) fn prompted(&self, text: &str, chunking: Chunking, kind: TextKind) -> Result<Vec<TextChunk>, tokenizers::Error> {
        let prompt = self.prompts.of(kind);
        if prompt.is_empty() {
            return self.chunks(text, chunking);
        }
        match chunking {
            Chunking::Truncate => Ok(vec![self.chunk_after(prompt, text)?]),
            Chunking::Split { tokens, overlap } => {
                let tokens = tokens.min(self.capacity - self.count(prompt)?);
                let chunks = self.chunks(text, Chunking::Split { tokens, overlap })?.into_iter();
                let prompted = |chunk: TextChunk| {
                    let ids = self.chunk_after(prompt, &text[chunk.span.start..chunk.span.end])?.ids;
                    Ok(TextChunk { ids, ..chunk })
                };
                chunks.map(prompted).collect()
            }
        }
    }

    /// One sequence of the prompt and as much of the text as fits.
    fn chunk_after(&self, prompt: &str, text: &str) -> Result<TextChunk, tokenizers::Error> {
        let both = format!("{prompt}{text}");
        let tokens = self.tokens(&both, self.capacity)?;
        let count = tokens.ids.len().min(self.capacity);
        let own = tokens.places[..count].partition_point(|place| place.end <= prompt.len());
        let Span { start, end } = tokens.span(&both, own..count);
        // Characters before the first token belong to it.
        let start = start.saturating_sub(prompt.len()).min(text.len() - text.trim_start().len());
        let span = if own < count { Span { start, end: end - prompt.len() } } else { Span { start: 0, end: 0 } };
        let ids = self.before.iter().chain(&tokens.ids[..count]).chain(&self.after).copied().collect();
        Ok(TextChunk { span, ids, has_text: own < count })
    }

    /// The sequences of a text: at least one. A text without tokens gives one sequence of special tokens.
    pub(super) fn chunks(&self, text: &str, chunking: Chunking) -> Result<Vec<TextChunk>, tokenizers::Error> {
        match chunking {
            Chunking::Truncate => {
                let tokens = self.tokens(text, self.capacity)?;
                let count = tokens.ids.len().min(self.capacity);
                Ok(vec![self.chunk(text, &tokens, 0..count)])
            }
            Chunking::Split { tokens: size, overlap } => {
                let size = size.clamp(1, self.capacity);
                let step = size.saturating_sub(overlap).max(1);
                let tokens = self.tokens(text, usize::MAX)?;
                let total = tokens.ids.len();
                let mut chunks = Vec::new();
                let mut start = 0;
                loop {
                    let end = (start + size).min(total);
                    chunks.push(self.chunk(text, &tokens, start..end));
                    if end == total {
                        return Ok(chunks);
                    }
                    start += step;
                }
            }
        }
    }

    fn chunk(&self, text: &str, tokens: &TextTokens, range: Range<usize>) -> TextChunk {
        let (span, has_text) = (tokens.span(text, range.clone()), !range.is_empty());
        let ids = self.before.iter().chain(&tokens.ids[range]).chain(&self.after).copied().collect();
        TextChunk { span, ids, has_text }
    }

    /// The first tokens of the text: all of them, or at least `enough`.
    fn tokens(&self, text: &str, enough: usize) -> Result<TextTokens, tokenizers::Error> {
        let mut tokens = TextTokens::default();
        for segment in segments(text, self.segment_bytes()) {
            let start = segment.start;
            tokens.read = segment.end;
            let pieces = match &self.words {
                Some(words) => words.encode(&self.tokenizer, &text[segment])?,
                None => wordpiece::by_library(&self.tokenizer, &text[segment])?,
            };
            tokens.ids.extend(pieces.iter().map(|(id, _)| *id));
            tokens.places.extend(pieces.iter().map(|(_, place)| whole_characters(text, start + place.start, start + place.end)));
            if tokens.ids.len() >= enough {
                break;
            }
        }
        Ok(tokens)
    }

    /// Bytes of text that are tokenized at once. In any script, even without spaces, this many bytes give more tokens than a
    /// sequence holds. So a truncated text is always cut by the model's limit and never by this one.
    fn segment_bytes(&self) -> usize {
        (16 << 10).max(32 * self.capacity)
    }
}

/// Byte-level tokenizers may cut inside a character.
fn whole_characters(text: &str, start: usize, end: usize) -> Span {
    Span { start: text.floor_char_boundary(start), end: text.ceil_char_boundary(end) }
}

/// Cuts a long text before white space, which no token of these tokenizers spans, so that memory stays bounded.
///
/// A word longer than `bytes` is cut inside.
fn segments(text: &str, bytes: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == text.len() {
            return None;
        }
        let rest = &text[start..];
        let length = if rest.len() <= bytes {
            rest.len()
        } else {
            let limit = rest.floor_char_boundary(bytes);
            rest[..limit].rfind(char::is_whitespace).filter(|at| *at > 0).unwrap_or(limit)
        };
        let segment = start..start + length;
        start = segment.end;
        Some(segment)
    })
}
