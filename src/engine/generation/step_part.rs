//! The part of one sequence in a step.

/// A sequence's share of a step.
pub(super) enum StepPart {
    /// Read this many of its tokens. `wanted` is whether they include the last known one, after which a token is chosen.
    Read { tokens: usize, wanted: bool },
    /// Score answers, each in blocks that continue the prompt's.
    Score(Vec<AnswerBranch>),
}

/// An answer that is scored in this step.
pub(super) struct AnswerBranch {
    pub(super) answer: usize,
    pub(super) table: Vec<u32>,
    /// Blocks at the end of the table that belong to this answer alone.
    pub(super) own: usize,
}
