//! Rows of inputs rounded to bf16, in the layout that the matrix unit reads: tiles of 16 rows × 32 inputs.

use std::ops::Range;

use super::bf16::rounded;
use super::cache_line::{Bf16Line, LINE_PAIRS};
use super::panel::{PANEL, SharedMatrix};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Rows of a block: those that one pass over a panel serves.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// Inputs of one step. Panels are padded to whole steps with zeros.
pub const STEP: usize = 32;

/// One step of a row is a cache line. The matrix unit multiplies the two values of a pair at once.
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
    /// Tiles for `rows` rows of `depth` inputs.
    pub(super) fn new(rows: usize, depth: usize) -> Self {
        let mut tiles = Self::default();
        tiles.reserve(rows, depth.div_ceil(STEP));
        tiles
    }

    /// Makes room for `rows` rows of `steps` steps. What they hold until they are written is not defined.
    pub fn reserve(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        (self.step, self.group) = (TILE_ROWS, self.steps * TILE_ROWS);
        self.lines.resize(rows.div_ceil(TILE_ROWS) * self.group, Bf16Line::default());
    }

    /// As [`Tiles::reserve`], in strips.
    pub fn reserve_strips(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        // An odd number of tiles, because otherwise the steps of a tile's rows would compete for the same few places of the first cache.
        (self.step, self.group) = ((rows.div_ceil(TILE_ROWS) | 1) * TILE_ROWS, TILE_ROWS);
        // A tile that begins at the last row of the last step reaches past it.
        self.lines.resize(self.steps * self.step + TILE_ROWS, Bf16Line::default());
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Steps that the inputs of a row take.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// The memory of sixteen rows each, for [`round`].
    pub(super) fn groups(&mut self) -> std::slice::ChunksExactMut<'_, Bf16Line> {
        assert_eq!(self.step, TILE_ROWS, "strips have no groups");
        self.lines.chunks_exact_mut(self.group)
    }

    /// Rounds `inputs`, which are whole steps, to row `row`.
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

    /// The memory of one step of a row.
    #[inline(always)]
    pub(super) fn place(&mut self, row: usize, step: usize) -> &mut Bf16Line {
        let at = self.at(row, step);
        &mut self.lines[at]
    }

    /// The tiles for several threads, each of which writes its own part.
    pub(super) fn shared(&mut self) -> SharedTiles<'_> {
        let (step, group) = (self.step, self.group);
        SharedTiles { lines: SharedMatrix::new(&mut self.lines, 1), step, group }
    }

    /// The lines from one step of a row on. In strips, the same step of the next rows follows.
    #[inline(always)]
    pub(super) fn rows_from(&self, row: usize, step: usize) -> &[Bf16Line] {
        &self.lines[self.at(row, step)..]
    }

    #[inline(always)]
    fn at(&self, row: usize, step: usize) -> usize {
        assert!(row < self.rows && step < self.steps, "step {step} of row {row}");
        row / TILE_ROWS * self.group + row % TILE_ROWS + step * self.step
    }

    /// The steps `range` of up to 32 rows, together with as many steps of a panel in `weights`.
    ///
    /// # Panics
    /// If rows or steps reach past the tiles.
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

/// Up to 32 rows and one panel, which are multiplied together. [`Tiles::block`] has checked that both hold all `rows` and `steps`.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86 has such units so far"))]
pub(super) struct TileBlock<'a> {
    /// The first tile of the first sixteen rows.
    pub(super) inputs: &'a [Bf16Line],
    /// From there to the tile of the next sixteen rows.
    pub(super) group: usize,
    /// From there to the tile of the next step.
    pub(super) step: usize,
    pub(super) rows: usize,
    pub(super) weights: &'a [Bf16Line],
    pub(super) steps: usize,
    /// What is read next: a few lines of it are prefetched with each step.
    pub(super) ahead: &'a [Bf16Line],
}

/// Tiles that several threads write.
pub(super) struct SharedTiles<'a> {
    lines: SharedMatrix<'a, Bf16Line>,
    step: usize,
    group: usize,
}

impl SharedTiles<'_> {
    /// The memory of one step of a row.
    ///
    /// # Safety
    /// While the reference lives, nothing else may read or write this memory.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(super) unsafe fn place(&self, row: usize, step: usize) -> &mut Bf16Line {
        let at = row / TILE_ROWS * self.group + row % TILE_ROWS + step * self.step;
        // SAFETY: the caller promises that nothing else uses this step of this row.
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
    use crate::bf16::nearest;

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
