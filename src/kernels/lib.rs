//! The arithmetic of encoders and decoders on CPU cores, on plain slices of f32.
//!
//! Every kernel is compiled for several instruction sets and the widest is chosen when the program runs. Those of the encoder start
//! no threads: the cores share a batch by whole sequences, so nothing waits for anything between two layers. A decoder's step is too
//! short for that: `packed` and `paged` share each product and each attention among the threads of the current pool.

mod activation;
mod attention;
mod gated;
mod integers;
#[cfg(test)]
mod levels;
mod line;
mod linear;
mod norm;
mod packed;
mod paged;
mod pages;
mod panel;
mod processor;
mod product;
mod rms;
mod rotary;
mod softmax;
mod tiles;
mod unit;

pub use activation::{gelu, tanh};
pub use attention::{AttentionShape, HalfSpace, attend, attend_half};
pub use gated::gate;
pub use integers::{Measures, Quantized};
pub use line::sized;
pub use linear::{Linear, add_bias};
pub use norm::{LayerNorm, normalize};
pub use packed::{Activations, Hands, Onto, Packed, Target};
pub use paged::{BLOCK_TOKENS, HeadCache, NewTokens, PagedShape, attend_paged};
pub use processor::{check as check_processor, name as processor_name};
pub use rms::RmsNorm;
pub use rotary::rotate;
pub use softmax::log_sum_exp;
pub use tiles::{STEP, Tiles};
pub use unit::Function;
