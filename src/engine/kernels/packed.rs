//! Weights as panels, and their products with many rows or few, shared among the threads of the current pool.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::integers::{self, Levels, Panels, Quantized, ROWS};
use super::panel::{Input, PANEL, Panel, Shared, multiply_panel};
use super::tiles::{self, BLOCK_ROWS, LEAST_INPUTS, STEP, Sums, TILE_ROWS, Tiles};

/// Inputs that a task reads again for each panel: what the second cache holds beside the panel.
const CACHED_INPUTS: usize = 128 << 10;

/// Rows of a task in tiles: 64 steps of them take half a mebibyte, which a second cache holds beside the panel.
const TILED_ROWS: usize = 128;

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
    Whole(Panels),
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

/// Who works on a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Hands {
    /// The threads of the current pool together.
    Pool,
    /// The calling thread, which never waits for another and takes up nothing else meanwhile.
    Own,
}

/// Rows that several matrices are multiplied with.
pub(in crate::engine) struct Activations<'a> {
    values: &'a [f32],
    inputs: usize,
    hands: Hands,
    tiles: OnceLock<Tiles>,
    levels: OnceLock<Levels>,
}

impl<'a> Activations<'a> {
    /// Rows of `inputs` values, for products that `hands` work on.
    pub(in crate::engine) fn new(values: &'a [f32], inputs: usize, hands: Hands) -> Self {
        assert!(values.len().is_multiple_of(inputs), "whole rows of {inputs} inputs");
        Self { values, inputs, hands, tiles: OnceLock::new(), levels: OnceLock::new() }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.inputs
    }

    /// The rows as tiles, made by the first matrix that asks.
    fn tiles(&self) -> &Tiles {
        self.tiles.get_or_init(|| {
            let mut tiles = Tiles::new(self.rows(), self.inputs);
            let groups = tiles.groups().zip(self.values.chunks(TILE_ROWS * self.inputs));
            self.each(groups, |(group, rows)| tiles::round(rows, self.inputs, group));
            tiles
        })
    }

    /// The rows in whole numbers, made by the first matrix that asks.
    fn levels(&self) -> &Levels {
        self.levels.get_or_init(|| {
            let mut levels = Levels::new(self.rows(), self.inputs);
            let blocks = levels.blocks().zip(self.values.chunks(ROWS * self.inputs));
            self.each(blocks, |(block, rows)| integers::round(rows, self.inputs, block));
            levels
        })
    }

    /// Rounds parts of the rows, several at a time where there are many.
    fn each<T: Send>(&self, parts: impl Iterator<Item = T>, round: impl Fn(T) + Send + Sync) {
        if self.hands == Hands::Own || self.rows() <= BLOCK_ROWS {
            parts.for_each(round);
        } else {
            parts.collect::<Vec<_>>().into_par_iter().for_each(round);
        }
    }
}

impl Packed {
    /// Takes weights as checkpoints store them, a row of `inputs` an output.
    pub(in crate::engine) fn from_wide(rows: &[f32], inputs: usize) -> Self {
        Self { inputs, outputs: rows.len() / inputs, weights: Weights::Wide(panels(rows, inputs)) }
    }

    /// Takes quantized weights, which stay so where rows are long enough to round their inputs.
    pub(in crate::engine) fn from_quantized(rows: &Quantized) -> Self {
        let (inputs, outputs) = (rows.inputs, rows.values.len() / rows.inputs);
        if inputs < LEAST_INPUTS {
            return Self::from_wide(&rows.widened(), inputs);
        }
        Self { inputs, outputs, weights: Weights::Whole(Panels::new(rows)) }
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

    /// Takes weights of f32 as the nearest bf16.
    pub(in crate::engine) fn from_rounded(rows: &[f32], inputs: usize) -> Self {
        let halves: Vec<u16> = rows.iter().map(|weight| tiles::nearest(*weight)).collect();
        Self::from_half(&halves, inputs)
    }

    /// Inputs of a row.
    pub(in crate::engine) fn inputs(&self) -> usize {
        self.inputs
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
            Weights::Whole(panels) => panels.bytes(),
        }
    }

    /// Copies the weights of one output, as an embedding table is read.
    pub(in crate::engine) fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {} outputs", self.outputs);
        let (panel, within) = (output / PANEL, output % PANEL);
        match &self.weights {
            Weights::Wide(weights) => {
                let panel = &weights[panel * PANEL * self.inputs..];
                row.iter_mut().zip(panel[within..].iter().step_by(PANEL)).for_each(|(place, value)| *place = *value);
            }
            Weights::Half(weights) => {
                let panel = &weights[panel * PANEL * self.inputs.next_multiple_of(STEP)..];
                for (input, place) in row.iter_mut().enumerate() {
                    *place = f32::from_bits(u32::from(panel[half_place(input, within)]) << 16);
                }
            }
            Weights::Whole(panels) => panels.row(panel, within, row),
        }
    }

    /// Writes the products of every row of `input` to the rows of `target`.
    pub(in crate::engine) fn multiply(&self, input: &Activations<'_>, target: Target<'_>) {
        assert_eq!(input.inputs, self.inputs, "inputs of a row");
        assert_eq!(target.values.len(), input.rows() * target.width, "rows of the target");
        match &self.weights {
            Weights::Half(weights) if tiles::pay(self.inputs) => self.multiply_in_tiles(weights, input, target),
            Weights::Half(weights) => {
                let size = PANEL * self.inputs.next_multiple_of(STEP);
                self.multiply_in_vectors(|index| Panel::Half(&weights[index * size..][..size]), input, target);
            }
            Weights::Wide(weights) => {
                let size = PANEL * self.inputs;
                let panel = |index| Panel::Wide { values: &weights[index * size..][..size], step: PANEL };
                self.multiply_in_vectors(panel, input, target);
            }
            Weights::Whole(panels) => self.multiply_in_whole_numbers(panels, input, target),
        }
    }

    fn multiply_in_vectors<'a>(&self, weights: impl Fn(usize) -> Panel<'a> + Sync, input: &Activations<'_>, target: Target<'_>) {
        let grid = Grid::new(input, (CACHED_INPUTS / self.inputs).clamp(8, 128), self.outputs);
        let (onto, column) = (target.onto, target.column);
        let output = Shared::new(target.values, target.width);
        grid.run(|rows, panels| {
            let values = &input.values[rows.start * self.inputs..];
            let block = Input { values, step: self.inputs, rows: rows.len(), depth: self.inputs };
            for panel in panels {
                let count = PANEL.min(self.outputs - panel * PANEL);
                multiply_panel(block, weights(panel), |row, sums| {
                    // SAFETY: no other task has both this row and this panel's columns, and the slice ends with this call.
                    #[allow(unsafe_code)]
                    let place = unsafe { output.row(rows.start + row, column + panel * PANEL, count) };
                    put(place, sums, onto);
                });
            }
        });
    }

    fn multiply_in_tiles(&self, weights: &[u16], input: &Activations<'_>, target: Target<'_>) {
        let size = PANEL * self.inputs.next_multiple_of(STEP);
        let (tiles, grid) = (input.tiles(), Grid::new(input, TILED_ROWS, self.outputs));
        let (onto, column) = (target.onto, target.column);
        let output = Shared::new(target.values, target.width);
        grid.run(|rows, panels| {
            let mut sums = Sums::default();
            for range in tiles.ranges() {
                let onto = if range.start == 0 { onto } else { Onto::Present };
                for panel in panels.clone() {
                    let (count, weights) = (PANEL.min(self.outputs - panel * PANEL), &weights[panel * size..][..size]);
                    for first in rows.clone().step_by(BLOCK_ROWS) {
                        let block = first..rows.end.min(first + BLOCK_ROWS);
                        tiles::multiply_tiles(tiles, block.clone(), &range, weights, &mut sums);
                        for (row, sums) in block.zip(&sums.0) {
                            // SAFETY: as in `multiply_in_vectors`.
                            #[allow(unsafe_code)]
                            let place = unsafe { output.row(row, column + panel * PANEL, count) };
                            put(place, sums, onto);
                        }
                    }
                }
            }
        });
    }

    fn multiply_in_whole_numbers(&self, weights: &Panels, input: &Activations<'_>, target: Target<'_>) {
        let (levels, grid) = (input.levels(), Grid::new(input, TILED_ROWS, self.outputs));
        let (onto, column) = (target.onto, target.column);
        let output = Shared::new(target.values, target.width);
        grid.run(|rows, panels| {
            let mut sums = [[0.0; PANEL]; ROWS];
            for panel in panels {
                let count = PANEL.min(self.outputs - panel * PANEL);
                for first in rows.clone().step_by(ROWS) {
                    let (block, together) = levels.block(first / ROWS, weights.weights(panel));
                    integers::multiply(block, together, &mut sums);
                    for (row, sums) in (first..first + together).zip(&sums) {
                        // SAFETY: as in `multiply_in_vectors`.
                        #[allow(unsafe_code)]
                        let place = unsafe { output.row(row, column + panel * PANEL, count) };
                        put(place, sums, onto);
                    }
                }
            }
        });
    }
}

/// Rows an output, brought into panels: the values of 32 outputs side by side, input after input.
pub(super) fn panels<T: Copy + Default + Send + Sync>(rows: &[T], inputs: usize) -> Vec<T> {
    let outputs = rows.len() / inputs;
    let mut panels = vec![T::default(); outputs.next_multiple_of(PANEL) * inputs];
    panels.par_chunks_mut(PANEL * inputs).zip(rows.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            panel[output..].iter_mut().step_by(PANEL).zip(row).for_each(|(place, value)| *place = *value);
        }
    });
    panels
}

/// How a product is cut into tasks: blocks of rows times shares of panels.
struct Grid {
    hands: Hands,
    rows: usize,
    block: usize,
    panels: usize,
    /// Shares of the panels, as even as may be: where few panels are cut, a short last one would leave a thread without work.
    shares: usize,
}

impl Grid {
    /// Blocks of at most `block` rows, and as few shares of the panels as keep all threads busy.
    fn new(input: &Activations<'_>, block: usize, outputs: usize) -> Self {
        let (rows, hands, panels) = (input.rows(), input.hands, outputs.div_ceil(PANEL));
        let shares = match hands {
            Hands::Pool => (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(rows.div_ceil(block).max(1)),
            Hands::Own => 1,
        };
        Self { hands, rows, block, panels, shares: shares.clamp(1, panels.max(1)) }
    }

    /// Calls `task` with the rows and the panels of each task.
    fn run(&self, task: impl Fn(Range<usize>, Range<usize>) + Sync) {
        let shares = self.shares;
        let tasks = 0..self.rows.div_ceil(self.block) * shares;
        let run = |index| {
            let (first, share) = (index / shares * self.block, index % shares);
            task(first..self.rows.min(first + self.block), share * self.panels / shares..(share + 1) * self.panels / shares);
        };
        match self.hands {
            Hands::Pool => tasks.into_par_iter().with_max_len(1).for_each(run),
            Hands::Own => tasks.for_each(run),
        }
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
    use crate::engine::kernels::integers::Measures;

    fn number(i: usize) -> f32 {
        (i * 7919 % 1009) as f32 / 1009.0 - 0.5
    }

    /// Weights of a byte each, all of scale 1/128.
    fn bytes(count: usize, inputs: usize) -> Quantized {
        let scales = Measures { large: vec![0x2000; count / 32], small: Vec::new() };
        let values = (0..count).map(|i| (i * 37 % 251) as u8 as i8).collect();
        Quantized { values, nibbles: false, scales, offsets: None, inputs, group: 32 }
    }

    #[test]
    fn products_agree_with_plain_loops_for_any_sizes() {
        for (rows, inputs, outputs) in
            [(1, 8_usize, 5), (3, 33, 100), (40, 7, 64), (300, 64, 70), (33, 1100, 33), (5, 353, 70), (19, 320, 70)]
        {
            for kind in ["wide", "half", "whole"] {
                if kind == "whole" && !inputs.is_multiple_of(integers::STEP) {
                    continue;
                }
                let mut weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
                let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
                // What the product is of: tiles round their inputs.
                let mut read = input.clone();
                let halves: Vec<u16> = weights.iter().map(|w| (w.to_bits() >> 16) as u16).collect();
                let packed = match kind {
                    "half" => {
                        weights.iter_mut().zip(&halves).for_each(|(w, half)| *w = f32::from_bits(u32::from(*half) << 16));
                        if tiles::pay(inputs) {
                            read.iter_mut().for_each(|x| *x = f32::from_bits(u32::from(tiles::nearest(*x)) << 16));
                        }
                        Packed::from_half(&halves, inputs)
                    }
                    "whole" => {
                        let quantized = bytes(weights.len(), inputs);
                        weights.iter_mut().zip(&quantized.values).for_each(|(weight, value)| *weight = f32::from(*value) / 128.0);
                        Packed::from_quantized(&quantized)
                    }
                    _ => Packed::from_wide(&weights, inputs),
                };
                let width = outputs + 3;
                for (onto, before) in [(Onto::Nothing, 0.0), (Onto::Present, 2.0)] {
                    let mut output = vec![2.0; rows * width];
                    let hands = if onto == Onto::Nothing { Hands::Pool } else { Hands::Own };
                    let target = Target { values: &mut output, width, column: 2, onto };
                    packed.multiply(&Activations::new(&input, inputs, hands), target);
                    for (i, got) in output.iter().enumerate() {
                        let (row, column) = (i / width, i % width);
                        let expected = if (2..2 + outputs).contains(&column) {
                            let product = |k: usize| f64::from(read[row * inputs + k] * weights[(column - 2) * inputs + k]);
                            before + (0..inputs).map(product).sum::<f64>()
                        } else {
                            2.0
                        };
                        let error = (f64::from(*got) - expected).abs();
                        assert!(
                            error < 2e-4 * expected.abs().max(1.0),
                            "{kind}, row {row}, column {column} of {rows}x{inputs}x{outputs}: {got} for {expected}"
                        );
                    }
                }
                let mut row = vec![0.0; inputs];
                packed.row(outputs - 1, &mut row);
                assert_eq!(row, weights[(outputs - 1) * inputs..], "the last output's weights");
            }
        }
    }

    #[test]
    fn a_row_comes_to_the_same_bits_whatever_rows_are_beside_it() {
        let (rows, inputs, outputs) = (37, 352, 70);
        let weights: Vec<f32> = (0..inputs * outputs).map(number).collect();
        let input: Vec<f32> = (0..rows * inputs).map(|i| number(i + 5)).collect();
        let whole = Packed::from_quantized(&bytes(weights.len(), inputs));
        for packed in [Packed::from_wide(&weights, inputs), Packed::from_rounded(&weights, inputs), whole] {
            let product = |input: &[f32]| {
                let mut values = vec![0.0; input.len() / inputs * outputs];
                let target = Target { values: &mut values, width: outputs, column: 0, onto: Onto::Nothing };
                packed.multiply(&Activations::new(input, inputs, Hands::Pool), target);
                values
            };
            let together = product(&input);
            for (row, input) in input.chunks_exact(inputs).enumerate() {
                let alone: Vec<u32> = product(input).into_iter().map(f32::to_bits).collect();
                let beside: Vec<u32> = together[row * outputs..][..outputs].iter().map(|value| value.to_bits()).collect();
                assert_eq!(alone, beside, "row {row}");
            }
        }
    }
}
