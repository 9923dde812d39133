//! From records to committed outcomes.

mod batcher;
pub mod check;
mod committer;
pub mod definition;
mod evaluator;
pub mod example;
mod file;
pub mod graph;
mod isolation;
mod lane;
pub mod problem;
mod runner;
mod submission;
mod tasks;
pub mod train;
mod valve;

pub use committer::Committer;
pub use evaluator::{Evaluator, Fate};
pub use isolation::Isolation;
pub use lane::{AHEAD, Works};
pub use runner::run;
pub use valve::Valve;
