//! Paged attention: keys and values lie in blocks of 32 tokens, and a sequence may have any number of new tokens.
//!
//! ```text
//! keys of a block     component 0: token 0 … token 31   component 1: …     so that a query is multiplied with 32 keys at once
//! values of a block   token 0: component 0 … width      token 1: …         so that a weight is multiplied with 32 components at once
//! ```

use std::ops::Range;

use multiversion::multiversion;
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::activation::exp;
use super::attention::reduce;
use super::panel::{PANEL, Panel, PanelInput, SharedMatrix, multiply_panel};

/// Tokens of a block: as many as a panel has outputs.
pub const BLOCK_TOKENS: usize = PANEL;

/// Queries that a task computes together, all of them with one head of keys and values.
const QUERIES: usize = 48;

/// The most queries that a task computes together over shared blocks: with their scores and results they stay in the second cache.
const SHARED_QUERIES: usize = 512;

/// Tasks for each thread, so that a late thread delays the others little.
const TASKS_PER_THREAD: usize = 2;

/// Lower than any score, and finite, because a row that has seen no key yet must not compute infinity minus infinity.
const LOWEST: f32 = -1e30;

/// The shape of the attention.
#[derive(Debug, Clone, Copy)]
pub struct PagedShape {
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Components of a head.
    pub width: usize,
    /// Keys that a query sees, including its own; none for all keys up to its own.
    pub window: Option<usize>,
}

/// The keys and values of one head in one layer.
pub struct HeadCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    width: usize,
}

/// New tokens of one sequence.
#[derive(Clone, Copy)]
pub struct NewTokens<'a> {
    /// The row of the first of them.
    pub first: usize,
    /// How many there are.
    pub count: usize,
    pub past: usize,
    /// The blocks of all its tokens.
    pub blocks: &'a [u32],
}

impl HeadCache {
    /// A cache of `blocks` blocks, all zero.
    pub fn new(blocks: usize, width: usize) -> Self {
        let values = blocks * BLOCK_TOKENS * width.next_multiple_of(PANEL);
        Self { keys: vec![0.0; blocks * BLOCK_TOKENS * width], values: vec![0.0; values], width }
    }

    /// Bytes that a block of heads this wide takes.
    pub fn block_bytes(width: usize) -> usize {
        BLOCK_TOKENS * (width + width.next_multiple_of(PANEL)) * size_of::<f32>()
    }

    /// Stores the key and value of the token at `slot` of `block`.
    pub fn store(&mut self, block: u32, slot: usize, key: &[f32], value: &[f32]) {
        let (block, width) = (block as usize, self.width);
        let keys = &mut self.keys[block * BLOCK_TOKENS * width..][..BLOCK_TOKENS * width];
        keys[slot..].iter_mut().step_by(BLOCK_TOKENS).zip(key).for_each(|(place, component)| *place = *component);
        let padded = width.next_multiple_of(PANEL);
        self.values[(block * BLOCK_TOKENS + slot) * padded..][..width].copy_from_slice(value);
    }

    /// Copies a block onto another.
    pub fn copy(&mut self, from: u32, to: u32) {
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
///
/// Sequences that begin with the same blocks are computed together over these, each block while it is in the first cache. A query's
/// operations are the same as alone, block after block in their order, so that its result is the same bits.
pub fn attend_paged(shape: PagedShape, caches: &[HeadCache], sequences: &[NewTokens<'_>], qkv: &[f32], context: &mut [f32]) {
    let width = shape.heads * shape.width;
    let tokens = context.len() / width;
    let step = qkv.len() / tokens.max(1);
    let group = shape.heads / shape.kv_heads;
    let parts = parts(shape, sequences);
    let tasks: Vec<(&[QueryRun<'_>], usize)> = together(&parts, group, shape.kv_heads)
        .into_iter()
        .flat_map(|parts| (0..shape.kv_heads).map(move |head| (parts, head)))
        .collect();
    let context = SharedMatrix::new(context, width);
    tasks.into_par_iter().with_max_len(1).for_each(|(parts, head)| {
        let tokens = || parts.iter().flat_map(|part| part.first..part.first + part.count);
        let mut tile = QueryTile::new(shape, tokens().count() * group);
        let places = tokens().flat_map(|token| (0..group).map(move |query| (token, (head * group + query) * shape.width)));
        let scale = 1.0 / (shape.width as f32).sqrt();
        for ((token, column), query) in places.clone().zip(tile.queries.chunks_exact_mut(shape.width)) {
            query.iter_mut().zip(&qkv[token * step + column..]).for_each(|(query, value)| *query = value * scale);
        }
        tile.run(&caches[head], parts);
        for (((token, column), result), sum) in places.zip(tile.context.chunks_exact(tile.padded)).zip(&tile.sums) {
            // SAFETY: no other task has both this token and this head, and the slice ends with this round.
            #[allow(unsafe_code)]
            let place = unsafe { context.row(token, column, shape.width) };
            let factor = 1.0 / sum;
            place.iter_mut().zip(result).for_each(|(place, value)| *place = value * factor);
        }
    });
}

/// A few neighbouring new tokens of one sequence.
#[derive(Clone, Copy)]
struct QueryRun<'a> {
    /// The row of the first of them.
    first: usize,
    count: usize,
    /// The position of the first of them in its sequence.
    position: usize,
    /// The blocks of the sequence.
    blocks: &'a [u32],
    /// How many of the blocks, from the first on, all of its tokens see completely.
    whole: usize,
}

/// Cuts the new tokens into parts, and sorts those that begin with the same block side by side.
fn parts<'a>(shape: PagedShape, sequences: &[NewTokens<'a>]) -> Vec<QueryRun<'a>> {
    let most = (QUERIES * shape.kv_heads / shape.heads).max(1);
    let cut = |sequence: &NewTokens<'a>| {
        let NewTokens { first, count, past, blocks } = *sequence;
        (0..count).step_by(most).map(move |start| {
            let (count, position) = (most.min(count - start), past + start);
            let all_seen = shape.window.is_none_or(|window| position + count <= window);
            let whole = if all_seen { (position + 1) / BLOCK_TOKENS } else { 0 };
            QueryRun { first: first + start, count, position, blocks, whole }
        })
    };
    let mut parts: Vec<QueryRun<'_>> = sequences.iter().flat_map(cut).collect();
    // A part's result does not depend on the order.
    parts.sort_by_key(|part| if part.whole > 0 { u64::from(part.blocks[0]) } else { u64::MAX });
    parts
}

/// Groups the parts into tasks: those that share a block, but so few that every thread has a task.
fn together<'p, 'a>(parts: &'p [QueryRun<'a>], group: usize, heads: usize) -> Vec<&'p [QueryRun<'a>]> {
    let tokens: usize = parts.iter().map(|part| part.count).sum();
    let even = (tokens * group * heads).div_ceil(TASKS_PER_THREAD * rayon::current_num_threads());
    let most = even.clamp(QUERIES, SHARED_QUERIES);
    let (mut tasks, mut start, mut queries) = (Vec::new(), 0, 0);
    for (i, part) in parts.iter().enumerate() {
        let shares = i > start && part.whole > 0 && parts[start].whole > 0 && part.blocks[0] == parts[start].blocks[0];
        if i > start && (!shares || queries + part.count * group > most) {
            tasks.push(&parts[start..i]);
            (start, queries) = (i, 0);
        }
        queries += part.count * group;
    }
    if start < parts.len() {
        tasks.push(&parts[start..]);
    }
    tasks
}

/// The queries of a few tokens: for each token, all query heads that share keys and values.
struct QueryTile {
    shape: PagedShape,
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

impl QueryTile {
    fn new(shape: PagedShape, rows: usize) -> Self {
        let padded = shape.width.next_multiple_of(PANEL);
        Self {
            shape,
            group: shape.heads / shape.kv_heads,
            padded,
            queries: vec![0.0; rows * shape.width],
            scores: vec![0.0; rows * BLOCK_TOKENS],
            most: vec![LOWEST; rows],
            sums: vec![0.0; rows],
            context: vec![0.0; rows * padded],
        }
    }

    /// Computes the queries of `parts` over the blocks that they see: first all of them over the shared blocks, then each part over its own.
    fn run(&mut self, cache: &HeadCache, parts: &[QueryRun<'_>]) {
        let rows = self.most.len();
        let shared = shared_blocks(parts);
        for block in &parts[0].blocks[..shared] {
            self.add_block(cache, *block as usize, BLOCK_TOKENS, 0..rows, |_| {});
        }
        let mut row = 0;
        for part in parts {
            let rows = row..row + part.count * self.group;
            self.run_alone(cache, *part, shared, rows.clone());
            row = rows.end;
        }
    }

    /// Computes the rows of one part over its blocks from `from` on.
    fn run_alone(&mut self, cache: &HeadCache, part: QueryRun<'_>, from: usize, rows: Range<usize>) {
        let (group, window, position) = (self.group, self.shape.window, part.position);
        let last = position + part.count - 1;
        let first_key = |position: usize| window.map_or(0, |window| (position + 1).saturating_sub(window));
        let from = from.max(first_key(position) / BLOCK_TOKENS);
        for (index, block) in part.blocks.iter().enumerate().take(last / BLOCK_TOKENS + 1).skip(from) {
            let start = index * BLOCK_TOKENS;
            // Past the last token lie values of another sequence that had this block before.
            let depth = BLOCK_TOKENS.min(last + 1 - start);
            self.add_block(cache, *block as usize, depth, rows.clone(), |scores| {
                if start + BLOCK_TOKENS <= position + 1 && start >= first_key(last) {
                    return;
                }
                // Hides the keys after each query and those before its window.
                for (row, scores) in scores.chunks_exact_mut(BLOCK_TOKENS).enumerate() {
                    let position = position + row / group;
                    let first = first_key(position).saturating_sub(start).min(BLOCK_TOKENS);
                    let end = (position + 1).saturating_sub(start).min(BLOCK_TOKENS);
                    scores[..first].fill(f32::NEG_INFINITY);
                    scores[end.max(first)..].fill(f32::NEG_INFINITY);
                }
            });
        }
    }

    /// Computes `rows` over the first `depth` tokens of a block. `mask` hides some of the scores.
    fn add_block(&mut self, cache: &HeadCache, block: usize, depth: usize, rows: Range<usize>, mask: impl Fn(&mut [f32])) {
        let (width, padded) = (self.shape.width, self.padded);
        let keys = &cache.keys[block * BLOCK_TOKENS * width..][..BLOCK_TOKENS * width];
        let values = &cache.values[block * BLOCK_TOKENS * padded..][..BLOCK_TOKENS * padded];
        let scores = &mut self.scores[rows.start * BLOCK_TOKENS..rows.end * BLOCK_TOKENS];
        let context = &mut self.context[rows.start * padded..rows.end * padded];
        let queries = PanelInput { values: &self.queries[rows.start * width..], step: width, rows: rows.len(), depth: width };
        multiply_panel(queries, Panel::F32 { values: keys, step: BLOCK_TOKENS }, |row, sums| {
            scores[row * BLOCK_TOKENS..][..BLOCK_TOKENS].copy_from_slice(sums);
        });
        mask(scores);
        online_softmax(scores, &mut self.most[rows.clone()], &mut self.sums[rows.clone()], context);
        let weights = PanelInput { values: scores, step: BLOCK_TOKENS, rows: rows.len(), depth };
        for column in (0..padded).step_by(PANEL) {
            multiply_panel(weights, Panel::F32 { values: &values[column..], step: padded }, |row, sums| {
                let place = &mut context[row * padded + column..][..PANEL];
                place.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum);
            });
        }
    }
}

/// How many blocks all of `parts` begin with and see completely; none for a single part.
fn shared_blocks(parts: &[QueryRun<'_>]) -> usize {
    let [first, others @ ..] = parts else { return 0 };
    others.iter().fold(if others.is_empty() { 0 } else { first.whole }, |shared, part| {
        let same = part.blocks.iter().zip(first.blocks).take_while(|(a, b)| a == b).count();
        shared.min(part.whole).min(same)
    })
}

/// One step of the online softmax: turns scores into weights relative to the highest score so far, and scales what was added up before
/// accordingly.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn online_softmax(scores: &mut [f32], most: &mut [f32], sums: &mut [f32], context: &mut [f32]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn number(i: usize) -> f32 {
        (i * 7919 % 1009) as f32 / 252.0 - 2.0
    }

    /// Component `i` of the key, or with `value` of the value, of a token of the block.
    fn stored(block: usize, slot: usize, i: usize, value: bool) -> f32 {
        number(block * 5779 + slot * 131 + i * 17 + usize::from(value) * 53)
    }

    #[test]
    fn sequences_that_share_blocks_come_to_the_bits_of_each_alone_and_close_to_plain_loops() {
        for (width, window) in [(10, None), (64, None), (32, Some(100)), (32, Some(400))] {
            let shape = PagedShape { heads: 6, kv_heads: 2, width, window };
            let mut caches = [HeadCache::new(40, width), HeadCache::new(40, width)];
            for (head, cache) in caches.iter_mut().enumerate() {
                for (block, slot) in (0..40).flat_map(|block| (0..BLOCK_TOKENS).map(move |slot| (block, slot))) {
                    let part = |value| (0..width).map(|i| stored(block, slot, i + head, value)).collect::<Vec<f32>>();
                    cache.store(block as u32, slot, &part(false), &part(true));
                }
            }
            // Some share three blocks, some two of them, one the first alone, one a later block only; some have several new tokens.
            let tables: [&[u32]; 7] =
                [&[9, 4, 7, 1], &[9, 4, 7, 2], &[3, 4], &[9, 4, 5, 6], &[9, 8, 10], &[9, 4, 7, 30, 31], &[20]];
            let (pasts, counts) = ([100, 96, 40, 95, 33, 120, 0], [1, 1, 1, 2, 30, 1, 1]);
            let mut sequences = Vec::new();
            for ((blocks, past), count) in tables.iter().zip(pasts).zip(counts) {
                let first = sequences.last().map_or(0, |last: &NewTokens<'_>| last.first + last.count);
                sequences.push(NewTokens { first, count, past, blocks });
            }
            let (tokens, step) = (counts.iter().sum::<usize>(), 10 * width);
            let qkv: Vec<f32> = (0..tokens * step).map(|i| number(i + 3)).collect();
            let size = 6 * width;
            let mut together = vec![f32::NAN; tokens * size];
            attend_paged(shape, &caches, &sequences, &qkv, &mut together);
            for sequence in &sequences {
                let NewTokens { first, count, past, blocks } = *sequence;
                let mut alone = vec![f32::NAN; count * size];
                attend_paged(
                    shape,
                    &caches,
                    &[NewTokens { first: 0, ..*sequence }],
                    &qkv[first * step..][..count * step],
                    &mut alone,
                );
                for (i, (alone, beside)) in alone.iter().zip(&together[first * size..]).enumerate() {
                    assert_eq!(alone.to_bits(), beside.to_bits(), "blocks {blocks:?}, value {i}: {beside} beside others");
                }
                for (token, head) in (0..count).flat_map(|token| (0..6).map(move |head| (token, head))) {
                    let position = past + token;
                    let keys = window.map_or(0, |window| (position + 1_usize).saturating_sub(window))..position + 1;
                    let at = |key: usize, i: usize, value| {
                        f64::from(stored(blocks[key / BLOCK_TOKENS] as usize, key % BLOCK_TOKENS, i + head / 3, value))
                    };
                    let query = &qkv[(first + token) * step + head * width..][..width];
                    let score = |key: usize| {
                        let dot: f64 = query.iter().enumerate().map(|(i, x)| f64::from(*x) * at(key, i, false)).sum();
                        (dot / (width as f64).sqrt()).exp()
                    };
                    let scores: Vec<f64> = keys.clone().map(score).collect();
                    let sum: f64 = scores.iter().sum();
                    for i in 0..width {
                        let exact: f64 = keys.clone().zip(&scores).map(|(key, score)| score / sum * at(key, i, true)).sum();
                        let got = f64::from(alone[token * size + head * width + i]);
                        assert!((got - exact).abs() < 1e-4, "blocks {blocks:?}, token {token}, head {head}: {got} for {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn blocks_are_met_together_only_as_far_as_all_see_them_whole() {
        let part = |blocks, position: usize| {
            let sequences = [NewTokens { first: 0, count: 1, past: position, blocks }];
            parts(PagedShape { heads: 1, kv_heads: 1, width: 8, window: None }, &sequences)[0]
        };
        let long = part(&[1, 2, 3, 4], 127);
        assert_eq!(shared_blocks(&[long, long]), 4);
        assert_eq!(shared_blocks(&[long, part(&[1, 2, 3, 4], 126)]), 3);
        assert_eq!(shared_blocks(&[long, part(&[1, 2, 9, 4], 120), long]), 2);
        assert_eq!(shared_blocks(&[long]), 0);
    }
}
