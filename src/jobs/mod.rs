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
//! | `foreman.rs` | moves jobs on; one in a fleet |
//! | `errands.rs` | the two topics |
//! | `work.rs` | one unit, from claim to end |
//! | `evaluate.rs` | how often a task is right |
//! | `source.rs` | what a unit reads |
//! | `schedules.rs` | jobs that are asked for by the clock |
//! | `crew.rs` | all of it in one process |
//! | `station.rs` | a pipeline as jobs use it |
//! | `desk.rs` | what people and programs ask about jobs |
//! | `names.rs` | what jobs may name |
//! | `estimate.rs`, `facts.rs`, `interval.rs` | what a job will take, from a sample, and how sure that is |
//! | `local.rs`, `input.rs` | a backfill of one process, without Kafka, and the files that it reads |

mod crew;
mod desk;
mod errands;
mod estimate;
mod evaluate;
mod facts;
mod foreman;
mod input;
mod interval;
mod local;
mod names;
mod plan;
pub mod schedules;
mod source;
pub mod spec;
mod station;
mod work;

pub use crew::Crew;
pub use desk::{ClassCount, Desk, DeskError, Details, Fault, LISTED, Letter, Letters, MOST_LISTED, Summary};
pub use errands::{Errands, JOBS, UNITS};
pub use estimate::{Estimate, Estimator, Limit, Sampling};
pub use foreman::Foreman;
pub use input::Input;
pub use interval::Predicted;
pub use local::{INPUT, Local, LocalReport, local_job};
pub use names::Names;
pub use plan::PlanError;
pub use station::{Station, needs};
pub use work::{Left, Workshop};
