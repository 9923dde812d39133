//! What the generators need of a decoder, wherever it computes.

use std::sync::Arc;

use super::decoder::{DecoderShape, Logits, StepRow};
use super::error::EngineError;

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
