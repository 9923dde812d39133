//! A completion: the text that a model wrote, its tokens and why it ended.

/// A text that a model generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Valid under the schema, if the request has one.
    pub text: String,
    /// The tokens of the text, in order; empty if a server does not report them.
    pub tokens: Vec<GeneratedToken>,
    pub finish: Finish,
}

/// One token of a completion.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeneratedToken {
    /// The token's end in the text, in bytes.
    pub end: usize,
    /// The natural logarithm of the token's probability, before masking and sampling; none if the schema allowed only this token.
    pub log_probability: Option<f32>,
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn, a stop text occurred, or the schema allows nothing more.
    Stop,
    /// `max_tokens` was reached. With a schema, a truncated answer is a failure instead.
    Length,
}
