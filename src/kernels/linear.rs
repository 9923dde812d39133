//! Linear layers. This type is the only place that multiplies by weights.

use multiversion::multiversion;

use super::matrix_unit::{self, ActivationFunction};
use super::packed_matrix::{Accumulate, Activations, PackedMatrix, Parallelism, Target};
use super::product::{Matrix, Rows, multiply};
use super::tiles::Tiles;

/// `x · Wᵀ + b`, the addition left to whoever reads the product, who passes over it anyway.
pub struct Linear {
    weight: Weight,
    bias: Vec<f32>,
    inputs: usize,
}

enum Weight {
    /// A row an input, so that the widest loads run along the outputs and nothing is repacked at each call.
    F32(Vec<f32>),
    /// In bf16, for processors that multiply it by themselves.
    Bf16(PackedMatrix),
}

impl Linear {
    /// Takes the weights as checkpoints store them, a row of `inputs` an output, and one bias an output.
    pub fn new(weight: &[f32], bias: Vec<f32>) -> Self {
        let outputs = bias.len();
        assert!(outputs > 0 && weight.len().is_multiple_of(outputs), "{} weights are no matrix of {outputs} rows", weight.len());
        let inputs = weight.len() / outputs;
        if matrix_unit::pay(inputs) {
            return Self { weight: Weight::Bf16(PackedMatrix::from_f32_rounded(weight, inputs)), bias, inputs };
        }
        let mut transposed = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + output] = *value;
            }
        }
        Self { weight: Weight::F32(transposed), bias, inputs }
    }

    /// One value an output, not yet added by [`Linear::product`].
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Writes `x · Wᵀ` for every row `x` of `input` to the rows of `output`.
    pub fn product(&self, input: &[f32], output: &mut [f32]) {
        let (rows, outputs) = (input.len() / self.inputs, self.bias.len());
        assert_eq!(
            (input.len(), output.len()),
            (rows * self.inputs, rows * outputs),
            "whole rows of {} to {outputs}",
            self.inputs
        );
        match &self.weight {
            Weight::F32(weight) => {
                let input = Matrix::rows(input, rows, self.inputs, self.inputs);
                let weight = Matrix::rows(weight, self.inputs, outputs, outputs);
                multiply(input, weight, 1.0, Rows { values: output, row_step: outputs });
            }
            Weight::Bf16(weight) => {
                let target = Target { values: output, width: outputs, column: 0, accumulate: Accumulate::Overwrite };
                weight.multiply(&Activations::new(input, self.inputs, Parallelism::CallingThread), target);
            }
        }
    }

    /// Whether rounded rows may be multiplied: [`Linear::apply_rounded`] and [`Linear::product_rounded`].
    pub fn takes_bf16_rows(&self) -> bool {
        matches!(&self.weight, Weight::Bf16(weight) if weight.takes_bf16_rows())
    }

    fn rounded(&self) -> &PackedMatrix {
        let Weight::Bf16(weight) = &self.weight else { panic!("rounded rows meet weights of f32") };
        weight
    }

    /// Rounds `function(x · Wᵀ + b)` of every row `x` of `input` to the rows of `output`.
    pub fn apply_rounded(&self, input: &Tiles, function: ActivationFunction, output: &mut Tiles) {
        self.rounded().multiply_rounded(input, &self.bias, function, output);
    }

    /// Writes `x · Wᵀ` of every rounded row `x` of `input` to the rows of `output`.
    pub fn product_rounded(&self, input: &Tiles, output: &mut [f32]) {
        self.rounded().multiply_tiled(input, output);
    }

    /// Writes `x · Wᵀ + b` for every row `x` of `input` to the rows of `output`.
    pub fn apply(&self, input: &[f32], output: &mut [f32]) {
        self.product(input, output);
        add_bias(output, &self.bias);
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
