//! Requests to the model host, and its answers.

use std::sync::Arc;

use serde::Serialize;

use super::completion::Completion;
use super::schema::Schema;
use super::span_grammar::SpanGrammar;
use tidemill_base::outcome::Span;

/// The work of one document for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's name in the configuration.
    pub model: Arc<str>,
    pub work: Work,
}

/// The kinds of work. The serialized form holds everything in a request that decides the answer, except the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Work {
    /// Encode each text into vectors.
    Encode {
        /// One or several texts of a document, for instance its sentences.
        texts: Vec<Arc<str>>,
        /// What to do with a text that is longer than the model's limit.
        chunking: Chunking,
        /// Selects the model's prompt for the texts. It is not serialized: a task always uses the same kind, and the prompts are
        /// part of the model's revision.
        #[serde(skip)]
        kind: TextKind,
    },
    /// Score the classes of a sequence classifier. A text longer than the model's limit is truncated.
    Classify {
        text: Arc<str>,
    },
    Generate(Generate),
    /// Compute the probabilities of given answers to a prompt, without generating any.
    Score(Score),
}

/// A conversation that the model is to continue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    /// The messages, in order. Their content is always plain text: no part of it becomes a special token.
    pub messages: Vec<Message>,
    /// The task that sends the prompt. Prompts of one group start alike, so their common prefix is cached; groups share the device
    /// evenly.
    #[serde(skip)]
    pub group: Arc<str>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    pub role: Role,
    pub content: Arc<str>,
}

/// The author of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
}

impl Role {
    /// The role's name in chat templates and in requests to servers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A prompt to complete, with its limits and the sampling.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    pub prompt: Prompt,
    /// The maximum number of tokens of the completion.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Texts that end the completion where they occur. They are not part of it.
    pub stop: Vec<String>,
    /// The JSON Schema that the completion must satisfy; none allows any text.
    pub schema: Option<Arc<Schema>>,
    /// The grammar of the completion if it must also quote a document. Only models that run here can be held to it; servers get the
    /// schema alone.
    pub spans: Option<Arc<SpanGrammar>>,
}

/// How each token is chosen. The same request always gives the same completion, whatever else is in the batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sampling {
    /// 0 takes the most probable token; larger values flatten the distribution that tokens are drawn from.
    pub temperature: f32,
    /// Draw only from the smallest set of most probable tokens whose probabilities sum to this; 1 for all tokens.
    pub top_p: f32,
    /// Draw only from this many of the most probable tokens; 0 for all tokens.
    pub top_k: usize,
    /// The seed of the random draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// Answers whose probabilities are wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    pub prompt: Prompt,
    /// The complete possible answers, without the token that ends a turn.
    pub answers: Arc<[Arc<str>]>,
}

/// Which work goes first if there is more than the devices can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// A stream or a person is waiting.
    #[default]
    Live,
    /// Done only when no live work is left.
    Backfill,
}

/// What an encoder's text is for: some models expect different prompts before queries and documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TextKind {
    /// The text takes the model's default prompt.
    #[default]
    Plain,
    /// A text to be found.
    Document,
    /// A text to search with.
    Query,
}

/// How a text is turned into token sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Chunking {
    /// One sequence; tokens beyond the model's limit are cut off.
    Truncate,
    /// As many sequences as needed, each of at most `tokens` tokens (without special tokens). Neighbouring sequences share
    /// `overlap` tokens.
    Split { tokens: usize, overlap: usize },
}

/// The answer to one [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub prediction: Prediction,
    /// Tokens that the model read for it, including special tokens. Tokens of an equal request in the same call, or of a cached
    /// prefix, are not counted again.
    pub tokens: u32,
    /// Tokens that the model generated.
    pub generated: u32,
    /// The request's share of device time in microseconds. A batch's time is divided by tokens.
    pub device_micros: u64,
}

/// The result of a request, by kind of work.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// For [`Work::Encode`]: one entry per text, in order.
    Vectors(Vec<EncodedText>),
    /// For [`Work::Classify`]: one logit per class, in the checkpoint's order.
    Logits(Vec<f32>),
    Completion(Completion),
    /// For [`Work::Score`]: for each answer the natural logarithm of the probability that the model writes exactly this answer and
    /// ends its turn; [`LEAST_SCORE`](super::LEAST_SCORE) where a server does not report it.
    Scores(Vec<f32>),
}

/// The vectors of one text: exactly one chunk with [`Chunking::Truncate`], otherwise at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedText {
    /// The chunks, in the order of the text.
    pub chunks: Vec<EncodedChunk>,
}

/// The vector of one token sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedChunk {
    /// The bytes of the text that the chunk's tokens cover.
    pub span: Span,
    /// Tokens, including special tokens.
    pub tokens: u32,
    /// The pooled vector, normalised to length 1.
    pub vector: Arc<[f32]>,
}
