//! Functions of sums while they are in the first cache. They become the inputs of the next product, or the weights of an attention.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, __m512i, _mm512_add_ps, _mm512_and_si512, _mm512_castpd_ps, _mm512_castps_pd, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_max_ps, _mm512_min_ps, _mm512_mul_ps, _mm512_or_si512, _mm512_permutex2var_epi32, _mm512_rcp14_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_f32x4, _mm512_shuffle_i32x4, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_sub_ps, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
    _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::mem::transmute;
use std::ops::Range;

use crate::bf16::vectors::{load, round};
use crate::cache_line::{Bf16Line, CacheAligned, LINE_PAIRS};
use crate::matrix_unit::{ActivationFunction, PanelStep, Sums};
use crate::panel::PANEL;
use crate::tiles::{BLOCK_ROWS, TILE_ROWS, Tiles};

/// See [`super::MatrixUnit::activate`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn activate(
    sums: &Sums,
    rows: Range<usize>,
    bias: &[f32; PANEL],
    function: ActivationFunction,
    output: &mut Tiles,
    step: usize,
) {
    let bias = load(bias);
    for (row, sums) in rows.zip(&sums.0) {
        let mut values = load(sums);
        for (value, bias) in values.iter_mut().zip(bias) {
            *value = _mm512_add_ps(*value, bias);
            if function == ActivationFunction::Gelu {
                *value = gelu(*value);
            }
        }
        *output.place(row, step) = round(values);
    }
}

/// See [`super::MatrixUnit::gate`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn gate([gates, values]: &[Sums; 2], rows: usize, lines: &mut [Bf16Line; BLOCK_ROWS]) {
    let (one, inverse) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-std::f32::consts::LOG2_E));
    for ((line, gates), values) in lines[..rows].iter_mut().zip(&gates.0).zip(&values.0) {
        let (gates, mut values) = (load(gates), load(values));
        for (value, gate) in values.iter_mut().zip(gates) {
            let sigmoid = reciprocal(_mm512_add_ps(one, power_of_two(_mm512_mul_ps(gate, inverse))));
            *value = _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid), *value);
        }
        *line = round(values);
    }
}

/// See [`super::MatrixUnit::scale`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn scale(sums: &Sums, rows: Range<usize>, factors: &[f32], output: &mut Tiles, step: usize) {
    for ((row, sums), factor) in rows.zip(&sums.0).zip(factors) {
        let factor = _mm512_set1_ps(*factor);
        let [left, right] = load(sums);
        *output.place(row, step) = round([_mm512_mul_ps(left, factor), _mm512_mul_ps(right, factor)]);
    }
}

/// See [`super::MatrixUnit::softmax_weights`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn softmax_weights(scores: &[Sums], rows: usize, factor: f32, weights: &mut Tiles) -> [f32; BLOCK_ROWS] {
    let factor = _mm512_set1_ps(factor);
    let mut totals = [0.0; BLOCK_ROWS];
    for (first, totals) in (0..rows).step_by(TILE_ROWS).zip(totals.as_chunks_mut().0) {
        let most = reduce(
            std::array::from_fn(|row| {
                let mut most = [_mm512_set1_ps(f32::MIN); 2];
                for sums in scores {
                    let values = load(&sums.0[first + row]);
                    most = [_mm512_max_ps(most[0], values[0]), _mm512_max_ps(most[1], values[1])];
                }
                _mm512_max_ps(most[0], most[1])
            }),
            |a, b| _mm512_max_ps(a, b),
        );
        let sums = std::array::from_fn(|row| {
            let most = _mm512_set1_ps(most[row]);
            let mut total = [_mm512_setzero_ps(); 2];
            for (step, sums) in scores.iter().enumerate() {
                let mut values = load(&sums.0[first + row]);
                for (value, total) in values.iter_mut().zip(&mut total) {
                    *value = power_of_two(_mm512_mul_ps(_mm512_sub_ps(*value, most), factor));
                    *total = _mm512_add_ps(*total, *value);
                }
                *weights.place(first + row, step) = round(values);
            }
            _mm512_add_ps(total[0], total[1])
        });
        *totals = reduce(sums, |a, b| _mm512_add_ps(a, b));
    }
    totals
}

/// Reduces the lanes of each of sixteen vectors by `join`. All vectors are reduced together, in four rounds that halve their number: one
/// after the other would take twice as many instructions.
#[inline]
#[target_feature(enable = "avx512f")]
fn reduce(vectors: [__m512; 16], join: impl Fn(__m512, __m512) -> __m512) -> [f32; 16] {
    // Each lane is a quarter of a row of sixteen bytes in turn: a b a b, then a b c d.
    let twos: [__m512; 8] = std::array::from_fn(|i| {
        let (a, b) = (vectors[2 * i], vectors[2 * i + 1]);
        join(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b))
    });
    let fours: [__m512; 4] = std::array::from_fn(|i| {
        let (a, b) = (_mm512_castps_pd(twos[2 * i]), _mm512_castps_pd(twos[2 * i + 1]));
        join(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
    });
    let halves = |a, b| join(_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
    let whole = halves(halves(fours[0], fours[1]), halves(fours[2], fours[3]));
    // SAFETY: both are of one size, and all bits are values.
    unsafe { transmute::<__m512, [f32; 16]>(whole) }
}

/// See [`super::MatrixUnit::pack_transposed`].
#[target_feature(enable = "avx512f")]
pub(super) fn pack_transposed(rows: &[Bf16Line], panel: &mut PanelStep) {
    for half in 0..2 {
        let lines = transposed(std::array::from_fn(|row| row_or_zero(rows, half * LINE_PAIRS + row)));
        panel.iter_mut().zip(lines).for_each(|(outputs, line)| outputs[half] = line_of(line));
    }
}

/// See [`super::MatrixUnit::pack_pairs`].
#[target_feature(enable = "avx512f")]
pub(super) fn pack_pairs(rows: &[Bf16Line], panel: &mut PanelStep) {
    let (lower, upper) = (_mm512_set1_epi32(0xffff), _mm512_set1_epi32(0xffff_0000_u32.cast_signed()));
    let places = [0, 8].map(|first| {
        let places: [u32; LINE_PAIRS] = std::array::from_fn(|i| (first + i / 2 + i % 2 * LINE_PAIRS) as u32);
        vector(&CacheAligned(places))
    });
    for (pair, outputs) in panel.iter_mut().enumerate() {
        let (a, b) = (row_or_zero(rows, 2 * pair), row_or_zero(rows, 2 * pair + 1));
        let even = _mm512_or_si512(_mm512_and_si512(a, lower), _mm512_slli_epi32::<16>(b));
        let odd = _mm512_or_si512(_mm512_srli_epi32::<16>(a), _mm512_and_si512(b, upper));
        *outputs = places.map(|places| line_of(_mm512_permutex2var_epi32(even, places, odd)));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn row_or_zero(rows: &[Bf16Line], row: usize) -> __m512i {
    rows.get(row).map_or(_mm512_setzero_si512(), |row| vector(row))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn vector(line: &Bf16Line) -> __m512i {
    // SAFETY: both are of one size, and all bits are values.
    unsafe { transmute::<Bf16Line, __m512i>(*line) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn line_of(vector: __m512i) -> Bf16Line {
    // SAFETY: as above.
    unsafe { transmute::<__m512i, Bf16Line>(vector) }
}

/// Transposes sixteen lines: the first pairs of all, then the second ones.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(lines: [__m512i; LINE_PAIRS]) -> [__m512i; LINE_PAIRS] {
    let mut quads = lines;
    // Within quarters: four pairs of four lines each.
    for (four, quads) in lines.as_chunks::<4>().0.iter().zip(quads.as_chunks_mut::<4>().0) {
        let [low, high] = [_mm512_unpacklo_epi32(four[0], four[1]), _mm512_unpackhi_epi32(four[0], four[1])];
        let [low2, high2] = [_mm512_unpacklo_epi32(four[2], four[3]), _mm512_unpackhi_epi32(four[2], four[3])];
        *quads = [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ];
    }
    // Then the quarters themselves.
    let mut across = lines;
    for i in 0..4 {
        let [a, b, c, d] = [quads[i], quads[4 + i], quads[8 + i], quads[12 + i]];
        let (even, odd) = (_mm512_shuffle_i32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b));
        let (even2, odd2) = (_mm512_shuffle_i32x4::<0b10_00_10_00>(c, d), _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d));
        across[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even, even2);
        across[8 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even, even2);
        across[4 + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd, odd2);
        across[12 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd, odd2);
    }
    across
}

/// GELU. Its `erf` is x times a minimax polynomial of x² up to `REACH`, where it is 1 to the last bit, and 1 beyond. The error is under
/// 1e-4; rounding to bf16, which follows, changes a value near one by up to thirty times that.
#[inline]
#[target_feature(enable = "avx512f")]
fn gelu(x: __m512) -> __m512 {
    const REACH: f32 = 4.194_81;
    const SERIES: [f32; 8] = [
        -1.803_508_1e-9,
        1.588_269e-7,
        -6.075_866e-6,
        1.337_814_3e-4,
        -1.901_315_3e-3,
        1.859_646e-2,
        -0.131_056_41,
        0.796_931_74,
    ];
    let near = _mm512_min_ps(_mm512_set1_ps(REACH), _mm512_max_ps(_mm512_set1_ps(-REACH), x));
    let erf = _mm512_mul_ps(near, polynomial(_mm512_mul_ps(near, near), &SERIES));
    let half = _mm512_mul_ps(x, _mm512_set1_ps(0.5));
    _mm512_fmadd_ps(half, erf, half)
}

/// One over `x`: the processor's estimate, refined once by Newton's method.
#[inline]
#[target_feature(enable = "avx512f")]
fn reciprocal(x: __m512) -> __m512 {
    let near = _mm512_rcp14_ps(x);
    _mm512_mul_ps(near, _mm512_fnmadd_ps(x, near, _mm512_set1_ps(2.0)))
}

/// 2 to the power of `x`, with a relative error under 4e-6. `x` is limited to -120 to 120.
#[inline]
#[target_feature(enable = "avx512f")]
fn power_of_two(x: __m512) -> __m512 {
    /// Powers of ln 2 over the factorials: the exponential series on [-1/2, 1/2].
    const SERIES: [f32; 6] = [1.333_355_8e-3, 9.618_13e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0];
    // In this order NaN stays NaN.
    let x = _mm512_min_ps(_mm512_set1_ps(120.0), _mm512_max_ps(_mm512_set1_ps(-120.0), x));
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
    use std::arch::x86_64::_mm512_loadu_ps;

    use super::*;
    use crate::bf16::vectors::available;

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
        let got = unsafe { each(|x| gelu(x), &x) };
        for (x, got) in x.iter().zip(got) {
            let exact = 0.5 * f64::from(*x) * (1.0 + libm::erf(f64::from(*x) / std::f64::consts::SQRT_2));
            let error = (f64::from(got) - exact).abs();
            assert!(error < 1e-4, "gelu({x}): {got} for {exact}");
        }
        // SAFETY: as above.
        let got = unsafe {
            each(|x| gelu(x), &[-1e30, -300.0, -5.0, -4.2, 0.0, 4.2, 5.0, 300.0, 1e30, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
        };
        assert_eq!(got[..9], [0.0, 0.0, 0.0, 0.0, 0.0, 4.2, 5.0, 300.0, 1e30], "the tails are what they are");
        let x: Vec<f32> = (-119_000..1).step_by(7).map(|i| i as f32 / 1000.0).collect();
        // SAFETY: as above.
        let got = unsafe { each(|x| power_of_two(x), &x) };
        for (x, got) in x.iter().zip(got) {
            let exact = f64::from(*x).exp2();
            assert!((f64::from(got) / exact - 1.0).abs() < 4e-6, "2^{x}: {got} for {exact}");
        }
        // SAFETY: as above.
        let got = unsafe { each(|x| power_of_two(x), &[f32::NAN; 16]) };
        assert!(got.iter().all(|got| got.is_nan()), "what is no number is hidden");
    }
}
