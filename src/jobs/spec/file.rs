//! A job as it is written, key by key.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Budget;

/// A job. Which keys go with which kind is checked strictly.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
#[serde(default, deny_unknown_fields)]
pub struct JobFile {
    /// 1.
    #[schema(required, minimum = 1, maximum = 1)]
    pub(super) version: u32,
    /// Names the job: the same id twice is one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// What it does.
    #[schema(required, pattern = "^(backfill|rerun|reembed|evaluate|delete)$")]
    pub(super) kind: String,
    /// The pipeline that it concerns.
    #[schema(required)]
    pub(super) pipeline: String,
    /// `backfill`, `evaluate`: the dataset of the configuration whose rows are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dataset: Option<String>,
    /// `backfill`, `evaluate`: the beginning of the files' keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prefix: Option<String>,
    /// `backfill`: only rows of this time or later, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// `backfill`: only rows before this time, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<String>,
    /// `backfill`, `evaluate`: only so many rows, chosen at random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sample: Option<usize>,
    /// Chooses which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// `rerun`: the tasks whose outputs are looked at; all unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tasks: Option<Vec<String>>,
    /// `evaluate`: the task that is measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task: Option<String>,
    /// `evaluate`: the column that holds what is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<String>,
    /// `delete`: ids of documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100000)]
    pub(super) documents: Option<Vec<String>>,
    /// Greater goes first; 0 unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<i32>,
    /// When it is to stop, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deadline: Option<String>,
    /// What it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget: Option<Budget>,
}
