//! Attention of one sequence over itself.

use multiversion::multiversion;
use multiversion::target::match_target;

use super::activation::exp;

/// The shape of a sequence's attention.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct AttentionShape {
    /// Heads.
    pub(in crate::engine) heads: usize,
    /// Components of a head.
    pub(in crate::engine) width: usize,
}

/// Rows of queries that share one pass over the keys and values.
const ROWS: usize = 4;

/// `context = softmax(Q·Kᵀ / √width) · V` of one sequence, head by head.
///
/// A row of `qkv` holds query, key and value of one token, already biased, each of `heads * width` components; a row of `context` holds
/// the heads' results side by side. `scratch` is grown as needed and keeps its memory between calls.
pub(in crate::engine) fn attend(shape: AttentionShape, qkv: &[f32], context: &mut [f32], scratch: &mut Vec<f32>) {
    let hidden = shape.heads * shape.width;
    let tokens = context.len() / hidden;
    assert_eq!(qkv.len(), 3 * tokens * hidden, "query, key and value of {tokens} tokens");
    // Transposed keys, values and scores of one head.
    let needed = tokens * (2 * shape.width + ROWS);
    if scratch.len() < needed {
        scratch.resize(needed, 0.0);
    }
    attend_all(shape, qkv, context, &mut scratch[..needed]);
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn attend_all(shape: AttentionShape, qkv: &[f32], context: &mut [f32], scratch: &mut [f32]) {
    match_target! {
        "x86_64+fma" => each_head::<true>(shape, qkv, context, scratch),
        "aarch64+neon" => each_head::<true>(shape, qkv, context, scratch),
        _ => each_head::<false>(shape, qkv, context, scratch),
    }
}

/// `a * b + c`, in one instruction where the target has it; elsewhere `mul_add` would call the math library.
#[inline(always)]
fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn each_head<const FMA: bool>(shape: AttentionShape, qkv: &[f32], context: &mut [f32], scratch: &mut [f32]) {
    let AttentionShape { heads, width } = shape;
    let hidden = heads * width;
    let tokens = context.len() / hidden;
    let (keys, rest) = scratch.split_at_mut(tokens * width);
    let (values, scores) = rest.split_at_mut(tokens * width);
    let scale = 1.0 / (width as f32).sqrt();
    for head in 0..heads {
        for (token, row) in qkv.chunks_exact(3 * hidden).enumerate() {
            let key = &row[hidden + head * width..][..width];
            for (component, value) in key.iter().enumerate() {
                keys[component * tokens + token] = value * scale;
            }
            values[token * width..][..width].copy_from_slice(&row[2 * hidden + head * width..][..width]);
        }
        let mut first = 0;
        while first < tokens {
            let count = ROWS.min(tokens - first);
            let query = |row: usize| &qkv[(first + row) * 3 * hidden + head * width..][..width];
            if count == ROWS {
                let queries: [&[f32]; ROWS] = std::array::from_fn(query);
                score::<FMA, ROWS>(queries, keys, scores);
                soften(scores, tokens);
                let mut rows = context[first * hidden..].chunks_mut(hidden);
                let mut outputs: [&mut [f32]; ROWS] =
                    std::array::from_fn(|_| &mut rows.next().expect("as many rows as tokens")[head * width..][..width]);
                mix::<FMA, ROWS>(scores, values, &mut outputs);
            } else {
                for row in 0..count {
                    score::<FMA, 1>([query(row)], keys, &mut scores[..tokens]);
                    soften(&mut scores[..tokens], tokens);
                    let mut output = [&mut context[(first + row) * hidden + head * width..][..width]];
                    mix::<FMA, 1>(&scores[..tokens], values, &mut output);
                }
            }
            first += count;
        }
    }
}

/// Dot products of `N` queries with every key; keys lie component by component, so that the inner loop runs over tokens.
#[inline(always)]
fn score<const FMA: bool, const N: usize>(queries: [&[f32]; N], keys: &[f32], scores: &mut [f32]) {
    let tokens = scores.len() / N;
    const LANES: usize = 32;
    let mut start = 0;
    while start + LANES <= tokens {
        let mut sums = [[0.0_f32; LANES]; N];
        for (component, keys) in keys.chunks_exact(tokens).enumerate() {
            let keys: &[f32; LANES] = keys[start..][..LANES].try_into().expect("a block of keys");
            for (sums, query) in sums.iter_mut().zip(queries) {
                let factor = query[component];
                for (sum, key) in sums.iter_mut().zip(keys) {
                    *sum = fused::<FMA>(factor, *key, *sum);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            scores[row * tokens + start..][..LANES].copy_from_slice(sums);
        }
        start += LANES;
    }
    if start == tokens {
        return;
    }
    for (row, query) in queries.iter().enumerate() {
        let scores = &mut scores[row * tokens + start..(row + 1) * tokens];
        scores.fill(0.0);
        for (keys, factor) in keys.chunks_exact(tokens).zip(*query) {
            for (score, key) in scores.iter_mut().zip(&keys[start..]) {
                *score = fused::<FMA>(*factor, *key, *score);
            }
        }
    }
}

/// Softmax of each row of `tokens` scores.
#[inline(always)]
fn soften(scores: &mut [f32], tokens: usize) {
    const LANES: usize = 16;
    for row in scores.chunks_exact_mut(tokens) {
        let mut most = [f32::NEG_INFINITY; LANES];
        let mut chunks = row.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (most, value) in most.iter_mut().zip(chunk) {
                *most = if *value > *most { *value } else { *most };
            }
        }
        let most = most.iter().chain(chunks.remainder()).copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0_f32; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *value = exp(*value - most);
                *sum += *value;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for value in chunks.into_remainder() {
            *value = exp(*value - most);
            sum += *value;
        }
        let factor = 1.0 / sum;
        for value in row {
            *value *= factor;
        }
    }
}

/// Sums of the values weighted by `N` rows of scores.
#[inline(always)]
fn mix<const FMA: bool, const N: usize>(scores: &[f32], values: &[f32], outputs: &mut [&mut [f32]; N]) {
    let width = outputs[0].len();
    let tokens = scores.len() / N;
    const LANES: usize = 32;
    let mut start = 0;
    while start + LANES <= width {
        let mut sums = [[0.0_f32; LANES]; N];
        for (token, values) in values.chunks_exact(width).enumerate() {
            let values: &[f32; LANES] = values[start..][..LANES].try_into().expect("a block of values");
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = scores[row * tokens + token];
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = fused::<FMA>(factor, *value, *sum);
                }
            }
        }
        for (output, sums) in outputs.iter_mut().zip(&sums) {
            output[start..][..LANES].copy_from_slice(sums);
        }
        start += LANES;
    }
    if start == width {
        return;
    }
    for (row, output) in outputs.iter_mut().enumerate() {
        let output = &mut output[start..];
        output.fill(0.0);
        for (values, factor) in values.chunks_exact(width).zip(&scores[row * tokens..][..tokens]) {
            for (output, value) in output.iter_mut().zip(&values[start..]) {
                *output = fused::<FMA>(*factor, *value, *output);
            }
        }
    }
}
