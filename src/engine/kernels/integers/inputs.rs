//! Inputs in whole numbers: 16 bits each, and a scale for every step of 32.

use multiversion::multiversion;

use super::{Block, PAIRS, ROWS, STEP, Weights};

/// Rows of inputs in whole numbers, eight rows after eight rows, step after step.
pub(in crate::engine::kernels) struct Levels {
    /// Pairs of values, the first in the lower half.
    pairs: Vec<u32>,
    /// By which a step's values of a row were divided.
    scales: Vec<f32>,
    /// The sums of a step's values of a row.
    sums: Vec<f32>,
    rows: usize,
    /// Rows that a block has room for.
    lanes: usize,
    /// Steps of a row.
    steps: usize,
}

/// Where the values of one block of rows go.
pub(in crate::engine::kernels) struct Places<'a> {
    pairs: &'a mut [u32],
    scales: &'a mut [f32],
    sums: &'a mut [f32],
    lanes: usize,
}

impl Levels {
    /// Room for `rows` rows of `depth` inputs, which is whole steps.
    pub(in crate::engine::kernels) fn new(rows: usize, depth: usize) -> Self {
        let (lanes, steps) = (rows.clamp(1, ROWS), depth / STEP);
        let count = rows.div_ceil(lanes) * lanes * steps;
        Self { pairs: vec![0; count * PAIRS], scales: vec![0.0; count], sums: vec![0.0; count], rows, lanes, steps }
    }

    /// The places of the rows of each block, for [`round`].
    pub(in crate::engine::kernels) fn blocks(&mut self) -> impl Iterator<Item = Places<'_>> {
        let (lanes, size) = (self.lanes, self.lanes * self.steps);
        let places = self.pairs.chunks_exact_mut(size * PAIRS).zip(self.scales.chunks_exact_mut(size));
        places.zip(self.sums.chunks_exact_mut(size)).map(move |((pairs, scales), sums)| Places { pairs, scales, sums, lanes })
    }

    /// The block `index` and how many rows it has.
    pub(in crate::engine::kernels) fn block<'a>(&'a self, index: usize, weights: Weights<'a>) -> (Block<'a>, usize) {
        let size = self.lanes * self.steps;
        let range = index * size..(index + 1) * size;
        let pairs = &self.pairs[range.start * PAIRS..range.end * PAIRS];
        assert!(weights.scales.len() * weights.group == self.steps * STEP, "a panel of other inputs than the rows'");
        let rows = self.lanes.min(self.rows - index * self.lanes);
        (Block { pairs, scales: &self.scales[range.clone()], sums: &self.sums[range], lanes: self.lanes, weights }, rows)
    }
}

/// Writes up to eight rows of `depth` inputs to their places.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(in crate::engine::kernels) fn round(rows: &[f32], depth: usize, places: Places<'_>) {
    let pairs = places.pairs.as_chunks_mut::<PAIRS>().0;
    for (row, inputs) in rows.chunks_exact(depth).enumerate() {
        for (step, inputs) in inputs.as_chunks::<STEP>().0.iter().enumerate() {
            let place = step * places.lanes + row;
            (places.scales[place], places.sums[place]) = round_step(inputs, &mut pairs[place]);
        }
    }
}

/// The highest value of 16 bits that has its opposite.
const HIGHEST: f32 = 32767.0;

/// Below this, inputs count as zero: no sum with anything that counts would tell.
const LEAST: f32 = 1e-30;

/// Rounds the inputs of a step and gives what they were divided by and the sum of what they became.
#[inline(always)]
fn round_step(inputs: &[f32; STEP], pairs: &mut [u32; PAIRS]) -> (f32, f32) {
    // The bits of numbers without their sign are in the numbers' order, and what is no number is above all.
    let largest = inputs.iter().fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    // Where one is infinite or no number, so is the scale, and so is every result.
    let factor = if largest < LEAST { 0.0 } else { HIGHEST / largest };
    let mut sum = 0;
    for (pair, place) in inputs.as_chunks::<2>().0.iter().zip(pairs) {
        let [first, second] = pair.map(|x| {
            // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the lowest bits.
            (x * factor + 12_582_912.0).to_bits() & 0xffff
        });
        sum += i32::from(first as u16 as i16) + i32::from(second as u16 as i16);
        *place = first | second << 16;
    }
    (largest * (1.0 / HIGHEST), sum as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_rounded_to_the_nearest_of_their_step() {
        let (rows, depth) = (11, 96);
        let inputs: Vec<f32> =
            (0..rows * depth).map(|i| ((i * 7919 % 1009) as f32 - 300.0) * [1e-3, 1.0, 1e5][i / 32 % 3]).collect();
        let mut levels = Levels::new(rows, depth);
        levels.blocks().zip(inputs.chunks(ROWS * depth)).for_each(|(places, rows)| round(rows, depth, places));
        for (i, inputs) in inputs.as_chunks::<STEP>().0.iter().enumerate() {
            let (row, step) = (i / 3, i % 3);
            let place = (row / ROWS * 3 + step) * ROWS + row % ROWS;
            let largest = inputs.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let mut sum = 0;
            for (k, x) in inputs.iter().enumerate() {
                let value = (levels.pairs[place * PAIRS + k / 2] >> (k % 2 * 16)) as u16 as i16;
                let error = (f32::from(value) * levels.scales[place] - x).abs();
                assert!(error <= largest / 65_000.0, "input {k} of step {step} of row {row}: {x} is off by {error:e}");
                sum += i32::from(value);
            }
            assert_eq!(levels.sums[place], sum as f32, "the sum of step {step} of row {row}");
        }
    }

    #[test]
    fn what_is_no_number_is_never_rounded_away() {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut inputs = [1.0; STEP];
            inputs[7] = strange;
            let (scale, _) = round_step(&inputs, &mut [0; PAIRS]);
            assert!(!scale.is_finite(), "{strange} became part of a step of scale {scale}");
        }
        assert_eq!(round_step(&[0.0; STEP], &mut [1; PAIRS]), (0.0, 0.0));
    }
}
