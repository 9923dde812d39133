//! Vectors of 512 bits with AVX512-VNNI: two products of each of sixteen outputs at a time.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_and_si512, _mm512_cvtepi8_epi16, _mm512_cvtepi32_ps,
    _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srli_epi16,
};
use std::mem::transmute;

use super::{Block, PAIRS, PANEL, ROWS, STEP};
use crate::engine::kernels::processor::{self, Level};

/// Bytes of weights between those in work and those that are fetched meanwhile: the processor itself starts anew with each page.
const AHEAD: usize = 2048;

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    processor::allows(Level::Avx512)
        && std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

/// Writes the sums of the first `rows` rows of `block`.
pub(super) fn multiply(block: Block<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(available(), "vectors of whole numbers on a processor without them");
    let form = match (block.weights.nibbles, block.weights.group) {
        (true, _) => NIBBLES,
        (false, STEP) => BYTES,
        (false, _) => SHORT,
    };
    // SAFETY: the processor has the instructions, as asserted.
    unsafe {
        match form {
            NIBBLES => add_up_rows::<NIBBLES>(block, rows, sums),
            BYTES => add_up_rows::<BYTES>(block, rows, sums),
            _ => add_up_rows::<SHORT>(block, rows, sums),
        }
    }
}

/// Values of four bits in groups of 32.
const NIBBLES: usize = 0;
/// Values of a byte in groups of 32.
const BYTES: usize = 1;
/// Values of a byte in groups of 16.
const SHORT: usize = 2;

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_up_rows<const FORM: usize>(block: Block<'_>, rows: usize, sums: &mut [[f32; PANEL]; ROWS]) {
    match rows {
        1 => add_up::<FORM, 1>(block, sums),
        2 => add_up::<FORM, 2>(block, sums),
        3 => add_up::<FORM, 3>(block, sums),
        4 => add_up::<FORM, 4>(block, sums),
        5 => add_up::<FORM, 5>(block, sums),
        6 => add_up::<FORM, 6>(block, sums),
        7 => add_up::<FORM, 7>(block, sums),
        _ => add_up::<FORM, 8>(block, sums),
    }
}

/// Writes the sums of `R` rows, which do not depend on `R`.
///
/// Everything is read as slices of known length: with debug assertions a read by pointer is checked each time, and takes three times as long.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_up<const FORM: usize, const R: usize>(block: Block<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    let Block { weights, lanes, .. } = block;
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    let rows = block.pairs.as_chunks::<PAIRS>().0;
    for (group, scales) in weights.scales.iter().enumerate() {
        let step = if FORM == SHORT { group / 2 } else { group };
        let rows = first(&rows[step * lanes..]);
        let dots: [[__m512i; 2]; R] = match FORM {
            NIBBLES => nibbles(&weights.values.as_chunks().0[group], rows),
            BYTES => bytes::<{ STEP * PANEL }, 0, R>(&weights.values.as_chunks().0[group], rows),
            _ if group % 2 == 0 => bytes::<{ STEP * PANEL / 2 }, 0, R>(&weights.values.as_chunks().0[group], rows),
            _ => bytes::<{ STEP * PANEL / 2 }, { PAIRS / 2 }, R>(&weights.values.as_chunks().0[group], rows),
        };
        // SAFETY: both are of one size, and all bits are values.
        let scales = unsafe { transmute::<[f32; PANEL], [__m512; 2]>(*scales) };
        let places: &[f32; R] = first(&block.scales[step * lanes..]);
        for ((totals, dots), place) in totals.iter_mut().zip(&dots).zip(places) {
            let place = _mm512_set1_ps(*place);
            for ((total, dot), scale) in totals.iter_mut().zip(dots).zip(scales) {
                *total = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(*dot), scale), place, *total);
            }
        }
        if let Some(offsets) = weights.offsets.get(group) {
            // SAFETY: as above.
            let offsets = unsafe { transmute::<[f32; PANEL], [__m512; 2]>(*offsets) };
            let whole: &[f32; R] = first(&block.sums[step * lanes..]);
            for ((totals, place), whole) in totals.iter_mut().zip(places).zip(whole) {
                let whole = _mm512_set1_ps(place * whole);
                for (total, offset) in totals.iter_mut().zip(offsets) {
                    *total = _mm512_fmadd_ps(offset, whole, *total);
                }
            }
        }
    }
    for (sums, totals) in sums.iter_mut().zip(totals) {
        // SAFETY: as above.
        *sums = unsafe { transmute::<[__m512; 2], [f32; PANEL]>(totals) };
    }
}

/// The sums over a group of values of four bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn nibbles<const R: usize>(values: &[u8; STEP * PANEL / 2], rows: &[[u32; PAIRS]; R]) -> [[__m512i; 2]; R] {
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    let lowest = _mm512_set1_epi16(15);
    for (i, words) in values.as_chunks::<{ 4 * PANEL }>().0.iter().enumerate() {
        prefetch(words);
        // SAFETY: both are of one size, and all bits are values.
        let words = unsafe { transmute::<[u8; 4 * PANEL], [__m512i; 2]>(*words) };
        let third = words.map(|words| _mm512_srli_epi16::<8>(words));
        add_pair(words.map(|words| _mm512_and_si512(words, lowest)), rows, 4 * i, &mut dots);
        add_pair(words.map(|words| _mm512_and_si512(_mm512_srli_epi16::<4>(words), lowest)), rows, 4 * i + 1, &mut dots);
        add_pair(third.map(|words| _mm512_and_si512(words, lowest)), rows, 4 * i + 2, &mut dots);
        add_pair(words.map(|words| _mm512_srli_epi16::<12>(words)), rows, 4 * i + 3, &mut dots);
    }
    dots
}

/// The sums over a group of values of a byte, which begins at the pair `FIRST` of the step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn bytes<const SIZE: usize, const FIRST: usize, const R: usize>(
    values: &[u8; SIZE],
    rows: &[[u32; PAIRS]; R],
) -> [[__m512i; 2]; R] {
    let mut dots = [[_mm512_setzero_si512(); 2]; R];
    for (i, bytes) in values.as_chunks::<{ 2 * PANEL }>().0.iter().enumerate() {
        prefetch(bytes);
        // SAFETY: both are of one size, and all bits are values.
        let bytes = unsafe { transmute::<[u8; 2 * PANEL], [__m256i; 2]>(*bytes) };
        add_pair(bytes.map(|bytes| _mm512_cvtepi8_epi16(bytes)), rows, FIRST + i, &mut dots);
    }
    dots
}

/// Adds the products of one pair of values to the sums of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_pair<const R: usize>([left, right]: [__m512i; 2], rows: &[[u32; PAIRS]; R], pair: usize, dots: &mut [[__m512i; 2]; R]) {
    for (row, dots) in rows.iter().zip(dots) {
        let x = _mm512_set1_epi32(row[pair].cast_signed());
        dots[0] = _mm512_dpwssd_epi32(dots[0], left, x);
        dots[1] = _mm512_dpwssd_epi32(dots[1], right, x);
    }
}

/// Those of the rows that there are in a step with room for more.
#[inline(always)]
fn first<T, const R: usize>(rows: &[T]) -> &[T; R] {
    rows.first_chunk().expect("a step holds the rows")
}

/// Has the weights fetched that come [`AHEAD`] bytes after `values`.
#[inline(always)]
fn prefetch<const N: usize>(values: &[u8; N]) {
    for line in values.chunks(64) {
        // SAFETY: every such processor has the instruction, and nothing is read, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast()) };
    }
}
