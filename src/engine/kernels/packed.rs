//! Weights as panels, and their products with many rows or few, shared among the threads of the current pool.

use std::ops::Range;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::panel::{Input, PANEL, Panel, Shared, multiply_panel};
use super::tiles::{self, BLOCK_ROWS, STEP, Sums, TILE_ROWS, Tiles};

/// Inputs that a task reads again for each panel: what the second cache holds beside the panel.
const CACHED_INPUTS: usize = 128 << 10;

/// Tasks for each thread, so that one that is late holds up little.
const TASKS_PER_THREAD: usize = 4;

/// The weights of a linear layer.
pub(in crate::engine) struct Packed {
    inputs: usize,
    outputs: usize,
    weights: Weights,
}

enum Weights {
    Wide(Vec<f32>),
    Half(Vec<u16>),
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Onto {
    /// They replace what was there.
    Nothing,
    /// They are added to what was there.
    Present,
}

/// Rows that a product is written to.
pub(in crate::engine) struct Target<'a> {
    /// The rows, side by side.
    pub(in crate::engine) values: &'a mut [f32],
    /// Values of a row.
    pub(in crate::engine) width: usize,
    /// The column of the first output.
    pub(in crate::engine) column: usize,
    /// What becomes of the sums.
    pub(in crate::engine) onto: Onto,
}

impl Packed {
    /// Takes weights as checkpoints store them, a row of `inputs` an output.
    pub(in crate::engine) fn from_wide(rows: &[f32], inputs: usize) -> Self {
        let outputs = rows.len() / inputs;
        let mut weights = vec![0.0; outputs.next_multiple_of(PANEL) * inputs];
        weights.par_chunks_mut(PANEL * inputs).zip(rows.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                panel[output..].iter_mut().step_by(PANEL).zip(row).for_each(|(place, value)| *place = *value);
            }
        });
        Self { inputs, outputs, weights: Weights::Wide(weights) }
    }

    /// Takes the upper halves of f32, a row of `inputs` an output.
    pub(in crate::engine) fn from_half(rows: &[u16], inputs: usize) -> Self {
        let outputs = rows.len() / inputs;
        let size = PANEL * inputs.next_multiple_of(STEP);
        let mut weights = vec![0; outputs.div_ceil(PANEL) * size];
        weights.par_chunks_mut(size).zip(rows.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    panel[half_place(input, output)] = *value;
                }
            }
        });
        Self { inputs, outputs, weights: Weights::Half(weights) }
    }

    /// Outputs of a row.
    pub(in crate::engine) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the weights.
    pub(in crate::engine) fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Wide(weights) => size_of_val(&**weights),
            Weights::Half(weights) => size_of_val(&**weights),
        }
    }

    /// Copies the weights of one output, as an embedding table is read.
    pub(in crate::engine) fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {} outputs", self.outputs);
        let within = output % PANEL;
        match self.panel(output / PANEL) {
            Panel::Wide { values, .. } => {
                row.iter_mut().zip(values[within..].iter().step_by(PANEL)).for_each(|(place, value)| *place = *value);
            }
            Panel::Half(values) => {
                for (input, place) in row.iter_mut().enumerate() {
                    *place = f32::from_bits(u32::from(values[half_place(input, within)]) << 16);
                }
            }
        }
    }

    /// Writes the products of every row of `input` to the rows of `target`.
    pub(in crate::engine) fn multiply(&self, input: &[f32], target: Target<'_>) {
        let rows = input.len() / self.inputs;
        assert_eq!(input.len(), rows * self.inputs, "whole rows of {} inputs", self.inputs);
        assert_eq!(target.values.len(), rows * target.width, "rows of the target");
        match &self.weights {
            Weights::Half(weights) if tiles::available() => self.multiply_in_tiles(weights, input, target),
            _ => self.multiply_in_vectors(input, target),
        }
    }

    fn multiply_in_vectors(&self, input: &[f32], target: Target<'_>) {
        let rows = input.len() / self.inputs;
        let grid = Grid::new(rows, (CACHED_INPUTS / self.inputs).clamp(8, 128), self.outputs);
        let (onto, column) = (target.onto, target.column);
        let output = Shared::new(target.values, target.width);
        grid.run(|first, block, panels| {
            let input = Input { values: &input[first * self.inputs..], step: self.inputs, rows: block, depth: self.inputs };
            for panel in panels {
                let count = PANEL.min(self.outputs - panel * PANEL);
                multiply_panel(input, self.panel(panel), |row, sums| {
                    // SAFETY: no other task has both this row and this panel's columns, and the slice ends with this call.
                    #[allow(unsafe_code)]
                    let place = unsafe { output.row(first + row, column + panel * PANEL, count) };
                    put(place, sums, onto);
                });
            }
        });
    }

    fn multiply_in_tiles(&self, weights: &[u16], input: &[f32], target: Target<'_>) {
        let rows = input.len() / self.inputs;
        let size = PANEL * self.inputs.next_multiple_of(STEP);
        let mut split = Tiles::new(rows, self.inputs);
        let groups = split.groups().zip(input.chunks(TILE_ROWS * self.inputs));
        if rows <= BLOCK_ROWS {
            groups.for_each(|(group, rows)| tiles::split(rows, self.inputs, group));
        } else {
            groups.collect::<Vec<_>>().into_par_iter().for_each(|(group, rows)| tiles::split(rows, self.inputs, group));
        }
        // An input takes two terms of two bytes.
        let grid = Grid::new(rows, (2 * CACHED_INPUTS / self.inputs).next_multiple_of(BLOCK_ROWS).min(256), self.outputs);
        let (onto, column) = (target.onto, target.column);
        let output = Shared::new(target.values, target.width);
        grid.run(|first, block, panels| {
            let mut sums = Sums::default();
            for panel in panels {
                let count = PANEL.min(self.outputs - panel * PANEL);
                for start in (first..first + block).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(first + block - start);
                    tiles::multiply_tiles(&split, start, rows, &weights[panel * size..][..size], &mut sums);
                    for (row, sums) in sums.0[..rows].iter().enumerate() {
                        // SAFETY: as in `multiply_in_vectors`.
                        #[allow(unsafe_code)]
                        let place = unsafe { output.row(start + row, column + panel * PANEL, count) };
                        put(place, sums, onto);
                    }
                }
            }
        });
    }

    fn panel(&self, index: usize) -> Panel<'_> {
        match &self.weights {
            Weights::Wide(weights) => {
                let size = PANEL * self.inputs;
                Panel::Wide { values: &weights[index * size..][..size], step: PANEL }
            }
            Weights::Half(weights) => {
                let size = PANEL * self.inputs.next_multiple_of(STEP);
                Panel::Half(&weights[index * size..][..size])
            }
        }
    }
}

/// How a product is cut into tasks: blocks of rows times shares of panels.
struct Grid {
    rows: usize,
    block: usize,
    panels: usize,
    share: usize,
}

impl Grid {
    /// Blocks of at most `block` rows, and as few panels a task as keep all threads busy.
    fn new(rows: usize, block: usize, outputs: usize) -> Self {
        let panels = outputs.div_ceil(PANEL);
        let shares = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(rows.div_ceil(block).max(1));
        Self { rows, block, panels, share: panels.div_ceil(shares.clamp(1, panels.max(1))).max(1) }
    }

    /// Calls `task` with the first row, the number of rows and the panels of each task.
    fn run(&self, task: impl Fn(usize, usize, Range<usize>) + Sync) {
        let shares = self.panels.div_ceil(self.share);
        (0..self.rows.div_ceil(self.block) * shares).into_par_iter().with_max_len(1).for_each(|index| {
            let (first, panel) = (index / shares * self.block, index % shares * self.share);
            task(first, self.block.min(self.rows - first), panel..self.panels.min(panel + self.share));
        });
    }
}

#[inline(always)]
fn put(place: &mut [f32], sums: &[f32; PANEL], onto: Onto) {
    match onto {
        Onto::Nothing => place.copy_from_slice(&sums[..place.len()]),
        Onto::Present => place.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum),
    }
}

/// Where a weight lies in a panel of halves.
fn half_place(input: usize, output: usize) -> usize {
    input / 2 * 2 * PANEL + 2 * output + input % 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(i: usize) -> f32 {
        (i * 7919 % 1009) as f32 / 1009.0 - 0.5
    }

    #[test]
    fn products_agree_with_plain_loops_for_any_sizes() {
        for (rows, inputs, outputs) in [(1, 8, 5), (3, 33, 100), (40, 7, 64), (300, 64, 70)] {
            for half in [false, true] {
                let mut weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
                let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
                let halves: Vec<u16> = weights.iter().map(|w| (w.to_bits() >> 16) as u16).collect();
                let packed = if half {
                    weights.iter_mut().zip(&halves).for_each(|(w, half)| *w = f32::from_bits(u32::from(*half) << 16));
                    Packed::from_half(&halves, inputs)
                } else {
                    Packed::from_wide(&weights, inputs)
                };
                let width = outputs + 3;
                for (onto, before) in [(Onto::Nothing, 0.0), (Onto::Present, 2.0)] {
                    let mut output = vec![2.0; rows * width];
                    packed.multiply(&input, Target { values: &mut output, width, column: 2, onto });
                    for (i, got) in output.iter().enumerate() {
                        let (row, column) = (i / width, i % width);
                        let expected = if (2..2 + outputs).contains(&column) {
                            let product = |k: usize| f64::from(input[row * inputs + k] * weights[(column - 2) * inputs + k]);
                            before + (0..inputs).map(product).sum::<f64>()
                        } else {
                            2.0
                        };
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error < 2e-5, "row {row}, column {column} of {rows}x{inputs}x{outputs}: {got} for {expected}");
                    }
                }
                let mut row = vec![0.0; inputs];
                packed.row(outputs - 1, &mut row);
                assert_eq!(row, weights[(outputs - 1) * inputs..], "the last output's weights");
            }
        }
    }
}
