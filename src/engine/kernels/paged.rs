//! Attention over keys and values that lie in blocks, for rows of any number of new tokens.
//!
//! ```text
//! keys of a block     component 0: token 0 … token 31   component 1: …     so that queries meet 32 keys at once
//! values of a block   token 0: component 0 … width      token 1: …         so that weights meet 32 components at once
//! ```

use multiversion::multiversion;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::activation::exp;
use super::attention::reduce;
use super::panel::{Input, PANEL, Panel, Shared, multiply_panel};

/// Tokens of a block: those that one panel holds.
pub(in crate::engine) const BLOCK_TOKENS: usize = PANEL;

/// Queries that a task takes through the blocks together, all of them on one head of keys and values.
const QUERIES: usize = 48;

/// Lower than any score, and finite: a row that has seen no key yet must not come to infinity less infinity.
const LOWEST: f32 = -1e30;

/// How queries meet keys.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct PagedShape {
    /// Query heads.
    pub(in crate::engine) heads: usize,
    /// Heads of keys and values.
    pub(in crate::engine) kv_heads: usize,
    /// Components of a head.
    pub(in crate::engine) width: usize,
    /// Keys that a query sees, itself included; none for all before it.
    pub(in crate::engine) window: Option<usize>,
}

/// The keys and values of one head in one layer.
pub(in crate::engine) struct HeadCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    width: usize,
}

/// New tokens of one sequence.
#[derive(Clone, Copy)]
pub(in crate::engine) struct NewTokens<'a> {
    /// The row of the first of them.
    pub(in crate::engine) first: usize,
    /// How many there are.
    pub(in crate::engine) count: usize,
    /// Tokens before them.
    pub(in crate::engine) past: usize,
    /// The blocks of all its tokens.
    pub(in crate::engine) blocks: &'a [u32],
}

impl HeadCache {
    /// Room for `blocks` blocks, all zero.
    pub(in crate::engine) fn new(blocks: usize, width: usize) -> Self {
        let values = blocks * BLOCK_TOKENS * width.next_multiple_of(PANEL);
        Self { keys: vec![0.0; blocks * BLOCK_TOKENS * width], values: vec![0.0; values], width }
    }

    /// Bytes that a block of heads this wide takes.
    pub(in crate::engine) fn block_bytes(width: usize) -> usize {
        BLOCK_TOKENS * (width + width.next_multiple_of(PANEL)) * size_of::<f32>()
    }

    /// Stores the key and value of the token at `slot` of `block`.
    pub(in crate::engine) fn store(&mut self, block: u32, slot: usize, key: &[f32], value: &[f32]) {
        let (block, width) = (block as usize, self.width);
        let keys = &mut self.keys[block * BLOCK_TOKENS * width..][..BLOCK_TOKENS * width];
        keys[slot..].iter_mut().step_by(BLOCK_TOKENS).zip(key).for_each(|(place, component)| *place = *component);
        let padded = width.next_multiple_of(PANEL);
        self.values[(block * BLOCK_TOKENS + slot) * padded..][..width].copy_from_slice(value);
    }

    /// Copies a block onto another.
    pub(in crate::engine) fn copy(&mut self, from: u32, to: u32) {
        let (from, to) = (from as usize, to as usize);
        for (store, size) in
            [(&mut self.keys, BLOCK_TOKENS * self.width), (&mut self.values, BLOCK_TOKENS * self.width.next_multiple_of(PANEL))]
        {
            store.copy_within(from * size..(from + 1) * size, to * size);
        }
    }
}

/// `context = softmax(Q·Kᵀ / √width) · V` of every new token over its sequence up to itself.
///
/// A row of `qkv` begins with the token's queries, `heads * width` components, and is as long as its length says; a row of `context`
/// holds the heads' results side by side. The keys and values of the new tokens must already be in `caches`, one a kv head.
pub(in crate::engine) fn attend_paged(
    shape: PagedShape,
    caches: &[HeadCache],
    sequences: &[NewTokens<'_>],
    qkv: &[f32],
    context: &mut [f32],
) {
    let width = shape.heads * shape.width;
    let tokens = context.len() / width;
    let step = qkv.len() / tokens.max(1);
    let group = shape.heads / shape.kv_heads;
    let together = (QUERIES / group).max(1);
    let tile = |sequence: NewTokens<'_>, start: usize| (start, together.min(sequence.count - start));
    let tasks: Vec<(usize, usize, (usize, usize))> = (0..sequences.len())
        .flat_map(|i| (0..sequences[i].count).step_by(together).map(move |start| (i, tile(sequences[i], start))))
        .flat_map(|(i, tile)| (0..shape.kv_heads).map(move |head| (i, head, tile)))
        .collect();
    let context = Shared::new(context, width);
    tasks.into_par_iter().with_max_len(1).for_each(|(index, head, (start, count))| {
        let sequence = sequences[index];
        let first = sequence.first + start;
        let mut tile = Tile::new(shape, count * group);
        for (row, query) in tile.queries.chunks_exact_mut(shape.width).enumerate() {
            let place = (first + row / group) * step + (head * group + row % group) * shape.width;
            let scale = 1.0 / (shape.width as f32).sqrt();
            query.iter_mut().zip(&qkv[place..]).for_each(|(query, value)| *query = value * scale);
        }
        tile.run(shape, &caches[head], sequence.blocks, sequence.past + start);
        for (row, result) in tile.context.chunks_exact(tile.padded).enumerate() {
            let column = (head * group + row % group) * shape.width;
            // SAFETY: no other task has both this token and this head, and the slice ends with this round.
            #[allow(unsafe_code)]
            let place = unsafe { context.row(first + row / group, column, shape.width) };
            let factor = 1.0 / tile.sums[row];
            place.iter_mut().zip(result).for_each(|(place, value)| *place = value * factor);
        }
    });
}

/// Queries of a few neighbouring tokens, row by row all the query heads that share keys and values.
struct Tile {
    group: usize,
    padded: usize,
    queries: Vec<f32>,
    scores: Vec<f32>,
    /// The highest score of each row so far.
    most: Vec<f32>,
    /// The sum of each row's weights so far.
    sums: Vec<f32>,
    /// The weighted sum of the values so far.
    context: Vec<f32>,
}

impl Tile {
    fn new(shape: PagedShape, rows: usize) -> Self {
        let padded = shape.width.next_multiple_of(PANEL);
        Self {
            group: shape.heads / shape.kv_heads,
            padded,
            queries: vec![0.0; rows * shape.width],
            scores: vec![0.0; rows * BLOCK_TOKENS],
            most: vec![LOWEST; rows],
            sums: vec![0.0; rows],
            context: vec![0.0; rows * padded],
        }
    }

    /// Takes the queries, the first of which is at `position`, through the blocks that they see.
    fn run(&mut self, shape: PagedShape, cache: &HeadCache, blocks: &[u32], position: usize) {
        let rows = self.most.len();
        let last = position + (rows - 1) / self.group;
        let first_key = |position: usize| shape.window.map_or(0, |window| (position + 1).saturating_sub(window));
        for index in first_key(position) / BLOCK_TOKENS..=last / BLOCK_TOKENS {
            let (block, start) = (blocks[index] as usize, index * BLOCK_TOKENS);
            let keys = &cache.keys[block * BLOCK_TOKENS * shape.width..][..BLOCK_TOKENS * shape.width];
            let queries = Input { values: &self.queries, step: shape.width, rows, depth: shape.width };
            multiply_panel(queries, Panel::Wide { values: keys, step: BLOCK_TOKENS }, |row, sums| {
                self.scores[row * BLOCK_TOKENS..][..BLOCK_TOKENS].copy_from_slice(sums);
            });
            if start + BLOCK_TOKENS > position + 1 || start < first_key(last) {
                self.mask(start, position, first_key);
            }
            weigh(&mut self.scores, &mut self.most, &mut self.sums, &mut self.context);
            // What lies past the last token is another's leftover.
            let depth = BLOCK_TOKENS.min(last + 1 - start);
            let weights = Input { values: &self.scores, step: BLOCK_TOKENS, rows, depth };
            let values = &cache.values[block * BLOCK_TOKENS * self.padded..][..BLOCK_TOKENS * self.padded];
            for column in (0..self.padded).step_by(PANEL) {
                multiply_panel(weights, Panel::Wide { values: &values[column..], step: self.padded }, |row, sums| {
                    let place = &mut self.context[row * self.padded + column..][..PANEL];
                    place.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum);
                });
            }
        }
    }

    /// Hides the keys after each query and those before its window.
    fn mask(&mut self, start: usize, position: usize, first_key: impl Fn(usize) -> usize) {
        for (row, scores) in self.scores.chunks_exact_mut(BLOCK_TOKENS).enumerate() {
            let position = position + row / self.group;
            let first = first_key(position).saturating_sub(start).min(BLOCK_TOKENS);
            let end = (position + 1).saturating_sub(start).min(BLOCK_TOKENS);
            scores[..first].fill(f32::NEG_INFINITY);
            scores[end.max(first)..].fill(f32::NEG_INFINITY);
        }
    }
}

/// Turns scores into weights relative to the highest score so far, and brings what was added up before to the same measure.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn weigh(scores: &mut [f32], most: &mut [f32], sums: &mut [f32], context: &mut [f32]) {
    let padded = context.len() / most.len();
    for (((scores, context), most), sum) in
        scores.as_chunks_mut::<BLOCK_TOKENS>().0.iter_mut().zip(context.chunks_exact_mut(padded)).zip(most).zip(sums)
    {
        let mut highest = [0.0; BLOCK_TOKENS / 2];
        for (i, highest) in highest.iter_mut().enumerate() {
            let (a, b) = (scores[i], scores[i + BLOCK_TOKENS / 2]);
            *highest = if b > a { b } else { a };
        }
        let highest = reduce(highest, |a, b| if b > a { b } else { a });
        if highest > *most {
            let factor = exp(*most - highest);
            *sum *= factor;
            context.iter_mut().for_each(|value| *value *= factor);
            *most = highest;
        }
        let mut total = [0.0; BLOCK_TOKENS / 2];
        for half in scores.as_chunks_mut::<{ BLOCK_TOKENS / 2 }>().0 {
            for (total, score) in total.iter_mut().zip(half) {
                *score = exp(*score - *most);
                *total += *score;
            }
        }
        *sum += reduce(total, |a, b| a + b);
    }
}
