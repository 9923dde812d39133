//! The forward pass of one layer of an encoder, over the rows of many sequences.
//!
//! Where the processor multiplies bf16 itself, a product's result is rounded to bf16 as soon as it is made, because the next product reads
//! it so. Sums stay in f32, and so do the rows that go from layer to layer.

use super::EncoderLayer;
use crate::backend::Cpu;
use crate::batch::PackedSequences;
use tidemill_kernels::{
    ActivationFunction, AttentionBuffers, AttentionShape, Bf16AttentionBuffers, STEP, Tiles, aligned_slice, attend, attend_bf16,
    gelu,
};

/// A layer on the cores of this machine.
pub(super) struct Layer {
    weights: EncoderLayer<Cpu>,
    attention: AttentionShape,
    rounded: bool,
}

/// Buffers of one thread, kept between batches.
#[derive(Default)]
pub(super) struct LayerBuffers {
    /// Query, key and value of each row; later the values inside the feed-forward layer.
    wide: Vec<f32>,
    context: Vec<f32>,
    product: Vec<f32>,
    attention: AttentionBuffers,
    bf16: Bf16Buffers,
}

/// The rounded rows between two layers, and what becomes of them inside one.
#[derive(Default)]
struct Bf16Buffers {
    rows: Tiles,
    qkv: Tiles,
    context: Tiles,
    inner: Tiles,
    attention: Bf16AttentionBuffers,
}

impl LayerBuffers {
    /// Rounds the rows that the first layer reads, of `hidden` values each, where the layers read rounded rows.
    pub(super) fn begin(&mut self, rows: &[f32], hidden: usize, rounded: bool) {
        if rounded {
            self.bf16.rows.reserve(rows.len() / hidden, hidden / STEP);
            rows.chunks_exact(hidden).enumerate().for_each(|(row, values)| self.bf16.rows.round(row, values));
        }
    }
}

impl Layer {
    pub(super) fn new(weights: EncoderLayer<Cpu>, attention: AttentionShape) -> Self {
        let EncoderLayer { qkv, project, widen, narrow, .. } = &weights;
        let products = [qkv, project, widen, narrow].iter().all(|linear| linear.takes_bf16_rows());
        let rounded = products && attention.width.is_multiple_of(STEP);
        Self { weights, attention, rounded }
    }

    /// Whether the layer reads rounded rows.
    pub(super) fn is_rounded(&self) -> bool {
        self.rounded
    }

    /// Takes the rows of all sequences through the layer.
    pub(super) fn run(&self, batch: &PackedSequences<'_>, rows: &mut [f32], buffers: &mut LayerBuffers) {
        if self.rounded { self.run_bf16(batch, rows, buffers) } else { self.run_f32(batch, rows, buffers) }
    }

    fn run_bf16(&self, batch: &PackedSequences<'_>, rows: &mut [f32], buffers: &mut LayerBuffers) {
        let EncoderLayer { qkv, project, attention_norm, widen, narrow, norm } = &self.weights;
        let (tokens, hidden) = (batch.tokens(), project.bias().len());
        let product = aligned_slice(&mut buffers.product, rows.len());
        let buffers = &mut buffers.bf16;
        buffers.qkv.reserve_strips(tokens, 3 * hidden / STEP);
        qkv.apply_rounded(&buffers.rows, ActivationFunction::Identity, &mut buffers.qkv);
        buffers.context.reserve(tokens, hidden / STEP);
        for range in batch.ranges() {
            attend_bf16(self.attention, &buffers.qkv, range, &mut buffers.context, &mut buffers.attention);
        }
        project.product_rounded(&buffers.context, product);
        attention_norm.add_rounded(rows, product, project.bias(), &mut buffers.rows);
        buffers.inner.reserve(tokens, widen.bias().len() / STEP);
        widen.apply_rounded(&buffers.rows, ActivationFunction::Gelu, &mut buffers.inner);
        narrow.product_rounded(&buffers.inner, product);
        norm.add_rounded(rows, product, narrow.bias(), &mut buffers.rows);
    }

    fn run_f32(&self, batch: &PackedSequences<'_>, rows: &mut [f32], buffers: &mut LayerBuffers) {
        let EncoderLayer { qkv, project, attention_norm, widen, narrow, norm } = &self.weights;
        let (tokens, hidden, inner) = (batch.tokens(), project.bias().len(), widen.bias().len());
        let LayerBuffers { wide, context, product, attention, .. } = buffers;
        let (product, context) = (aligned_slice(product, rows.len()), aligned_slice(context, rows.len()));
        let wide = aligned_slice(wide, tokens * inner.max(3 * hidden));
        let heads = &mut wide[..tokens * 3 * hidden];
        qkv.apply(rows, heads);
        for range in batch.ranges() {
            let context = &mut context[range.start * hidden..range.end * hidden];
            attend(self.attention, &heads[range.start * 3 * hidden..range.end * 3 * hidden], context, attention);
        }
        project.product(context, product);
        attention_norm.add(rows, product, project.bias());
        let wide = &mut wide[..tokens * inner];
        widen.product(rows, wide);
        gelu(wide, widen.bias());
        narrow.product(wide, product);
        norm.add(rows, product, narrow.bias());
    }
}
