//! From records to committed outcomes.

mod batcher;
pub mod catalogue;
pub mod check;
mod committer;
pub mod definition;
mod evaluator;
pub mod example;
mod file;
pub mod graph;
mod isolation;
mod lane;
pub mod leads;
pub mod library;
pub mod problem;
pub mod query;
mod recommendations;
mod runner;
mod standing;
mod submission;
mod tasks;
pub mod train;
mod valve;
mod works;

pub use batcher::{Batcher, MicroBatch};
pub use committer::{Backoff, Committer};
pub use evaluator::{Evaluator, Fate};
pub use isolation::{Isolation, let_go};
pub use lane::{AHEAD, Notice, run as run_lane};
pub use runner::{Halt, drive, run};
pub use submission::parquet_rows;
pub use valve::Valve;
pub use works::{Materials, Works};
