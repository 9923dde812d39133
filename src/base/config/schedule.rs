//! A schedule as written in a pipeline file or in the configuration. The jobs module parses its fields.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A job that is submitted at the times of a cron expression.
///
/// ```yaml
/// cron: "0 3 * * *"          # minute, hour, day of month, month, day of week
/// time_zone: Asia/Seoul      # the default is UTC
/// job: { kind: backfill, dataset: archive, prefix: "daily/{yesterday}/" }
/// overlap: skip              # or queue, cancel_previous
/// catch_up: 6h               # the default is 1h
/// jitter: 2m                 # the default is none
/// enabled: true
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The pipeline of the job. A schedule in a pipeline file is of that pipeline and must not name one.
    pub pipeline: Option<String>,
    /// The five fields of a cron expression.
    pub cron: String,
    /// The time zone of `cron`.
    pub time_zone: Option<String>,
    /// The job without `version`, `id` and `pipeline`.
    pub job: Map<String, Value>,
    /// What to do at a time when an earlier job of the schedule has not ended.
    #[serde(default)]
    pub overlap: OverlapPolicy,
    /// How late the job may still start if no coordinator was running in time.
    pub catch_up: Option<String>,
    /// Start times are spread over this duration.
    pub jitter: Option<String>,
    /// Whether the schedule fires. The default is true.
    pub enabled: Option<bool>,
}

/// What to do at a time when an earlier job of the schedule has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    #[default]
    Skip,
    /// Submit the job; it waits until the earlier one has ended.
    Queue,
    /// Cancel the earlier job; the new one starts when it has stopped.
    CancelPrevious,
}

impl OverlapPolicy {
    /// The name in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::CancelPrevious => "cancel_previous",
        }
    }
}
