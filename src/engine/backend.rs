//! What weights become on the kind of device that computes with them.
//!
//! Each architecture reads its tensors once, in `encoder/weights.rs` and `decoder/weights.rs`, and hands them to one of these traits. So the
//! names of tensors, the rules for biases and the tied heads are written once for all devices.

use super::error::EngineError;
use super::matrix::Matrix;

/// The cores of this machine, with the arithmetic of `kernels`.
pub(crate) struct Cpu;

/// What an encoder is made of on one kind of device.
pub(crate) trait EncoderBackend {
    /// Rows that are looked up by their index.
    type Table;
    /// `x · Wᵀ + b`.
    type Linear;
    type LayerNorm;

    /// Rows of `width` values.
    fn table(&self, rows: Vec<f32>, width: usize) -> Result<Self::Table, EngineError>;

    /// A row of `weight` for each value of `bias`.
    fn linear(&self, weight: Vec<f32>, bias: Vec<f32>) -> Result<Self::Linear, EngineError>;

    fn layer_norm(&self, scale: Vec<f32>, shift: Vec<f32>, epsilon: f32) -> Result<Self::LayerNorm, EngineError>;
}

/// What a decoder is made of on one kind of device.
pub(crate) trait DecoderBackend {
    /// A matrix in the form that is multiplied by, or looked up in.
    type Matrix;
    /// `x · Wᵀ + b` of one or more matrices, the results side by side.
    type Linear;
    type RmsNorm;

    /// Takes a matrix of `outputs` rows onto the device.
    fn matrix(&self, stored: Matrix, outputs: usize) -> Result<Self::Matrix, EngineError>;

    /// `bias` has a value for each output of all `parts`.
    fn linear(&self, parts: Vec<Self::Matrix>, bias: Option<Vec<f32>>) -> Result<Self::Linear, EngineError>;

    fn rms_norm(&self, scale: Vec<f32>, epsilon: f32) -> Result<Self::RmsNorm, EngineError>;

    /// The matrix of a layer that has one alone.
    fn only_matrix(linear: &Self::Linear) -> &Self::Matrix;

    /// Bytes of a layer's weights on the device.
    fn linear_bytes(linear: &Self::Linear) -> usize;

    /// Bytes of a matrix on the device.
    fn matrix_bytes(matrix: &Self::Matrix) -> usize;
}
