//! The forward pass of the Llama, Mistral, Qwen2 and Qwen3 families in candle's tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::accelerator::Accelerator;
use super::cache::{GpuKvCache, LayerCache, TokenSlots, slot};
use super::flash_attention::{self, Paged};
use super::grouped_attention::{GroupedAttention, HeadCounts, QuerySpan};
use super::layers::{Linear, RmsNorm, bytes, gate};
use super::memory_retry::within_memory;
use crate::backend::DecoderBackend;
use crate::decode::{Decode, DecoderWeights};
use crate::decoder::{BLOCK_TOKENS, DecoderLayer, DecoderNetwork, DecoderShape, Logits, StepRow, WantedLogits, read};
use crate::error::EngineError;
use crate::folder::ModelFolder;
use crate::matrix::Matrix;

/// A decoder whose weights are on a device.
pub(crate) struct GpuDecoder {
    pub(super) accelerator: Accelerator,
    shape: DecoderShape,
    model: DecoderNetwork<Accelerator>,
}

/// A decoder with its cache.
pub(super) struct GpuDecoderSession {
    decoder: Arc<GpuDecoder>,
    cache: GpuKvCache,
}

/// The inputs of a step that all layers share.
struct StepInputs {
    tokens: usize,
    cosines: Tensor,
    sines: Tensor,
    places: TokenSlots,
    attention: Attention,
}

enum Attention {
    /// By the window of the layers that use it.
    Grouped(BTreeMap<Option<usize>, GroupedAttention>),
    Paged(Paged),
}

type Loaded<T> = std::result::Result<T, EngineError>;

impl GpuDecoder {
    /// Loads the decoder of a folder or file onto the device: see [`read`].
    pub(crate) fn load(folder: &mut ModelFolder, adapter: Option<&Path>, accelerator: &Accelerator) -> Loaded<Self> {
        let (shape, model) = read(folder, adapter, accelerator)?;
        Ok(Self { accelerator: accelerator.clone(), shape, model })
    }

    fn heads(&self) -> HeadCounts {
        HeadCounts { queries: self.shape.heads, keys: self.shape.kv_heads, width: self.shape.head_width }
    }

    /// The vectors of the wanted tokens after the last norm; none if no tokens are wanted.
    pub(super) fn states(&self, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> Result<Option<Tensor>> {
        cache.copy(&self.accelerator)?;
        let step = self.plan(cache, rows)?;
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids).copied().collect();
        let mut hidden = self.model.embeddings().index_select(&self.accelerator.upload_indexes(ids)?, 0)?;
        for (index, layer) in self.model.layers.iter().enumerate() {
            hidden = (&hidden + self.attention(layer, cache.layer(index), &step, &layer.attention_norm.apply(&hidden)?)?)?;
            let wide = layer.widen.apply(&layer.inner_norm.apply(&hidden)?)?;
            hidden = (&hidden + layer.narrow.apply(&gate(&wide)?)?)?;
        }
        let wanted = wanted(rows);
        if wanted.is_empty() {
            return Ok(None);
        }
        let wanted = hidden.index_select(&self.accelerator.upload_indexes(wanted)?, 0)?;
        self.model.norm.apply(&wanted).map(Some)
    }

    /// The logits of the wanted tokens, one after the other.
    pub(super) fn logits(&self, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> Result<Vec<f32>> {
        match self.states(cache, rows)? {
            Some(states) => self.model.head.apply(&states)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1(),
            None => Ok(Vec::new()),
        }
    }

    /// One forward pass: see [`Decoder::forward`](crate::decoder::Decoder::forward). Rows for which the device has too little
    /// memory, even alone, are refused, and the cache then holds nothing of them that may be used.
    pub(super) fn forward(&self, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> Loaded<Logits> {
        self.forward_with(rows, |rows| self.logits(cache, rows))
    }

    /// The pass by `compute`, in as many pieces as it takes.
    pub(super) fn forward_with(
        &self,
        rows: &[StepRow<'_>],
        compute: impl FnMut(&[StepRow<'_>]) -> Result<Vec<f32>>,
    ) -> Loaded<Logits> {
        let vocabulary = self.shape.vocabulary;
        let pieces = within_memory(rows, || self.accelerator.tidy(), compute).map_err(|e| self.accelerator.failed(&e))?;
        let (mut values, mut refused) = (Vec::new(), Vec::new());
        for piece in pieces {
            match piece.outcome {
                Some(logits) if values.is_empty() => values = logits,
                Some(logits) => values.extend(logits),
                None => {
                    let missing: usize = rows[piece.rows.clone()].iter().map(StepRow::wanted_tokens).sum();
                    values.resize(values.len() + missing * vocabulary, f32::NAN);
                    refused.extend(piece.rows);
                }
            }
        }
        Ok(Logits::new(values, vocabulary, refused))
    }

    /// Checks the rows and lays them out one after the other.
    fn plan(&self, cache: &GpuKvCache, rows: &[StepRow<'_>]) -> Result<StepInputs> {
        rows.iter().for_each(|row| row.check(self.shape.vocabulary, cache.blocks()));
        let positions = rows.iter().flat_map(|row| row.past..row.past + row.ids.len());
        let tokens = positions.clone().count();
        let angles = self.shape.rotation.angles(positions);
        let half = (tokens, self.shape.head_width / 2);
        Ok(StepInputs {
            tokens,
            cosines: self.accelerator.upload(angles.cosines, half)?,
            sines: self.accelerator.upload(angles.sines, half)?,
            places: cache.places(&self.accelerator, rows)?,
            attention: self.plan_attention(rows)?,
        })
    }

    fn plan_attention(&self, rows: &[StepRow<'_>]) -> Result<Attention> {
        if flash_attention::has_paged(&self.accelerator, self.heads()) {
            let rows = rows.iter().map(|row| {
                let end = row.past + row.ids.len();
                (row.ids.len(), end, &row.blocks[..end.div_ceil(BLOCK_TOKENS)])
            });
            return Paged::new(&self.accelerator, self.heads(), rows).map(Attention::Paged);
        }
        let mut first = 0;
        let span = |row: &StepRow<'_>| {
            let count = row.ids.len();
            let keys = (0..row.past + count).map(|position| slot(row.blocks, position) as u32).collect();
            first += count;
            QuerySpan { first: first - count, count, keys, past: Some(row.past) }
        };
        let spans: Vec<QuerySpan> = rows.iter().map(span).collect();
        let windows: BTreeSet<Option<usize>> = self.model.layers.iter().map(|layer| layer.window).collect();
        let plan = |window| GroupedAttention::new(&self.accelerator, self.heads(), &spans, window).map(|plan| (window, plan));
        windows.into_iter().map(plan).collect::<Result<_>>().map(Attention::Grouped)
    }

    fn attention(
        &self,
        layer: &DecoderLayer<Accelerator>,
        store: &LayerCache,
        step: &StepInputs,
        normed: &Tensor,
    ) -> Result<Tensor> {
        let HeadCounts { queries: heads, keys: shared, width } = self.heads();
        let qkv = layer.qkv.apply(normed)?;
        let (norms, keys) = (layer.head_norms.as_ref(), shared * width);
        let queries = turned(&qkv.narrow(1, 0, heads * width)?, heads, norms.map(|(query, _)| query), step)?;
        let new_keys = turned(&qkv.narrow(1, heads * width, keys)?, shared, norms.map(|(_, key)| key), step)?;
        let new_values = qkv.narrow(1, heads * width + keys, keys)?.contiguous()?;
        store.write(&step.places, &new_keys, &new_values)?;
        let context = match &step.attention {
            Attention::Paged(paged) => paged.attend(&queries, &store.keys, &store.values, BLOCK_TOKENS, layer.window)?,
            Attention::Grouped(plans) => {
                plans[&layer.window].attend(&queries, &store.key_rows(keys)?, &store.value_rows(keys)?)?
            }
        };
        layer.project.apply(&context)
    }
}

/// Normalizes each head, if there is a norm, and rotates it by its token's position.
fn turned(rows: &Tensor, heads: usize, norm: Option<&RmsNorm>, step: &StepInputs) -> Result<Tensor> {
    let width = rows.dims()[1];
    let rows = rows.contiguous()?.reshape((1, step.tokens, heads, width / heads))?;
    let rows = match norm {
        Some(norm) => norm.apply(&rows)?,
        None => rows,
    };
    candle_nn::rotary_emb::rope_thd(&rows, &step.cosines, &step.sines)?.reshape((step.tokens, width))
}

/// The indexes, among the tokens of all rows, of those whose logits are wanted.
fn wanted(rows: &[StepRow<'_>]) -> Vec<u32> {
    let (mut wanted, mut first) = (Vec::new(), 0);
    for row in rows {
        let end = first + row.ids.len() as u32;
        match row.wanted {
            WantedLogits::None => {}
            WantedLogits::Last => wanted.push(end - 1),
            WantedLogits::All => wanted.extend(first..end),
        }
        first = end;
    }
    wanted
}

impl DecoderBackend for Accelerator {
    type Matrix = Tensor;
    type Linear = Linear;
    type RmsNorm = RmsNorm;

    fn matrix(&self, stored: Matrix, outputs: usize) -> Loaded<Tensor> {
        self.hold(self.upload_matrix(stored, outputs))
    }

    fn linear(&self, parts: Vec<Tensor>, bias: Option<Vec<f32>>) -> Loaded<Linear> {
        let bias = bias.map(|bias| {
            let outputs = bias.len();
            self.hold(self.upload(bias, outputs))
        });
        Ok(Linear::new(self.hold(Tensor::cat(&parts, 0))?, bias.transpose()?))
    }

    fn rms_norm(&self, scale: Vec<f32>, epsilon: f32) -> Loaded<RmsNorm> {
        let width = scale.len();
        Ok(RmsNorm { scale: self.hold(self.upload(scale, width))?, epsilon })
    }

    fn only_matrix(linear: &Linear) -> &Tensor {
        linear.weight()
    }

    fn linear_bytes(linear: &Linear) -> usize {
        bytes(linear.weight())
    }

    fn matrix_bytes(matrix: &Tensor) -> usize {
        bytes(matrix)
    }
}

impl DecoderWeights for GpuDecoder {
    fn shape(&self) -> &DecoderShape {
        &self.shape
    }

    fn bytes(&self) -> usize {
        self.model.bytes()
    }

    fn block_bytes(&self) -> usize {
        let token = self.shape.layers * 2 * self.shape.kv_heads * self.shape.head_width;
        BLOCK_TOKENS * token * self.accelerator.dtype.size_in_bytes()
    }

    fn open(self: Arc<Self>, blocks: usize) -> Loaded<Box<dyn Decode>> {
        let cache = GpuKvCache::new(&self.accelerator, &self.shape, blocks).map_err(|e| self.accelerator.cannot_hold(&e))?;
        Ok(Box::new(GpuDecoderSession { decoder: self, cache }))
    }
}

impl Decode for GpuDecoderSession {
    fn blocks(&self) -> usize {
        self.cache.blocks()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Loaded<Logits> {
        self.decoder.forward(&mut self.cache, rows)
    }
}
