//! One forward pass over rows of any length, each with its own past.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::buffers::DecoderBuffers;
use super::cache::{BLOCK_TOKENS, KvCache};
use super::rope::RotaryAngles;
use super::weights::DecoderLayer;
use super::{Decoder, Logits, StepRow, WantedLogits};
use crate::backend::Cpu;
use tidemill_kernels::{Accumulate, HeadCache, NewTokens, PagedShape, RmsNorm, aligned_slice, attend_paged, gate, rotate};

/// Values that one thread processes in less time than another needs to wake up.
const ALONE: usize = 16 << 10;

/// The tokens of a step.
struct StepLayout<'a> {
    sequences: Vec<NewTokens<'a>>,
    tokens: usize,
    angles: RotaryAngles,
}

impl Decoder {
    /// The vectors of the wanted tokens after the last norm. See [`Decoder::forward`].
    pub(super) fn states(&self, cache: &mut KvCache, rows: &[StepRow<'_>]) -> Vec<f32> {
        let step = self.plan(cache, rows);
        let mut space = std::mem::take(&mut cache.workspace);
        let ids: Vec<u32> = rows.iter().flat_map(|row| row.ids).copied().collect();
        let (table, width) = (self.weights.embeddings(), self.shape.hidden);
        let hidden = aligned_slice(&mut space.hidden, step.tokens * width);
        hidden
            .par_chunks_mut(width)
            .zip(&ids)
            .with_min_len(ALONE.div_ceil(width))
            .for_each(|(row, id)| table.row(*id as usize, row));
        for (layer, heads) in self.weights.layers.iter().zip(&mut cache.layers) {
            self.attention(layer, heads, &step, &mut space);
            self.feed_forward(layer, step.tokens, &mut space);
        }
        let states = self.wanted(rows, aligned_slice(&mut space.hidden, step.tokens * width));
        cache.workspace = space;
        states
    }

    /// Checks the rows and lays them out one after the other.
    fn plan<'a>(&self, cache: &KvCache, rows: &[StepRow<'a>]) -> StepLayout<'a> {
        let (mut sequences, mut tokens) = (Vec::with_capacity(rows.len()), 0);
        for row in rows {
            row.check(self.shape.vocabulary, cache.blocks());
            sequences.push(NewTokens { first: tokens, count: row.ids.len(), past: row.past, blocks: row.blocks });
            tokens += row.ids.len();
        }
        let angles = self.shape.rotation.angles(rows.iter().flat_map(|row| row.past..row.past + row.ids.len()));
        StepLayout { sequences, tokens, angles }
    }

    fn attention(&self, layer: &DecoderLayer<Cpu>, caches: &mut [HeadCache], step: &StepLayout<'_>, space: &mut DecoderBuffers) {
        let shape = &self.shape;
        let (width, queries, keys) = (shape.head_width, shape.heads * shape.head_width, shape.kv_heads * shape.head_width);
        let hidden = aligned_slice(&mut space.hidden, step.tokens * shape.hidden);
        let normed = aligned_slice(&mut space.normed, hidden.len());
        normalize(&layer.attention_norm, hidden, normed);
        let qkv = aligned_slice(&mut space.qkv, step.tokens * layer.qkv.outputs());
        layer.qkv.apply(normed, qkv, Accumulate::Overwrite);
        let (row, half) = (layer.qkv.outputs(), width / 2);
        qkv.par_chunks_mut(row)
            .zip(step.angles.cosines.par_chunks(half))
            .zip(step.angles.sines.par_chunks(half))
            .with_min_len(ALONE.div_ceil(row))
            .for_each(|((row, cosines), sines)| {
                if let Some((query_norm, key_norm)) = &layer.head_norms {
                    query_norm.apply_in_place(&mut row[..queries]);
                    key_norm.apply_in_place(&mut row[queries..queries + keys]);
                }
                rotate(&mut row[..queries + keys], cosines, sines);
            });
        let few = if step.tokens * keys < ALONE { caches.len() } else { 1 };
        caches.par_iter_mut().enumerate().with_min_len(few).for_each(|(head, cache)| {
            for sequence in &step.sequences {
                for i in 0..sequence.count {
                    let row = &qkv[(sequence.first + i) * row..][..row];
                    let (key, position) = (queries + head * width, sequence.past + i);
                    let (block, slot) = (sequence.blocks[position / BLOCK_TOKENS], position % BLOCK_TOKENS);
                    cache.store(block, slot, &row[key..][..width], &row[key + keys..][..width]);
                }
            }
        });
        let context = aligned_slice(&mut space.context, step.tokens * queries);
        let paged = PagedShape { heads: shape.heads, kv_heads: shape.kv_heads, width, window: layer.window };
        attend_paged(paged, caches, &step.sequences, qkv, context);
        layer.project.apply(context, hidden, Accumulate::Add);
    }

    fn feed_forward(&self, layer: &DecoderLayer<Cpu>, tokens: usize, space: &mut DecoderBuffers) {
        let inner = self.shape.inner;
        let hidden = aligned_slice(&mut space.hidden, tokens * self.shape.hidden);
        let normed = aligned_slice(&mut space.normed, hidden.len());
        normalize(&layer.inner_norm, hidden, normed);
        if let Some(gated) = layer.widen.gate(normed, &layer.narrow) {
            return layer.narrow.apply_to(&gated, hidden, Accumulate::Add);
        }
        let wide = aligned_slice(&mut space.wide, tokens * 2 * inner);
        layer.widen.apply(normed, wide, Accumulate::Overwrite);
        let gated = aligned_slice(&mut space.gated, tokens * inner);
        gated
            .par_chunks_mut(inner)
            .zip(wide.par_chunks(2 * inner))
            .with_min_len(ALONE.div_ceil(2 * inner))
            .for_each(|(gated, wide)| gate(wide, gated, inner));
        layer.narrow.apply(gated, hidden, Accumulate::Add);
    }

    /// The logits of `states`.
    pub(super) fn logits(&self, states: &[f32]) -> Logits {
        let vocabulary = self.shape.vocabulary;
        let mut values = vec![0.0; states.len() / self.shape.hidden * vocabulary];
        self.weights.head.apply(states, &mut values, Accumulate::Overwrite);
        Logits::new(values, vocabulary, Vec::new())
    }

    /// The normalized vectors of the tokens whose logits are wanted.
    fn wanted(&self, rows: &[StepRow<'_>], hidden: &[f32]) -> Vec<f32> {
        let width = self.shape.hidden;
        let (mut wanted, mut first) = (Vec::new(), 0);
        for row in rows {
            let end = first + row.ids.len();
            match row.wanted {
                WantedLogits::None => {}
                WantedLogits::Last => wanted.extend_from_slice(&hidden[(end - 1) * width..end * width]),
                WantedLogits::All => wanted.extend_from_slice(&hidden[first * width..end * width]),
            }
            first = end;
        }
        self.weights.norm.apply_in_place(&mut wanted);
        wanted
    }
}

fn normalize(norm: &RmsNorm, rows: &[f32], output: &mut [f32]) {
    let width = norm.scale.len();
    let least = ALONE.div_ceil(width);
    output
        .par_chunks_mut(width)
        .zip(rows.par_chunks(width))
        .with_min_len(least)
        .for_each(|(output, row)| norm.apply(row, output));
}
