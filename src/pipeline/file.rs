//! The keys of a pipeline file, as they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use jiff::SignedDuration;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::answer_settings::AnswerSettings;
use super::batch_budget::Budget;
use super::copy::CopySection;
use super::definition_error::DefinitionProblem;
use super::example::Example;
use super::leads::LeadSettings;
use super::recommendations::RecommendationSettings;
use crate::config::ScheduleConfig;
use crate::document::{DeleteSpec, DocumentSpec, Format};
use crate::failure::Tolerance;
use crate::task::{TaskEntry, TaskSpec};
use crate::yaml;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineFile {
    pub version: Spanned<u32>,
    pub name: Spanned<String>,
    pub tenant: Option<Spanned<String>>,
    pub source: Spanned<SourceFile>,
    pub tasks: Spanned<TaskList>,
    #[serde(default)]
    pub sinks: Sinks,
    #[serde(default = "unset")]
    pub budget: Spanned<BudgetFile>,
    #[serde(default = "unset")]
    pub stop_at: Spanned<StopFile>,
    #[serde(default)]
    pub backfill: Backfill,
    #[serde(default)]
    pub schedules: BTreeMap<String, Spanned<ScheduleConfig>>,
    #[serde(default)]
    pub examples: Vec<Spanned<Example>>,
    #[serde(default)]
    pub searches: Vec<String>,
    pub answers: Option<Spanned<AnswerSettings>>,
    pub recommendations: Option<Spanned<RecommendationSettings>>,
    pub copy: Option<Spanned<CopySection>>,
    pub leads: Option<Spanned<LeadSettings>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceFile {
    pub topic: String,
    #[serde(default)]
    pub start: Start,
    #[serde(default)]
    format: Format,
    id: Option<String>,
    version: Option<String>,
    text: Option<String>,
    #[serde(default)]
    metadata: Vec<String>,
    delete: Option<DeleteSpec>,
    max_bytes: Option<usize>,
}

/// Where to start reading a partition that has no position in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record that Kafka retains.
    #[default]
    Earliest,
    /// After the newest record.
    Latest,
}

/// Where results are written. Postgres always holds them, because it is the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// The ledger itself. The key changes nothing.
    pub postgres: Option<PostgresSink>,
    pub parquet: Option<ParquetSink>,
    /// A Kafka topic of results.
    pub topic: Option<TopicSink>,
    /// A Kafka topic of dead letters.
    pub dead_letters: Option<TopicSink>,
}

/// The ledger as a sink, which has no settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSink {}

/// Parquet files as a sink.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetSink {
    /// The name of a configured dataset.
    pub dataset: Spanned<String>,
}

/// How backfills yield to live records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backfill {
    /// Backfills wait while this process lags behind its live topic by more than this many records.
    pub yield_at_lag: i64,
}

impl Default for Backfill {
    fn default() -> Self {
        Self { yield_at_lag: 1_000 }
    }
}

/// A Kafka topic to write to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSink {
    pub name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BudgetFile {
    max_wait: Option<String>,
    max_tokens: Option<usize>,
    max_records: Option<usize>,
}

/// When dead letters stop the pipeline.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StopFile {
    dead_share: Option<f64>,
    window: Option<u32>,
}

/// The largest `window`. A commit with dead letters reads up to this many records back, and each may be a batch of its own.
const LARGEST_WINDOW: u32 = 100_000;

/// The entries under `tasks`, in the file's order, including repeated names.
#[derive(Debug)]
pub(super) struct TaskList(pub Vec<(String, Spanned<TaskEntry>)>);

impl PipelineFile {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, DefinitionProblem> {
        yaml::read(text).map_err(|fault| {
            let message = match fault.known.contains(&TaskSpec::KINDS[0]) {
                true => {
                    let message = fault.message.replacen("unknown key", "unknown task kind or key", 1);
                    format!("{message} (kinds: {})", TaskSpec::KINDS.join(", "))
                }
                false => fault.message,
            };
            DefinitionProblem::new(path, fault.place, message)
        })
    }
}

impl SourceFile {
    pub(super) fn document(&self) -> DocumentSpec {
        DocumentSpec {
            format: self.format,
            id: self.id.clone(),
            version: self.version.clone(),
            text: self.text.clone(),
            metadata: self.metadata.clone(),
            delete: self.delete.clone(),
            max_bytes: self.max_bytes,
        }
    }
}

impl BudgetFile {
    pub(super) fn budget(&self) -> Result<Budget, String> {
        let mut budget = Budget::default();
        if let Some(text) = &self.max_wait {
            let parsed = text.parse::<SignedDuration>().ok().and_then(|wait| wait.try_into().ok());
            budget.max_wait =
                parsed.ok_or_else(|| format!("`budget.max_wait` is `{text}`: write a duration such as `500ms` or `2s`"))?;
        }
        budget.max_tokens = self.max_tokens.unwrap_or(budget.max_tokens);
        budget.max_records = self.max_records.unwrap_or(budget.max_records);
        if budget.max_wait.is_zero() {
            return Err("`budget.max_wait` is zero, which makes every document a batch of its own: write 1ms or more".into());
        }
        for (key, value) in [("max_tokens", budget.max_tokens), ("max_records", budget.max_records)] {
            if value == 0 {
                return Err(format!("`budget.{key}` is 0, which no document fits: write 1 or more"));
            }
        }
        Ok(budget)
    }
}

impl StopFile {
    pub(super) fn tolerance(&self) -> Result<Tolerance, String> {
        let default = Tolerance::default();
        let tolerance =
            Tolerance { share: self.dead_share.unwrap_or(default.share), window: self.window.unwrap_or(default.window) };
        if !(tolerance.share > 0.0 && tolerance.share <= 1.0) {
            return Err(format!(
                "`stop_at.dead_share` is {}: write a share above 0 and up to 1, which never stops the pipeline",
                tolerance.share
            ));
        }
        if !(1..=LARGEST_WINDOW).contains(&tolerance.window) {
            return Err(format!("`stop_at.window` is {}: write 1 to {LARGEST_WINDOW} records", tolerance.window));
        }
        Ok(tolerance)
    }
}

fn unset<T: Default>() -> Spanned<T> {
    let unknown = serde_saphyr::Location::UNKNOWN;
    Spanned::new(T::default(), unknown, unknown)
}

impl<'de> Deserialize<'de> for TaskList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = TaskList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from task name to task")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TaskList, A::Error> {
                let mut tasks = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    tasks.push(entry);
                }
                Ok(TaskList(tasks))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
