//! Text generation with continuous batching: many sequences share each forward pass on a device.
//!
//! ```text
//! GenerationJob ─▶ WaitingSequences ─ admission ─▶ running ─ plan ─▶ forward ‖ masks ─ sampler ─▶ Answer
//!                         ▲               │ BlockAllocator, PrefixCache  │
//!                         └── preempted ──┴──────────────────────────────┘
//! ```
//!
//! A sequence's result depends only on its job. It does not depend on other sequences in the batch, on the pieces in which its
//! prompt was read, on a cached prefix, or on preemptions.

mod admission;
mod block_allocator;
mod completion_text;
mod prefix_cache;
mod runner;
mod sampler;
mod scheduler;
mod sequence;
mod step_part;
mod step_plan;
mod tokenized_request;
mod traits;
mod waiting;

#[cfg(test)]
mod tests;

pub(super) use runner::GeneratorRunner;
pub(super) use scheduler::SchedulerCounts;
pub(super) use sequence::GenerationJob;
pub(super) use tokenized_request::TokenizedRequest;
