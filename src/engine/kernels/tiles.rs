//! Products of bf16 weights by the units that newer x86 servers have for them.
//!
//! | unit | work of an instruction, beside one of f32 vectors |
//! |---|---|
//! | tile registers (AMX) | sixteen times |
//! | vector registers (AVX512-BF16) | twice |
//!
//! They multiply bf16 by bf16 and add up in f32. Inputs are f32 and rounded to bf16 on the way, as everyone does who runs such a
//! checkpoint in its own type: a relative error of 2⁻⁸ at most. The weights are what the checkpoint holds. A row's sums are the same bits
//! whatever rows are multiplied beside it.
//!
//! ```text
//! inputs     16 rows × 32 inputs, a tile
//! weights    a panel as it is: 16 pairs of inputs × 16 outputs, twice
//! sums       up to 32 rows × 32 outputs
//! ```

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod finish;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::marker::PhantomData;
use std::ops::Range;

use super::line::{Aligned, Line, PAIRS};
use super::panel::{PANEL, Shared};

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Inputs that one step takes; panels are padded to whole steps with zeros.
pub(in crate::engine) const STEP: usize = 32;

/// Rows that one pass over a panel serves.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// One step of a row is a line: the units multiply the two values of a pair together.
const _: () = assert!(STEP == 2 * PAIRS && PANEL == 2 * PAIRS);

/// Rounded inputs as tiles, in one of two orders.
///
/// | order | tiles of one step | rows of a tile begin |
/// |---|---|---|
/// | [`Tiles::reserve`] | all steps of sixteen rows, then of the next sixteen | at multiples of sixteen |
/// | [`Tiles::reserve_strips`] | all rows of one step, then of the next | anywhere |
#[derive(Default)]
pub(in crate::engine) struct Tiles {
    lines: Vec<Line>,
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
    pub(in crate::engine) fn reserve(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        (self.step, self.group) = (TILE_ROWS, self.steps * TILE_ROWS);
        self.lines.resize(rows.div_ceil(TILE_ROWS) * self.group, Line::default());
    }

    /// Makes room for `rows` rows of `steps` whole steps, in strips. They hold anything until they are written.
    pub(in crate::engine) fn reserve_strips(&mut self, rows: usize, steps: usize) {
        (self.steps, self.rows) = (steps, rows);
        // An odd number of tiles: the steps of a tile's rows would fall onto the same few places of the first cache else.
        (self.step, self.group) = ((rows.div_ceil(TILE_ROWS) | 1) * TILE_ROWS, TILE_ROWS);
        // A tile that begins at the last row of the last step reaches past it.
        self.lines.resize(self.steps * self.step + TILE_ROWS, Line::default());
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
    pub(super) fn groups(&mut self) -> std::slice::ChunksExactMut<'_, Line> {
        assert_eq!(self.step, TILE_ROWS, "strips have no groups");
        self.lines.chunks_exact_mut(self.group)
    }

    /// Rounds the row `inputs`, whole steps, to the place of row `row`.
    pub(in crate::engine) fn round(&mut self, row: usize, inputs: &[f32]) {
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
    pub(super) fn place(&mut self, row: usize, step: usize) -> &mut Line {
        let at = self.at(row, step);
        &mut self.lines[at]
    }

    /// The places, for several threads that write each its own.
    pub(super) fn shared(&mut self) -> SharedTiles<'_> {
        let (step, group) = (self.step, self.group);
        SharedTiles { lines: Shared::new(&mut self.lines, 1), step, group }
    }

    /// One step of a row, from which on the next rows follow where the tiles are in strips.
    #[inline(always)]
    pub(super) fn rows_from(&self, row: usize, step: usize) -> &[Line] {
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
    pub(super) fn block<'a>(&'a self, rows: Range<usize>, range: Range<usize>, weights: &'a [Line]) -> Block<'a> {
        let groups = rows.len().div_ceil(TILE_ROWS);
        assert!((1..=BLOCK_ROWS).contains(&rows.len()) && rows.end <= self.rows, "a block of the rows {rows:?}");
        assert!(rows.start.is_multiple_of(TILE_ROWS) || self.group == TILE_ROWS, "a tile begins at row {}", rows.start);
        assert!(!range.is_empty() && range.end <= self.steps, "steps {range:?} reach past the inputs of a row");
        let inputs = self.rows_from(rows.start, range.start);
        let reach = (groups - 1) * self.group + (range.len() - 1) * self.step + TILE_ROWS;
        assert!(reach <= inputs.len(), "rows reach past the tiles");
        assert_eq!(range.len() * STEP, weights.len(), "weights of the steps {range:?}");
        Block { inputs, group: self.group, step: self.step, rows: rows.len(), weights, steps: range.len() }
    }
}

/// The places of tiles.
pub(super) struct SharedTiles<'a> {
    lines: Shared<'a, Line>,
    step: usize,
    group: usize,
}

impl SharedTiles<'_> {
    /// The place of one step of a row.
    ///
    /// # Safety
    /// While the place lives, nothing else may touch it.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(super) unsafe fn place(&self, row: usize, step: usize) -> &mut Line {
        let at = row / TILE_ROWS * self.group + row % TILE_ROWS + step * self.step;
        // SAFETY: as the caller promises.
        unsafe { &mut self.lines.row(at, 0, 1)[0] }
    }
}

/// Writes up to sixteen rows of `depth` inputs to their tiles.
pub(super) fn round(rows: &[f32], depth: usize, group: &mut [Line]) {
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

/// One step of rounded inputs.
#[inline]
fn rounded(inputs: &[f32; STEP]) -> Line {
    #[cfg(target_arch = "x86_64")]
    if finish::available() {
        // SAFETY: the processor has the instructions.
        #[allow(unsafe_code)]
        return unsafe { finish::rounded(inputs) };
    }
    Aligned(std::array::from_fn(|pair| u32::from(nearest(inputs[2 * pair])) | u32::from(nearest(inputs[2 * pair + 1])) << 16))
}

/// The upper half of the nearest number with eight significant bits, ties to even.
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Sums of up to 32 rows with one panel.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Sums(pub(super) [[f32; PANEL]; BLOCK_ROWS]);

impl Default for Sums {
    fn default() -> Self {
        Self([[0.0; PANEL]; BLOCK_ROWS])
    }
}

/// The inputs from which on rounded inputs pay. Models with fewer are fast as they are, and lose most by rounding: errors of many inputs even out.
pub(super) const LEAST_INPUTS: usize = 320;

/// Whether rows of so many inputs are multiplied in bf16.
pub(super) fn pay(inputs: usize) -> bool {
    inputs >= LEAST_INPUTS && available()
}

/// Whether this processor multiplies bf16 by itself.
fn available() -> bool {
    #[cfg(target_arch = "x86_64")]
    return finish::available() && (amx::available() || vectors::available());
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The widest unit of this processor, made ready for the calling thread until it goes. A thread has one at a time.
pub(super) struct Unit {
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Ready>,
    /// What is made ready is a thread's own.
    _thread: PhantomData<*const ()>,
}

impl Unit {
    /// Makes the unit ready.
    ///
    /// # Panics
    /// Where the processor has none.
    pub(super) fn take() -> Self {
        assert!(available(), "products of bf16 on a processor without them");
        Self {
            #[cfg(target_arch = "x86_64")]
            tiles: amx::available().then(amx::Ready::new),
            _thread: PhantomData,
        }
    }

    /// Writes the sums of the block's rows to `sums`; rows past those of the block are left as they come.
    #[inline]
    pub(super) fn multiply(&self, block: Block<'_>, sums: &mut Sums) {
        #[cfg(target_arch = "x86_64")]
        match &self.tiles {
            Some(ready) => ready.multiply(block, sums),
            None => vectors::multiply(block, sums),
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _) = (block, sums);
    }

    /// Rounds `function(sums + bias)` of `rows` to one step of `output`: the outputs of a panel are the inputs of a step.
    #[inline]
    pub(super) fn finish(
        &self,
        sums: &Sums,
        rows: Range<usize>,
        (bias, function): (&[f32; PANEL], Function),
        output: (&mut Tiles, usize),
    ) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a unit is only made where the processor has the instructions.
        #[allow(unsafe_code)]
        unsafe {
            finish::finish(sums, rows, bias, function, output);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _, _, _, _) = (sums, rows, bias, function, output);
    }

    /// Rounds `silu(gate) · value` of as many rows, with the sums of gates and of values.
    #[inline]
    pub(super) fn gate(&self, sums: &[Sums; 2], rows: usize, lines: &mut [Line; BLOCK_ROWS]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `finish`.
        #[allow(unsafe_code)]
        unsafe {
            finish::gate(sums, rows, lines);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _, _) = (sums, rows, lines);
    }

    /// Rounds `sums`, each row times its factor, to one step of `output`.
    #[inline]
    pub(super) fn scale(&self, sums: &Sums, rows: Range<usize>, factors: &[f32], output: (&mut Tiles, usize)) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `finish`.
        #[allow(unsafe_code)]
        unsafe {
            finish::scale(sums, rows, factors, output);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _, _, _) = (sums, rows, factors, output);
    }

    /// Rounds `2^(factor * (score - highest))` of the scores of each row to its row of `weights`, and gives back their sums before rounding.
    #[inline]
    pub(super) fn weigh(&self, scores: &[Sums], rows: usize, factor: f32, weights: &mut Tiles) -> [f32; BLOCK_ROWS] {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `finish`.
        #[allow(unsafe_code)]
        return unsafe { finish::weigh(scores, rows, factor, weights) };
        #[cfg(not(target_arch = "x86_64"))]
        {
            let (_, _, _, _) = (scores, rows, factor, weights);
            [1.0; BLOCK_ROWS]
        }
    }

    /// Up to 32 rows as the outputs of a panel, as if it were multiplied by their transpose. Outputs that no row stands for are zero.
    #[inline]
    pub(super) fn across(&self, rows: &[Line], panel: &mut PanelStep) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `finish`.
        #[allow(unsafe_code)]
        unsafe {
            finish::across(rows, panel);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _) = (rows, panel);
    }

    /// Up to 32 rows as the inputs of a panel. Inputs that no row stands for are zero.
    #[inline]
    pub(super) fn pairwise(&self, rows: &[Line], panel: &mut PanelStep) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as in `finish`.
        #[allow(unsafe_code)]
        unsafe {
            finish::pairwise(rows, panel);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let (_, _) = (rows, panel);
    }
}

/// One step of a panel: two lines for each pair of inputs.
pub(super) type PanelStep = [[Line; 2]; PAIRS];

/// What a layer makes of its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Function {
    /// The sums as they are.
    Identity,
    /// GELU with `erf`.
    Gelu,
}

/// Up to 32 rows and one panel. Whoever makes one has checked that both hold all that `rows` and `steps` name.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86 has such units so far"))]
pub(super) struct Block<'a> {
    /// The first tile of the first sixteen rows.
    inputs: &'a [Line],
    /// From there to the tile of the next sixteen.
    group: usize,
    /// From there to the tile of the next step.
    step: usize,
    rows: usize,
    weights: &'a [Line],
    steps: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

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
