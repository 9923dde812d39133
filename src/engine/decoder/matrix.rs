//! A weight matrix between the file and the kernels.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use crate::engine::kernels::{Onto, Packed, Target};

/// A matrix as its file stores it, a row an output.
pub(super) enum Matrix {
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
    /// In blocks of integers with their scales.
    Quantized(Arc<QTensor>),
}

/// A matrix as the kernels read it.
pub(super) enum Weight {
    /// In panels.
    Packed(Packed),
    /// As the GGUF file stores it.
    Quantized(Arc<QTensor>),
}

impl Matrix {
    /// The values in f32.
    pub(super) fn into_wide(self) -> Vec<f32> {
        match self {
            Self::Wide { rows, .. } => rows,
            Self::Half { rows, .. } => rows.into_iter().map(|half| f32::from_bits(u32::from(half) << 16)).collect(),
            Self::Quantized(tensor) => dequantize(&tensor),
        }
    }

    /// The form that is multiplied by.
    pub(super) fn pack(self) -> Weight {
        match self {
            Self::Wide { rows, inputs } => Weight::Packed(Packed::from_wide(&rows, inputs)),
            Self::Half { rows, inputs } => Weight::Packed(Packed::from_half(&rows, inputs)),
            Self::Quantized(tensor) => Weight::Quantized(tensor),
        }
    }
}

impl Weight {
    /// Outputs of a row.
    pub(super) fn outputs(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.outputs(),
            Self::Quantized(tensor) => tensor.shape().dims()[0],
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Packed(packed) => packed.bytes(),
            Self::Quantized(tensor) => tensor.storage_size_in_bytes(),
        }
    }

    /// Copies the rows of `ids`, as an embedding table is read.
    pub(super) fn rows(&self, ids: &[u32], output: &mut [f32]) {
        let width = output.len() / ids.len();
        match self {
            Self::Packed(packed) => {
                ids.iter().zip(output.chunks_exact_mut(width)).for_each(|(id, row)| packed.row(*id as usize, row));
            }
            Self::Quantized(tensor) => {
                let rows = Tensor::new(ids, &Device::Cpu).and_then(|ids| tensor.embedding(&ids)?.flatten_all()?.to_vec1::<f32>());
                output.copy_from_slice(
                    &rows.expect("rows of a quantized table whose type and shape were checked when it was read"),
                );
            }
        }
    }

    /// Writes the products of every row of `input` to the rows of `target`.
    pub(super) fn multiply(&self, input: &[f32], target: Target<'_>) {
        match self {
            Self::Packed(packed) => packed.multiply(input, target),
            Self::Quantized(tensor) => multiply_quantized(tensor, input, target),
        }
    }
}

fn dequantize(tensor: &QTensor) -> Vec<f32> {
    let values = tensor.dequantize(&Device::Cpu).and_then(|t| t.flatten_all()?.to_vec1());
    values.expect("the values of a tensor whose type and shape were checked when it was read")
}

fn multiply_quantized(tensor: &Arc<QTensor>, input: &[f32], target: Target<'_>) {
    let (outputs, inputs) = (tensor.shape().dims()[0], tensor.shape().dims()[1]);
    let product = Tensor::from_slice(input, (input.len() / inputs, inputs), &Device::Cpu)
        .and_then(|input| input.apply_op1_no_bwd(&**tensor)?.flatten_all()?.to_vec1::<f32>())
        .expect("a product with a tensor whose type and shape were checked when it was read");
    for (row, product) in target.values.chunks_exact_mut(target.width).zip(product.chunks_exact(outputs)) {
        let place = &mut row[target.column..][..outputs];
        match target.onto {
            Onto::Nothing => place.copy_from_slice(product),
            Onto::Present => place.iter_mut().zip(product).for_each(|(value, product)| *value += product),
        }
    }
}
