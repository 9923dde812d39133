//! Decoders of the Llama, Mistral, Qwen2 and Qwen3 families: weights, storage for keys and values, the forward pass.
//!
//! ```text
//! config.json or GGUF metadata ─ config ─▶ DecoderShape ────────────────────────┐
//! safetensors ─ folder_tensors, lora ─┬─▶ TensorSource ─ weights, a backend ─▶ DecoderNetwork ─ forward ─▶ Logits
//! GGUF ─ gguf, gguf_blocks ───────────┘                                                 │
//!                                                                  KvCache (blocks) ◀───┘
//! ```
//!
//! Nothing here knows requests or prompts: a step is rows of token ids, each with the tokens before it and its blocks.

mod buffers;
mod cache;
mod config;
mod folder_tensors;
mod forward;
mod gguf;
mod gguf_blocks;
mod linear;
mod lora;
mod rope;
mod tensor_source;
mod weights;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

pub(crate) use cache::{BLOCK_TOKENS, KvCache};
pub(crate) use config::{DecoderShape, is_decoder};
pub(crate) use weights::{DecoderLayer, DecoderNetwork};

use self::folder_tensors::FolderTensors;
use self::gguf::GgufTensors;
use self::lora::LoraAdapter;
use super::backend::{Cpu, DecoderBackend};
use super::error::EngineError;
use super::folder::ModelFolder;
use tidemill_kernels::HeadCache;

/// A decoder on the cores of this machine.
pub(crate) struct Decoder {
    shape: DecoderShape,
    weights: DecoderNetwork<Cpu>,
}

/// New tokens of one sequence in a forward pass.
pub(crate) struct StepRow<'a> {
    pub(crate) ids: &'a [u32],
    /// Tokens before them, whose keys and values are in the cache.
    pub(crate) past: usize,
    /// The blocks of the sequence in order, enough for the new tokens too.
    pub(crate) blocks: &'a [u32],
    /// The tokens whose logits are wanted.
    pub(crate) wanted: WantedLogits,
}

/// Whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantedLogits {
    /// No token's: for a middle chunk of a prompt.
    None,
    /// The last new token's: to choose the next token.
    Last,
    /// Every new token's: to score a text.
    All,
}

/// Logits of the wanted tokens, in the order of rows and tokens.
pub(crate) struct Logits {
    values: Vec<f32>,
    vocabulary: usize,
    refused: Vec<usize>,
}

/// Reads the decoder of a Hugging Face folder or GGUF file onto a device, with the weights of a PEFT LoRA folder merged into it.
pub(crate) fn read<B: DecoderBackend>(
    folder: &mut ModelFolder,
    adapter: Option<&Path>,
    backend: &B,
) -> Result<(DecoderShape, DecoderNetwork<B>), EngineError> {
    if folder.is_gguf() {
        if let Some(adapter) = adapter {
            let reason = "an adapter cannot be merged into a GGUF file; use the model's safetensors folder, or a GGUF file of the merged model";
            return Err(EngineError::invalid(adapter, reason));
        }
        let (shape, mut tensors) = GgufTensors::open(folder)?;
        let weights = DecoderNetwork::read(&mut tensors, &shape, backend)?;
        return Ok((shape, weights));
    }
    let json = folder.read("config.json", "config.json names the architecture")?;
    let shape = DecoderShape::parse(&json, &folder.join("config.json"))?;
    let adapter = adapter.map(|path| LoraAdapter::open(folder, path)).transpose()?;
    let mut tensors = FolderTensors::open(folder, adapter)?;
    let weights = DecoderNetwork::read(&mut tensors, &shape, backend)?;
    tensors.finish()?;
    Ok((shape, weights))
}

impl Decoder {
    /// Loads the decoder of a folder or file: see [`read`].
    pub(crate) fn load(folder: &mut ModelFolder, adapter: Option<&Path>) -> Result<Self, EngineError> {
        let (shape, weights) = read(folder, adapter, &Cpu)?;
        Ok(Self { shape, weights })
    }

    /// The sizes that callers plan with.
    pub(crate) fn shape(&self) -> &DecoderShape {
        &self.shape
    }

    /// Bytes of the weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Storage for `blocks` blocks of [`BLOCK_TOKENS`] tokens in every layer.
    pub(crate) fn cache(&self, blocks: usize) -> Result<KvCache, EngineError> {
        Ok(KvCache::new(self.shape.layers, self.shape.kv_heads, self.shape.head_width, blocks))
    }

    /// Bytes that a block takes over all layers.
    pub(crate) fn block_bytes(&self) -> usize {
        self.shape.layers * self.shape.kv_heads * HeadCache::block_bytes(self.shape.head_width)
    }

    /// One forward pass. The new tokens of a row take positions `past..past + ids.len()`, and their keys and values are in its blocks
    /// afterwards. Rows may share blocks that none of them writes into. A token's logits are the same bits whatever rows are read beside
    /// it and however its sequence is cut into steps. Runs on the threads of the current rayon pool.
    ///
    /// # Panics
    /// If a row has no tokens, too few blocks, or a block or token id out of range.
    pub(crate) fn forward(&self, cache: &mut KvCache, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        Ok(self.logits(&self.states(cache, rows)))
    }
}

impl StepRow<'_> {
    /// Panics if the row breaks a rule of [`Decoder::forward`] for `vocabulary` tokens and a cache of `blocks` blocks.
    pub(crate) fn check(&self, vocabulary: usize, blocks: usize) {
        let end = self.past + self.ids.len();
        assert!(!self.ids.is_empty(), "a row without tokens");
        assert!(end <= self.blocks.len() * BLOCK_TOKENS, "{end} tokens in {} blocks", self.blocks.len());
        assert!(self.blocks.iter().all(|block| (*block as usize) < blocks), "a block of another cache");
        assert!(self.ids.iter().all(|id| (*id as usize) < vocabulary), "a token id beyond the vocabulary");
    }

    /// How many tokens' logits are wanted.
    pub(crate) fn wanted_tokens(&self) -> usize {
        match self.wanted {
            WantedLogits::None => 0,
            WantedLogits::Last => 1,
            WantedLogits::All => self.ids.len(),
        }
    }
}

impl Logits {
    /// Rows of `vocabulary` logits. Those of the step's rows `refused` are NaN.
    pub(crate) fn new(values: Vec<f32>, vocabulary: usize, refused: Vec<usize>) -> Self {
        Self { values, vocabulary, refused }
    }

    /// The step's rows for which the device had too little memory, even when each was computed alone.
    pub(crate) fn refused(&self) -> &[usize] {
        &self.refused
    }

    pub(crate) fn rows(&self) -> usize {
        self.values.len() / self.vocabulary
    }

    /// The logits of row `i`, to be read.
    pub(crate) fn row_ref(&self, i: usize) -> &[f32] {
        &self.values[i * self.vocabulary..][..self.vocabulary]
    }
}
