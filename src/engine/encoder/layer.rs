//! One layer of an encoder, over the rows of many sequences.
//!
//! Where the processor multiplies bf16 by itself, what one product leaves for the next is rounded as it is made, and f32 is left for sums and
//! for the rows that go from layer to layer.

use super::{layer_norm, linear};
use crate::batch::PackedSequences;
use crate::error::EngineError;
use crate::folder::EncoderConfig;
use crate::weights::Weights;
use tidemill_kernels::{
    ActivationFunction, AttentionShape, Bf16AttentionBuffers, LayerNorm, Linear, STEP, Tiles, aligned_slice, attend, attend_bf16,
    gelu,
};

/// The weights of a layer.
pub(super) struct Layer {
    /// Query, key and value in one product.
    qkv: Linear,
    project: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    norm: LayerNorm,
    attention: AttentionShape,
    rounded: bool,
}

/// Buffers of one thread, kept between batches.
#[derive(Default)]
pub(super) struct LayerBuffers {
    wide: Vec<f32>,
    context: Vec<f32>,
    product: Vec<f32>,
    scores: Vec<f32>,
    rounded: Bf16Buffers,
}

/// Of what is rounded: the rows between two layers, and what comes of them in one.
#[derive(Default)]
struct Bf16Buffers {
    rows: Tiles,
    qkv: Tiles,
    context: Tiles,
    inner: Tiles,
    attention: Bf16AttentionBuffers,
}

impl LayerBuffers {
    /// Takes up the rows that the first layer reads, of `hidden` values each.
    pub(super) fn begin(&mut self, rows: &[f32], hidden: usize, rounded: bool) {
        if rounded {
            self.rounded.rows.reserve(rows.len() / hidden, hidden / STEP);
            rows.chunks_exact(hidden).enumerate().for_each(|(row, values)| self.rounded.rows.round(row, values));
        }
    }
}

impl Layer {
    /// Takes the tensors of layer `index`.
    pub(super) fn load(weights: &mut Weights, index: usize, shape: &EncoderConfig) -> Result<Self, EngineError> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        // Grown by what is read, for sizes in config.json may be anything.
        let (mut qkv, mut bias) = (Vec::new(), Vec::new());
        for part in ["query", "key", "value"] {
            qkv.extend(weights.encoder(&at(&format!("attention.self.{part}.weight")), &[hidden, hidden])?);
            bias.extend(weights.encoder(&at(&format!("attention.self.{part}.bias")), &[hidden])?);
        }
        let attention = AttentionShape { heads: shape.num_attention_heads, width: hidden / shape.num_attention_heads };
        let qkv = Linear::new(&qkv, bias);
        let project = linear(weights, &at("attention.output.dense"), hidden, hidden)?;
        let widen = linear(weights, &at("intermediate.dense"), hidden, inner)?;
        let narrow = linear(weights, &at("output.dense"), inner, hidden)?;
        let products = [&qkv, &project, &widen, &narrow].iter().all(|linear| linear.takes_bf16_rows());
        let rounded = products && attention.width.is_multiple_of(STEP);
        let attention_norm = layer_norm(weights, &at("attention.output.LayerNorm"), shape)?;
        let norm = layer_norm(weights, &at("output.LayerNorm"), shape)?;
        Ok(Self { qkv, project, attention_norm, widen, narrow, norm, attention, rounded })
    }

    /// Whether the layer reads rounded rows.
    pub(super) fn is_rounded(&self) -> bool {
        self.rounded
    }

    /// Takes the rows of all sequences through the layer.
    pub(super) fn run(&self, batch: &PackedSequences<'_>, rows: &mut [f32], space: &mut LayerBuffers) {
        let LayerBuffers { wide, context, product, scores, rounded } = space;
        let product = aligned_slice(product, rows.len());
        if self.rounded {
            self.run_rounded(batch, rows, product, rounded);
        } else {
            let (context, inner) = (aligned_slice(context, rows.len()), self.widen.bias().len());
            let wide = aligned_slice(wide, batch.tokens() * inner.max(self.qkv.bias().len()));
            self.run_wide(batch, rows, product, (wide, context, scores));
        }
    }

    fn run_rounded(&self, batch: &PackedSequences<'_>, rows: &mut [f32], product: &mut [f32], space: &mut Bf16Buffers) {
        let (tokens, hidden) = (batch.tokens(), self.project.bias().len());
        space.qkv.reserve_strips(tokens, 3 * hidden / STEP);
        self.qkv.apply_rounded(&space.rows, ActivationFunction::Identity, &mut space.qkv);
        space.context.reserve(tokens, hidden / STEP);
        for range in batch.ranges() {
            attend_bf16(self.attention, &space.qkv, range, &mut space.context, &mut space.attention);
        }
        self.project.product_rounded(&space.context, product);
        self.attention_norm.add_rounded(rows, product, self.project.bias(), &mut space.rows);
        space.inner.reserve(tokens, self.widen.bias().len() / STEP);
        self.widen.apply_rounded(&space.rows, ActivationFunction::Gelu, &mut space.inner);
        self.narrow.product_rounded(&space.inner, product);
        self.norm.add_rounded(rows, product, self.narrow.bias(), &mut space.rows);
    }

    fn run_wide(
        &self,
        batch: &PackedSequences<'_>,
        rows: &mut [f32],
        product: &mut [f32],
        space: (&mut [f32], &mut [f32], &mut Vec<f32>),
    ) {
        let (tokens, hidden) = (batch.tokens(), self.project.bias().len());
        let (wide, context, scores) = space;
        let qkv = &mut wide[..tokens * 3 * hidden];
        self.qkv.apply(rows, qkv);
        for range in batch.ranges() {
            let context = &mut context[range.start * hidden..range.end * hidden];
            attend(self.attention, &qkv[range.start * 3 * hidden..range.end * 3 * hidden], context, scores);
        }
        self.project.product(context, product);
        self.attention_norm.add(rows, product, self.project.bias());
        let inner = &mut wide[..tokens * self.widen.bias().len()];
        self.widen.product(rows, inner);
        gelu(inner, self.widen.bias());
        self.narrow.product(inner, product);
        self.norm.add(rows, product, self.narrow.bias());
    }
}
