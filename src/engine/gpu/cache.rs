//! The cache of keys and values on a device, in blocks. A block may belong to any sequence.
//!
//! ```text
//! a layer's keys    row of a block: token 0 (head 0 … head h) … token 31     the same memory as rows of tokens, for single tokens
//! ```

use std::collections::{HashSet, VecDeque};

use candle_core::{Result, Tensor};

use super::accelerator::Accelerator;
use crate::decoder::{BLOCK_TOKENS, DecoderShape, StepRow};

/// The fewest consecutive tokens that are copied by an operation of their own.
const RUN: usize = 8;

/// Memory for a number of blocks in every layer.
pub(super) struct GpuKvCache {
    layers: Vec<LayerCache>,
    /// Requested copies, which are made in this order before the next step.
    copies: VecDeque<(u32, u32)>,
    width: usize,
    blocks: usize,
}

/// The keys and values of one layer.
pub(super) struct LayerCache {
    /// A row for each block.
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

/// The slots of a step's new tokens.
pub(super) struct TokenSlots {
    /// Runs of consecutive tokens: the first token, the first slot and the number of tokens.
    runs: Vec<(usize, usize, usize)>,
    /// All other tokens, and a slot for each of their components.
    scattered: Option<(Tensor, Tensor)>,
    width: usize,
}

impl GpuKvCache {
    /// Allocates `blocks` blocks.
    pub(super) fn new(accelerator: &Accelerator, shape: &DecoderShape, blocks: usize) -> Result<Self> {
        let width = shape.kv_heads * shape.head_width;
        let store = || -> Result<LayerCache> {
            let zeros = || Tensor::zeros((blocks, BLOCK_TOKENS * width), accelerator.dtype, &accelerator.device);
            Ok(LayerCache { keys: zeros()?, values: zeros()? })
        };
        let layers = (0..shape.layers).map(|_| store()).collect::<Result<_>>()?;
        Ok(Self { layers, copies: VecDeque::new(), width, blocks })
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// One layer's keys and values.
    pub(super) fn layer(&self, index: usize) -> &LayerCache {
        &self.layers[index]
    }

    /// Requests a copy of block `from` to block `to` in every layer. It is made before anything else is read or written.
    pub(super) fn copy_block(&mut self, from: u32, to: u32) {
        self.copies.push_back((from, to));
    }

    /// Makes the requested copies. May be called again after a failure.
    pub(super) fn copy(&mut self, accelerator: &Accelerator) -> Result<()> {
        while !self.copies.is_empty() {
            let count = self.independent();
            let (from, to): (Vec<u32>, Vec<u32>) = self.copies.iter().take(count).copied().unzip();
            let from = accelerator.upload_indexes(from)?;
            let to = spread(accelerator, to, BLOCK_TOKENS * self.width)?;
            for tensor in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
                tensor.scatter_set(&to, &tensor.index_select(&from, 0)?, 0)?;
            }
            self.copies.drain(..count);
        }
        Ok(())
    }

    /// How many copies from the front can be made in any order and repeated: none reads or writes a block that another one writes.
    fn independent(&self) -> usize {
        let (mut read, mut written) = (HashSet::new(), HashSet::new());
        let alone = |(from, to): &&(u32, u32)| {
            let free = !written.contains(from) && !read.contains(to) && !written.contains(to);
            read.insert(*from);
            written.insert(*to);
            free
        };
        self.copies.iter().take_while(alone).count()
    }

    /// The slots of the new tokens of `rows`, which are laid out one after the other.
    pub(super) fn places(&self, accelerator: &Accelerator, rows: &[StepRow<'_>]) -> Result<TokenSlots> {
        let (mut runs, mut tokens, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0;
        for row in rows {
            let own: Vec<usize> = (row.past..row.past + row.ids.len()).map(|position| slot(row.blocks, position)).collect();
            for run in own.chunk_by(|a, b| a + 1 == *b) {
                if run.len() >= RUN {
                    runs.push((first, run[0], run.len()));
                } else {
                    tokens.extend((first..first + run.len()).map(|token| token as u32));
                    slots.extend(run.iter().map(|slot| *slot as u32));
                }
                first += run.len();
            }
        }
        let scattered = if tokens.is_empty() {
            None
        } else {
            Some((accelerator.upload_indexes(tokens)?, spread(accelerator, slots, self.width)?))
        };
        Ok(TokenSlots { runs, scattered, width: self.width })
    }
}

impl LayerCache {
    /// Stores the keys and values of a step's tokens, a row for each token.
    pub(super) fn write(&self, places: &TokenSlots, keys: &Tensor, values: &Tensor) -> Result<()> {
        places.write(&self.keys, keys)?;
        places.write(&self.values, values)
    }

    /// The keys, a row for each token.
    pub(super) fn key_rows(&self, width: usize) -> Result<Tensor> {
        self.keys.reshape(((), width))
    }

    /// The values, a row for each token.
    pub(super) fn value_rows(&self, width: usize) -> Result<Tensor> {
        self.values.reshape(((), width))
    }
}

impl TokenSlots {
    fn write(&self, store: &Tensor, rows: &Tensor) -> Result<()> {
        // The same memory in another shape: writing here writes to the cache.
        let slots = store.reshape(((), self.width))?;
        for (token, slot, count) in &self.runs {
            slots.slice_set(&rows.narrow(0, *token, *count)?, 0, *slot)?;
        }
        match &self.scattered {
            Some((tokens, places)) => slots.scatter_set(places, &rows.index_select(tokens, 0)?, 0),
            None => Ok(()),
        }
    }
}

/// The slot of the token at `position` of the sequence that has `blocks`.
pub(super) fn slot(blocks: &[u32], position: usize) -> usize {
    blocks[position / BLOCK_TOKENS] as usize * BLOCK_TOKENS + position % BLOCK_TOKENS
}

/// Repeats each index for every component of a row, as candle's scatter needs it.
fn spread(accelerator: &Accelerator, indexes: Vec<u32>, width: usize) -> Result<Tensor> {
    let count = indexes.len();
    accelerator.upload_indexes(indexes)?.reshape((count, 1))?.expand((count, width))?.contiguous()
}
