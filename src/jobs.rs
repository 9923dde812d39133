//! Jobs: work beside the streams, such as backfills and evaluations. Jobs arrive on a topic, over HTTP, from the command line or
//! from schedules. They run through the same pipelines as the streams, with lower priority.
//!
//! ```text
//! jobs topic ──▶ topics: store the job ──▶ coordinator: plan its units ──▶ units topic ──▶ topics, worker: process the unit ──▶ ledger
//! ```
//!
//! A unit is a part of a job: some rows of a file, or some documents.
//!
//! | file | job |
//! |---|---|
//! | `spec.rs` | the specification of a job |
//! | `names.rs` | the pipelines and datasets that jobs may name |
//! | `plan.rs` | splits a job into units |
//! | `coordinator.rs` | moves jobs from state to state; one process of a fleet does |
//! | `topics.rs` | the two topics |
//! | `worker.rs`, `source.rs` | processes one unit, and reads its records |
//! | `evaluate.rs` | measures how often a task is right |
//! | `schedules.rs` | jobs that start at set times |
//! | `runner.rs` | consumers of the two topics in one process |
//! | `job_pipeline.rs` | a pipeline as jobs run it |
//! | `service.rs` | answers HTTP and the command line |
//! | `estimate.rs`, `row_cost.rs`, `interval.rs` | predicts the cost of a job from a sample, with confidence intervals |
//! | `local.rs`, `input.rs` | a backfill in one process without Kafka, and the files that it reads |

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
