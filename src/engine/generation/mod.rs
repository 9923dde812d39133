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
mod blocks;
mod host;
mod ports;
mod prefix;
mod prepare;
mod sampler;
mod scheduler;
mod sequence;
mod step;
mod text;
mod waiting;

#[cfg(test)]
mod tests;

pub(super) use host::GeneratorHost;
pub(super) use ports::{Decode, HostedDecoder};
pub(super) use prepare::Prepared;
pub(super) use scheduler::Counts;
pub(super) use sequence::Job;
