//! The logarithm of the sum of exponentials, by which logits become probabilities.

use multiversion::multiversion;

use super::activation::exp;

/// Values that are reduced side by side, so that they fill a vector register.
const LANES: usize = 16;

/// The logarithm of the sum of the exponentials. Not finite if a logit is not a number.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    let (lanes, rest) = logits.as_chunks::<LANES>();
    let mut largest = [f32::NEG_INFINITY; LANES];
    for values in lanes {
        for (most, value) in largest.iter_mut().zip(values) {
            *most = if *value > *most { *value } else { *most };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |most, value| most.max(*value));
    let mut sums = [0.0_f32; LANES];
    for values in lanes {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += exp(*value - largest);
        }
    }
    let sum: f64 = sums.iter().map(|sum| f64::from(*sum)).sum::<f64>()
        + rest.iter().map(|value| f64::from(exp(*value - largest))).sum::<f64>();
    (f64::from(largest) + sum.ln()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_sum_exp_agrees_with_the_math_library() {
        for count in [1, 15, 16, 17, 1000, 50_001] {
            let logits: Vec<f32> = (0..count).map(|i| ((i * 7919 % 2003) as f32).sin() * 30.0).collect();
            let exact = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            let got = f64::from(log_sum_exp(&logits));
            assert!((got - exact).abs() < 1e-5, "of {count} logits: expected {exact}, got {got}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_hidden() {
        for bad in [f32::NAN, f32::INFINITY] {
            for place in [0, 20] {
                let mut logits = vec![1.0; 40];
                logits[place] = bad;
                assert!(!log_sum_exp(&logits).is_finite(), "{bad} at {place}");
            }
        }
    }
}
