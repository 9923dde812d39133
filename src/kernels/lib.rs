//! The arithmetic of encoders and decoders on CPU cores, on plain slices of f32.
//!
//! Every kernel is compiled for several instruction sets and the widest is chosen when the program runs. Those of the encoder start
//! no threads: the cores share a batch by whole sequences, so nothing waits for anything between two layers. A decoder's step is too
//! short for that: `packed` and `paged` share each product and each attention among the threads of the current pool.

mod activation;
mod attention;
mod cache_line;
mod gated;
mod huge_pages;
mod integers;
#[cfg(test)]
mod levels;
mod linear;
mod matrix_unit;
mod norm;
mod packed_matrix;
mod paged;
mod panel;
mod processor;
mod rms;
mod rotary;
mod softmax;
mod tiles;

pub use activation::{gelu, tanh};
pub use attention::{AttentionBuffers, AttentionShape, Bf16AttentionBuffers, attend, attend_bf16};
pub use cache_line::aligned_slice;
pub use gated::gate;
pub use integers::{GroupScales, Quantized};
pub use linear::{Linear, add_bias};
pub use matrix_unit::ActivationFunction;
pub use norm::{LayerNorm, normalize};
pub use packed_matrix::{Accumulate, Activations, PackedMatrix, Parallelism, Target};
pub use paged::{BLOCK_TOKENS, HeadCache, NewTokens, PagedShape, attend_paged};
pub use processor::{check as check_processor, name as processor_name};
pub use rms::RmsNorm;
pub use rotary::rotate;
pub use softmax::log_sum_exp;
pub use tiles::{STEP, Tiles};
