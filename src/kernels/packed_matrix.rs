//! Weight matrices in panels of 32 outputs, and their products with any number of rows. The threads of the current pool share a product.

mod grid;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::OnceLock;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use super::bf16;
use super::cache_line::{Bf16Line, LINE_PAIRS};
use super::huge_pages::HugePageBuffer;
use super::integers::{self, Quantized, QuantizedPanels, QuantizedRows, ROWS};
use super::matrix_unit::{self, ActivationFunction, BF16_MIN_INPUTS, MatrixUnit, PREFETCH_LINES, Sums};
use super::panel::{PANEL, Panel, PanelInput, SharedMatrix, multiply_panel};
use super::tiles::{self, BLOCK_ROWS, STEP, TILE_ROWS, TileBlock, Tiles};
use grid::TaskGrid;

/// Inputs of a task, which it reads again for each panel: as many as the second cache holds beside the panel.
const CACHED_INPUTS: usize = 128 << 10;

/// Rows of a task on the matrix unit: 64 steps of them take half a mebibyte, which a second cache holds beside the panel.
const TILED_ROWS: usize = 128;

/// Steps that a block of rows is multiplied with at once. With more, the block would not stay in the second cache.
const STEPS_AT_ONCE: usize = 64;

/// The weights of a linear layer.
pub struct PackedMatrix {
    inputs: usize,
    outputs: usize,
    weights: PackedWeights,
}

enum PackedWeights {
    F32(HugePageBuffer<f32>),
    Bf16(HugePageBuffer<Bf16Line>),
    Quantized(QuantizedPanels),
}

/// What a product does with the values that its target already holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    Overwrite,
    /// It adds to them.
    Add,
}

/// Rows that a product is written to.
pub struct Target<'a> {
    /// The rows, side by side.
    pub values: &'a mut [f32],
    /// Values of a row, of which the product writes some.
    pub width: usize,
    /// The column of the first output.
    pub column: usize,
    pub accumulate: Accumulate,
}

/// Which threads compute a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// The threads of the current pool together.
    Pool,
    /// The calling thread alone. It never waits for another thread, and does no other task of the pool meanwhile.
    CallingThread,
}

/// Rows that several matrices are multiplied with.
pub struct Activations<'a> {
    /// Empty if there are only rounded rows.
    values: &'a [f32],
    rows: usize,
    inputs: usize,
    parallelism: Parallelism,
    tiles: OnceLock<Tiles>,
    levels: OnceLock<QuantizedRows>,
}

impl<'a> Activations<'a> {
    /// Rows of `inputs` values.
    pub fn new(values: &'a [f32], inputs: usize, parallelism: Parallelism) -> Self {
        assert!(values.len().is_multiple_of(inputs), "whole rows of {inputs} inputs");
        Self { values, rows: values.len() / inputs, inputs, parallelism, tiles: OnceLock::new(), levels: OnceLock::new() }
    }

    fn rows(&self) -> usize {
        self.rows
    }

    /// The rows as tiles, made for the first matrix that needs them.
    fn tiles(&self) -> &Tiles {
        self.tiles.get_or_init(|| {
            let mut tiles = Tiles::new(self.rows(), self.inputs);
            let groups = tiles.groups().zip(self.values.chunks(TILE_ROWS * self.inputs));
            self.each(groups, |(group, rows)| tiles::round(rows, self.inputs, group));
            tiles
        })
    }

    /// The rows in whole numbers, made for the first matrix that needs them.
    fn levels(&self) -> &QuantizedRows {
        self.levels.get_or_init(|| {
            let mut levels = QuantizedRows::new(self.rows(), self.inputs);
            let blocks = levels.blocks().zip(self.values.chunks(ROWS * self.inputs));
            self.each(blocks, |(block, rows)| integers::round(rows, self.inputs, block));
            levels
        })
    }

    /// Rounds parts of the rows, in parallel if there are many.
    fn each<T: Send>(&self, parts: impl Iterator<Item = T>, round: impl Fn(T) + Send + Sync) {
        if self.parallelism == Parallelism::CallingThread || self.rows() <= BLOCK_ROWS {
            parts.for_each(round);
        } else {
            parts.collect::<Vec<_>>().into_par_iter().for_each(round);
        }
    }
}

impl PackedMatrix {
    /// Takes weights in f32, a row of `inputs` for each output, as model files store them.
    pub fn from_f32(rows: &[f32], inputs: usize) -> Self {
        Self { inputs, outputs: rows.len() / inputs, weights: PackedWeights::F32(panels(rows, inputs)) }
    }

    /// Takes quantized weights. They stay quantized if rows are long enough for rounded inputs.
    pub fn from_quantized(rows: &Quantized) -> Self {
        let (inputs, outputs) = (rows.inputs, rows.values.len() / rows.inputs);
        if inputs < BF16_MIN_INPUTS {
            return Self::from_f32(&rows.to_f32(), inputs);
        }
        Self { inputs, outputs, weights: PackedWeights::Quantized(QuantizedPanels::new(rows)) }
    }

    /// Takes weights in bf16, the upper halves of f32, a row of `inputs` for each output.
    pub fn from_bf16(rows: &[u16], inputs: usize) -> Self {
        let outputs = rows.len() / inputs;
        let size = panel_lines(inputs);
        let mut weights = HugePageBuffer::new(Bf16Line::default(), outputs.div_ceil(PANEL) * size);
        weights.par_chunks_mut(size).zip(rows.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    let (line, pair) = half_place(input, output);
                    panel[line].0[pair] |= u32::from(*value) << (input % 2 * 16);
                }
            }
        });
        Self { inputs, outputs, weights: PackedWeights::Bf16(weights) }
    }

    /// Takes weights in f32 and rounds them to bf16.
    pub fn from_f32_rounded(rows: &[f32], inputs: usize) -> Self {
        let halves: Vec<u16> = rows.iter().map(|weight| bf16::nearest(*weight)).collect();
        Self::from_bf16(&halves, inputs)
    }

    /// Inputs of a row.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs of a row.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        match &self.weights {
            PackedWeights::F32(weights) => size_of_val(&**weights),
            PackedWeights::Bf16(weights) => size_of_val(&**weights),
            PackedWeights::Quantized(panels) => panels.bytes(),
        }
    }

    /// Copies the weights of one output, as an embedding table is read.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {} outputs", self.outputs);
        let (panel, within) = (output / PANEL, output % PANEL);
        match &self.weights {
            PackedWeights::F32(weights) => {
                let panel = &weights[panel * PANEL * self.inputs..];
                row.iter_mut().zip(panel[within..].iter().step_by(PANEL)).for_each(|(place, value)| *place = *value);
            }
            PackedWeights::Bf16(weights) => {
                let panel = &weights[panel * panel_lines(self.inputs)..];
                for (input, place) in row.iter_mut().enumerate() {
                    let (line, pair) = half_place(input, within);
                    *place = f32::from_bits(panel[line].0[pair] >> (input % 2 * 16) << 16);
                }
            }
            PackedWeights::Quantized(panels) => panels.row(panel, within, row),
        }
    }

    /// Whether the matrix can be multiplied with rounded rows and round its results: it is of bf16, and its rows and outputs are whole steps.
    pub fn takes_bf16_rows(&self) -> bool {
        let whole = self.inputs.is_multiple_of(STEP) && self.outputs.is_multiple_of(PANEL);
        whole && matches!(self.weights, PackedWeights::Bf16(_)) && matrix_unit::uses_bf16(self.inputs)
    }

    /// Rounded `silu(x · Gᵀ) · (x · Vᵀ)` of every row `x` of `input`. This matrix is G, and both must take rounded rows.
    pub fn gate(&self, values: &PackedMatrix, input: &Activations<'_>) -> Activations<'static> {
        assert!(self.takes_bf16_rows() && values.takes_bf16_rows() && self.outputs == values.outputs, "gates of other values");
        let (tiles, grid) = (input.tiles(), TaskGrid::new(input, TILED_ROWS, self.outputs));
        let mut gated = Tiles::new(input.rows(), self.outputs);
        let output = gated.shared();
        grid.run(|rows, panels| {
            let (unit, mut sums, mut lines) =
                (MatrixUnit::take(), [Sums::default(), Sums::default()], [Bf16Line::default(); BLOCK_ROWS]);
            for panel in panels {
                for first in rows.clone().step_by(BLOCK_ROWS) {
                    let block = first..rows.end.min(first + BLOCK_ROWS);
                    for (matrix, sums) in [self, values].into_iter().zip(&mut sums) {
                        let weights = matrix.panel(panel, 0..tiles.steps());
                        unit.multiply(tiles.block(block.clone(), 0..tiles.steps(), weights), sums);
                    }
                    unit.gate(&sums, block.len(), &mut lines);
                    for (row, line) in block.zip(&lines) {
                        // SAFETY: no other task has both this row and this panel, and the reference ends with this statement.
                        #[allow(unsafe_code)]
                        unsafe {
                            *output.place(row, panel) = *line;
                        }
                    }
                }
            }
        });
        let (rows, inputs, parallelism) = (input.rows(), self.outputs, input.parallelism);
        Activations { values: &[], rows, inputs, parallelism, tiles: OnceLock::from(gated), levels: OnceLock::new() }
    }

    /// The weights of a panel for the inputs of `steps`.
    fn panel(&self, index: usize, steps: Range<usize>) -> &[Bf16Line] {
        let PackedWeights::Bf16(weights) = &self.weights else { panic!("weights that are not of bf16 have no tiles") };
        &weights[index * panel_lines(self.inputs)..][steps.start * STEP..steps.end * STEP]
    }

    /// Writes the products of every row of `input` to the rows of `target`.
    pub fn multiply(&self, input: &Activations<'_>, target: Target<'_>) {
        assert_eq!(input.inputs, self.inputs, "inputs of a row");
        assert_eq!(target.values.len(), input.rows() * target.width, "rows of the target");
        assert!(
            input.values.len() == input.rows() * input.inputs || self.takes_bf16_rows(),
            "rounded rows are multiplied with weights that are not of bf16"
        );
        match &self.weights {
            PackedWeights::Bf16(_) if matrix_unit::uses_bf16(self.inputs) => self.multiply_in_tiles(input, target),
            PackedWeights::Bf16(weights) => {
                let size = panel_lines(self.inputs);
                self.multiply_in_vectors(|index| Panel::Bf16(&weights[index * size..][..size]), input, target);
            }
            PackedWeights::F32(weights) => {
                let size = PANEL * self.inputs;
                let panel = |index| Panel::F32 { values: &weights[index * size..][..size], step: PANEL };
                self.multiply_in_vectors(panel, input, target);
            }
            PackedWeights::Quantized(panels) => self.multiply_in_whole_numbers(panels, input, target),
        }
    }

    /// Rounds `function(x · Wᵀ + bias)` of every row `x` of `input` to the rows of `output`, on the calling thread.
    pub fn multiply_rounded(&self, input: &Tiles, bias: &[f32], function: ActivationFunction, output: &mut Tiles) {
        let (bias, []) = bias.as_chunks::<PANEL>() else { panic!("{} outputs are no whole panels", bias.len()) };
        let (unit, part) =
            (MatrixUnit::take(), TileRange { rows: 0..input.rows(), panels: 0..bias.len(), steps: 0..input.steps() });
        self.each_block(&unit, input, part, |rows, panel, sums| {
            unit.activate(sums, rows, &bias[panel], function, output, panel);
        });
    }

    /// Writes `x · Wᵀ` of every row `x` of `input` to the rows of `output`, on the calling thread.
    pub fn multiply_tiled(&self, input: &Tiles, output: &mut [f32]) {
        assert_eq!(output.len(), input.rows() * self.outputs, "rows of the output");
        let unit = MatrixUnit::take();
        for steps in step_ranges(input.steps()) {
            let accumulate = if steps.start == 0 { Accumulate::Overwrite } else { Accumulate::Add };
            let part = TileRange { rows: 0..input.rows(), panels: 0..self.outputs.div_ceil(PANEL), steps };
            self.each_block(&unit, input, part, |rows, panel, sums| {
                let places = output[rows.start * self.outputs..].chunks_exact_mut(self.outputs);
                for (place, sums) in places.zip(&sums.0[..rows.len()]) {
                    let place = &mut place[panel * PANEL..];
                    let count = place.len().min(PANEL);
                    put(&mut place[..count], sums, accumulate);
                }
            });
        }
    }

    fn multiply_in_vectors<'a>(&self, weights: impl Fn(usize) -> Panel<'a> + Sync, input: &Activations<'_>, target: Target<'_>) {
        let grid = TaskGrid::new(input, (CACHED_INPUTS / self.inputs).clamp(8, 128), self.outputs);
        let (accumulate, column) = (target.accumulate, target.column);
        let output = SharedMatrix::new(target.values, target.width);
        grid.run(|rows, panels| {
            let values = &input.values[rows.start * self.inputs..];
            let block = PanelInput { values, step: self.inputs, rows: rows.len(), depth: self.inputs };
            for panel in panels {
                let count = PANEL.min(self.outputs - panel * PANEL);
                multiply_panel(block, weights(panel), |row, sums| {
                    // SAFETY: no other task has both this row and this panel's columns, and the slice ends with this call.
                    #[allow(unsafe_code)]
                    let place = unsafe { output.row(rows.start + row, column + panel * PANEL, count) };
                    put(place, sums, accumulate);
                });
            }
        });
    }

    fn multiply_in_tiles(&self, input: &Activations<'_>, target: Target<'_>) {
        let (tiles, grid) = (input.tiles(), TaskGrid::new(input, TILED_ROWS, self.outputs));
        let (accumulate, column) = (target.accumulate, target.column);
        let output = SharedMatrix::new(target.values, target.width);
        grid.run(|rows, panels| {
            let unit = MatrixUnit::take();
            for steps in step_ranges(tiles.steps()) {
                let accumulate = if steps.start == 0 { accumulate } else { Accumulate::Add };
                let part = TileRange { rows: rows.clone(), panels: panels.clone(), steps };
                self.each_block(&unit, tiles, part, |rows, panel, sums| {
                    let (column, count) = (column + panel * PANEL, PANEL.min(self.outputs - panel * PANEL));
                    for (row, sums) in rows.zip(&sums.0) {
                        // SAFETY: as in `multiply_in_vectors`.
                        #[allow(unsafe_code)]
                        let place = unsafe { output.row(row, column, count) };
                        put(place, sums, accumulate);
                    }
                });
            }
        });
    }

    /// Calls `done` with the sums of each block of up to 32 rows and each panel.
    fn each_block(&self, unit: &MatrixUnit, tiles: &Tiles, part: TileRange, mut done: impl FnMut(Range<usize>, usize, &Sums)) {
        let (mut sums, panels) = (Sums::default(), part.panels.end);
        for panel in part.panels {
            let weights = self.panel(panel, part.steps.clone());
            let next = if panel + 1 < panels { self.panel(panel + 1, part.steps.clone()) } else { weights };
            let mut ahead = next.chunks(PREFETCH_LINES * part.steps.len());
            for first in part.rows.clone().step_by(BLOCK_ROWS) {
                let rows = first..part.rows.end.min(first + BLOCK_ROWS);
                let block = tiles.block(rows.clone(), part.steps.clone(), weights);
                unit.multiply(TileBlock { ahead: ahead.next().unwrap_or(weights), ..block }, &mut sums);
                done(rows, panel, &sums);
            }
        }
    }

    fn multiply_in_whole_numbers(&self, weights: &QuantizedPanels, input: &Activations<'_>, target: Target<'_>) {
        let (levels, grid) = (input.levels(), TaskGrid::new(input, TILED_ROWS, self.outputs));
        let (accumulate, column) = (target.accumulate, target.column);
        let output = SharedMatrix::new(target.values, target.width);
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
                        put(place, sums, accumulate);
                    }
                }
            }
        });
    }
}

/// Brings rows of weights, one for each output, into panels: the values of 32 outputs side by side, input after input.
fn panels(rows: &[f32], inputs: usize) -> HugePageBuffer<f32> {
    let outputs = rows.len() / inputs;
    let mut panels = HugePageBuffer::new(0.0, outputs.next_multiple_of(PANEL) * inputs);
    panels.par_chunks_mut(PANEL * inputs).zip(rows.par_chunks(PANEL * inputs)).for_each(|(panel, rows)| {
        for (output, row) in rows.chunks_exact(inputs).enumerate() {
            panel[output..].iter_mut().step_by(PANEL).zip(row).for_each(|(place, value)| *place = *value);
        }
    });
    panels
}

/// A part of a product on the matrix unit.
struct TileRange {
    rows: Range<usize>,
    panels: Range<usize>,
    steps: Range<usize>,
}

/// Cuts the steps of a row into ranges that are multiplied at once.
fn step_ranges(steps: usize) -> impl Iterator<Item = Range<usize>> {
    // Of about the same size: a short last range would spend its time on loading and storing sums.
    let size = steps.div_ceil(steps.div_ceil(STEPS_AT_ONCE).max(1)).max(1);
    (0..steps).step_by(size).map(move |first| first..steps.min(first + size))
}

#[inline(always)]
fn put(place: &mut [f32], sums: &[f32; PANEL], accumulate: Accumulate) {
    match accumulate {
        Accumulate::Overwrite => match place.as_mut_array() {
            Some(whole) => *whole = *sums,
            None => place.copy_from_slice(&sums[..place.len()]),
        },
        Accumulate::Add => place.iter_mut().zip(sums).for_each(|(value, sum)| *value += sum),
    }
}

/// Lines of a panel of halves: two a pair of inputs, up to whole steps.
fn panel_lines(inputs: usize) -> usize {
    inputs.next_multiple_of(STEP)
}

/// The line and the pair of it where a weight lies in a panel of halves.
fn half_place(input: usize, output: usize) -> (usize, usize) {
    (input / 2 * 2 + output / LINE_PAIRS, output % LINE_PAIRS)
}
