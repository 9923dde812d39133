//! What the tasks ask of the model host, and what it answers.

use std::sync::Arc;

use crate::outcome::Span;

/// One document's work for one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Request {
    /// The model's name in the configuration.
    pub model: Arc<str>,
    /// What to do.
    pub work: Work,
}

/// The kinds of work.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// Encode each text into vectors.
    Encode {
        /// The texts; may be several for one document (its sentences, say).
        texts: Vec<Arc<str>>,
        /// What to do with a text longer than the model takes.
        chunking: Chunking,
    },
    /// Score the classes of a sequence-classification checkpoint, on as much of the text as the model takes.
    Classify {
        /// The text.
        text: Arc<str>,
    },
}

/// How a text becomes sequences of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Tokens the model read for it, special tokens included. A sequence that the same call already held costs nothing twice.
    pub tokens: u32,
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
