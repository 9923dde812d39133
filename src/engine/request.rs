//! What the tasks ask of the model host, and what it answers.

use std::sync::Arc;

use serde::Serialize;

use super::completion::Completion;
use super::schema::Schema;
use tidemill_base::outcome::Span;

/// One document's work for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The model's name in the configuration.
    pub model: Arc<str>,
    /// What to do.
    pub work: Work,
}

/// The kinds of work. Serialized, it names everything in a request that decides the answer, save the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Work {
    /// Encode each text into vectors.
    Encode {
        /// The texts; may be several for one document (its sentences, say).
        texts: Vec<Arc<str>>,
        /// What to do with a text longer than the model takes.
        chunking: Chunking,
        /// What the texts are to the model. A task's are always the same, and what the model puts before them is part of its revision.
        #[serde(skip)]
        kind: TextKind,
    },
    /// Score the classes of a sequence-classification checkpoint, on as much of the text as the model takes.
    Classify {
        /// The text.
        text: Arc<str>,
    },
    /// Complete a prompt.
    Generate(Generate),
    /// Weigh possible answers to a prompt against each other, without writing any.
    Score(Score),
}

/// A conversation that ends where the model is to go on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prompt {
    /// The messages, in order. Whatever they contain is text to the model: none of it becomes a special token.
    pub messages: Vec<Message>,
    /// Who asks: prompts of one group begin alike, so their common prefix is kept, and groups share the device evenly.
    #[serde(skip)]
    pub group: Arc<str>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Arc<str>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whoever set the model up.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates and servers know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A prompt to complete.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    /// The prompt.
    pub prompt: Prompt,
    /// Tokens that the completion may have at most.
    pub max_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Texts that end the completion where they come up; they are no part of it.
    pub stop: Vec<String>,
    /// What the completion must be: JSON that is valid under this. Any text where absent.
    pub schema: Option<Arc<Schema>>,
}

/// How each token is chosen. The same request gives the same completion, whatever it shares a batch with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sampling {
    /// 0 takes the likeliest token; larger values flatten the distribution that one is drawn from.
    pub temperature: f32,
    /// Draw only from the fewest tokens that have this much probability together; 1 for all.
    pub top_p: f32,
    /// Draw only from this many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Decides the draws.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0 }
    }
}

/// Answers to weigh.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Score {
    /// The prompt.
    pub prompt: Prompt,
    /// The whole answers that are possible, without the tokens that end a turn.
    pub answers: Arc<[Arc<str>]>,
}

/// Whose work goes first where there is more than the device can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    /// A stream or a person waits.
    #[default]
    Live,
    /// Done when nothing live is left to do.
    Backfill,
}

/// What a text is to an encoder: some are trained with other words before a query than before a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TextKind {
    /// Neither of the others: it takes the model's default prompt.
    #[default]
    Plain,
    /// What is to be found.
    Document,
    /// What is looked for.
    Query,
}

/// How a text becomes sequences of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Chunking {
    /// One sequence: what the model takes, the rest cut off.
    Truncate,
    /// As many sequences as needed, each of at most `tokens` tokens (special tokens not counted), neighbours sharing
    /// `overlap` of them.
    Split {
        /// Tokens of a chunk.
        tokens: usize,
        /// Tokens that neighbours share.
        overlap: usize,
    },
}

/// The answer to one [`Request`].
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The result.
    pub prediction: Prediction,
    /// Tokens the model read for it, special tokens included. What the same call already held, or a kept prefix, costs nothing twice.
    pub tokens: u32,
    /// Tokens the model wrote.
    pub generated: u32,
    /// Device time, shared out over the batch by tokens, in microseconds.
    pub device_micros: u64,
}

/// What the model made of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// For [`Work::Encode`]: one entry a text, in order.
    Vectors(Vec<EncodedText>),
    /// For [`Work::Classify`]: one logit a class, in the checkpoint's order.
    Logits(Vec<f32>),
    /// For [`Work::Generate`].
    Completion(Completion),
    /// For [`Work::Score`]: for each answer the logarithm of the probability that the model gives exactly it, end of turn included;
    /// [`LEAST_SCORE`](super::LEAST_SCORE) where a server tells nothing of it.
    Scores(Vec<f32>),
}

/// The vectors of one text; exactly one chunk under [`Chunking::Truncate`], at least one otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedText {
    /// The chunks in order of the text.
    pub chunks: Vec<EncodedChunk>,
}

/// One encoded sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedChunk {
    /// The bytes of the text that the tokens cover.
    pub span: Span,
    /// Tokens, special tokens included.
    pub tokens: u32,
    /// The pooled vector, of length 1.
    pub vector: Arc<[f32]>,
}
