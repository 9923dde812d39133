//! Products of quantized weights in whole numbers, a group of inputs at a time.
//!
//! A weight is `value * scale + offset`. 16 or 32 inputs of one output share a scale and an offset. Of the row's inputs, 32 share a scale:
//! each is rounded to 16 bits, an error of 2⁻¹⁶ of the largest of them, which is far below that of the weights. The sum over a group is then
//! exact in any order. Only the groups' sums are added in f32, in their order and always by the same operations. So a row's results are the
//! same bits whatever rows are multiplied beside it, and on every processor.
//!
//! Weights stay in memory as their file has them, four bits or a byte, with scales of two bytes or less: with few rows, reading the weights
//! takes most of the time.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod inputs;
mod layout;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vectors;

pub(super) use self::inputs::{QuantizedRows, round};
use self::inputs::{QuantizedStep, StepScale};
pub(super) use self::layout::QuantizedPanels;
use self::layout::{ByteLine, PanelLayout};
use super::panel::PANEL;

/// Inputs of a row that share a scale. The length of a row is a multiple of it.
pub(super) const STEP: usize = 32;

/// Inputs that are multiplied together.
const QUAD: usize = 4;

/// Quads of a step.
const QUADS: usize = STEP / QUAD;

/// Rows that one pass over a panel serves.
pub(super) const ROWS: usize = 16;

/// Quantized weights, a row of `inputs` for each output.
pub struct Quantized {
    /// The values, side by side.
    pub values: Vec<i8>,
    /// Whether all values are from 0 to 15.
    pub nibbles: bool,
    /// The factors of the values.
    pub scales: GroupScales,
    /// Added after the factors; only if groups are of 32 inputs.
    pub offsets: Option<GroupScales>,
    /// Values of a row.
    pub inputs: usize,
    /// Inputs that share a scale and an offset: 16 or 32.
    pub group: usize,
}

impl Quantized {
    /// The weights in f32.
    pub fn to_f32(&self) -> Vec<f32> {
        let groups = self.values.chunks_exact(self.group).enumerate();
        let measured = groups.map(|(i, values)| (values, self.scales.at(i), self.offsets.as_ref().map_or(0.0, |o| o.at(i))));
        measured.flat_map(|(values, scale, offset)| values.iter().map(move |v| f32::from(*v) * scale + offset)).collect()
    }
}

/// Scales or offsets of groups.
pub struct GroupScales {
    /// In f16: one for each group, or if there are factors, one for several groups of a row.
    pub large: Vec<u16>,
    /// A factor for each group, or empty if all factors are one.
    pub small: Vec<i8>,
}

impl GroupScales {
    /// The scale or offset of group `index`.
    pub fn at(&self, index: usize) -> f32 {
        match self.small.get(index) {
            Some(small) => single(self.large[index / (self.small.len() / self.large.len())]) * f32::from(*small),
            None => single(self.large[index]),
        }
    }
}

/// Converts f16 to f32 without branches.
#[inline(always)]
fn single(half: u16) -> f32 {
    const LIFT: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    // Infinities and NaN keep all bits of the exponent.
    let special = if rest >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits((f32::from_bits(rest << 13) * LIFT).to_bits() | sign | special)
}

/// Up to [`ROWS`] rows and one panel.
#[derive(Clone, Copy)]
pub(super) struct IntegerBlock<'a> {
    /// The values, step by step those of each row.
    inputs: &'a [QuantizedStep],
    scales: &'a [StepScale],
    /// Rows of a step in memory, some of which may be unused.
    lanes: usize,
    weights: PanelWeights<'a>,
}

/// The weights of a panel.
#[derive(Clone, Copy)]
pub(super) struct PanelWeights<'a> {
    lines: &'a [ByteLine],
    layout: PanelLayout,
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: IntegerBlock<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::available() {
        return vectors::multiply(block, rows, sums);
    } else if avx2::available() {
        return avx2::multiply(block, rows, sums);
    }
    plain::multiply(block, rows, sums);
}

#[cfg(test)]
mod tests;
