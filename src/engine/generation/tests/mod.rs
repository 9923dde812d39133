//! The scheduler over a decoder that is no model: what it would write can be said without it.

mod fake;
mod models;
mod order;
mod random;
mod sameness;
