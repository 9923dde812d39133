//! Products in bf16 on the matrix unit: the instructions that newer x86 servers have for them.
//!
//! | instructions | work of one, compared with one of f32 vectors |
//! |---|---|
//! | tile registers (AMX) | sixteen times |
//! | vector registers (AVX512-BF16) | twice |
//!
//! They multiply bf16 by bf16 and add up in f32. Inputs in f32 are rounded to bf16 first, which is what running a bf16 model in its own
//! type means: a relative error of at most 2⁻⁸. The weights are exactly those of the model file. A row's sums are the same bits whatever
//! rows are multiplied beside it.
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
pub(super) use unsupported::MatrixUnit;
#[cfg(target_arch = "x86_64")]
pub(super) use x86::MatrixUnit;

use super::cache_line::{Bf16Line, LINE_PAIRS};
use super::panel::PANEL;
use super::tiles::BLOCK_ROWS;

/// The fewest inputs of a row for which products in bf16 are used. Models with shorter rows are fast anyway, and lose most by rounding,
/// because the errors of many inputs average out.
pub(super) const BF16_MIN_INPUTS: usize = 320;

/// Whether rows of so many inputs are multiplied in bf16.
pub(super) fn uses_bf16(inputs: usize) -> bool {
    inputs >= BF16_MIN_INPUTS && available()
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

/// The function that a layer applies to its sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActivationFunction {
    /// The sums as they are.
    Identity,
    /// GELU with `erf`.
    Gelu,
}

/// Lines that are prefetched while a step is multiplied. Eight blocks of rows, which is what an encoder computes at once, prefetch the whole
/// next panel: its weights are in the second cache when the first block reads them.
pub(super) const PREFETCH_LINES: usize = 4;
