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
//! inputs     16 rows × 32 inputs
//! weights    a panel as it is: 16 pairs of inputs × 16 outputs, twice
//! sums       up to 32 rows × 32 outputs in four tiles
//! ```

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod vectors;

use std::ops::Range;

use multiversion::multiversion;

use super::panel::PANEL;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 16;

/// Inputs that one step takes; panels are padded to whole steps with zeros.
pub(super) const STEP: usize = 32;

/// Rows that one pass over a panel serves.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// Steps that a block of rows is taken through at once: with more, the block would not stay in the second cache.
const STEPS_AT_ONCE: usize = 64;

/// Pairs of inputs, the values of which the units multiply together, that one step takes of a row.
const PAIRS: usize = STEP / 2;

/// Pairs of the tile of one step.
const STEP_PAIRS: usize = TILE_ROWS * PAIRS;

/// Inputs as tiles: sixteen rows after sixteen rows, step after step.
pub(super) struct Tiles {
    pairs: Vec<u32>,
    /// Pairs of sixteen rows.
    group: usize,
}

impl Tiles {
    /// Room for `rows` rows of `depth` inputs.
    pub(super) fn new(rows: usize, depth: usize) -> Self {
        let group = depth.div_ceil(STEP) * STEP_PAIRS;
        Self { pairs: vec![0; rows.div_ceil(TILE_ROWS) * group], group }
    }

    /// The inputs of a row in ranges of steps that rows are taken through at once.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let steps = self.group / STEP_PAIRS;
        // As even as may be: a short last range would spend its time on moving sums.
        let size = steps.div_ceil(steps.div_ceil(STEPS_AT_ONCE).max(1)).max(1);
        (0..steps).step_by(size).map(move |first| first..steps.min(first + size))
    }

    /// The places of sixteen rows each, for [`round`].
    pub(super) fn groups(&mut self) -> std::slice::ChunksExactMut<'_, u32> {
        self.pairs.chunks_exact_mut(self.group)
    }
}

/// Writes up to sixteen rows of `depth` inputs to their tiles.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma"))]
pub(super) fn round(rows: &[f32], depth: usize, group: &mut [u32]) {
    for (row, inputs) in rows.chunks_exact(depth).enumerate() {
        for (inputs, tile) in inputs.chunks(STEP).zip(group.chunks_exact_mut(STEP_PAIRS)) {
            let places = &mut tile[row * PAIRS..][..PAIRS];
            let pairs = inputs.as_chunks();
            pairs.0.iter().zip(&mut *places).for_each(|(pair, place)| *place = together(*pair));
            if let [last] = pairs.1 {
                places[inputs.len() / 2] = together([*last, 0.0]);
            }
        }
    }
}

/// Two rounded inputs, the first in the lower half.
#[inline(always)]
fn together([first, second]: [f32; 2]) -> u32 {
    u32::from(nearest(first)) | u32::from(nearest(second)) << 16
}

/// The upper half of the nearest number with eight significant bits, ties to even.
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Sums of up to 32 rows with one panel.
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
    return amx::available() || vectors::available();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Writes to `sums` the products of `rows` with the panel `weights`, as far as the steps in `range` go.
///
/// # Panics
/// Where the processor can't, and where rows or steps reach past what is there.
pub(super) fn multiply_tiles(inputs: &Tiles, rows: Range<usize>, range: &Range<usize>, weights: &[u16], sums: &mut Sums) {
    let groups = rows.len().div_ceil(TILE_ROWS);
    let (group, steps) = (rows.start / TILE_ROWS, range.len());
    assert!(rows.start.is_multiple_of(TILE_ROWS) && (1..=BLOCK_ROWS).contains(&rows.len()), "a block of the rows {rows:?}");
    assert!(steps > 0 && range.end * STEP_PAIRS <= inputs.group, "steps {range:?} reach past the inputs of a row");
    assert!((group + groups) * inputs.group <= inputs.pairs.len(), "rows reach past the tiles");
    assert!(range.end * STEP * PANEL <= weights.len(), "steps {range:?} reach past the panel");
    let block = Block {
        inputs: &inputs.pairs[group * inputs.group + range.start * STEP_PAIRS..],
        group: inputs.group,
        rows: rows.len(),
        weights: &weights[range.start * STEP * PANEL..],
        steps,
    };
    #[cfg(target_arch = "x86_64")]
    if amx::available() {
        return amx::multiply(block, sums);
    } else if vectors::available() {
        return vectors::multiply(block, sums);
    }
    let (_, _) = (block, sums);
    unreachable!("products of bf16 on a processor without them")
}

/// Up to 32 rows and one panel. Whoever makes one has checked that both hold all that `rows` and `steps` name.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86 has such units so far"))]
struct Block<'a> {
    /// The first tile of the first sixteen rows.
    inputs: &'a [u32],
    /// From there to the tile of the next sixteen.
    group: usize,
    rows: usize,
    weights: &'a [u16],
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
        for (i, x) in rows.iter().enumerate() {
            let (row, input) = (i / 40, i % 40);
            let place = input / STEP * STEP_PAIRS + row * PAIRS + input % STEP / 2;
            let rounded = tiles.pairs[place] >> (input % 2 * 16) << 16;
            let error = (f32::from_bits(rounded) - x).abs();
            assert!(error <= x.abs() / 256.0, "input {input} of row {row}: {x} is off by {error:e}");
        }
        assert_eq!([1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0].map(nearest), [0x3f80, 0x3f80, 0x3f82], "ties go to even");
    }
}
