//! A weight matrix between the file and the kernels.

use tidemill_kernels::{Packed, Quantized};

/// A matrix as its file stores it, a row an output.
pub(crate) enum Matrix {
    /// In f32, or what f32 alone holds without loss.
    Wide {
        /// The rows, side by side.
        rows: Vec<f32>,
        /// Values of a row.
        inputs: usize,
    },
    /// In bf16: the upper halves of f32.
    Half {
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
    pub(crate) fn into_wide(self) -> Vec<f32> {
        match self {
            Self::Wide { rows, .. } => rows,
            Self::Half { rows, .. } => rows.into_iter().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
            Self::Quantized(rows) => rows.widened(),
        }
    }

    /// The form that is multiplied by.
    pub(super) fn pack(self) -> Packed {
        match self {
            Self::Wide { rows, inputs } => Packed::from_wide(&rows, inputs),
            Self::Half { rows, inputs } => Packed::from_half(&rows, inputs),
            Self::Quantized(rows) => Packed::from_quantized(&rows),
        }
    }
}
