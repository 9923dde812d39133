//! Rounded inputs, laid out for the units that multiply them: tiles of 16 rows × 32 inputs.

use std::ops::Range;

use super::cache_line::{Bf16Line, LINE_PAIRS};
use super::matrix_unit::{BLOCK_ROWS, TileBlock, rounded};
use super::panel::{PANEL, SharedMatrix};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Inputs that one step takes; panels are padded to whole steps with zeros.
pub const STEP: usize = 32;

/// One step of a row is a line: the units multiply the two values of a pair together.
const _: () = assert!(STEP == 2 * LINE_PAIRS && PANEL == 2 * LINE_PAIRS);

/// Rounded inputs as tiles, in one of two orders.
///
/// | order | tiles of one step | rows of a tile begin |
/// |---|---|---|
/// | [`Tiles::reserve`] | all steps of sixteen rows, then of the next sixteen | at multiples of sixteen |
/// | [`Tiles::reserve_strips`] | all rows of one step, then of the next | anywhere |
#[derive(Default)]
pub struct Tiles {
    lines: Vec<Bf16Line>,
    /// From the tile of one step to that of the next.
    step: usize,
    /// From sixteen rows to the next sixteen.
    group: usize,
    steps: usize,
    rows: usize,
}

impl Tiles {
    /// Room for `rows` rows of `depth` inputs.
    pub(super) fn new(rows: usize, depth: usize) -> Self {
        let mut tiles = Self::default();
        tiles.reserve(rows, depth.div_ceil(STEP));
        tiles
    }

    /// Makes room for `rows` rows of `steps` whole steps. They hold anything until they are written.
    pub fn reserve(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        (self.step, self.group) = (TILE_ROWS, self.steps * TILE_ROWS);
        self.lines.resize(rows.div_ceil(TILE_ROWS) * self.group, Bf16Line::default());
    }

    /// Makes room for `rows` rows of `steps` whole steps, in strips. They hold anything until they are written.
    pub fn reserve_strips(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        // An odd number of tiles: the steps of a tile's rows would fall onto the same few places of the first cache else.
        (self.step, self.group) = ((rows.div_ceil(TILE_ROWS) | 1) * TILE_ROWS, TILE_ROWS);
        // A tile that begins at the last row of the last step reaches past it.
        self.lines.resize(self.steps * self.step + TILE_ROWS, Bf16Line::default());
    }

    /// Rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Steps that the inputs of a row take.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// The places of sixteen rows each, for [`round`].
    pub(super) fn groups(&mut self) -> std::slice::ChunksExactMut<'_, Bf16Line> {
        assert_eq!(self.step, TILE_ROWS, "strips have no groups");
        self.lines.chunks_exact_mut(self.group)
    }

    /// Rounds the row `inputs`, whole steps, to the place of row `row`.
    pub fn round(&mut self, row: usize, inputs: &[f32]) {
        assert_eq!(inputs.len(), self.steps * STEP, "inputs of a row");
        for (step, inputs) in inputs.as_chunks::<STEP>().0.iter().enumerate() {
            *self.place(row, step) = rounded(inputs);
        }
    }

    /// The rounded inputs of a row.
    #[cfg(test)]
    pub(super) fn row(&self, row: usize) -> Vec<f32> {
        let pairs = (0..self.steps).flat_map(|step| self.rows_from(row, step)[0].0);
        pairs.flat_map(|pair| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)]).collect()
    }

    /// The place of one step of a row.
    #[inline(always)]
    pub(super) fn place(&mut self, row: usize, step: usize) -> &mut Bf16Line {
        let at = self.at(row, step);
        &mut self.lines[at]
    }

    /// The places, for several threads that write each its own.
    pub(super) fn shared(&mut self) -> SharedTiles<'_> {
        let (step, group) = (self.step, self.group);
        SharedTiles { lines: SharedMatrix::new(&mut self.lines, 1), step, group }
    }

    /// One step of a row, from which on the next rows follow where the tiles are in strips.
    #[inline(always)]
    pub(super) fn rows_from(&self, row: usize, step: usize) -> &[Bf16Line] {
        &self.lines[self.at(row, step)..]
    }

    #[inline(always)]
    fn at(&self, row: usize, step: usize) -> usize {
        assert!(row < self.rows && step < self.steps, "step {step} of row {row}");
        row / TILE_ROWS * self.group + row % TILE_ROWS + step * self.step
    }

    /// Up to 32 rows, as far as the steps in `range` go, with the steps of a panel in `weights`, as many.
    ///
    /// # Panics
    /// Where rows or steps reach past what is there.
    #[inline(always)]
    pub(super) fn block<'a>(&'a self, rows: Range<usize>, range: Range<usize>, weights: &'a [Bf16Line]) -> TileBlock<'a> {
        let groups = rows.len().div_ceil(TILE_ROWS);
        assert!((1..=BLOCK_ROWS).contains(&rows.len()) && rows.end <= self.rows, "a block of the rows {rows:?}");
        assert!(rows.start.is_multiple_of(TILE_ROWS) || self.group == TILE_ROWS, "a tile begins at row {}", rows.start);
        assert!(!range.is_empty() && range.end <= self.steps, "steps {range:?} reach past the inputs of a row");
        let inputs = self.rows_from(rows.start, range.start);
        let reach = (groups - 1) * self.group + (range.len() - 1) * self.step + TILE_ROWS;
        assert!(reach <= inputs.len(), "rows reach past the tiles");
        assert_eq!(range.len() * STEP, weights.len(), "weights of the steps {range:?}");
        TileBlock { inputs, group: self.group, step: self.step, rows: rows.len(), weights, steps: range.len(), ahead: weights }
    }
}

/// The places of tiles.
pub(super) struct SharedTiles<'a> {
    lines: SharedMatrix<'a, Bf16Line>,
    step: usize,
    group: usize,
}

impl SharedTiles<'_> {
    /// The place of one step of a row.
    ///
    /// # Safety
    /// While the place lives, nothing else may touch it.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(super) unsafe fn place(&self, row: usize, step: usize) -> &mut Bf16Line {
        let at = row / TILE_ROWS * self.group + row % TILE_ROWS + step * self.step;
        // SAFETY: as the caller promises.
        unsafe { &mut self.lines.row(at, 0, 1)[0] }
    }
}

/// Writes up to sixteen rows of `depth` inputs to their tiles.
pub(super) fn round(rows: &[f32], depth: usize, group: &mut [Bf16Line]) {
    for (row, inputs) in rows.chunks_exact(depth).enumerate() {
        let mut places = group[row..].iter_mut().step_by(TILE_ROWS);
        let (whole, rest) = inputs.as_chunks::<STEP>();
        whole.iter().zip(&mut places).for_each(|(inputs, place)| *place = rounded(inputs));
        if let (false, Some(place)) = (rest.is_empty(), places.next()) {
            let mut inputs = [0.0; STEP];
            inputs[..rest.len()].copy_from_slice(rest);
            *place = rounded(&inputs);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix_unit::nearest;

    #[test]
    fn inputs_are_rounded_to_the_nearest_of_their_tile() {
        let rows: Vec<f32> = (0..3 * 40).map(|i| (i * 7919 % 1009) as f32 / 97.0 - 5.0).collect();
        let mut tiles = Tiles::new(3, 40);
        round(&rows, 40, tiles.groups().next().unwrap());
        for (row, inputs) in rows.chunks(40).enumerate() {
            let rounded = tiles.row(row);
            for (input, (x, rounded)) in inputs.iter().zip(&rounded).enumerate() {
                assert!((rounded - x).abs() <= x.abs() / 256.0, "input {input} of row {row}: {rounded} for {x}");
            }
            assert!(rounded[40..].iter().all(|rest| *rest == 0.0), "what a step lacks is zero");
        }
        assert_eq!([1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(nearest), [0x3f80, 0x3f80, 0x3f82], "ties go to even");
    }
}
