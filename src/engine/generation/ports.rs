//! What the scheduler needs of a decoder, a vocabulary and a schema. The tests put simpler ones in their place.

use toktrie::SimpleVob;

use crate::engine::error::EngineError;
use crate::failure::Poison;

/// Tokens of one block of keys and values.
pub(in crate::engine) const BLOCK_TOKENS: usize = 32;

/// A set of tokens: those that may come next.
pub(in crate::engine) type TokenMask = SimpleVob;

/// New tokens of one sequence in a forward pass.
pub(in crate::engine) struct StepRow<'a> {
    /// The new tokens.
    pub(in crate::engine) ids: &'a [u32],
    /// Tokens before them, whose keys and values are in the cache.
    pub(in crate::engine) past: usize,
    /// The blocks of the sequence in order, enough for the new tokens too.
    pub(in crate::engine) blocks: &'a [u32],
    /// The tokens whose logits are wanted.
    pub(in crate::engine) wanted: Wanted,
}

/// Whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Wanted {
    /// Nobody's: a middle chunk of a prompt.
    None,
    /// The last new token's: what comes next is chosen.
    Last,
    /// Every new token's: a text is scored.
    All,
}

/// Logits of the wanted tokens, in the order of rows and tokens.
pub(in crate::engine) struct Logits {
    pub(super) values: Vec<f32>,
    pub(super) vocabulary: usize,
}

impl Logits {
    /// The logits of row `i`, to be read.
    pub(in crate::engine) fn row_ref(&self, i: usize) -> &[f32] {
        &self.values[i * self.vocabulary..][..self.vocabulary]
    }
}

/// A decoder with its cache of keys and values.
pub(in crate::engine) trait Decode: Send {
    /// Blocks of the cache.
    fn blocks(&self) -> usize;
    /// Copies what block `from` holds to block `to`.
    fn copy_block(&mut self, from: u32, to: u32);
    /// One forward pass on the current thread pool.
    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError>;
}

/// What tokens stand for.
pub(in crate::engine) trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; none for special tokens.
    fn piece(&self, id: u32) -> &[u8];
    /// Whether the token ends a turn.
    fn ends(&self, id: u32) -> bool;
    /// Tokens there are.
    fn size(&self) -> usize;
}

/// What a schema allows after the tokens that one sequence has so far.
pub(in crate::engine) trait Guide: Send {
    /// The tokens that must come next, which then count as written. Empty where there is a choice.
    fn forced(&mut self) -> Result<Vec<u32>, Poison>;
    /// Sets `allowed` to the tokens that may come next.
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison>;
    /// Takes the token that was chosen.
    fn accept(&mut self, id: u32) -> Result<(), Poison>;
    /// Whether nothing but the end may follow.
    fn is_finished(&self) -> bool;
}
