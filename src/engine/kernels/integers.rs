//! Products of quantized weights in whole numbers, a group of inputs at a time.
//!
//! A weight is `value * scale + offset`, scale and offset being shared by 16 or 32 inputs of one output. Of the inputs, 32 share a scale:
//! each is rounded to 16 bits of it, an error of 2⁻¹⁶ of the largest of them, far below that of the weights. The sum over a group is
//! then exact, and only the groups' sums are added in f32, in their order and always by the same operations. So a row's results are the
//! same bits whatever rows are multiplied beside it, and on every processor.
//!
//! ```text
//! 8 bits    inputs 0, 1: w0 w0' w1 w1' … w31 w31'   inputs 2, 3: …                  (a dash marks the second input)
//! 4 bits    inputs 0 … 7: a word of w0 at 0, 2, 4, 6, one of w0 at 1, 3, 5, 7, then those of w1 …   (the first in the lowest bits)
//! ```
//!
//! Weights stay in memory as their file has them, four bits or a byte, with scales of two bytes or less: with few rows, the time goes to
//! reading them.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod inputs;
mod plain;
#[cfg(target_arch = "x86_64")]
mod vectors;

use multiversion::multiversion;
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

pub(super) use self::inputs::{Levels, round};
use super::packed::panels;
use super::panel::PANEL;

/// Inputs that share a scale of their own; each row of weights has a multiple of them.
pub(super) const STEP: usize = 32;

/// Pairs of inputs of a step.
const PAIRS: usize = STEP / 2;

/// Rows that one pass over a panel serves: as many as keep their sums in registers.
pub(super) const ROWS: usize = 8;

/// Quantized weights, a row of `inputs` an output.
pub(in crate::engine) struct Quantized {
    /// The values, side by side.
    pub(in crate::engine) values: Vec<i8>,
    /// Whether all values are from 0 to 15.
    pub(in crate::engine) nibbles: bool,
    /// What values are multiplied by.
    pub(in crate::engine) scales: Measures,
    /// What is added to them then; only where groups are of 32 inputs.
    pub(in crate::engine) offsets: Option<Measures>,
    /// Values of a row.
    pub(in crate::engine) inputs: usize,
    /// Inputs that share a scale and an offset: 16 or 32.
    pub(in crate::engine) group: usize,
}

impl Quantized {
    /// The weights in f32.
    pub(in crate::engine) fn widened(&self) -> Vec<f32> {
        let groups = self.values.chunks_exact(self.group).enumerate();
        let measured = groups.map(|(i, values)| (values, self.scales.at(i), self.offsets.as_ref().map_or(0.0, |o| o.at(i))));
        measured.flat_map(|(values, scale, offset)| values.iter().map(move |v| f32::from(*v) * scale + offset)).collect()
    }
}

/// Scales or offsets of groups.
pub(in crate::engine) struct Measures {
    /// In f16: one a group, or where there are factors, one for several groups of a row.
    pub(in crate::engine) large: Vec<u16>,
    /// A factor of each group, or nothing where all are one.
    pub(in crate::engine) small: Vec<i8>,
}

impl Measures {
    /// That of group `index`.
    pub(in crate::engine) fn at(&self, index: usize) -> f32 {
        match self.small.get(index) {
            Some(small) => single(self.large[index / (self.small.len() / self.large.len())]) * f32::from(*small),
            None => single(self.large[index]),
        }
    }

    /// The same with each row of groups in panels, of which there are `groups` a row.
    fn in_panels(&self, groups: usize) -> Self {
        match self.small.len() / self.large.len() {
            0 => Self { large: panels(&self.large, groups), small: Vec::new() },
            several => Self { large: panels(&self.large, groups / several), small: panels(&self.small, groups) },
        }
    }

    /// Writes those of the panel `index` in f32, group by group those of 32 outputs.
    fn widen(&self, index: usize, wide: &mut Vec<f32>, groups: usize) {
        wide.resize(groups * PANEL, 0.0);
        let large = |count: usize| &self.large[index * count * PANEL..][..count * PANEL];
        match self.small.len() / self.large.len() {
            0 => widen(large(groups), &[], wide),
            several => widen(large(groups / several), &self.small[index * groups * PANEL..][..groups * PANEL], wide),
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.large) + self.small.len()
    }
}

/// `large` in f32, each row of 32 times the rows of 32 factors that belong to it.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn widen(large: &[u16], small: &[i8], wide: &mut [f32]) {
    let several = wide.len() / large.len();
    let (large, wide) = (large.as_chunks::<PANEL>().0, wide.as_chunks_mut::<PANEL>().0);
    if small.is_empty() {
        for (large, wide) in large.iter().zip(wide) {
            large.iter().zip(wide).for_each(|(large, wide)| *wide = single(*large));
        }
        return;
    }
    for ((large, small), wide) in large.iter().zip(small.as_chunks::<PANEL>().0.chunks(several)).zip(wide.chunks_mut(several)) {
        let large = large.map(single);
        for (small, wide) in small.iter().zip(wide) {
            large.iter().zip(small).zip(wide).for_each(|((large, small), wide)| *wide = large * f32::from(*small));
        }
    }
}

/// A number of f16 in f32, without branches.
#[inline(always)]
fn single(half: u16) -> f32 {
    const LIFT: f32 = f32::from_bits((127 + 112) << 23);
    let (sign, rest) = (u32::from(half & 0x8000) << 16, u32::from(half & 0x7fff));
    // Infinities and what is no number keep all bits of the exponent.
    let special = if rest >= 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits((f32::from_bits(rest << 13) * LIFT).to_bits() | sign | special)
}

/// Quantized weights in panels.
pub(super) struct Panels {
    values: Vec<u8>,
    nibbles: bool,
    scales: Measures,
    offsets: Option<Measures>,
    inputs: usize,
    group: usize,
}

/// The weights of 32 outputs, their scales and offsets in f32.
#[derive(Default)]
pub(super) struct Scratch {
    scales: Vec<f32>,
    offsets: Vec<f32>,
}

/// Up to [`ROWS`] rows and one panel.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// A pair of values in each, step by step those of each row.
    pairs: &'a [u32],
    /// What a row's values of a step were divided by.
    scales: &'a [f32],
    /// The sums of a row's values of a step, in f32.
    sums: &'a [f32],
    /// Rows that a step has room for.
    lanes: usize,
    weights: Weights<'a>,
}

/// Those of a panel.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    values: &'a [u8],
    nibbles: bool,
    /// Group by group those of 32 outputs.
    scales: &'a [[f32; PANEL]],
    /// As the scales, or nothing.
    offsets: &'a [[f32; PANEL]],
    group: usize,
}

impl Panels {
    /// Brings weights into panels.
    pub(super) fn new(rows: &Quantized) -> Self {
        let Quantized { inputs, group, nibbles, .. } = *rows;
        assert!(
            inputs.is_multiple_of(STEP) && STEP.is_multiple_of(group) && group >= STEP / 2,
            "{inputs} inputs in groups of {group}"
        );
        assert!(rows.offsets.is_none() || group == STEP, "offsets of groups of {group}");
        assert!(!nibbles || rows.values.iter().all(|value| (0..16).contains(value)), "values of more than four bits");
        let outputs = rows.values.len() / inputs;
        let size = size(inputs, nibbles);
        let mut values = vec![0; outputs.div_ceil(PANEL) * size];
        values.par_chunks_mut(size).zip(rows.values.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    let (place, shift) = place(input, output, nibbles);
                    panel[place] |= value.cast_unsigned() << shift;
                }
            }
        });
        let in_panels = |measures: &Measures| measures.in_panels(inputs / group);
        Self { values, nibbles, scales: in_panels(&rows.scales), offsets: rows.offsets.as_ref().map(in_panels), inputs, group }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.values.len() + self.scales.bytes() + self.offsets.as_ref().map_or(0, Measures::bytes)
    }

    /// Copies the weights of output `within` of the panel `index`.
    pub(super) fn row(&self, index: usize, within: usize, row: &mut [f32]) {
        let values = &self.values[index * size(self.inputs, self.nibbles)..];
        let groups = self.inputs / self.group;
        let (mut scratch, mut measures) = (Vec::new(), Vec::with_capacity(2));
        for measure in [Some(&self.scales), self.offsets.as_ref()].into_iter().flatten() {
            measure.widen(index, &mut scratch, groups);
            measures.push(scratch[within..].iter().step_by(PANEL).copied().collect::<Vec<f32>>());
        }
        for (input, weight) in row.iter_mut().enumerate() {
            let (place, shift) = place(input, within, self.nibbles);
            let value =
                if self.nibbles { f32::from(values[place] >> shift & 15) } else { f32::from(values[place].cast_signed()) };
            let group = input / self.group;
            *weight = value * measures[0][group] + measures.get(1).map_or(0.0, |offsets| offsets[group]);
        }
    }

    /// Writes the scales and offsets of the panel `index` to `scratch`.
    pub(super) fn scratch(&self, index: usize, scratch: &mut Scratch) {
        let groups = self.inputs / self.group;
        self.scales.widen(index, &mut scratch.scales, groups);
        if let Some(offsets) = &self.offsets {
            offsets.widen(index, &mut scratch.offsets, groups);
        }
    }

    /// The weights of the panel `index`, whose scales are in `scratch`.
    pub(super) fn weights<'a>(&'a self, index: usize, scratch: &'a Scratch) -> Weights<'a> {
        let size = size(self.inputs, self.nibbles);
        Weights {
            values: &self.values[index * size..][..size],
            nibbles: self.nibbles,
            scales: scratch.scales.as_chunks().0,
            offsets: if self.offsets.is_some() { scratch.offsets.as_chunks().0 } else { &[] },
            group: self.group,
        }
    }
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: Block<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    #[cfg(target_arch = "x86_64")]
    if vectors::available() {
        return vectors::multiply(block, rows, sums);
    } else if avx2::available() {
        return avx2::multiply(block, rows, sums);
    }
    plain::multiply(block, rows, sums);
}

/// Bytes of a panel.
fn size(inputs: usize, nibbles: bool) -> usize {
    if nibbles { inputs * PANEL / 2 } else { inputs * PANEL }
}

/// The byte of a panel that a value lies in, and at which of its bits.
fn place(input: usize, output: usize, nibbles: bool) -> (usize, usize) {
    if nibbles {
        let (word, nibble) = (input / 8 * 2 * PANEL + 2 * output + input % 2, input % 8 / 2);
        (2 * word + nibble / 2, nibble % 2 * 4)
    } else {
        (input / 2 * 2 * PANEL + 2 * output + input % 2, 0)
    }
}

#[cfg(test)]
mod tests;
