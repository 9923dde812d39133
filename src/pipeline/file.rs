//! The pipeline file as it is written: the keys, and the sentence for every key or type that is not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::copy::CopySection;
use super::definition::Budget;
use super::definition_error::DefinitionProblem;
use super::example::Example;
use super::leads::LeadSettings;
use super::recommendations::RecommendationSettings;
use crate::config::ScheduleConfig;
use crate::document::{DeleteSpec, DocumentSpec, Format};
use crate::failure::Tolerance;
use crate::task::{AnswerGenerator, MOST_PASSAGES, TaskEntry, TaskSpec};
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

/// How questions about the documents are answered.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSettings {
    /// The generator's name in the configuration.
    pub model: String,
    /// A prompt file, relative to the pipeline file, instead of the built-in prompt.
    #[serde(default)]
    pub prompt: Option<PathBuf>,
    /// Passages that the model is given.
    #[serde(default = "AnswerSettings::usual_passages")]
    pub passages: usize,
    /// The least similarity of a passage to the question, from 0 to 1, for there to be an answer; not asked of a document that holds
    /// all words of the question.
    #[serde(default = "AnswerSettings::usual_similarity")]
    pub min_similarity: f64,
}

impl AnswerSettings {
    /// The usual way, by that model.
    pub fn by(model: &str) -> Self {
        let (passages, min_similarity) = (Self::usual_passages(), Self::usual_similarity());
        Self { model: model.to_owned(), prompt: None, passages, min_similarity }
    }

    fn usual_passages() -> usize {
        6
    }

    fn usual_similarity() -> f64 {
        0.3
    }

    /// What is wrong with them, a sentence each. Paths are relative to `base_dir`.
    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(prompt) = &self.prompt {
            problems.extend(
                AnswerGenerator::problems(&base_dir.join(prompt)).into_iter().map(|fault| format!("`answers` has {fault}")),
            );
        }
        if !(1..=MOST_PASSAGES).contains(&self.passages) {
            problems.push(format!("`answers.passages` is {}: write 1 to {MOST_PASSAGES}", self.passages));
        }
        if !(0.0..=1.0).contains(&self.min_similarity) {
            problems.push(format!("`answers.min_similarity` is {}: write 0, which takes any passage, to 1", self.min_similarity));
        }
        problems
    }
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

/// Where to start in a partition that the ledger does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest record that is kept.
    #[default]
    Earliest,
    /// Behind the newest record.
    Latest,
}

/// Where results go. Postgres holds them in any case, for it is the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// The ledger itself; named for completeness.
    pub postgres: Option<PostgresSink>,
    /// Parquet files.
    pub parquet: Option<ParquetSink>,
    /// A Kafka topic of results.
    pub topic: Option<TopicSink>,
    /// A Kafka topic of dead letters.
    pub dead_letters: Option<TopicSink>,
}

/// Nothing can be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSink {}

/// Parquet files.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetSink {
    /// A dataset of the configuration.
    pub dataset: Spanned<String>,
}

/// How backfills behave beside live records.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backfill {
    /// Backfills wait while the live records of a process are further behind than so many.
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
    /// The topic's name.
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

/// Records that a commit with dead letters looks back at, at most: each may be a batch of its own.
const LARGEST_WINDOW: u32 = 100_000;

/// The entries under `tasks`, in order, repeated names included.
#[derive(Debug)]
pub(super) struct TaskList(pub Vec<(String, Spanned<TaskEntry>)>);

pub(super) struct TaskLines {
    pub tasks: Vec<(String, Spanned<TaskEntry>)>,
    pub place: Option<(u64, u64)>,
}

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
    let nowhere = serde_saphyr::Location::UNKNOWN;
    Spanned::new(T::default(), nowhere, nowhere)
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
