//! Vector registers of f32: AVX-512, and AVX2 with FMA.
//!
//! Everything is read as slices of known length: with debug assertions a read by pointer is checked each time, and takes three times as
//! long.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m256, __m512, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_fmadd_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};
use std::mem::transmute;

use super::{PANEL, Panel, PanelInput, ROWS};
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

/// The sums of up to [`ROWS`] rows.
pub(super) fn add_up(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(avx512_available(), "AVX-512 on a processor without it");
    // SAFETY: the processor has AVX-512, as asserted.
    unsafe {
        match input.rows {
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

/// The sums of `R` rows, which do not depend on `R`.
#[target_feature(enable = "avx512f")]
fn add_up_rows<const R: usize>(input: PanelInput<'_>, panel: Panel<'_>, sums: &mut [[f32; PANEL]; ROWS]) {
    let rows: [&[f32]; R] = std::array::from_fn(|row| &input.values[row * input.step..][..input.depth]);
    let mut totals = [[_mm512_setzero_ps(); 2]; R];
    match panel {
        Panel::F32 { values, step } => {
            for (i, weights) in values.chunks(step).take(input.depth).enumerate() {
                let weights: &[f32; PANEL] = weights.first_chunk().expect("a panel holds the weights of its outputs");
                // SAFETY: both are of one size, and all bits are values.
                let [left, right] = unsafe { transmute::<[f32; PANEL], [__m512; 2]>(*weights) };
                for (total, row) in totals.iter_mut().zip(&rows) {
                    let x = _mm512_set1_ps(row[i]);
                    total[0] = _mm512_fmadd_ps(x, left, total[0]);
                    total[1] = _mm512_fmadd_ps(x, right, total[1]);
                }
            }
        }
        Panel::Bf16(lines) => {
            let pairs = rows.map(|row| row.as_chunks::<2>());
            let (weights, rest) = lines.as_chunks::<2>().0[..input.depth.div_ceil(2)].split_at(input.depth / 2);
            for (i, pair) in weights.iter().enumerate() {
                let (first, second) = (halves(pair, false), halves(pair, true));
                for (total, (pairs, _)) in totals.iter_mut().zip(&pairs) {
                    let [x, y] = pairs[i].map(|x| _mm512_set1_ps(x));
                    total[0] = _mm512_fmadd_ps(x, first[0], total[0]);
                    total[1] = _mm512_fmadd_ps(x, first[1], total[1]);
                    total[0] = _mm512_fmadd_ps(y, second[0], total[0]);
                    total[1] = _mm512_fmadd_ps(y, second[1], total[1]);
                }
            }
            if let [pair] = rest {
                let first = halves(pair, false);
                for (total, (_, last)) in totals.iter_mut().zip(&pairs) {
                    let x = _mm512_set1_ps(last[0]);
                    total[0] = _mm512_fmadd_ps(x, first[0], total[0]);
                    total[1] = _mm512_fmadd_ps(x, first[1], total[1]);
                }
            }
        }
    }
    for (sums, total) in sums.iter_mut().zip(&totals) {
        // SAFETY: both are of one size, and all bits are values.
        *sums = unsafe { transmute::<[__m512; 2], [f32; PANEL]>(*total) };
    }
}

/// The weights of the first or the second input of a pair, widened to f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn halves(pair: &[Bf16Line; 2], second: bool) -> [__m512; 2] {
    // SAFETY: both are of one size, and all bits are values.
    let pair = unsafe { transmute::<[Bf16Line; 2], [__m512i; 2]>(*pair) };
    let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
    pair.map(|pair| _mm512_castsi512_ps(if second { _mm512_and_si512(pair, upper) } else { _mm512_slli_epi32::<16>(pair) }))
}

/// The sums of up to [`ROWS`] rows with weights in f32, by AVX2.
pub(super) fn add_up_narrow(input: PanelInput<'_>, panel: (&[f32], usize), sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(avx2_available(), "AVX2 on a processor without it");
    for first in (0..input.rows).step_by(4) {
        let input = PanelInput { values: &input.values[first * input.step..], rows: input.rows - first, ..input };
        let sums = &mut sums[first..];
        // SAFETY: the processor has AVX2 and FMA, as asserted.
        unsafe {
            match input.rows {
                1 => add_up_few::<1>(input, panel, sums),
                2 => add_up_few::<2>(input, panel, sums),
                3 => add_up_few::<3>(input, panel, sums),
                _ => add_up_few::<4>(input, panel, sums),
            }
        }
    }
}

/// The sums of `R` rows, sixteen outputs at a time: so many of four rows stay in the sixteen registers of AVX2.
#[target_feature(enable = "avx2,fma")]
fn add_up_few<const R: usize>(input: PanelInput<'_>, (values, step): (&[f32], usize), sums: &mut [[f32; PANEL]]) {
    const TOGETHER: usize = PANEL / 2;
    let rows: [&[f32]; R] = std::array::from_fn(|row| &input.values[row * input.step..][..input.depth]);
    for part in 0..2 {
        let mut totals = [[_mm256_setzero_ps(); 2]; R];
        for (i, weights) in values[part * TOGETHER..].chunks(step).take(input.depth).enumerate() {
            let weights: &[f32; TOGETHER] = weights.first_chunk().expect("a panel holds the weights of its outputs");
            // SAFETY: both are of one size, and all bits are values.
            let [left, right] = unsafe { transmute::<[f32; TOGETHER], [__m256; 2]>(*weights) };
            for (total, row) in totals.iter_mut().zip(&rows) {
                let x = _mm256_set1_ps(row[i]);
                total[0] = _mm256_fmadd_ps(x, left, total[0]);
                total[1] = _mm256_fmadd_ps(x, right, total[1]);
            }
        }
        for (sums, total) in sums.iter_mut().zip(&totals) {
            // SAFETY: both are of one size, and all bits are values.
            let total = unsafe { transmute::<[__m256; 2], [f32; TOGETHER]>(*total) };
            sums[part * TOGETHER..][..TOGETHER].copy_from_slice(&total);
        }
    }
}
