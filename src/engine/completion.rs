//! A completion: the text that a model wrote, its tokens and why it ended.

/// What a model wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The text; valid under the schema where one was given.
    pub text: String,
    /// The tokens of the text in order; empty where a server does not tell.
    pub tokens: Vec<GeneratedToken>,
    /// Why it ends.
    pub finish: Finish,
}

/// One token of a completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratedToken {
    /// Bytes of the text up to and including this token.
    pub end: usize,
    /// The logarithm of its probability before anything was ruled out; none where the schema left no other choice.
    pub log_probability: Option<f32>,
}

/// Why a completion ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, a stop text came up, or the schema allows nothing more.
    Stop,
    /// `max_tokens` was reached. With a schema that is a failure instead.
    Length,
}
