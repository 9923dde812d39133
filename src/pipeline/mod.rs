//! From records to committed outcomes.

pub mod definition;
pub mod example;
mod file;
pub mod graph;
pub mod problem;
mod tasks;
