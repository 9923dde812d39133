//! Jobs: work that somebody asks for beside the streams. They arrive on a topic, over HTTP or from the command line, and run on the
//! same walk as the streams, behind them.
//!
//! ```text
//! jobs topic ──▶ errands: take in ──▶ jobs ──▶ foreman: plan ──▶ units, outbox ──▶ units topic ──▶ errands: work off ──▶ ledger
//! ```
//!
//! | file | job |
//! |---|---|
//! | `spec.rs` | what a job says |
//! | `plan.rs` | a job becomes units |
//! | `coordinator.rs` | moves jobs on; one in a fleet |
//! | `topics.rs` | the two topics |
//! | `work.rs` | one unit, from claim to end |
//! | `evaluate.rs` | how often a task is right |
//! | `source.rs` | what a unit reads |
//! | `schedules.rs` | jobs that are asked for by the clock |
//! | `runner.rs` | all of it in one process |
//! | `job_pipeline.rs` | a pipeline as jobs use it |
//! | `service.rs` | what people and programs ask about jobs |
//! | `names.rs` | what jobs may name |
//! | `estimate.rs`, `facts.rs`, `interval.rs` | what a job will take, from a sample, and how sure that is |
//! | `local.rs`, `input.rs` | a backfill of one process, without Kafka, and the files that it reads |

mod coordinator;
mod estimate;
mod evaluate;
mod input;
mod interval;
mod job_pipeline;
mod local;
mod names;
mod plan;
mod row_cost;
mod runner;
pub mod schedules;
mod service;
mod source;
pub mod spec;
mod topics;
mod worker;

pub use coordinator::JobCoordinator;
pub use estimate::{Estimate, Estimator, LimitEstimate, Sampling};
pub use input::InputFiles;
pub use interval::ConfidenceInterval;
pub use job_pipeline::{JobPipeline, needs};
pub use local::{INPUT, LocalBackfill, LocalBackfillReport, local_job};
pub use names::KnownNames;
pub use plan::PlanError;
pub use runner::JobRunner;
pub use service::{
    ClassCount, JobDeadLetter, JobDeadLetters, JobDetails, JobService, JobServiceError, JobSummary, LISTED, MOST_LISTED,
    UnitFailure,
};
pub use topics::{JOBS, JobTopics, UNITS};
pub use worker::{UnitExit, UnitWorker};
