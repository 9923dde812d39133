//! Jobs and their units. Every change of a job's state writes its event in the same transaction.
//!
//! | from | to | when |
//! |---|---|---|
//! | | `queued` | it was submitted |
//! | `queued` | `planning` | the coordinator starts to plan it |
//! | `planning` | `running`, `failed` | its units are planned, or planning failed |
//! | `running` | `succeeded`, `partial`, `failed` | no unit is waiting any more |
//! | `queued`, `planning`, `running` | `cancelling`, then `cancelled` | it was cancelled |
//! | `failed`, `partial`, `cancelled` | `queued`, `running` | it was retried |

mod account;
mod change;
mod local;
mod read;
mod state;
mod units;

use std::fmt;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::UsageTotals;

pub use account::JobDeadLetterRow;
pub(super) use change::{cancel, submit};
pub use local::{LOCAL_JOB_KIND, LocalLease};
pub use read::{CoordinatorLease, JobFilter};
pub use units::{NewUnit, UnitFault, UnitOutcome, UnitRow};

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Submitted, and not started.
    Queued,
    /// Being divided into units.
    Planning,
    /// Its units are running.
    Running,
    /// Cancelled; running units are stopping.
    Cancelling,
    /// Every unit is done.
    Succeeded,
    /// Some units are done, others are not.
    Partial,
    /// No unit is done, or planning failed.
    Failed,
    /// Cancelled. Units that were done stay done.
    Cancelled,
}

impl JobState {
    /// In the order of this enum.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Planning,
        Self::Running,
        Self::Cancelling,
        Self::Succeeded,
        Self::Partial,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The states of a job that has not ended.
    pub const OPEN: [Self; 4] = [Self::Queued, Self::Planning, Self::Running, Self::Cancelling];

    /// The name in tables, events and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Cancelling => "cancelling",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The inverse of [`JobState::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the job has ended. Only a retry changes it then.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job to submit.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Submitting the same id twice makes one job.
    pub id: String,
    pub kind: String,
    pub pipeline: String,
    /// The whole request, as JSON.
    pub spec: String,
    /// Jobs with a greater priority start first.
    pub priority: i32,
    /// When the job is to stop, in Unix milliseconds.
    pub deadline_ms: Option<i64>,
    /// The device time after which the job is to stop.
    pub budget_micros: Option<i64>,
    /// The schedule that submits it.
    pub schedule: Option<String>,
}

/// The result of submitting a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// The job is queued.
    New,
    /// The same job was submitted before.
    Known,
    /// The id belongs to another job.
    Conflict,
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    pub id: String,
    pub kind: String,
    pub pipeline: String,
    /// The whole request, as JSON.
    pub spec: String,
    pub state: JobState,
    /// Why the job is in its state, if there is more to say.
    pub reason: Option<String>,
    /// Jobs with a greater priority start first.
    pub priority: i32,
    /// When the job is to stop, in Unix milliseconds.
    pub deadline_ms: Option<i64>,
    /// The device time after which the job is to stop.
    pub budget_micros: Option<i64>,
    /// The schedule that submitted it.
    pub schedule: Option<String>,
    /// Whether no further unit starts.
    pub stopping: bool,
    /// The results of a job that measures or evaluates something.
    pub report: Option<Value>,
    /// When it was submitted.
    pub created_ms: i64,
    /// When it moved to `running` first.
    pub started_ms: Option<i64>,
    pub finished_ms: Option<i64>,
}

/// How far a job has come, and what it has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobProgress {
    /// Units of the job.
    pub units: i64,
    /// Units that are done.
    pub units_done: i64,
    /// Units that failed.
    pub units_failed: i64,
    /// Units that were stopped before they were done.
    pub units_stopped: i64,
    /// Rows of the source that the job wants.
    pub rows: i64,
    /// Rows that are committed.
    pub rows_done: i64,
    /// Outcomes and costs of the task records in these rows.
    #[serde(flatten)]
    pub work: UsageTotals,
}

/// The beginning of the topic under which the ledger stores the positions of a job's units.
const JOB_TOPIC_PREFIX: &str = "job:";

/// The topic under which the ledger stores the positions of a job's units. Kafka allows no colon in a topic, so that no real topic
/// has such a name.
pub fn ledger_topic(job: &str) -> String {
    format!("{JOB_TOPIC_PREFIX}{job}")
}

/// Whether records of the topic are rows that a job reads, and not records of a stream.
pub fn is_job_topic(topic: &str) -> bool {
    topic.starts_with(JOB_TOPIC_PREFIX)
}
