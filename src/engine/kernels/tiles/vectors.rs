//! Vector registers: two products of each of sixteen outputs at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::transmute;

use super::{Block, STEP, STEP_VALUES, Sums, TILE_ROWS};
use crate::engine::kernels::panel::PANEL;
use crate::engine::kernels::processor::{self, Level};

/// Rows whose sums stay in registers.
const ROWS: usize = 8;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    processor::allows(Level::Bf16)
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Writes the products of `block` to `sums`.
pub(super) fn multiply(block: Block<'_>, sums: &mut Sums) {
    assert!(available(), "bf16 vectors on a processor without them");
    for first in (0..block.rows).step_by(ROWS) {
        let rows = ROWS.min(block.rows - first);
        let inputs = &block.inputs[first / TILE_ROWS * block.group + first % TILE_ROWS * STEP..];
        let sums = &mut sums.0[first..];
        // SAFETY: the processor has the instructions, as asserted. Whoever made the block has checked that it holds all that is
        // read: `steps` tiles of the rows' sixteen, and as many steps of the panel. `sums` is at least as long as `rows`.
        unsafe {
            match rows {
                1 => add_up::<1>(inputs, block.weights, block.steps, sums),
                2 => add_up::<2>(inputs, block.weights, block.steps, sums),
                3 => add_up::<3>(inputs, block.weights, block.steps, sums),
                4 => add_up::<4>(inputs, block.weights, block.steps, sums),
                5 => add_up::<5>(inputs, block.weights, block.steps, sums),
                6 => add_up::<6>(inputs, block.weights, block.steps, sums),
                7 => add_up::<7>(inputs, block.weights, block.steps, sums),
                _ => add_up::<8>(inputs, block.weights, block.steps, sums),
            }
        }
    }
}

/// The sums of `R` rows, which do not depend on `R`.
///
/// # Safety
/// `inputs` must hold `R` rows of `steps` tiles from its start on, `weights` as many steps, and `sums` `R` rows.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_up<const R: usize>(inputs: &[u16], weights: &[u16], steps: usize, sums: &mut [[f32; PANEL]]) {
    let (mut tile, mut pair) = (inputs.as_ptr(), weights.as_ptr());
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: all reads lie inside the slices, as the caller promises; vectors of bits and of bf16 are of one size.
    unsafe {
        let halves = |bits: __m512i| transmute::<__m512i, __m512bh>(bits);
        for _ in 0..steps {
            for i in 0..STEP / 2 {
                let (left, right) = (_mm512_loadu_si512(pair.cast()), _mm512_loadu_si512(pair.add(PANEL).cast()));
                for (row, total) in totals.iter_mut().enumerate() {
                    let x = halves(_mm512_set1_epi32(tile.add(row * STEP + 2 * i).cast::<i32>().read_unaligned()));
                    total[0] = _mm512_dpbf16_ps(total[0], halves(left), x);
                    total[1] = _mm512_dpbf16_ps(total[1], halves(right), x);
                }
                // Not past the end after the last step.
                pair = pair.wrapping_add(2 * PANEL);
            }
            tile = tile.wrapping_add(STEP_VALUES);
        }
    }
    for (sums, total) in sums.iter_mut().zip(&totals) {
        // SAFETY: a row of sums is two vectors long.
        unsafe {
            _mm512_storeu_ps(sums.as_mut_ptr(), total[0]);
            _mm512_storeu_ps(sums.as_mut_ptr().add(16), total[1]);
        }
    }
}
