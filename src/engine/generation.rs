//! Generation: many sequences on one device, each taken a step further whenever the device has computed one.
//!
//! ```text
//! Job ─▶ Waiting (live first, groups in turns) ─ admission ─▶ running ─ plan ─▶ forward ‖ masks ─ sampler ─▶ Answer
//!                                ▲                  │ Blocks, Prefixes            │
//!                                └── preempted ─────┴─────────────────────────────┘
//! ```
//!
//! What a sequence becomes depends on nothing but its job: not on its neighbours, not on the pieces its prompt was read in, not on whether a
//! kept prefix began it or a preemption interrupted it.

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
