//! The gate between the two products of a decoder's feed-forward layer.

use multiversion::multiversion;

use super::activation::exp;

/// `output = silu(gate) * value`, where a row of `rows` holds the gates and then the values of one row of `output`.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub fn gate(rows: &[f32], output: &mut [f32], width: usize) {
    for (row, output) in rows.chunks_exact(2 * width).zip(output.chunks_exact_mut(width)) {
        let (gates, values) = row.split_at(width);
        for ((output, gate), value) in output.iter_mut().zip(gates).zip(values) {
            *output = gate / (1.0 + exp(-gate)) * value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gate_agrees_with_the_math_library_out_to_its_tails() {
        let gates: Vec<f32> = (-2000..2000).map(|i| i as f32 / 10.0).collect();
        let rows: Vec<f32> = gates.iter().copied().chain(std::iter::repeat_n(0.5, gates.len())).collect();
        let mut output = vec![0.0; gates.len()];
        gate(&rows, &mut output, gates.len());
        for (gate, got) in gates.iter().zip(output) {
            let exact = f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * 0.5;
            assert!((f64::from(got) - exact).abs() < 1e-6 * exact.abs().max(1.0), "gate {gate}: expected {exact}, got {got}");
        }
    }
}
