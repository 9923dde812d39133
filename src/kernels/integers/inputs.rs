//! Inputs in whole numbers: 16 bits each, and a scale for every step of 32.

use multiversion::multiversion;

use super::{IntegerBlock, PanelWeights, QUAD, QUADS, ROWS, STEP};

/// The values of a step of one row: 256 times the high ones and the low ones, four of each in a number, the first in the lowest bits.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct QuantizedStep {
    pub(super) high: [u32; QUADS],
    pub(super) low: [u32; QUADS],
}

impl QuantizedStep {
    /// The value of an input.
    #[inline(always)]
    pub(super) fn value(&self, input: usize) -> i16 {
        let byte = |quads: &[u32; QUADS]| i16::from((quads[input / QUAD] >> (8 * (input % QUAD))) as u8 as i8);
        byte(&self.high) * 256 + byte(&self.low)
    }
}

/// The scale and the sums of a step of one row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct StepScale {
    /// By which the values were divided.
    pub(super) scale: f32,
    /// The sum of the inputs that the values represent.
    pub(super) whole: f32,
    /// Corrects products with weights to each of which 128 was added: minus 128 times the sum of the first half of the values, of the second
    /// half, and of all.
    pub(super) lifts: [i32; 3],
}

/// Rows of inputs in whole numbers, sixteen rows after sixteen rows, step after step.
pub(crate) struct QuantizedRows {
    inputs: Vec<QuantizedStep>,
    scales: Vec<StepScale>,
    rows: usize,
    /// Rows of a block in memory, some of which may be unused.
    lanes: usize,
    /// Steps of a row.
    steps: usize,
}

/// The memory of one block of rows.
pub(crate) struct BlockTarget<'a> {
    inputs: &'a mut [QuantizedStep],
    scales: &'a mut [StepScale],
    lanes: usize,
}

impl QuantizedRows {
    /// Memory for `rows` rows of `depth` inputs, which are whole steps.
    pub(crate) fn new(rows: usize, depth: usize) -> Self {
        let (lanes, steps) = (rows.clamp(1, ROWS), depth / STEP);
        let count = rows.div_ceil(lanes) * lanes * steps;
        let none = QuantizedStep { high: [0; QUADS], low: [0; QUADS] };
        Self { inputs: vec![none; count], scales: vec![StepScale::default(); count], rows, lanes, steps }
    }

    /// The memory of each block, for [`round`].
    pub(crate) fn blocks(&mut self) -> impl Iterator<Item = BlockTarget<'_>> {
        let (lanes, size) = (self.lanes, self.lanes * self.steps);
        let places = self.inputs.chunks_exact_mut(size).zip(self.scales.chunks_exact_mut(size));
        places.map(move |(inputs, scales)| BlockTarget { inputs, scales, lanes })
    }

    /// The block `index` and how many rows it has.
    pub(crate) fn block<'a>(&'a self, index: usize, weights: PanelWeights<'a>) -> (IntegerBlock<'a>, usize) {
        let size = self.lanes * self.steps;
        let range = index * size..(index + 1) * size;
        assert!(weights.lines.len() == weights.layout.panel(self.steps * STEP), "a panel of other inputs than the rows'");
        let rows = self.lanes.min(self.rows - index * self.lanes);
        (IntegerBlock { inputs: &self.inputs[range.clone()], scales: &self.scales[range], lanes: self.lanes, weights }, rows)
    }
}

/// Rounds up to sixteen rows of `depth` inputs.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(crate) fn round(rows: &[f32], depth: usize, places: BlockTarget<'_>) {
    for (row, inputs) in rows.chunks_exact(depth).enumerate() {
        for (step, inputs) in inputs.as_chunks::<STEP>().0.iter().enumerate() {
            let place = step * places.lanes + row;
            places.scales[place] = round_step(inputs, &mut places.inputs[place]);
        }
    }
}

/// The highest value with both halves from -128 to 127.
const HIGHEST: f32 = 32639.0;

/// Below this, inputs count as zero: they would not change a sum with any ordinary value.
const LEAST: f32 = 1e-30;

/// Rounds the inputs of a step.
#[inline(always)]
fn round_step(inputs: &[f32; STEP], places: &mut QuantizedStep) -> StepScale {
    // Without the sign, the bits of numbers are in the numbers' order, and NaN is above all.
    let largest = inputs.iter().fold(0, |most: u32, x| most.max(x.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    // If an input is infinite or NaN, so is the scale, and so is every result.
    let factor = if largest < LEAST { 0.0 } else { HIGHEST / largest };
    // Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the lowest bits.
    let values = inputs.map(|x| (x * factor + 12_582_912.0).to_bits());
    let sum = |values: &[u32]| values.iter().map(|value| i32::from(*value as u16 as i16)).sum::<i32>();
    let sums = [sum(&values[..STEP / 2]), sum(&values[STEP / 2..])];
    let together = |quad: &[u32; QUAD]| u32::from_le_bytes(quad.map(|value| value as u8));
    places.low.iter_mut().zip(values.as_chunks().0).for_each(|(place, quad)| *place = together(quad));
    // A low half of 128 or more counts as negative, so the high half is increased by one.
    let values = values.map(|value| value.wrapping_add(128) >> 8);
    places.high.iter_mut().zip(values.as_chunks().0).for_each(|(place, quad)| *place = together(quad));
    let scale = largest * (1.0 / HIGHEST);
    let all = sums[0] + sums[1];
    StepScale { scale, whole: scale * all as f32, lifts: [sums[0], sums[1], all].map(|sum| -128 * sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_rounded_to_the_nearest_of_their_step() {
        let (rows, depth) = (19, 96);
        let inputs: Vec<f32> =
            (0..rows * depth).map(|i| ((i * 7919 % 1009) as f32 - 300.0) * [1e-3, 1.0, 1e5][i / 32 % 3]).collect();
        let mut levels = QuantizedRows::new(rows, depth);
        levels.blocks().zip(inputs.chunks(ROWS * depth)).for_each(|(places, rows)| round(rows, depth, places));
        for (i, inputs) in inputs.as_chunks::<STEP>().0.iter().enumerate() {
            let (row, step) = (i / 3, i % 3);
            let place = (row / ROWS * 3 + step) * ROWS + row % ROWS;
            let largest = inputs.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let mut lifts = [0; 3];
            for (k, x) in inputs.iter().enumerate() {
                let value = levels.inputs[place].value(k);
                let error = (f32::from(value) * levels.scales[place].scale - x).abs();
                assert!(error <= largest / 64_900.0, "input {k} of step {step} of row {row}: {x} is off by {error:e}");
                lifts[k / 16] -= 128 * i32::from(value);
                lifts[2] -= 128 * i32::from(value);
            }
            assert_eq!(levels.scales[place].lifts, lifts, "the sums of step {step} of row {row}");
        }
    }

    #[test]
    fn what_is_no_number_is_never_rounded_away() {
        for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut inputs = [1.0; STEP];
            inputs[7] = strange;
            let StepScale { scale, .. } = round_step(&inputs, &mut QuantizedStep { high: [0; QUADS], low: [0; QUADS] });
            assert!(!scale.is_finite(), "{strange} became part of a step of scale {scale}");
        }
        let mut places = QuantizedStep { high: [1; QUADS], low: [1; QUADS] };
        assert_eq!(round_step(&[0.0; STEP], &mut places), StepScale::default());
        assert_eq!((places.high, places.low), ([0; QUADS], [0; QUADS]));
    }
}
