//! The keys of a job.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Budget;

/// A job. Each kind allows only its own keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
#[serde(default, deny_unknown_fields)]
pub struct JobFile {
    /// The version of the format, 1.
    #[schema(required, minimum = 1, maximum = 1)]
    pub(super) version: u32,
    /// Two jobs with the same id are one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What it does.
    #[schema(required, pattern = "^(backfill|rerun|reembed|evaluate|delete)$")]
    pub(super) kind: String,
    /// The pipeline that it runs.
    #[schema(required)]
    pub(super) pipeline: String,
    /// `backfill`, `evaluate`: the configured dataset whose rows are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dataset: Option<String>,
    /// `backfill`, `evaluate`: only files whose keys start with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    /// `backfill`: only rows of this time or later, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// `backfill`: only rows before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// `backfill`, `evaluate`: only this many rows, chosen at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sample: Option<usize>,
    /// `backfill`, `evaluate`: seeds the choice of rows; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// `rerun`: the tasks whose outputs are compared; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<Vec<String>>,
    /// `evaluate`: the task to evaluate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
    /// `evaluate`: the column with the expected output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<String>,
    /// `delete`: ids of documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100000)]
    pub(super) documents: Option<Vec<String>>,
    /// Jobs with a greater priority run first; 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<i32>,
    /// When it stops at the latest, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<String>,
    /// The most that it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<Budget>,
}
