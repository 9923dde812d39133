//! A schedule as it is written, in a pipeline file or in the configuration; what its words mean is for the jobs room to say.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A job that is asked for again and again.
///
/// ```yaml
/// cron: "0 3 * * *"          # minute, hour, day of month, month, day of week
/// time_zone: Asia/Seoul      # UTC unless told
/// job: { kind: backfill, dataset: archive, prefix: "daily/{yesterday}/" }
/// overlap: skip              # or queue, cancel_previous
/// catch_up: 6h               # 1h unless told
/// jitter: 2m                 # none unless told
/// enabled: true
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The pipeline that the job concerns. A schedule in a pipeline's file is that pipeline's and does not say it.
    pub pipeline: Option<String>,
    /// When, as five fields of cron.
    pub cron: String,
    /// The zone whose clocks `cron` speaks of.
    pub time_zone: Option<String>,
    /// The job without `version`, `id` and `pipeline`.
    pub job: Map<String, Value>,
    /// What becomes of a time at which the job of an earlier one is still open.
    #[serde(default)]
    pub overlap: OverlapPolicy,
    /// How late the job may still start when nobody was there in time.
    pub catch_up: Option<String>,
    /// Starts are spread over so long.
    pub jitter: Option<String>,
    /// Whether it fires at all; so unless told.
    pub enabled: Option<bool>,
}

/// What becomes of a time at which the job of an earlier one is still open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverlapPolicy {
    /// It passes without a job.
    #[default]
    Skip,
    /// Its job waits for the earlier one to end.
    Queue,
    /// The earlier job is cancelled, and the new one begins when it has stopped.
    CancelPrevious,
}

impl OverlapPolicy {
    /// The policy as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::CancelPrevious => "cancel_previous",
        }
    }
}
