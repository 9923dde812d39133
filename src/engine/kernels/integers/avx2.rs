//! Vectors of 256 bits: two products of each of eight outputs at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_fmadd_ps,
    _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_srli_epi16,
};
use std::mem::transmute;

use super::{Block, PAIRS, PANEL, ROWS, STEP, size};

/// Outputs of a vector.
const LANES: usize = 8;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: Block<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(available(), "vectors of whole numbers on a processor without them");
    // SAFETY: the processor has the instructions, as asserted.
    unsafe {
        match rows {
            1 => add_up::<1>(block, sums),
            2 => add_up::<2>(block, sums),
            3 => add_up::<3>(block, sums),
            4 => add_up::<4>(block, sums),
            5 => add_up::<5>(block, sums),
            6 => add_up::<6>(block, sums),
            7 => add_up::<7>(block, sums),
            _ => add_up::<8>(block, sums),
        }
    }
}

/// The sums of `R` rows, which do not depend on `R`.
#[target_feature(enable = "avx2,fma")]
fn add_up<const R: usize>(block: Block<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    let Block { weights, lanes, .. } = block;
    let mut totals = [[_mm256_setzero_ps(); PANEL / LANES]; R];
    let rows = block.pairs.as_chunks::<PAIRS>().0;
    let groups = weights.values.chunks_exact(size(weights.group, weights.nibbles)).zip(weights.scales);
    for (group, (values, scales)) in groups.enumerate() {
        let (step, first) = (group * weights.group / STEP, group * weights.group % STEP / 2);
        let rows: &[[u32; PAIRS]; R] = rows[step * lanes..].first_chunk().expect("a step holds the rows");
        let places = block.scales[step * lanes..].first_chunk::<R>().expect("a step holds the rows");
        let whole = block.sums[step * lanes..].first_chunk::<R>().expect("a step holds the rows");
        for part in 0..PANEL / LANES {
            let mut dots = [_mm256_setzero_si256(); R];
            let mut add = |pair: usize, weights: __m256i| {
                for (row, dot) in rows.iter().zip(&mut dots) {
                    let x = _mm256_set1_epi32(row[pair % PAIRS].cast_signed());
                    *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(weights, x));
                }
            };
            if weights.nibbles {
                let lowest = _mm256_set1_epi16(15);
                for (i, words) in values.as_chunks::<{ 4 * PANEL }>().0.iter().enumerate() {
                    // SAFETY: both are of one size, and all bits are values.
                    let words = unsafe { transmute::<[u8; 4 * LANES], __m256i>(words.as_chunks().0[part]) };
                    let pair = first + 4 * i;
                    add(pair, _mm256_and_si256(words, lowest));
                    add(pair + 1, _mm256_and_si256(_mm256_srli_epi16::<4>(words), lowest));
                    add(pair + 2, _mm256_and_si256(_mm256_srli_epi16::<8>(words), lowest));
                    add(pair + 3, _mm256_srli_epi16::<12>(words));
                }
            } else {
                for (i, bytes) in values.as_chunks::<{ 2 * PANEL }>().0.iter().enumerate() {
                    // SAFETY: as above.
                    let bytes = unsafe { transmute::<[u8; 2 * LANES], __m128i>(bytes.as_chunks().0[part]) };
                    add(first + i, _mm256_cvtepi8_epi16(bytes));
                }
            }
            // SAFETY: as above.
            let scale = unsafe { transmute::<[f32; LANES], __m256>(scales.as_chunks().0[part]) };
            for ((totals, dot), place) in totals.iter_mut().zip(&dots).zip(places) {
                let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(*dot), scale);
                totals[part] = _mm256_fmadd_ps(dot, _mm256_set1_ps(*place), totals[part]);
            }
            if let Some(offsets) = weights.offsets.get(group) {
                // SAFETY: as above.
                let offset = unsafe { transmute::<[f32; LANES], __m256>(offsets.as_chunks().0[part]) };
                for ((totals, place), whole) in totals.iter_mut().zip(places).zip(whole) {
                    totals[part] = _mm256_fmadd_ps(offset, _mm256_set1_ps(place * whole), totals[part]);
                }
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals) {
        // SAFETY: as above.
        *sums = unsafe { transmute::<[__m256; PANEL / LANES], [f32; PANEL]>(totals) };
    }
}
