//! From records to committed outcomes.

mod batcher;
pub mod check;
mod committer;
pub mod definition;
mod evaluator;
pub mod example;
mod file;
pub mod graph;
mod lane;
pub mod problem;
mod runner;
mod submission;
mod tasks;
pub mod train;
mod works;

pub use committer::{Backoff, Committer};
pub use evaluator::{Evaluator, Fate};
pub use lane::{AHEAD, Notice, run as run_lane};
pub use runner::{Halt, drive, run};
pub use works::{Materials, Works};
