//! Encoders and decoders on GPUs: the forward passes of `encoder` and `decoder` in candle's tensors.
//!
//! ```text
//! encoder::EncoderNetwork, decoder::read ─ accelerator ─▶ GpuEncoder ─┐             ┌─ grouped_attention: padded groups, on any device
//!                                                         GpuDecoder ─┴─ a batch or ┤
//!                                                              │            a step  └─ flash_attention: one kernel, if it was compiled
//!                                                              └─ cache: blocks of keys and values on the device
//! ```
//!
//! | | |
//! |---|---|
//! | numbers | bf16 on a GPU; sums, norms, softmax and what leaves the device in f32 |
//! | rows | other rows in the batch change a row's results by rounding only: products of other shapes add up in another order |
//! | memory | rows that need too much memory together are computed in halves (`memory_retry`); a row that needs too much alone is refused |
//!
//! The tests run all of it on candle's CPU device in f32, and compare it with the CPU's kernels and with transformers.

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
