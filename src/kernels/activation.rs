//! Element-wise functions, as polynomials that the compiler turns into vector instructions: calls of the math library would not be.

use multiversion::multiversion;

/// `exp` with a relative error under 2e-7. Below -87 it gives about 1e-38, which a softmax cannot tell from zero.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Cephes' minimax polynomial on [-ln2/2, ln2/2].
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * r * r + r + 1.0;
    // n lies between -126 and 127, so that these bits are the number 2^n.
    value * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// Beyond this `erf` is 1 to the last bit of f32.
const ERF_REACH: f32 = 4.0;

/// `erf` as x times one polynomial of x² over another, the highest power first: the coefficients that Eigen uses.
const ERF_NUMERATOR: [f32; 7] =
    [-2.726_142_4e-10, 2.770_681_3e-8, -2.101_024e-6, -5.692_506_4e-5, -7.349_906e-4, -2.954_6e-3, -1.609_603e-2];

/// See [`ERF_NUMERATOR`].
const ERF_DENOMINATOR: [f32; 5] = [-1.456_607e-5, -2.133_740_2e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2];

/// `erf` with an absolute error under 5e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-ERF_REACH, ERF_REACH);
    let horner = |coefficients: &[f32]| coefficients[1..].iter().fold(coefficients[0], |value, next| value * (x * x) + next);
    x * horner(&ERF_NUMERATOR) / horner(&ERF_DENOMINATOR)
}

/// `x = gelu(x + bias)`, the exact form with `erf`, over rows as wide as `bias`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn gelu(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            let x = *value + bias;
            *value = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

/// Adds `bias` to every row; a row is as wide as the bias.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// `x = tanh(x)`.
pub fn tanh(values: &mut [f32]) {
    for value in values {
        *value = value.tanh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_the_math_library() {
        let mut worst = 0.0_f64;
        for i in -87_000..=80_000 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "largest relative error of exp: {worst:e}");
    }

    #[test]
    fn erf_agrees_with_the_math_library() {
        let mut worst = 0.0_f64;
        for i in -60_000..=60_000 {
            let x = i as f32 / 10_000.0;
            let exact = libm::erf(f64::from(x));
            worst = worst.max((f64::from(erf(x)) - exact).abs());
        }
        assert!(worst < 5e-7, "largest error of erf: {worst:e}");
    }

    #[test]
    fn gelu_adds_the_bias_and_keeps_the_tails() {
        let bias = [0.5, -0.5, 0.0];
        let mut rows = [-0.5, 100.5, -100.0, 0.5, 1.5, 30.0];
        gelu(&mut rows, &bias);
        let expected = [0.0, 100.0, 0.0, 0.841_344_7, 0.841_344_7, 30.0];
        for (got, expected) in rows.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "gelu: expected {expected}, got {got}");
        }
    }
}
