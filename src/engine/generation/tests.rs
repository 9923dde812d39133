//! Tests the scheduler with a fake decoder, whose output can be computed without a scheduler.

mod determinism;
mod fake_decoder;
mod random_arrivals;
mod scheduling_order;
mod tiny_models;
