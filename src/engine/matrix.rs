//! A tensor of weights between its file and the device.

use tidemill_kernels::Quantized;

/// A matrix as its file stores it, a row of inputs for each output.
pub(crate) enum Matrix {
    /// In f32, or converted to it without loss.
    F32 { rows: Vec<f32>, inputs: usize },
    /// In bf16: the upper halves of f32.
    Bf16 { rows: Vec<u16>, inputs: usize },
    /// In integers with their scales.
    Quantized(Quantized),
}

impl Matrix {
    /// The values in f32.
    pub(crate) fn into_f32(self) -> Vec<f32> {
        match self {
            Self::F32 { rows, .. } => rows,
            Self::Bf16 { rows, .. } => rows.into_iter().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
            Self::Quantized(rows) => rows.to_f32(),
        }
    }
}
