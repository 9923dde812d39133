//! The cache of keys and values of the tokens that were read, in blocks. A block may belong to any sequence.

use super::buffers::DecoderBuffers;
pub(crate) use tidemill_kernels::BLOCK_TOKENS;
use tidemill_kernels::HeadCache;

/// Memory for a number of blocks in every layer. The caller keeps track of which sequence a block belongs to.
pub(crate) struct KvCache {
    /// By layer, then by head of keys and values.
    pub(super) layers: Vec<Vec<HeadCache>>,
    pub(super) workspace: DecoderBuffers,
    blocks: usize,
}

impl KvCache {
    /// A cache of `blocks` blocks. The system assigns memory when a block is written.
    pub(super) fn new(layers: usize, heads: usize, width: usize, blocks: usize) -> Self {
        let layer = || (0..heads).map(|_| HeadCache::new(blocks, width)).collect();
        Self { layers: (0..layers).map(|_| layer()).collect(), workspace: DecoderBuffers::default(), blocks }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Copies block `from` onto block `to` in every layer.
    pub(crate) fn copy_block(&mut self, from: u32, to: u32) {
        self.layers.iter_mut().flatten().for_each(|head| head.copy(from, to));
    }
}
