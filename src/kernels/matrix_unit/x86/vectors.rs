//! Products in vector registers (AVX512-BF16): two products of each of sixteen outputs at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{__m512bh, __m512i, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps};
use std::mem::transmute;

use crate::cache_line::Bf16Line;
use crate::matrix_unit::Sums;
use crate::panel::PANEL;
use crate::processor::{self, Level};
use crate::tiles::{STEP, TILE_ROWS, TileBlock};

/// Rows whose sums stay in registers.
const ROWS: usize = 8;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    processor::allows(Level::Bf16)
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Writes the products of `block` to `sums`.
pub(super) fn multiply(block: TileBlock<'_>, sums: &mut Sums) {
    assert!(available(), "bf16 vectors on a processor without them");
    for first in (0..block.rows).step_by(ROWS) {
        let rows = ROWS.min(block.rows - first);
        let inputs = &block.inputs[first / TILE_ROWS * block.group + first % TILE_ROWS..];
        let inputs = inputs.chunks(block.step).take(block.steps);
        let sums = &mut sums.0[first..];
        // SAFETY: the processor has the instructions, as asserted.
        unsafe {
            match rows {
                1 => add_up::<1>(inputs, block.weights, sums),
                2 => add_up::<2>(inputs, block.weights, sums),
                3 => add_up::<3>(inputs, block.weights, sums),
                4 => add_up::<4>(inputs, block.weights, sums),
                5 => add_up::<5>(inputs, block.weights, sums),
                6 => add_up::<6>(inputs, block.weights, sums),
                7 => add_up::<7>(inputs, block.weights, sums),
                _ => add_up::<8>(inputs, block.weights, sums),
            }
        }
    }
}

/// The sums of `R` rows, which do not depend on `R`. `tiles` begin with these rows, one a step.
///
/// # Panics
/// If a tile ends before `R` rows.
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_up<'a, const R: usize>(tiles: impl Iterator<Item = &'a [Bf16Line]>, weights: &[Bf16Line], sums: &mut [[f32; PANEL]]) {
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    for (tile, weights) in tiles.zip(weights.as_chunks::<STEP>().0) {
        let rows: &[Bf16Line; R] = tile.first_chunk().expect("a tile holds the rows");
        for (i, pair) in weights.as_chunks::<2>().0.iter().enumerate() {
            // SAFETY: all are of one size, and all bits are values.
            let [left, right] = unsafe { transmute::<[Bf16Line; 2], [__m512bh; 2]>(*pair) };
            for (row, total) in rows.iter().zip(&mut totals) {
                // SAFETY: as above.
                let x = unsafe { transmute::<__m512i, __m512bh>(_mm512_set1_epi32(row.0[i].cast_signed())) };
                total[0] = _mm512_dpbf16_ps(total[0], left, x);
                total[1] = _mm512_dpbf16_ps(total[1], right, x);
            }
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
