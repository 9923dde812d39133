//! A weight matrix between the file and the kernels.

use tidemill_kernels::{PackedMatrix, Quantized};

/// A matrix as its file stores it, a row an output.
pub(crate) enum Matrix {
    /// In f32, or what f32 alone holds without loss.
    F32 {
        /// The rows, side by side.
        rows: Vec<f32>,
        /// Values of a row.
        inputs: usize,
    },
    /// In bf16: the upper halves of f32.
    Bf16 {
        /// The rows, side by side.
        rows: Vec<u16>,
        /// Values of a row.
        inputs: usize,
    },
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

    /// The form that is multiplied by.
    pub(super) fn pack(self) -> PackedMatrix {
        match self {
            Self::F32 { rows, inputs } => PackedMatrix::from_f32(&rows, inputs),
            Self::Bf16 { rows, inputs } => PackedMatrix::from_bf16(&rows, inputs),
            Self::Quantized(rows) => PackedMatrix::from_quantized(&rows),
        }
    }
}
