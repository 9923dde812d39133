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
use crate::decode::{Decode, DecoderWeights};
use crate::decoder::{BLOCK_TOKENS, DecoderShape, Logits, StepRow, TensorSource, WantedLogits, read};
use crate::error::EngineError;
use crate::folder::ModelFolder;

/// A decoder whose weights are on a device.
pub(crate) struct GpuDecoder {
    pub(super) place: Accelerator,
    shape: DecoderShape,
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    /// The embedding table, where that is the output layer as well.
    head: Linear,
}

struct Layer {
    attention_norm: RmsNorm,
    /// Query, key and value of all heads, side by side.
    qkv: Linear,
    /// Norms of each head's query and key.
    head_norms: Option<(RmsNorm, RmsNorm)>,
    project: Linear,
    inner_norm: RmsNorm,
    /// Gates and values, side by side.
    widen: Linear,
    narrow: Linear,
    window: Option<usize>,
}

/// A decoder with its cache.
pub(super) struct GpuDecoderSession {
    decoder: Arc<GpuDecoder>,
    cache: GpuKvCache,
}

/// What all layers of a step share.
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

/// Takes tensors of a file onto the device.
struct Loader<'a> {
    place: &'a Accelerator,
    tensors: &'a mut dyn TensorSource,
    epsilon: f32,
}

type Loaded<T> = std::result::Result<T, EngineError>;

impl GpuDecoder {
    /// Loads the decoder of a folder or file onto the device: see [`read`].
    pub(crate) fn load(folder: &mut ModelFolder, adapter: Option<&Path>, place: &Accelerator) -> Loaded<Self> {
        read(folder, adapter, |shape, tensors| {
            let mut loader = Loader { place, tensors, epsilon: shape.epsilon };
            let embeddings = loader.matrix("model.embed_tokens.weight", shape.vocabulary, shape.hidden)?;
            let head =
                if shape.tied { embeddings.clone() } else { loader.matrix("lm_head.weight", shape.vocabulary, shape.hidden)? };
            let layers = (0..shape.layers).map(|index| loader.layer(index, &shape)).collect::<Loaded<_>>()?;
            let norm = loader.norm("model.norm", shape.hidden)?;
            Ok(Self { place: place.clone(), shape, embeddings, layers, norm, head: Linear::new(head, None) })
        })
    }

    fn heads(&self) -> HeadCounts {
        HeadCounts { queries: self.shape.heads, keys: self.shape.kv_heads, width: self.shape.head_width }
    }

    /// The vectors of the wanted tokens after the last norm; none where nobody wants any.
    pub(super) fn states(&self, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> Result<Option<Tensor>> {
        cache.copy(&self.place)?;
        let step = self.plan(cache, rows)?;
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids).copied().collect();
        let mut hidden = self.embeddings.index_select(&self.place.upload_indexes(ids)?, 0)?;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = (&hidden + self.attention(layer, cache.layer(index), &step, &layer.attention_norm.apply(&hidden)?)?)?;
            let wide = layer.widen.apply(&layer.inner_norm.apply(&hidden)?)?;
            hidden = (&hidden + layer.narrow.apply(&gate(&wide)?)?)?;
        }
        let wanted = wanted(rows);
        if wanted.is_empty() {
            return Ok(None);
        }
        let wanted = hidden.index_select(&self.place.upload_indexes(wanted)?, 0)?;
        self.norm.apply(&wanted).map(Some)
    }

    /// The logits of the wanted tokens, one after the other.
    pub(super) fn logits(&self, cache: &mut GpuKvCache, rows: &[StepRow<'_>]) -> Result<Vec<f32>> {
        match self.states(cache, rows)? {
            Some(states) => self.head.apply(&states)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1(),
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
        let pieces = within_memory(rows, || self.place.tidy(), compute).map_err(|e| self.place.failed(&e))?;
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

    /// Checks what the caller promised and lays the rows out one after the other.
    fn plan(&self, cache: &GpuKvCache, rows: &[StepRow<'_>]) -> Result<StepInputs> {
        rows.iter().for_each(|row| row.check(self.shape.vocabulary, cache.blocks()));
        let positions = rows.iter().flat_map(|row| row.past..row.past + row.ids.len());
        let tokens = positions.clone().count();
        let angles = self.shape.rotation.angles(positions);
        let half = (tokens, self.shape.head_width / 2);
        Ok(StepInputs {
            tokens,
            cosines: self.place.upload(angles.cosines, half)?,
            sines: self.place.upload(angles.sines, half)?,
            places: cache.places(&self.place, rows)?,
            attention: self.plan_attention(rows)?,
        })
    }

    fn plan_attention(&self, rows: &[StepRow<'_>]) -> Result<Attention> {
        if flash_attention::has_paged(&self.place, self.heads()) {
            let rows = rows.iter().map(|row| {
                let end = row.past + row.ids.len();
                (row.ids.len(), end, &row.blocks[..end.div_ceil(BLOCK_TOKENS)])
            });
            return Paged::new(&self.place, self.heads(), rows).map(Attention::Paged);
        }
        let mut first = 0;
        let span = |row: &StepRow<'_>| {
            let count = row.ids.len();
            let keys = (0..row.past + count).map(|position| slot(row.blocks, position) as u32).collect();
            first += count;
            QuerySpan { first: first - count, count, keys, past: Some(row.past) }
        };
        let spans: Vec<QuerySpan> = rows.iter().map(span).collect();
        let windows: BTreeSet<Option<usize>> = self.layers.iter().map(|layer| layer.window).collect();
        let plan = |window| GroupedAttention::new(&self.place, self.heads(), &spans, window).map(|plan| (window, plan));
        windows.into_iter().map(plan).collect::<Result<_>>().map(Attention::Grouped)
    }

    fn attention(&self, layer: &Layer, store: &LayerCache, step: &StepInputs, normed: &Tensor) -> Result<Tensor> {
        let HeadCounts { queries: heads, keys: shared, width } = self.heads();
        let qkv = layer.qkv.apply(normed)?;
        let (norms, keys) = (layer.head_norms.as_ref(), shared * width);
        let queries = turned(&qkv.narrow(1, 0, heads * width)?, heads, norms.map(|(query, _)| query), step)?;
        let new_keys = turned(&qkv.narrow(1, heads * width, keys)?, shared, norms.map(|(_, key)| key), step)?;
        let new_values = qkv.narrow(1, heads * width + keys, keys)?.contiguous()?;
        store.write(&step.places, &new_keys, &new_values)?;
        let context = match &step.attention {
            Attention::Paged(paged) => paged.attend(&queries, (&store.keys, &store.values), BLOCK_TOKENS, layer.window)?,
            Attention::Grouped(plans) => {
                plans[&layer.window].attend(&queries, &store.key_rows(keys)?, &store.value_rows(keys)?)?
            }
        };
        layer.project.apply(&context)
    }
}

/// Each head normalized, where there is a norm, and turned by its token's position.
fn turned(rows: &Tensor, heads: usize, norm: Option<&RmsNorm>, step: &StepInputs) -> Result<Tensor> {
    let width = rows.dims()[1];
    let rows = rows.contiguous()?.reshape((1, step.tokens, heads, width / heads))?;
    let rows = match norm {
        Some(norm) => norm.apply(&rows)?,
        None => rows,
    };
    candle_nn::rotary_emb::rope_thd(&rows, &step.cosines, &step.sines)?.reshape((step.tokens, width))
}

/// The places of the tokens whose logits are wanted among those of all rows.
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

impl Loader<'_> {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Loaded<Tensor> {
        let matrix = self.tensors.matrix(name, outputs, inputs)?;
        self.place.upload_matrix(matrix, outputs).map_err(|e| self.place.cannot_hold(&e))
    }

    fn norm(&mut self, name: &str, width: usize) -> Loaded<RmsNorm> {
        let scale = self.tensors.vector(&format!("{name}.weight"), width)?;
        let scale = self.place.upload(scale, width).map_err(|e| self.place.cannot_hold(&e))?;
        Ok(RmsNorm { scale, epsilon: self.epsilon })
    }

    /// The matrices called `parts` as one, with as many outputs each, and where `biased` their biases.
    fn linear(&mut self, prefix: &str, parts: &[(&str, usize)], inputs: usize, biased: bool) -> Loaded<Linear> {
        let (mut weights, mut biases) = (Vec::with_capacity(parts.len()), Vec::new());
        for (name, outputs) in parts {
            weights.push(self.matrix(&format!("{prefix}.{name}.weight"), *outputs, inputs)?);
            if biased {
                biases.extend(self.tensors.vector(&format!("{prefix}.{name}.bias"), *outputs)?);
            }
        }
        let join = || -> Result<Linear> {
            let outputs = biases.len();
            let bias = biased.then(|| self.place.upload(biases, outputs)).transpose()?;
            Ok(Linear::new(Tensor::cat(&weights, 0)?, bias))
        };
        join().map_err(|e| self.place.cannot_hold(&e))
    }

    fn layer(&mut self, index: usize, shape: &DecoderShape) -> Loaded<Layer> {
        let (hidden, width, inner) = (shape.hidden, shape.head_width, shape.inner);
        let (queries, keys) = (shape.heads * width, shape.kv_heads * width);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let head_norms = if shape.head_norm {
            Some((self.norm(&at("self_attn.q_norm"), width)?, self.norm(&at("self_attn.k_norm"), width)?))
        } else {
            None
        };
        Ok(Layer {
            attention_norm: self.norm(&at("input_layernorm"), hidden)?,
            qkv: self.linear(&at("self_attn"), &qkv, hidden, shape.qkv_bias)?,
            head_norms,
            project: self.linear(&at("self_attn"), &[("o_proj", hidden)], queries, shape.output_bias)?,
            inner_norm: self.norm(&at("post_attention_layernorm"), hidden)?,
            widen: self.linear(&at("mlp"), &[("gate_proj", inner), ("up_proj", inner)], hidden, shape.inner_bias)?,
            narrow: self.linear(&at("mlp"), &[("down_proj", hidden)], inner, shape.inner_bias)?,
            window: shape.windows[index],
        })
    }
}

impl Layer {
    fn bytes(&self) -> usize {
        [&self.qkv, &self.project, &self.widen, &self.narrow].iter().map(|linear| linear.bytes()).sum()
    }
}

impl DecoderWeights for GpuDecoder {
    fn shape(&self) -> &DecoderShape {
        &self.shape
    }

    fn bytes(&self) -> usize {
        let table = if self.shape.tied { 0 } else { bytes(&self.embeddings) };
        table + self.head.bytes() + self.layers.iter().map(Layer::bytes).sum::<usize>()
    }

    fn block_bytes(&self) -> usize {
        let token = self.shape.layers * 2 * self.shape.kv_heads * self.shape.head_width;
        BLOCK_TOKENS * token * self.place.dtype.size_in_bytes()
    }

    fn open(self: Arc<Self>, blocks: usize) -> Loaded<Box<dyn Decode>> {
        let cache = GpuKvCache::new(&self.place, &self.shape, blocks).map_err(|e| self.place.cannot_hold(&e))?;
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
