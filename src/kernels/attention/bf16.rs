//! Attention in bf16, on the matrix unit.
//!
//! ```text
//! scores     32 queries × 32 keys      queries as they are, the transposed keys as a panel
//! context    32 queries × 32 components   weights rounded, values as a panel: those of two keys side by side
//! ```

use std::ops::Range;

use super::AttentionShape;
use crate::cache_line::{Bf16Line, CacheAligned, LINE_PAIRS};
use crate::matrix_unit::{MatrixUnit, PanelStep, Sums};
use crate::panel::PANEL;
use crate::tiles::{BLOCK_ROWS, STEP, Tiles};

const EMPTY: PanelStep = [[CacheAligned([0; LINE_PAIRS]); 2]; LINE_PAIRS];

/// Buffers of one thread, kept between sequences.
#[derive(Default)]
pub struct Bf16AttentionBuffers {
    /// Panels of 32 keys, each of as many steps as a head has.
    keys: Vec<PanelStep>,
    /// Panels of 32 components, each of as many steps as there are keys.
    values: Vec<PanelStep>,
    /// The scores of 32 queries, one panel of keys after the other.
    scores: Vec<Sums>,
    weights: Tiles,
}

/// `context = softmax(Q·Kᵀ / √width) · V` of the sequence whose tokens are `rows`, head by head.
///
/// `qkv` are strips of the queries of all heads, then of their keys, then of their values; a head is whole steps wide. Memory grows with
/// the sequence, not with its square. A token's result depends on no row of another sequence.
pub fn attend_bf16(
    shape: AttentionShape,
    qkv: &Tiles,
    rows: Range<usize>,
    context: &mut Tiles,
    buffers: &mut Bf16AttentionBuffers,
) {
    let (unit, steps, tokens) = (MatrixUnit::take(), shape.width / STEP, rows.len());
    let panels = tokens.div_ceil(PANEL);
    buffers.keys.resize(panels * steps, EMPTY);
    buffers.values.resize(steps * panels, EMPTY);
    buffers.scores.resize(panels, Sums::default());
    buffers.weights.reserve(BLOCK_ROWS, panels);
    // The weights are computed as powers of two.
    let factor = std::f32::consts::LOG2_E / (shape.width as f32).sqrt();
    let mut sums = Sums::default();
    for head in 0..shape.heads {
        let (queries, keys) = (head * steps, (shape.heads + head) * steps);
        let values = keys + shape.heads * steps;
        for step in 0..steps {
            for panel in 0..panels {
                let (first, count) = (rows.start + panel * PANEL, PANEL.min(tokens - panel * PANEL));
                unit.pack_transposed(&qkv.rows_from(first, keys + step)[..count], &mut buffers.keys[panel * steps + step]);
                unit.pack_pairs(&qkv.rows_from(first, values + step)[..count], &mut buffers.values[step * panels + panel]);
            }
        }
        for first in rows.clone().step_by(BLOCK_ROWS) {
            let block = first..rows.end.min(first + BLOCK_ROWS);
            for (keys, sums) in buffers.keys.chunks_exact(steps).zip(&mut buffers.scores) {
                unit.multiply(qkv.block(block.clone(), queries..queries + steps, flat(keys)), sums);
            }
            // Places of the last panel that hold no key.
            buffers.scores[panels - 1].0.iter_mut().for_each(|row| row[tokens - (panels - 1) * PANEL..].fill(f32::MIN));
            let factors = unit.softmax_weights(&buffers.scores, block.len(), factor, &mut buffers.weights).map(f32::recip);
            for (step, values) in buffers.values.chunks_exact(panels).enumerate() {
                unit.multiply(buffers.weights.block(0..block.len(), 0..panels, flat(values)), &mut sums);
                unit.scale(&sums, block.clone(), &factors, context, queries + step);
            }
        }
    }
}

/// The steps as the weights of a panel.
fn flat(steps: &[PanelStep]) -> &[Bf16Line] {
    steps.as_flattened().as_flattened()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix_unit;

    /// Strips of rows of numbers that bf16 holds exactly, and the rows themselves.
    fn strips(rows: usize, shape: AttentionShape, seed: usize) -> (Tiles, Vec<Vec<f32>>) {
        let width = 3 * shape.heads * shape.width;
        let number = |i: usize| f32::from_bits((((i * 7919 + seed) % 1009) as f32 / 252.0 - 2.0).to_bits() & 0xffff_0000);
        let values: Vec<Vec<f32>> = (0..rows).map(|row| (row * width..(row + 1) * width).map(number).collect()).collect();
        let mut strips = Tiles::default();
        strips.reserve_strips(rows, width / STEP);
        values.iter().enumerate().for_each(|(row, values)| strips.round(row, values));
        (strips, values)
    }

    fn attended(shape: AttentionShape, qkv: &Tiles, rows: Range<usize>, buffers: &mut Bf16AttentionBuffers) -> Vec<Vec<f32>> {
        let mut context = Tiles::new(rows.end, shape.heads * shape.width);
        attend_bf16(shape, qkv, rows.clone(), &mut context, buffers);
        rows.map(|row| context.row(row)).collect()
    }

    #[test]
    fn attention_in_bf16_agrees_with_plain_loops_for_any_length_and_width() {
        if !matrix_unit::uses_bf16(matrix_unit::BF16_MIN_INPUTS) {
            eprintln!("this processor does not multiply bf16: nothing attends in it here");
            return;
        }
        let mut buffers = Bf16AttentionBuffers::default();
        for (heads, width, first, tokens) in
            [(2, 32, 0, 1), (1, 32, 5, 16), (3, 64, 7, 33), (2, 32, 3, 100), (1, 96, 0, 300), (2, 32, 1, 40)]
        {
            let shape = AttentionShape { heads, width };
            let (qkv, values) = strips(first + tokens + 4, shape, tokens);
            let got = attended(shape, &qkv, first..first + tokens, &mut buffers);
            let part = |token: usize, kind: usize, head: usize| &values[first + token][(kind * heads + head) * width..][..width];
            for (token, head) in (0..tokens).step_by(7).flat_map(|token| (0..heads).map(move |head| (token, head))) {
                let dot = |other: usize| {
                    part(token, 0, head).iter().zip(part(other, 1, head)).map(|(a, b)| f64::from(a * b)).sum::<f64>()
                };
                let scores: Vec<f64> = (0..tokens).map(|other| dot(other) / (width as f64).sqrt()).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                for i in 0..width {
                    let weight = |other: usize| (scores[other] - most).exp() / sum;
                    let exact: f64 = (0..tokens).map(|other| weight(other) * f64::from(part(other, 2, head)[i])).sum();
                    // A weight and the result are rounded, each by 2⁻⁹ of values of up to 2.
                    let (value, place) = (f64::from(got[token][head * width + i]), (token, head, i));
                    assert!((value - exact).abs() < 8e-3, "{tokens} tokens of width {width}, {place:?}: {value} for {exact}");
                }
            }
        }
    }

    #[test]
    fn a_sequence_comes_to_the_same_bits_whatever_lies_beside_it() {
        if !matrix_unit::uses_bf16(matrix_unit::BF16_MIN_INPUTS) {
            eprintln!("this processor does not multiply bf16: nothing attends in it here");
            return;
        }
        let (shape, mut buffers) = (AttentionShape { heads: 2, width: 32 }, Bf16AttentionBuffers::default());
        let (_, values) = strips(41, shape, 0);
        let alone = |rows: &[Vec<f32>], first: usize, buffers: &mut Bf16AttentionBuffers| {
            let mut qkv = Tiles::default();
            qkv.reserve_strips(first + rows.len() + 20, 6);
            (0..first + rows.len() + 20).for_each(|row| qkv.round(row, &[f32::NAN; 192]));
            rows.iter().enumerate().for_each(|(row, values)| qkv.round(first + row, values));
            attended(shape, &qkv, first..first + rows.len(), buffers)
        };
        let expected = alone(&values, 0, &mut buffers);
        assert!(expected.iter().flatten().all(|value| value.is_finite()), "what is no number beside a sequence gets into it");
        assert_eq!(alone(&values, 11, &mut buffers), expected);
    }
}
