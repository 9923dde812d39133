//! What the scheduler needs of a decoder, a vocabulary and a schema. The tests put simpler ones in their place.

pub(super) use crate::engine::decoder::{BLOCK_TOKENS, Logits, StepRow, Wanted};
use crate::engine::error::EngineError;
pub(super) use crate::engine::prompt::TokenMask;
use crate::failure::Poison;

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
