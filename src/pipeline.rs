//! From records to committed outcomes.

mod batcher;
pub mod check;
mod committer;
pub mod copy;
pub mod definition;
pub mod definition_error;
mod evaluator;
pub mod example;
mod file;
pub mod graph;
mod isolation;
pub mod leads;
mod partition_worker;
pub mod passages;
pub mod query;
mod recommendations;
mod runner;
mod runtime;
mod stop_gate;
mod submission;
mod task_order;
pub mod train;
mod versions;

pub use batcher::{Batcher, MicroBatch};
pub use committer::{Backoff, Committer};
pub use evaluator::{Evaluator, RecordOutcome};
pub use isolation::{Isolation, release_partition};
pub use partition_worker::{BATCHES_AT_A_TIME, PartitionUpdate, run as run_partition};
pub use runner::{HaltError, drive, run};
pub use runtime::{Dependencies, PipelineRuntime};
pub use stop_gate::StopGate;
pub use submission::parquet_rows;
