//! The matrix unit of x86 processors.

#![allow(unsafe_code)]

mod amx;
mod epilogue;
mod vectors;

use std::marker::PhantomData;
use std::ops::Range;

use super::{ActivationFunction, PanelStep, Sums};
use crate::bf16::vectors as bf16;
use crate::cache_line::Bf16Line;
use crate::panel::PANEL;
use crate::tiles::{BLOCK_ROWS, TileBlock, Tiles};

/// Whether this processor has instructions for products in bf16.
pub(super) fn available() -> bool {
    bf16::available() && (amx::available() || vectors::available())
}

/// The widest instructions that this processor has, ready for the calling thread until this value is dropped. A thread has one at a time.
pub(crate) struct MatrixUnit {
    tiles: Option<amx::Ready>,
    /// Tile registers belong to a thread, so this value must not leave it.
    _thread: PhantomData<*const ()>,
}

impl MatrixUnit {
    /// Prepares the calling thread.
    ///
    /// # Panics
    /// If the processor has no matrix unit.
    pub(crate) fn take() -> Self {
        assert!(available(), "products of bf16 on a processor without them");
        Self { tiles: amx::available().then(amx::Ready::new), _thread: PhantomData }
    }

    /// Writes the sums of the block's rows to `sums`. What the rows past those of the block hold is not defined.
    #[inline]
    pub(crate) fn multiply(&self, block: TileBlock<'_>, sums: &mut Sums) {
        match &self.tiles {
            Some(ready) => ready.multiply(block, sums),
            None => vectors::multiply(block, sums),
        }
    }

    /// Rounds `function(sums + bias)` of `rows` to one step of `output`: the outputs of a panel are the inputs of a step.
    #[inline]
    pub(crate) fn activate(
        &self,
        sums: &Sums,
        rows: Range<usize>,
        bias: &[f32; PANEL],
        function: ActivationFunction,
        output: &mut Tiles,
        step: usize,
    ) {
        // SAFETY: this value exists only if the processor has the instructions.
        unsafe { epilogue::activate(sums, rows, bias, function, output, step) }
    }

    /// Rounds `silu(gate) · value` of `rows` rows, whose sums are those of the gates and of the values.
    #[inline]
    pub(crate) fn gate(&self, sums: &[Sums; 2], rows: usize, lines: &mut [Bf16Line; BLOCK_ROWS]) {
        // SAFETY: as in `activate`.
        unsafe { epilogue::gate(sums, rows, lines) }
    }

    /// Rounds `sums`, each row times its factor, to one step of `output`.
    #[inline]
    pub(crate) fn scale(&self, sums: &Sums, rows: Range<usize>, factors: &[f32], output: &mut Tiles, step: usize) {
        // SAFETY: as in `activate`.
        unsafe { epilogue::scale(sums, rows, factors, output, step) }
    }

    /// Rounds `2^(factor * (score - highest))` of the scores of each row to its row of `weights`. Returns the sums before rounding.
    #[inline]
    pub(crate) fn softmax_weights(&self, scores: &[Sums], rows: usize, factor: f32, weights: &mut Tiles) -> [f32; BLOCK_ROWS] {
        // SAFETY: as in `activate`.
        unsafe { epilogue::softmax_weights(scores, rows, factor, weights) }
    }

    /// Lays up to 32 rows out as the outputs of a panel: a product with it is a product with their transpose. Further outputs are zero.
    #[inline]
    pub(crate) fn pack_transposed(&self, rows: &[Bf16Line], panel: &mut PanelStep) {
        // SAFETY: as in `activate`.
        unsafe { epilogue::pack_transposed(rows, panel) }
    }

    /// Lays up to 32 rows out as the inputs of a panel. Further inputs are zero.
    #[inline]
    pub(crate) fn pack_pairs(&self, rows: &[Bf16Line], panel: &mut PanelStep) {
        // SAFETY: as in `activate`.
        unsafe { epilogue::pack_pairs(rows, panel) }
    }
}
