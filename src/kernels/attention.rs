//! Attention of one sequence over itself.

mod bf16;

use multiversion::multiversion;

use super::activation::exp;
use super::cache_line::aligned_slice;
use super::panel::{PANEL, Panel, PanelInput, multiply_panel};

pub use bf16::{Bf16AttentionBuffers, attend_bf16};

/// The shape of a sequence's attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    pub heads: usize,
    /// Components of a head.
    pub width: usize,
}

/// Buffers of one thread, kept between sequences.
#[derive(Default)]
pub struct AttentionBuffers {
    /// Panels of 32 keys of one head: the first component of all 32, then the second.
    keys: Vec<f32>,
    /// The values of one head, each padded to whole panels.
    values: Vec<f32>,
    /// A row for each query, padded to whole panels.
    scores: Vec<f32>,
}

/// Values that are reduced side by side, so that they fill a vector register.
pub(super) const LANES: usize = 16;

/// Scores that are held at once: queries beyond that are computed in turns, so that memory grows with the sequence, not with its square.
const SCORES: usize = 64 << 10;

/// `context = softmax(Q·Kᵀ / √width) · V` of one sequence, head by head.
///
/// A row of `qkv` holds query, key and value of one token, each of `heads * width` components; a row of `context` holds the heads'
/// results side by side.
pub fn attend(shape: AttentionShape, qkv: &[f32], context: &mut [f32], buffers: &mut AttentionBuffers) {
    let AttentionShape { heads, width } = shape;
    let hidden = heads * width;
    let tokens = context.len() / hidden;
    let (padded, padded_width) = (tokens.next_multiple_of(PANEL), width.next_multiple_of(PANEL));
    let queries = (SCORES / padded).clamp(1, tokens);
    let keys = aligned_slice(&mut buffers.keys, padded * width);
    let values = aligned_slice(&mut buffers.values, tokens * padded_width);
    let scores = aligned_slice(&mut buffers.scores, queries * padded);
    let scale = 1.0 / (width as f32).sqrt();
    for head in (0..hidden).step_by(width) {
        for (token, row) in qkv.chunks_exact(3 * hidden).enumerate() {
            let panel = keys[token / PANEL * PANEL * width..][..PANEL * width].as_chunks_mut::<PANEL>().0;
            panel.iter_mut().zip(&row[hidden + head..][..width]).for_each(|(places, key)| places[token % PANEL] = *key);
            values[token * padded_width..][..width].copy_from_slice(&row[2 * hidden + head..][..width]);
        }
        for first in (0..tokens).step_by(queries) {
            let count = queries.min(tokens - first);
            let query = PanelInput { values: &qkv[first * 3 * hidden + head..], step: 3 * hidden, rows: count, depth: width };
            let scores = &mut scores[..count * padded];
            for (panel, keys) in keys.chunks_exact(PANEL * width).enumerate() {
                multiply_panel(query, Panel::F32 { values: keys, step: PANEL }, |row, sums| {
                    let row = &mut scores[row * padded + panel * PANEL..][..PANEL];
                    row.iter_mut().zip(sums).for_each(|(score, sum)| *score = sum * scale);
                });
            }
            softmax(scores, tokens, padded);
            let weights = PanelInput { values: scores, step: padded, rows: count, depth: tokens };
            for column in (0..width).step_by(PANEL) {
                let columns = PANEL.min(width - column);
                multiply_panel(weights, Panel::F32 { values: &values[column..], step: padded_width }, |row, sums| {
                    let row = (first + row) * hidden + head + column;
                    context[row..][..columns].copy_from_slice(&sums[..columns]);
                });
            }
        }
    }
}

/// Softmax of the first `columns` values of each row of `padded` values. The rest of a row's last vector is overwritten.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn softmax(scores: &mut [f32], columns: usize, padded: usize) {
    for row in scores.chunks_exact_mut(padded) {
        let row = &mut row[..columns.next_multiple_of(LANES)];
        row[columns..].fill(f32::NEG_INFINITY);
        let mut most = [f32::NEG_INFINITY; LANES];
        for chunk in row.as_chunks::<LANES>().0 {
            for (most, value) in most.iter_mut().zip(chunk) {
                *most = if *value > *most { *value } else { *most };
            }
        }
        let most = reduce(most, |a, b| if b > a { b } else { a });
        let mut sums = [0.0_f32; LANES];
        for chunk in row.as_chunks_mut::<LANES>().0 {
            for (sum, value) in sums.iter_mut().zip(chunk) {
                *value = exp(*value - most);
                *sum += *value;
            }
        }
        let factor = 1.0 / reduce(sums, |a, b| a + b);
        for value in row {
            *value *= factor;
        }
    }
}

/// Reduces lanes in halves. One after the other would take longer than the rest of a short row.
#[inline(always)]
pub(super) fn reduce(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    const { assert!(LANES == 16) };
    for i in 0..8 {
        lanes[i] = join(lanes[i], lanes[i + 8]);
    }
    for i in 0..4 {
        lanes[i] = join(lanes[i], lanes[i + 4]);
    }
    join(join(lanes[0], lanes[2]), join(lanes[1], lanes[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_rows_sum_to_one_whatever_their_length_and_size() {
        for columns in [1_usize, 3, 16, 17, 100] {
            let padded = columns.next_multiple_of(LANES);
            let score = |i: usize, row: usize| (i * 7 % 13) as f32 * [1.0, 50.0, -1e4][row];
            let mut scores: Vec<f32> =
                (0..3 * padded).map(|i| if i % padded < columns { score(i % padded, i / padded) } else { f32::NAN }).collect();
            softmax(&mut scores, columns, padded);
            for (row, got) in scores.chunks_exact(padded).enumerate() {
                let most = (0..columns).map(|i| f64::from(score(i, row))).fold(f64::NEG_INFINITY, f64::max);
                let exact: Vec<f64> = (0..columns).map(|i| (f64::from(score(i, row)) - most).exp()).collect();
                let sum: f64 = exact.iter().sum();
                for (i, exact) in exact.iter().enumerate() {
                    let error = (f64::from(got[i]) - exact / sum).abs();
                    assert!(error < 1e-6, "column {i} of {columns} in row {row}: off by {error:e}");
                }
            }
        }
    }

    #[test]
    fn queries_taken_in_turns_give_the_same_context() {
        let (shape, tokens) = (AttentionShape { heads: 2, width: 3 }, 700);
        let qkv: Vec<f32> = (0..tokens * 18).map(|i| (i * 31 % 17) as f32 / 17.0 - 0.5).collect();
        let mut context = vec![0.0; tokens * 6];
        attend(shape, &qkv, &mut context, &mut AttentionBuffers::default());
        for (token, head) in [(0, 0), (91, 1), (350, 0), (699, 1)] {
            let part = |token: usize, kind: usize| &qkv[token * 18 + kind * 6 + head * 3..][..3];
            let dot = |other: usize| {
                part(token, 0).iter().zip(part(other, 1)).map(|(a, b)| f64::from(a * b)).sum::<f64>() / 3_f64.sqrt()
            };
            let weights: Vec<f64> = (0..tokens).map(|other| dot(other).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for component in 0..3 {
                let exact: f64 = (0..tokens).map(|other| weights[other] / sum * f64::from(part(other, 2)[component])).sum();
                let got = f64::from(context[token * 6 + head * 3 + component]);
                assert!((got - exact).abs() < 1e-5, "token {token}, head {head}: expected {exact}, got {got}");
            }
        }
    }
}
