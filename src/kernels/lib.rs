//! The arithmetic of encoders and decoders on CPU cores, on plain slices of f32.
//!
//! Every kernel is compiled for several instruction sets, and the widest that the processor has is chosen when the program runs. The
//! kernels of the encoder start no threads: each core computes whole sequences of a batch, so that no core waits for another between two
//! layers. A decoder's step has too few rows for that: `packed_matrix` and `paged` divide each product and each attention among the
//! threads of the current pool.
//!
//! # Unsafe code
//!
//! This package alone may contain `unsafe`. Each block says in a comment why it is sound.
//!
//! | file | why |
//! |---|---|
//! | `huge_pages` | allocates memory in large pages |
//! | `panel` | lets several threads write to one matrix, each to a rectangle of its own |
//! | `packed_matrix`, `paged`, `tiles` | write to such rectangles |
//! | `bf16/vectors`, `panel/vectors`, `integers/avx2`, `integers/vectors`, `matrix_unit/x86` | call instructions that not every processor has, after asking the processor for them |
//! | `matrix_unit/x86/amx` | uses the tile registers, for which the compiler has no functions yet |

mod activation;
mod attention;
mod bf16;
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

pub use activation::{add_bias, gelu, tanh};
pub use attention::{AttentionBuffers, AttentionShape, Bf16AttentionBuffers, attend, attend_bf16};
pub use cache_line::aligned_slice;
pub use gated::gate;
pub use integers::{GroupScales, Quantized};
pub use linear::Linear;
pub use matrix_unit::ActivationFunction;
pub use norm::{LayerNorm, normalize};
pub use packed_matrix::{Accumulate, Activations, PackedMatrix, Parallelism, Target};
pub use paged::{BLOCK_TOKENS, HeadCache, NewTokens, PagedShape, attend_paged};
pub use processor::{check as check_processor, name as processor_name};
pub use rms::RmsNorm;
pub use rotary::rotate;
pub use softmax::log_sum_exp;
pub use tiles::{STEP, Tiles};
