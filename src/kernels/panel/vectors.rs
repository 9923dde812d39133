//! Sums of products in vector registers of f32: AVX-512, and AVX2 with FMA.
//!
//! The innermost loops read without checks of bounds, which would take a third of their time; what they rely on is asserted before them.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, __m512i, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_and_si512,
    _mm512_castsi512_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32,
};
use std::mem::transmute;

use super::{PANEL, PIECE_INPUTS, Panel, PanelInput, pieces};
use crate::cache_line::Bf16Line;
use crate::processor::{self, Level};

/// Whether vectors of 512 bits may be used.
pub(super) fn avx512_available() -> bool {
    processor::allows(Level::Avx512) && std::arch::is_x86_feature_detected!("avx512f")
}

/// Whether vectors of 256 bits may be used.
pub(super) fn avx2_available() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Rows whose sums stay in the registers of AVX-512.
const ROWS: usize = 8;

/// Rows whose sums stay in the registers of AVX2, for half of the outputs.
const ROWS_AVX2: usize = 6;

/// Adds the products of each row to its sums.
pub(super) fn add_up(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]]) {
    assert!(avx512_available(), "AVX-512 on a processor without it");
    // A group of rows alone reads the weights once, wherever they are.
    let inputs = if sums.len() > ROWS { PIECE_INPUTS } else { input.depth.max(1) };
    for (start, depth) in pieces(input.depth, inputs) {
        let panel = match panel {
            Panel::F32 { values, step } => Panel::F32 { values: &values[start * step..], step },
            Panel::Bf16(lines) => Panel::Bf16(&lines[start..]),
        };
        for (group, sums) in sums.chunks_mut(ROWS).enumerate() {
            let input = input.part(group * ROWS, sums.len(), start, depth);
            // SAFETY: the processor has AVX-512, as asserted.
            unsafe {
                match sums.len() {
                    1 => add_up_rows::<1>(input, panel, sums),
                    2 => add_up_rows::<2>(input, panel, sums),
                    3 => add_up_rows::<3>(input, panel, sums),
                    4 => add_up_rows::<4>(input, panel, sums),
                    5 => add_up_rows::<5>(input, panel, sums),
                    6 => add_up_rows::<6>(input, panel, sums),
                    7 => add_up_rows::<7>(input, panel, sums),
                    _ => add_up_rows::<8>(input, panel, sums),
                }
            }
        }
    }
}

/// [`add_up`] of `R` rows. The sums do not depend on `R`.
#[target_feature(enable = "avx512f")]
fn add_up_rows<const R: usize>(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]]) {
    let rows: [&[f32]; R] = input.slices();
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    totals.iter_mut().zip(&*sums).for_each(|(total, sums)| *total = load(sums));
    match panel {
        Panel::F32 { values, step } => {
            assert!(input.depth == 0 || (input.depth - 1) * step + PANEL <= values.len(), "inputs reach past the weights");
            for i in 0..input.depth {
                // SAFETY: the weights of input `i` lie inside `values`, as asserted.
                let [left, right] = unsafe { load_at(values.as_ptr().add(i * step)) };
                for (total, row) in totals.iter_mut().zip(&rows) {
                    // SAFETY: every row has `depth` inputs.
                    let x = _mm512_set1_ps(unsafe { *row.get_unchecked(i) });
                    total[0] = _mm512_fmadd_ps(x, left, total[0]);
                    total[1] = _mm512_fmadd_ps(x, right, total[1]);
                }
            }
        }
        Panel::Bf16(lines) => {
            let (weights, rest) = lines.as_chunks::<2>().0[..input.depth.div_ceil(2)].split_at(input.depth / 2);
            for (i, pair) in weights.iter().enumerate() {
                let (first, second) = (halves(pair, false), halves(pair, true));
                for (total, row) in totals.iter_mut().zip(&rows) {
                    // SAFETY: every row has `depth` inputs, and there are no more pairs of weights than of inputs.
                    let [x, y] = unsafe { [*row.get_unchecked(2 * i), *row.get_unchecked(2 * i + 1)] };
                    let (x, y) = (_mm512_set1_ps(x), _mm512_set1_ps(y));
                    total[0] = _mm512_fmadd_ps(x, first[0], total[0]);
                    total[1] = _mm512_fmadd_ps(x, first[1], total[1]);
                    total[0] = _mm512_fmadd_ps(y, second[0], total[0]);
                    total[1] = _mm512_fmadd_ps(y, second[1], total[1]);
                }
            }
            if let [pair] = rest {
                let first = halves(pair, false);
                for (total, row) in totals.iter_mut().zip(&rows) {
                    let x = _mm512_set1_ps(row[input.depth - 1]);
                    total[0] = _mm512_fmadd_ps(x, first[0], total[0]);
                    total[1] = _mm512_fmadd_ps(x, first[1], total[1]);
                }
            }
        }
    }
    for (sums, total) in sums.iter_mut().zip(totals) {
        // SAFETY: both are of one size, and all bits are values.
        *sums = unsafe { transmute::<[__m512; 2], [f32; PANEL]>(total) };
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; PANEL]) -> [__m512; 2] {
    // SAFETY: an array holds all its values.
    unsafe { load_at(values.as_ptr()) }
}

/// The values of a panel's outputs.
///
/// # Safety
/// So many values must lie at `values`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_at(values: *const f32) -> [__m512; 2] {
    const { assert!(PANEL == 32) };
    // SAFETY: as the caller promises.
    unsafe { [_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16))] }
}

/// The weights of the first or the second input of a pair, converted to f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(pair: &[Bf16Line; 2], second: bool) -> [__m512; 2] {
    // SAFETY: both are of one size, and all bits are values.
    let pair = unsafe { transmute::<[Bf16Line; 2], [__m512i; 2]>(*pair) };
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    pair.map(|pair| _mm512_castsi512_ps(if second { _mm512_and_si512(pair, upper) } else { _mm512_slli_epi32::<16>(pair) }))
}

/// Adds the products of each row to its sums by AVX2, with weights in f32.
pub(super) fn add_up_avx2(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]]) {
    assert!(avx2_available(), "AVX2 on a processor without it");
    for (group, sums) in sums.chunks_mut(ROWS_AVX2).enumerate() {
        let input = input.part(group * ROWS_AVX2, sums.len(), 0, input.depth);
        // SAFETY: the processor has AVX2 and FMA, as asserted.
        unsafe {
            match sums.len() {
                1 => add_up_rows_avx2::<1>(input, values, step, sums),
                2 => add_up_rows_avx2::<2>(input, values, step, sums),
                3 => add_up_rows_avx2::<3>(input, values, step, sums),
                4 => add_up_rows_avx2::<4>(input, values, step, sums),
                5 => add_up_rows_avx2::<5>(input, values, step, sums),
                _ => add_up_rows_avx2::<6>(input, values, step, sums),
            }
        }
    }
}

/// [`add_up_avx2`] of `R` rows, sixteen outputs at a time: so many sums of six rows stay in the sixteen registers of AVX2.
#[target_feature(enable = "avx2,fma")]
fn add_up_rows_avx2<const R: usize>(input: PanelInput<'_>, values: &[f32], step: usize, sums: &mut [[f32; PANEL]]) {
    const TOGETHER: usize = PANEL / 2;
    assert!(input.depth == 0 || (input.depth - 1) * step + PANEL <= values.len(), "inputs reach past the weights");
    let rows: [&[f32]; R] = input.slices();
    for half in 0..2 {
        let mut totals = [[_mm256_setzero_ps(); 2]; R];
        for (total, sums) in totals.iter_mut().zip(&*sums) {
            // SAFETY: both are of one size, and all bits are values.
            *total = unsafe { transmute::<[f32; TOGETHER], [__m256; 2]>(sums.as_chunks().0[half]) };
        }
        for i in 0..input.depth {
            // SAFETY: the weights of input `i` lie inside `values`, as asserted.
            let [left, right] = unsafe {
                let weights = values.as_ptr().add(i * step + half * TOGETHER);
                [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))]
            };
            for (total, row) in totals.iter_mut().zip(&rows) {
                // SAFETY: every row has `depth` inputs.
                let x = _mm256_set1_ps(unsafe { *row.get_unchecked(i) });
                total[0] = _mm256_fmadd_ps(x, left, total[0]);
                total[1] = _mm256_fmadd_ps(x, right, total[1]);
            }
        }
        for (sums, total) in sums.iter_mut().zip(totals) {
            // SAFETY: both are of one size, and all bits are values.
            sums.as_chunks_mut().0[half] = unsafe { transmute::<[__m256; 2], [f32; TOGETHER]>(total) };
        }
    }
}
