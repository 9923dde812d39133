//! The units of x86.

#![allow(unsafe_code)]

mod amx;
mod epilogue;
mod vectors;

use std::marker::PhantomData;
use std::ops::Range;

use super::{ActivationFunction, BLOCK_ROWS, PanelStep, Sums, TileBlock, rounded_each};
use crate::cache_line::Bf16Line;
use crate::panel::PANEL;
use crate::tiles::{STEP, Tiles};

/// Whether this processor multiplies bf16 by itself.
pub(super) fn available() -> bool {
    epilogue::available() && (amx::available() || vectors::available())
}

/// One step of rounded inputs.
#[inline]
pub(crate) fn rounded(inputs: &[f32; STEP]) -> Bf16Line {
    match epilogue::available() {
        // SAFETY: the processor has the instructions.
        true => unsafe { epilogue::rounded(inputs) },
        false => rounded_each(inputs),
    }
}

/// The widest unit of this processor, made ready for the calling thread until it goes. A thread has one at a time.
pub(crate) struct MatrixUnit {
    tiles: Option<amx::Ready>,
    /// What is made ready is a thread's own.
    _thread: PhantomData<*const ()>,
}

impl MatrixUnit {
    /// Makes the unit ready.
    ///
    /// # Panics
    /// Where the processor has none.
    pub(crate) fn take() -> Self {
        assert!(available(), "products of bf16 on a processor without them");
        Self { tiles: amx::available().then(amx::Ready::new), _thread: PhantomData }
    }

    /// Writes the sums of the block's rows to `sums`; rows past those of the block are left as they come.
    #[inline]
    pub(crate) fn multiply(&self, block: TileBlock<'_>, sums: &mut Sums) {
        match &self.tiles {
            Some(ready) => ready.multiply(block, sums),
            None => vectors::multiply(block, sums),
        }
    }

    /// Rounds `function(sums + bias)` of `rows` to one step of `output`: the outputs of a panel are the inputs of a step.
    #[inline]
    pub(crate) fn finish(
        &self,
        sums: &Sums,
        rows: Range<usize>,
        (bias, function): (&[f32; PANEL], ActivationFunction),
        output: (&mut Tiles, usize),
    ) {
        // SAFETY: a unit is only made where the processor has the instructions.
        unsafe { epilogue::finish(sums, rows, bias, function, output) }
    }

    /// Rounds `silu(gate) · value` of as many rows, with the sums of gates and of values.
    #[inline]
    pub(crate) fn gate(&self, sums: &[Sums; 2], rows: usize, lines: &mut [Bf16Line; BLOCK_ROWS]) {
        // SAFETY: as in `finish`.
        unsafe { epilogue::gate(sums, rows, lines) }
    }

    /// Rounds `sums`, each row times its factor, to one step of `output`.
    #[inline]
    pub(crate) fn scale(&self, sums: &Sums, rows: Range<usize>, factors: &[f32], output: (&mut Tiles, usize)) {
        // SAFETY: as in `finish`.
        unsafe { epilogue::scale(sums, rows, factors, output) }
    }

    /// Rounds `2^(factor * (score - highest))` of the scores of each row to its row of `weights`, and gives back their sums before rounding.
    #[inline]
    pub(crate) fn weigh(&self, scores: &[Sums], rows: usize, factor: f32, weights: &mut Tiles) -> [f32; BLOCK_ROWS] {
        // SAFETY: as in `finish`.
        unsafe { epilogue::weigh(scores, rows, factor, weights) }
    }

    /// Up to 32 rows as the outputs of a panel, as if it were multiplied by their transpose. Outputs that no row stands for are zero.
    #[inline]
    pub(crate) fn across(&self, rows: &[Bf16Line], panel: &mut PanelStep) {
        // SAFETY: as in `finish`.
        unsafe { epilogue::across(rows, panel) }
    }

    /// Up to 32 rows as the inputs of a panel. Inputs that no row stands for are zero.
    #[inline]
    pub(crate) fn pairwise(&self, rows: &[Bf16Line], panel: &mut PanelStep) {
        // SAFETY: as in `finish`.
        unsafe { epilogue::pairwise(rows, panel) }
    }
}
