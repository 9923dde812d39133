//! What becomes of sums while they lie in the first cache: inputs of the next product, or weights of an attention.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_max_ps,
    _mm512_min_ps, _mm512_mul_ps, _mm512_rcp14_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_sub_ps,
};
use std::mem::transmute;
use std::ops::Range;

use super::{Function, Sums, Tiles};
use crate::engine::kernels::activation::{ERF_DENOMINATOR, ERF_NUMERATOR, ERF_REACH};
use crate::engine::kernels::line::Line;
use crate::engine::kernels::panel::PANEL;

/// Two vectors of a row's values.
type Two = [__m512; 2];

/// Whether this processor has the instructions.
pub(super) fn available() -> bool {
    std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// One step of rounded inputs.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn rounded(inputs: &[f32; PANEL]) -> Line {
    round(load(inputs))
}

/// See [`super::Unit::finish`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn finish(
    sums: &Sums,
    rows: Range<usize>,
    bias: &[f32; PANEL],
    function: Function,
    (output, step): (&mut Tiles, usize),
) {
    let bias = load(bias);
    for (row, sums) in rows.zip(&sums.0) {
        let mut values = load(sums);
        for (value, bias) in values.iter_mut().zip(bias) {
            *value = _mm512_add_ps(*value, bias);
            if function == Function::Gelu {
                *value = gelu(*value);
            }
        }
        *output.place(row, step) = round(values);
    }
}

/// See [`super::Unit::scale`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn scale(sums: &Sums, rows: Range<usize>, factors: &[f32], (output, step): (&mut Tiles, usize)) {
    for ((row, sums), factor) in rows.zip(&sums.0).zip(factors) {
        let factor = _mm512_set1_ps(*factor);
        let [left, right] = load(sums);
        *output.place(row, step) = round([_mm512_mul_ps(left, factor), _mm512_mul_ps(right, factor)]);
    }
}

/// See [`super::Unit::weigh`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn weigh(scores: &[Sums], row: usize, factor: f32, weights: &mut Tiles) -> f32 {
    let [mut left, mut right] = [_mm512_set1_ps(f32::MIN); 2];
    for sums in scores {
        let values = load(&sums.0[row]);
        (left, right) = (_mm512_max_ps(left, values[0]), _mm512_max_ps(right, values[1]));
    }
    let most = _mm512_set1_ps(_mm512_reduce_max_ps(_mm512_max_ps(left, right)));
    let factor = _mm512_set1_ps(factor);
    let mut total = [_mm512_setzero_ps(); 2];
    for (step, sums) in scores.iter().enumerate() {
        let mut values = load(&sums.0[row]);
        for (value, total) in values.iter_mut().zip(&mut total) {
            *value = power_of_two(_mm512_mul_ps(_mm512_sub_ps(*value, most), factor));
            *total = _mm512_add_ps(*total, *value);
        }
        *weights.place(row, step) = round(values);
    }
    _mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1]))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(values: &[f32; PANEL]) -> Two {
    const { assert!(PANEL == 32) };
    // SAFETY: both halves lie inside the array.
    unsafe { [_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))] }
}

/// The nearest numbers with eight significant bits, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round([left, right]: Two) -> Line {
    // SAFETY: all are of one size, and all bits are values.
    unsafe { transmute::<__m512bh, Line>(_mm512_cvtne2ps_pbh(right, left)) }
}

/// As [`crate::engine::kernels::gelu`], with a reciprocal that is refined once in place of a division: the error is that of f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu(x: __m512) -> __m512 {
    let half = _mm512_mul_ps(x, _mm512_set1_ps(0.5));
    let reach = _mm512_set1_ps(ERF_REACH);
    let scaled = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::FRAC_1_SQRT_2));
    let s = _mm512_max_ps(_mm512_min_ps(scaled, reach), _mm512_sub_ps(_mm512_setzero_ps(), reach));
    let t = _mm512_mul_ps(s, s);
    let (above, below) = (polynomial(t, &ERF_NUMERATOR), polynomial(t, &ERF_DENOMINATOR));
    let near = _mm512_rcp14_ps(below);
    let reciprocal = _mm512_mul_ps(near, _mm512_fnmadd_ps(below, near, _mm512_set1_ps(2.0)));
    let erf = _mm512_mul_ps(_mm512_mul_ps(s, above), reciprocal);
    _mm512_fmadd_ps(half, erf, half)
}

/// 2 to the power of `x`, which is not above zero, with a relative error under 4e-6; what lies below -120 counts as -120.
#[inline]
#[target_feature(enable = "avx512f")]
fn power_of_two(x: __m512) -> __m512 {
    /// Powers of ln 2 over the factorials: the exponential series on [-1/2, 1/2].
    const SERIES: [f32; 6] = [1.333_355_8e-3, 9.618_13e-3, 5.550_411e-2, 0.240_226_5, 0.693_147_2, 1.0];
    let x = _mm512_max_ps(x, _mm512_set1_ps(-120.0));
    let whole = _mm512_roundscale_ps::<0>(x);
    _mm512_scalef_ps(polynomial(_mm512_sub_ps(x, whole), &SERIES), whole)
}

/// Horner's scheme, the coefficient of the highest power first.
#[inline]
#[target_feature(enable = "avx512f")]
fn polynomial<const N: usize>(x: __m512, coefficients: &[f32; N]) -> __m512 {
    let mut value = _mm512_set1_ps(coefficients[0]);
    for coefficient in &coefficients[1..] {
        value = _mm512_fmadd_ps(value, x, _mm512_set1_ps(*coefficient));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "avx512f")]
    fn each(function: impl Fn(__m512) -> __m512, x: &[f32]) -> Vec<f32> {
        let apply = |x: &[f32; 16]| {
            // SAFETY: sixteen values, and all bits are values.
            let values: [f32; 16] = unsafe { transmute::<__m512, [f32; 16]>(function(_mm512_loadu_ps(x.as_ptr()))) };
            values
        };
        x.as_chunks().0.iter().flat_map(apply).collect()
    }

    #[test]
    fn functions_of_vectors_agree_with_the_math_library() {
        if !available() {
            eprintln!("this processor has no bf16 vectors: nothing uses these functions here");
            return;
        }
        let x: Vec<f32> = (-64_000..64_000).map(|i| i as f32 / 6400.0).collect();
        // SAFETY: the processor has the instructions, as just seen.
        let got = unsafe { each(|x| unsafe { gelu(x) }, &x) };
        for (x, got) in x.iter().zip(got) {
            let exact = 0.5 * f64::from(*x) * (1.0 + candle_core::cpu::erf::erf_f64(f64::from(*x) / std::f64::consts::SQRT_2));
            let error = (f64::from(got) - exact).abs();
            assert!(error < 1e-6 * f64::from(x.abs()).max(1.0), "gelu({x}): {got} for {exact}");
        }
        let x: Vec<f32> = (-119_000..1).step_by(7).map(|i| i as f32 / 1000.0).collect();
        // SAFETY: as above.
        let got = unsafe { each(|x| unsafe { power_of_two(x) }, &x) };
        for (x, got) in x.iter().zip(got) {
            let exact = f64::from(*x).exp2();
            assert!((f64::from(got) / exact - 1.0).abs() < 4e-6, "2^{x}: {got} for {exact}");
        }
    }
}
