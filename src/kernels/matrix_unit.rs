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

#[cfg(not(target_arch = "x86_64"))]
mod unsupported;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(not(target_arch = "x86_64"))]
use unsupported::available;
#[cfg(target_arch = "x86_64")]
use x86::available;

#[cfg(not(target_arch = "x86_64"))]
pub(super) use unsupported::{MatrixUnit, rounded};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{MatrixUnit, rounded};

use super::cache_line::{Bf16Line, CacheAligned, LINE_PAIRS};
use super::panel::PANEL;
use super::tiles::{STEP, TILE_ROWS};

/// Rows that one pass over a panel serves.
pub(super) const BLOCK_ROWS: usize = 2 * TILE_ROWS;

/// The inputs from which on rounded inputs pay. Models with fewer are fast as they are, and lose most by rounding: errors of many inputs even out.
pub(super) const LEAST_INPUTS: usize = 320;

/// Whether rows of so many inputs are multiplied in bf16.
pub(super) fn pay(inputs: usize) -> bool {
    inputs >= LEAST_INPUTS && available()
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

/// One step of a panel: two lines for each pair of inputs.
pub(super) type PanelStep = [[Bf16Line; 2]; LINE_PAIRS];

/// What a layer makes of its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationFunction {
    /// The sums as they are.
    Identity,
    /// GELU with `erf`.
    Gelu,
}

/// Up to 32 rows and one panel. Whoever makes one has checked that both hold all that `rows` and `steps` name.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86 has such units so far"))]
pub(super) struct TileBlock<'a> {
    /// The first tile of the first sixteen rows.
    pub(super) inputs: &'a [Bf16Line],
    /// From there to the tile of the next sixteen.
    pub(super) group: usize,
    /// From there to the tile of the next step.
    pub(super) step: usize,
    pub(super) rows: usize,
    pub(super) weights: &'a [Bf16Line],
    pub(super) steps: usize,
    /// What is read soon from afar: [`AHEAD`] lines of it are sent for with each step.
    pub(super) ahead: &'a [Bf16Line],
}

/// Lines that are sent for while a step is multiplied. Eight blocks of rows, as many as encoders take at once, send for the whole of the next
/// panel: its weights wait in the second cache when the first block asks for them.
pub(super) const AHEAD: usize = 4;

/// One step of inputs, each rounded on its own.
pub(super) fn rounded_each(inputs: &[f32; STEP]) -> Bf16Line {
    CacheAligned(std::array::from_fn(|pair| {
        u32::from(nearest(inputs[2 * pair])) | u32::from(nearest(inputs[2 * pair + 1])) << 16
    }))
}

/// The upper half of the nearest number with eight significant bits, ties to even.
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}
