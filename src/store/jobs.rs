//! Jobs and their units: asked for, planned, worked off, ended. Every change of a job's state writes its event in the same
//! transaction.
//!
//! | from | to | when |
//! |---|---|---|
//! | | `queued` | somebody asked |
//! | `queued` | `planning` | the foreman takes it up |
//! | `planning` | `running`, `failed` | its units stand, or it cannot be planned |
//! | `running` | `succeeded`, `partial`, `failed` | no unit waits any more |
//! | `queued`, `planning`, `running` | `cancelling`, then `cancelled` | somebody called it off |
//! | `failed`, `partial`, `cancelled` | `queued`, `running` | somebody wants it tried again |

mod account;
mod change;
mod local;
mod read;
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
    /// Asked for.
    Queued,
    /// Being cut into units.
    Planning,
    /// Its units are being worked off.
    Running,
    /// Called off; units under way are coming to a stop.
    Cancelling,
    /// Every unit is done.
    Succeeded,
    /// Some units are done, others not.
    Partial,
    /// Nothing is done, or it could not be planned.
    Failed,
    /// Called off. What was finished stays.
    Cancelled,
}

impl JobState {
    /// Every state.
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

    /// Those of a job that has not ended.
    pub const OPEN: [Self; 4] = [Self::Queued, Self::Planning, Self::Running, Self::Cancelling];

    /// The state as it stands in tables, events and answers.
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

    /// The state of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether nothing changes any more unless somebody asks.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Partial | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job as somebody asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewJob {
    /// Its id; the same id twice is one job.
    pub id: String,
    /// The kind.
    pub kind: String,
    /// The pipeline.
    pub pipeline: String,
    /// Everything that was asked, as JSON.
    pub spec: String,
    /// Greater goes first.
    pub priority: i32,
    /// When it is to stop, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// Device time after which it is to stop.
    pub budget_micros: Option<i64>,
    /// The schedule that asks.
    pub schedule: Option<String>,
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitOutcome {
    /// The job is queued.
    New,
    /// It was asked for before, in the same words.
    Known,
    /// The id stands for another job.
    Conflict,
}

/// A job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRow {
    /// Its id.
    pub id: String,
    /// The kind.
    pub kind: String,
    /// The pipeline.
    pub pipeline: String,
    /// Everything that was asked, as JSON.
    pub spec: String,
    /// The state.
    pub state: JobState,
    /// Why it is in that state, where there is more to say.
    pub reason: Option<String>,
    /// Greater goes first.
    pub priority: i32,
    /// When it is to stop, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<i64>,
    /// Device time after which it is to stop.
    pub budget_micros: Option<i64>,
    /// The schedule that asked.
    pub schedule: Option<String>,
    /// Whether no further unit is begun.
    pub stopping: bool,
    /// What it found out.
    pub report: Option<Value>,
    /// When it was asked for.
    pub created_ms: i64,
    /// When its first unit could begin.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub finished_ms: Option<i64>,
}

/// How far a job is, and what it has cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct JobProgress {
    /// Units.
    pub units: i64,
    /// Units done.
    pub units_done: i64,
    /// Units that failed.
    pub units_failed: i64,
    /// Units that were stopped before they were done.
    pub units_stopped: i64,
    /// Rows of the source that are wanted.
    pub rows: i64,
    /// Rows committed.
    pub rows_done: i64,
    /// What became of the units of work in them.
    #[serde(flatten)]
    pub work: UsageTotals,
}

/// What begins the topic under which the ledger keeps books on a job's units.
const OF_A_JOB: &str = "job:";

/// The topic under which the ledger keeps books on a job's units; no Kafka topic can be called that.
pub fn ledger_topic(job: &str) -> String {
    format!("{OF_A_JOB}{job}")
}

/// Whether records of the topic are what a job reads, and not what a stream brings.
pub fn is_job_topic(topic: &str) -> bool {
    topic.starts_with(OF_A_JOB)
}
