//! From records to committed outcomes.
//!
//! | file | job |
//! |---|---|
//! | `definition.rs` | a pipeline file, checked as a whole; the files below read its sections |
//! | `file.rs`, `task_definition.rs`, `task_order.rs` | keys, tasks, and the order of tasks |
//! | `answer_settings.rs`, `copy.rs`, `leads.rs`, `recommendations.rs`, `example.rs` | sections of the file |
//! | `graph.rs`, `passages.rs`, `query.rs` | the task graph; passages and query vectors for tasks |
//! | `check.rs`, `train.rs` | runs the file's examples; trains the head of a `classify` task |
//! | `runtime.rs` | a pipeline that is ready to run |
//! | `runner.rs`, `partition_worker.rs` | one worker for each partition |
//! | `batch_budget.rs`, `batch.rs`, `batcher.rs` | records become micro-batches |
//! | `evaluator.rs`, `record_outcome.rs`, `versions.rs` | a micro-batch becomes one outcome for each record |
//! | `submission.rs`, `committer.rs`, `backoff.rs` | outcomes become rows, in one transaction |
//! | `isolation.rs`, `attempts.rs` | finds the record that ends the process |
//! | `stop_gate.rs` | waits while the pipeline is stopped |

mod answer_settings;
mod attempts;
mod backoff;
mod batch;
mod batch_budget;
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
mod record_outcome;
mod runner;
mod runtime;
mod stop_gate;
mod submission;
mod task_definition;
mod task_order;
pub mod train;
mod versions;

pub use attempts::release_partition;
pub use backoff::Backoff;
pub use batch::MicroBatch;
pub use batcher::Batcher;
pub use committer::Committer;
pub use evaluator::Evaluator;
pub use isolation::Isolation;
pub use partition_worker::{BATCHES_AT_A_TIME, PartitionUpdate, run as run_partition};
pub use record_outcome::RecordOutcome;
pub use runner::{HaltError, run, run_workers};
pub use runtime::{Dependencies, PipelineRuntime};
pub use stop_gate::StopGate;
pub use submission::parquet_rows;
