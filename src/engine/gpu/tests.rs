//! The forward passes in candle's tensors, on its CPU device against what transformers and our own kernels compute, and on a GPU where the
//! feature `cuda` is compiled in.

mod decoding;
mod encoding;
mod engine;
mod fixture;
#[cfg(feature = "cuda")]
mod gpu;
