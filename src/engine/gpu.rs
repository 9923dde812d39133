//! Encoders and decoders in candle's tensors, for GPUs: the forward passes of `encoder` and `decoder` on any device of candle's.
//!
//! ```text
//! weights, decoder::read ─ accelerator ─▶ TensorEncoder ─┐             ┌─ attention: padded groups, anywhere
//!                                         TensorDecoder ─┴─ a batch or ┤
//!                                              │            a step     └─ flash: one kernel, where it was compiled
//!                                              └─ cache: blocks of keys and values on the device
//! ```
//!
//! | | |
//! |---|---|
//! | numbers | bf16 on a GPU; sums, norms, softmax and what leaves the device in f32 |
//! | rows | a row's results do not depend on its neighbours beyond rounding: products of other shapes add up in another order |
//! | memory | what is too much at once is computed in halves (`memory`); one row that is too much alone is refused alone |
//!
//! The tests run all of it on candle's CPU device in f32, against what the CPU's own kernels and transformers compute.

mod accelerator;
mod cache;
mod decoder;
mod encoder;
mod flash_attention;
mod grouped_attention;
mod layers;
mod memory_retry;

#[cfg(test)]
mod tests;

pub(super) use accelerator::Accelerator;
pub(super) use decoder::GpuDecoder;
pub(super) use encoder::GpuEncoder;
