//! What the scheduler needs of a decoder, a vocabulary and a schema. The tests put simpler ones in their place.

pub(super) use crate::decode::{Decode, DecoderWeights};
pub(super) use crate::decoder::{BLOCK_TOKENS, Logits, StepRow, WantedLogits};
pub(super) use crate::prompt::TokenMask;
use tidemill_base::failure::Poison;

/// What tokens stand for.
pub(crate) trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; none for special tokens.
    fn piece(&self, id: u32) -> &[u8];
    /// Whether the token ends a turn.
    fn ends(&self, id: u32) -> bool;
    /// Tokens there are.
    fn size(&self) -> usize;
}

/// What a schema allows after the tokens that one sequence has so far.
pub(crate) trait Guide: Send {
    /// The tokens that must come next, which then count as written. Empty where there is a choice.
    fn forced(&mut self) -> Result<Vec<u32>, Poison>;
    /// Sets `allowed` to the tokens that may come next.
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison>;
    /// Takes the token that was chosen.
    fn accept(&mut self, id: u32) -> Result<(), Poison>;
    /// Whether nothing but the end may follow.
    fn is_finished(&self) -> bool;
}
