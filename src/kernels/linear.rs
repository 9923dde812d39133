//! The linear layers of an encoder.

use super::activation::add_bias;
use super::matrix_unit::{self, ActivationFunction};
use super::packed_matrix::{Accumulate, Activations, PackedMatrix, Parallelism, Target};
use super::tiles::Tiles;

/// `x · Wᵀ + b`. The caller adds the bias, because it passes over the product anyway.
pub struct Linear {
    weight: PackedMatrix,
    bias: Vec<f32>,
}

impl Linear {
    /// Takes the weights as checkpoints store them, a row of inputs for each output, and one bias for each output. Rounds the weights to bf16
    /// where the processor multiplies bf16 and rows are long enough to gain from it.
    pub fn new(weight: &[f32], bias: Vec<f32>) -> Self {
        let outputs = bias.len();
        assert!(outputs > 0 && weight.len().is_multiple_of(outputs), "{} weights are no matrix of {outputs} rows", weight.len());
        let inputs = weight.len() / outputs;
        let pack = if matrix_unit::uses_bf16(inputs) { PackedMatrix::from_f32_rounded } else { PackedMatrix::from_f32 };
        Self { weight: pack(weight, inputs), bias }
    }

    /// One value for each output; [`Linear::product`] does not add it.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// Writes `x · Wᵀ` for every row `x` of `input` to the rows of `output`, on the calling thread.
    pub fn product(&self, input: &[f32], output: &mut [f32]) {
        let (inputs, outputs) = (self.weight.inputs(), self.weight.outputs());
        let target = Target { values: output, width: outputs, column: 0, accumulate: Accumulate::Overwrite };
        self.weight.multiply(&Activations::new(input, inputs, Parallelism::CallingThread), target);
    }

    /// Whether [`Linear::apply_rounded`] and [`Linear::product_rounded`] may be called.
    pub fn takes_bf16_rows(&self) -> bool {
        self.weight.takes_bf16_rows()
    }

    /// Rounds `function(x · Wᵀ + b)` of every row `x` of `input` to the rows of `output`.
    pub fn apply_rounded(&self, input: &Tiles, function: ActivationFunction, output: &mut Tiles) {
        self.weight.multiply_rounded(input, &self.bias, function, output);
    }

    /// Writes `x · Wᵀ` of every rounded row `x` of `input` to the rows of `output`.
    pub fn product_rounded(&self, input: &Tiles, output: &mut [f32]) {
        self.weight.multiply_tiled(input, output);
    }

    /// Writes `x · Wᵀ + b` for every row `x` of `input` to the rows of `output`.
    pub fn apply(&self, input: &[f32], output: &mut [f32]) {
        self.product(input, output);
        add_bias(output, &self.bias);
    }
}
