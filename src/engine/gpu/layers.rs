//! Linear layers and norms with their weights on the device.

use candle_core::{D, Result, Tensor};
use candle_nn::Module;

use super::accelerator::Accelerator;

/// `x · Wᵀ + b`.
pub(crate) struct Linear(candle_nn::Linear);

impl Linear {
    /// A row for each output, and perhaps a bias for each output.
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self(candle_nn::Linear::new(weight, bias))
    }

    /// Weights as a checkpoint stores them, with their biases.
    pub(super) fn upload(accelerator: &Accelerator, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self> {
        let outputs = bias.len();
        let inputs = weight.len() / outputs;
        Ok(Self::new(accelerator.upload(weight, (outputs, inputs))?, Some(accelerator.upload(bias, outputs)?)))
    }

    /// Outputs of a row.
    pub(super) fn outputs(&self) -> usize {
        self.0.weight().dims()[0]
    }

    pub(super) fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    pub(super) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        self.0.forward(rows)
    }
}

/// Normalisation by the root of the mean square, of rows or of each head.
pub(crate) struct RmsNorm {
    pub(super) scale: Tensor,
    pub(super) epsilon: f32,
}

impl RmsNorm {
    /// Normalizes over the last dimension.
    pub(super) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(rows, &self.scale, self.epsilon)
    }
}

pub(crate) struct LayerNorm {
    pub(super) scale: Tensor,
    pub(super) shift: Tensor,
    pub(super) epsilon: f32,
}

impl LayerNorm {
    /// Normalizes over the last dimension.
    pub(super) fn apply(&self, rows: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(rows, &self.scale, &self.shift, self.epsilon)
    }
}

/// Softmax of the last dimension.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    candle_nn::ops::softmax_last_dim(scores)
}

/// `silu(gates) · values` of rows that hold gates and then values.
pub(super) fn gate(wide: &Tensor) -> Result<Tensor> {
    let inner = wide.dim(D::Minus1)? / 2;
    let gates = wide.narrow(D::Minus1, 0, inner)?.silu()?;
    gates * wide.narrow(D::Minus1, inner, inner)?
}

/// Bytes of a tensor.
pub(super) fn bytes(tensor: &Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}
