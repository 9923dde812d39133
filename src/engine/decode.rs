//! The interfaces of a decoder, whichever device computes it.

use std::sync::Arc;

use super::decoder::{DecoderShape, Logits, StepRow};
use super::error::EngineError;

/// A decoder with its cache of keys and values.
pub(crate) trait Decode: Send {
    /// Blocks in the cache.
    fn blocks(&self) -> usize;
    /// Copies the content of block `from` to block `to`.
    fn copy_block(&mut self, from: u32, to: u32);
    /// Runs one forward pass on the current thread pool. A row that is too large for the memory is refused by itself, see
    /// [`Logits::refused`]; the other rows have their logits.
    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError>;
}

/// The weights of a decoder in the memory of a device.
pub(crate) trait DecoderWeights: Send + Sync {
    /// The sizes that callers plan with.
    fn shape(&self) -> &DecoderShape;
    /// Bytes of all weights.
    fn bytes(&self) -> usize;
    /// Bytes of one cache block, over all layers.
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
