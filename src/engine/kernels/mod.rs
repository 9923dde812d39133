//! The arithmetic of an encoder on one CPU core, on plain slices of f32.
//!
//! Every kernel is compiled for several instruction sets and the widest is chosen when the program runs. None starts threads:
//! the cores share a batch by whole sequences, so nothing waits for anything between two layers.

mod activation;
mod attention;
mod linear;
mod norm;
mod product;
mod softmax;

pub(super) use activation::{gelu, tanh};
pub(super) use attention::{AttentionShape, attend};
pub(super) use linear::Linear;
pub(super) use norm::{LayerNorm, normalize};
pub(super) use softmax::log_sum_exp;
