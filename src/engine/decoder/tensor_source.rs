//! Where the tensors of a decoder come from: a folder of safetensors, perhaps with an adapter, or a GGUF file.

use crate::error::EngineError;
use crate::matrix::Matrix;

/// A decoder's tensors under the names that Hugging Face folders give them. Each is taken once.
pub(super) trait TensorSource {
    /// Takes the matrix `name` of `outputs` rows of `inputs`.
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, EngineError>;

    /// Takes the vector `name`.
    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError>;
}
