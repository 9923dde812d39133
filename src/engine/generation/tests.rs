//! The scheduler over a decoder that is no model: what it would write can be said without it.

mod determinism;
mod fake_decoder;
mod random_arrivals;
mod scheduling_order;
mod tiny_models;
