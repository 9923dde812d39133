//! What the scheduler needs of a decoder, a vocabulary and a schema. The tests put simpler ones in their place.

use std::sync::Arc;

use crate::decoder::DecoderShape;
pub(super) use crate::decoder::{BLOCK_TOKENS, Logits, StepRow, WantedLogits};
use crate::error::EngineError;
pub(super) use crate::prompt::TokenMask;
use tidemill_base::failure::Poison;

/// A decoder with its cache of keys and values.
pub(crate) trait Decode: Send {
    /// Blocks of the cache.
    fn blocks(&self) -> usize;
    /// Copies what block `from` holds to block `to`.
    fn copy_block(&mut self, from: u32, to: u32);
    /// One forward pass on the current thread pool. What one row is too large for is told of that row alone: see [`Logits::refused`].
    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError>;
}

/// A decoder's weights, wherever they are.
pub(crate) trait DecoderWeights: Send + Sync {
    /// The sizes that callers plan with.
    fn shape(&self) -> &DecoderShape;
    /// Bytes of the weights.
    fn bytes(&self) -> usize;
    /// Bytes that a block of the cache takes over all layers.
    fn block_bytes(&self) -> usize;
    /// A decoder of these weights with a cache of `blocks` blocks.
    fn open(self: Arc<Self>, blocks: usize) -> Result<Box<dyn Decode>, EngineError>;
}

/// What tokens stand for.
pub(crate) trait Vocabulary: Send + Sync {
    /// The bytes that a token stands for; none for special tokens.
    fn piece(&self, id: u32) -> &[u8];
    /// Whether the token ends a turn.
    fn ends(&self, id: u32) -> bool;
    /// Tokens there are.
    fn size(&self) -> usize;
}

impl Decode for Box<dyn Decode> {
    fn blocks(&self) -> usize {
        (**self).blocks()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        (**self).copy_block(from, to);
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        (**self).forward(rows)
    }
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
