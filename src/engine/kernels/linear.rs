//! Linear layers. This type is the only place that multiplies by weights.

use multiversion::multiversion;

use super::product::{Matrix, Rows, multiply};

/// `x · Wᵀ + b`, the addition left to whoever reads the product, who passes over it anyway.
pub(in crate::engine) struct Linear {
    /// A row an input, so that the widest loads run along the outputs and nothing is repacked at each call.
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// Takes the weights as checkpoints store them, a row of `inputs` an output, and one bias an output.
    pub(in crate::engine) fn new(weight: &[f32], bias: Vec<f32>) -> Self {
        let outputs = bias.len();
        assert!(outputs > 0 && weight.len().is_multiple_of(outputs), "{} weights are no matrix of {outputs} rows", weight.len());
        let inputs = weight.len() / outputs;
        let mut transposed = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + output] = *value;
            }
        }
        Self { weight: transposed, bias, inputs }
    }

    /// One value an output, not yet added by [`Linear::product`].
    pub(in crate::engine) fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Writes `x · Wᵀ` for every row `x` of `input` to the rows of `output`.
    pub(in crate::engine) fn product(&self, input: &[f32], output: &mut [f32]) {
        let (rows, outputs) = (input.len() / self.inputs, self.bias.len());
        assert_eq!(
            (input.len(), output.len()),
            (rows * self.inputs, rows * outputs),
            "whole rows of {} to {outputs}",
            self.inputs
        );
        let input = Matrix::rows(input, rows, self.inputs, self.inputs);
        let weight = Matrix::rows(&self.weight, self.inputs, outputs, outputs);
        multiply(input, weight, 1.0, Rows { values: output, row_step: outputs });
    }

    /// Writes `x · Wᵀ + b` for every row `x` of `input` to the rows of `output`.
    pub(in crate::engine) fn apply(&self, input: &[f32], output: &mut [f32]) {
        self.product(input, output);
        add_bias(output, &self.bias);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512dq+avx512bw+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(in crate::engine) fn add_bias(rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        for (value, bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}
