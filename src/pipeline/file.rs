//! The pipeline file as it is written: the keys, and the sentence for every key or type that is not.

use std::fmt;
use std::path::Path;

use jiff::SignedDuration;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Error, Spanned};

use super::definition::Budget;
use super::example::Example;
use super::problem::{Problem, suggestion};
use crate::document::{DocumentSpec, Format};
use crate::task::{TaskEntry, TaskSpec};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipelineFile {
    pub version: Spanned<u32>,
    pub name: Spanned<String>,
    pub source: Spanned<SourceFile>,
    pub tasks: Spanned<TaskList>,
    #[serde(default)]
    pub sinks: Sinks,
    #[serde(default = "no_budget")]
    pub budget: Spanned<BudgetFile>,
    #[serde(default)]
    pub examples: Vec<Spanned<Example>>,
    #[serde(default)]
    pub searches: Vec<String>,
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

/// The entries under `tasks`, in order, repeated names included.
#[derive(Debug)]
pub(super) struct TaskList(pub Vec<(String, Spanned<TaskEntry>)>);

pub(super) struct TaskLines {
    pub tasks: Vec<(String, Spanned<TaskEntry>)>,
    pub place: Option<(u64, u64)>,
}

impl PipelineFile {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        // `yes` for a label or `on` for a field name must stay the word it is; keys have one spelling.
        let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| explain(path, &error))
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

fn no_budget() -> Spanned<BudgetFile> {
    let nowhere = serde_saphyr::Location::UNKNOWN;
    Spanned::new(BudgetFile::default(), nowhere, nowhere)
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

fn explain(path: &Path, error: &Error) -> Problem {
    let error = error.without_snippet();
    let place = error.location().filter(|at| at.line() > 0).map(|at| (at.line(), at.column()));
    let message = match error {
        Error::SerdeUnknownField { field, expected, .. } if expected.contains(&TaskSpec::KINDS[0]) => {
            let near = suggestion(field, expected.iter().copied());
            format!("unknown task kind or key `{field}`{near} (kinds: {})", TaskSpec::KINDS.join(", "))
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown key `{field}`{}", suggestion(field, expected.iter().copied()))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown value `{variant}`{}", suggestion(variant, expected.iter().copied()))
        }
        Error::SerdeMissingField { field, .. } => format!("the key `{field}` is missing"),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("the key `{key}` stands twice"),
        other => {
            // The place is given once, in our own form.
            let text = other.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            text.lines().next().unwrap_or_default().split(" at line ").next().unwrap_or_default().to_owned()
        }
    };
    Problem::new(path, place, message)
}
