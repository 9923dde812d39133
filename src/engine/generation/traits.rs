//! The interfaces between the scheduler and a vocabulary or a schema. The tests implement them with simpler types.

pub(super) use crate::decode::{Decode, DecoderWeights};
pub(super) use crate::decoder::{BLOCK_TOKENS, Logits, StepRow, WantedLogits};
pub(super) use crate::prompt::TokenMask;
use tidemill_base::failure::Poison;

/// Maps token ids to bytes.
pub(crate) trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; empty for special tokens.
    fn piece(&self, id: u32) -> &[u8];
    /// Whether the token ends a turn.
    fn ends(&self, id: u32) -> bool;
    /// The number of tokens.
    fn size(&self) -> usize;
}

/// Constrains the tokens of one sequence to a schema (guided decoding).
pub(crate) trait Guide: Send {
    /// The tokens that must come next. They count as written. Empty if there is a choice.
    fn forced(&mut self) -> Result<Vec<u32>, Poison>;
    /// Sets `allowed` to the tokens that may come next.
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison>;
    /// Records the chosen token.
    fn accept(&mut self, id: u32) -> Result<(), Poison>;
    /// Whether only the end may follow.
    fn is_finished(&self) -> bool;
}
