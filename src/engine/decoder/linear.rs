//! The linear layers of a decoder on the CPU: one matrix, or several that read the same input, with their biases.

use crate::backend::{Cpu, DecoderBackend};
use crate::error::EngineError;
use crate::matrix::Matrix;
use tidemill_kernels::{Accumulate, Activations, PackedMatrix, Parallelism, RmsNorm, Target, add_bias};

/// `x · Wᵀ + b` of one or more matrices, the results side by side.
pub(crate) struct Linear {
    parts: Vec<PackedMatrix>,
    bias: Option<Vec<f32>>,
    outputs: usize,
}

impl Linear {
    /// The layer of `parts`; `bias` is as long as all their outputs.
    pub(super) fn new(parts: Vec<PackedMatrix>, bias: Option<Vec<f32>>) -> Self {
        let outputs = parts.iter().map(PackedMatrix::outputs).sum();
        Self { parts, bias, outputs }
    }

    /// Outputs of a row.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Writes the layer's results for every row of `input` to the rows of `output`, or adds them there.
    pub(super) fn apply(&self, input: &[f32], output: &mut [f32], accumulate: Accumulate) {
        self.apply_to(&Activations::new(input, self.parts[0].inputs(), Parallelism::Pool), output, accumulate);
    }

    /// The gated values `silu(gates) · values` of every row of `input`, where the first part makes the gates and the second one the values.
    /// They are rounded at once, as `next` reads them, and never written as f32. None if the weights do not take rounded rows.
    pub(super) fn gate(&self, input: &[f32], next: &Self) -> Option<Activations<'static>> {
        let [gates, values] = &*self.parts else { return None };
        let rounds = [gates, values].into_iter().chain(&next.parts).all(PackedMatrix::takes_bf16_rows);
        (rounds && self.bias.is_none()).then(|| gates.gate(values, &Activations::new(input, gates.inputs(), Parallelism::Pool)))
    }

    /// [`Linear::apply`] to rows that other layers may read, too.
    pub(super) fn apply_to(&self, input: &Activations<'_>, output: &mut [f32], accumulate: Accumulate) {
        let mut column = 0;
        for part in &self.parts {
            part.multiply(input, Target { values: output, width: self.outputs, column, accumulate });
            column += part.outputs();
        }
        if let Some(bias) = &self.bias {
            add_bias(output, bias);
        }
    }
}

impl DecoderBackend for Cpu {
    type Matrix = PackedMatrix;
    type Linear = Linear;
    type RmsNorm = RmsNorm;

    fn matrix(&self, stored: Matrix, _: usize) -> Result<PackedMatrix, EngineError> {
        Ok(match stored {
            Matrix::F32 { rows, inputs } => PackedMatrix::from_f32(&rows, inputs),
            Matrix::Bf16 { rows, inputs } => PackedMatrix::from_bf16(&rows, inputs),
            Matrix::Quantized(rows) => PackedMatrix::from_quantized(&rows),
        })
    }

    fn linear(&self, parts: Vec<PackedMatrix>, bias: Option<Vec<f32>>) -> Result<Linear, EngineError> {
        Ok(Linear::new(parts, bias))
    }

    fn rms_norm(&self, scale: Vec<f32>, epsilon: f32) -> Result<RmsNorm, EngineError> {
        Ok(RmsNorm { scale, epsilon })
    }

    fn only_matrix(linear: &Linear) -> &PackedMatrix {
        &linear.parts[0]
    }

    fn linear_bytes(linear: &Linear) -> usize {
        linear.parts.iter().map(PackedMatrix::bytes).sum()
    }

    fn matrix_bytes(matrix: &PackedMatrix) -> usize {
        matrix.bytes()
    }
}
