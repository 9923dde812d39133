//! What one sequence does in one step.

/// A sequence's share of a step.
pub(super) enum StepPart {
    /// So many of its tokens are read; after the last that is known, something is chosen.
    Read { tokens: usize, wanted: bool },
    /// Answers are weighed, each in blocks that go on from the prompt's.
    Score(Vec<AnswerBranch>),
}

/// An answer on its way.
pub(super) struct AnswerBranch {
    pub(super) answer: usize,
    pub(super) table: Vec<u32>,
    /// Blocks at the end of the table that are the answer's own.
    pub(super) own: usize,
}
