//! A pipeline file: read strictly, checked as a whole, with file, line and column for every fault.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_saphyr::Spanned;

use super::copy::CopySettings;
use super::definition_error::{DefinitionError, DefinitionProblem, suggestion};
use super::example::Example;
use super::file::{PipelineFile, TaskLines};
use super::leads::LeadSettings;
use super::task_order;
use crate::access::{DEFAULT_TENANT, is_tenant};
use crate::config::{Config, ScheduleConfig};
use crate::document::{Decoder, DocumentSpec, Format};
use crate::failure::Tolerance;
use crate::task::TaskSpec;

pub use super::file::{AnswerSettings, Backfill, ParquetSink, PostgresSink, Sinks, Start, TopicSink};
pub use super::recommendations::{InteractionWeight, RecommendationSettings, ValueWeight};

/// A pipeline, whole and free of contradictions.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The pipeline's name; the first part of every key in the database.
    pub name: Arc<str>,
    /// Whose it is, with everything that it makes.
    pub tenant: Arc<str>,
    /// The file it was read from.
    pub path: PathBuf,
    /// Where documents come from.
    pub source: SourceSpec,
    /// The tasks, in the file's order.
    pub tasks: Vec<TaskDefinition>,
    /// Where results go besides the ledger.
    pub sinks: Sinks,
    /// When a micro-batch is full.
    pub budget: Budget,
    /// How backfills behave beside live records.
    pub backfill: Backfill,
    /// How many dead letters the pipeline bears before it stops.
    pub tolerance: Tolerance,
    /// Jobs that are asked for again and again. What they say is checked where jobs are known.
    pub schedules: Vec<ScheduleDefinition>,
    /// Documents with what must become of them.
    pub examples: Vec<Example>,
    /// Searches that show what the results are good for; the demo runs them.
    pub searches: Vec<String>,
    /// How questions about the documents are answered, where the file says it.
    pub answers: Option<AnswerSettings>,
    /// How documents are recommended, where the file says it.
    pub recommendations: Option<RecommendationSettings>,
    /// How the copy of a catalogue is made, where it makes any.
    pub copy: Option<CopySettings>,
    /// How documents become leads, where the file says it.
    pub leads: Option<LeadSettings>,
}

/// Where documents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    /// The Kafka topic.
    pub topic: String,
    /// Where a partition that the ledger does not know is started.
    pub start: Start,
    /// How records become documents.
    pub document: DocumentSpec,
}

/// A schedule as the pipeline's file says it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleDefinition {
    /// Its name within the pipeline.
    pub name: String,
    /// What stands under the name.
    pub written: ScheduleConfig,
    /// Line and column in the file.
    pub place: Option<(u64, u64)>,
}

/// One task of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefinition {
    /// The task's name.
    pub name: Arc<str>,
    /// Its kind and parameters.
    pub spec: TaskSpec,
    /// A condition on the document and on other tasks' outputs.
    pub when: Option<String>,
    /// Tasks whose output must be there: those under `needs` and those that the task's own templates read.
    pub needs: Vec<Arc<str>>,
    /// Tasks that only `when` reads; they run before, but the condition may ask whether they have an output at all.
    pub watches: Vec<Arc<str>>,
    /// How many tasks must run one after the other before this one can.
    pub level: usize,
    /// Line and column in the file.
    pub place: (u64, u64),
}

/// When a micro-batch is full: whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How long the first document may wait for company; who has nothing else to do begins with it before.
    pub max_wait: Duration,
    /// Tokens of text, estimated from its bytes.
    pub max_tokens: usize,
    /// Records.
    pub max_records: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { max_wait: Duration::from_millis(500), max_tokens: 16_384, max_records: 512 }
    }
}

impl Definition {
    /// Reads the file at `path`.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DefinitionError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file".to_owned(),
                std::io::ErrorKind::InvalidData => "the file is not UTF-8".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            DefinitionError { problems: vec![DefinitionProblem::new(path, None, message)] }
        })?;
        Self::parse(path, &text)
    }

    /// Reads every pipeline file of the folder, or those of the pipelines named in `names`, in order of their paths.
    pub fn load_all(folder: &Path, names: &[String]) -> Result<Vec<Self>, DefinitionError> {
        let fault = |message: String| DefinitionError { problems: vec![DefinitionProblem::new(folder, None, message)] };
        let entries = std::fs::read_dir(folder).map_err(|error| fault(format!("cannot list pipelines: {error}")))?;
        let is_pipeline = |path: &PathBuf| path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_pipeline).collect();
        paths.sort();
        let mut problems = Vec::new();
        let mut definitions: Vec<Self> = Vec::new();
        for path in paths {
            match Self::load(&path) {
                Ok(definition) => match definitions.iter().find(|other| other.name == definition.name) {
                    Some(other) => problems.push(DefinitionProblem::new(
                        &path,
                        None,
                        format!("pipeline `{}` is defined in {} already", definition.name, other.path.display()),
                    )),
                    None => definitions.push(definition),
                },
                Err(error) => problems.extend(error.problems),
            }
        }
        if problems.is_empty() {
            problems.extend(definitions.iter().flat_map(|definition| definition.strayed(&definitions)));
        }
        let known = || definitions.iter().map(|definition| &*definition.name);
        for name in names.iter().filter(|name| !known().any(|known| known == name.as_str())) {
            problems.push(DefinitionProblem::new(
                folder,
                None,
                format!("no pipeline is named `{name}`{}", suggestion(name, known())),
            ));
        }
        if !problems.is_empty() {
            return Err(DefinitionError { problems });
        }
        definitions.retain(|definition| names.is_empty() || names.iter().any(|name| *name == *definition.name));
        Ok(definitions)
    }

    /// Reads `text` as if it were the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, DefinitionError> {
        let file = PipelineFile::parse(path, text).map_err(|problem| DefinitionError { problems: vec![problem] })?;
        let mut problems = Vec::new();
        let mut report = |place, message| problems.push(DefinitionProblem::new(path, place, message));

        if file.version.value != 1 {
            report(place(&file.version), format!("version {} is unknown: write `version: 1`", file.version.value));
        }
        if !is_name(&file.name.value, '-') {
            let message = format!(
                "`{}` is no pipeline name: use lower-case letters, digits and `-`, a letter first, at most 63 of them",
                file.name.value
            );
            report(place(&file.name), message);
        }
        if let Some(tenant) = &file.tenant
            && !is_tenant(&tenant.value)
        {
            let message = format!(
                "`{}` is no tenant: use lower-case letters, digits and `-`, a letter first, at most 63 of them",
                tenant.value
            );
            report(place(tenant), message);
        }
        if file.source.value.topic.is_empty() {
            report(place(&file.source), "`source.topic` is empty: name the topic to read".into());
        }
        let sinks = [("topic", &file.sinks.topic), ("dead_letters", &file.sinks.dead_letters)];
        for (name, sink) in sinks.into_iter().filter_map(|(name, sink)| Some((name, sink.as_ref()?))) {
            if *sink.name == *file.source.value.topic {
                let message = format!(
                    "`sinks.{name}` is the topic `{}`, which is read here: each record would make further ones; name another",
                    sink.name
                );
                report(place(&file.source), message);
            }
        }
        let source = SourceSpec {
            topic: file.source.value.topic.clone(),
            start: file.source.value.start,
            document: file.source.value.document(),
        };
        if let Err(error) = Decoder::new(&source.document) {
            report(place(&file.source), format!("the source is wrong: {error:#}"));
        }
        let budget = file.budget.value.budget().unwrap_or_else(|message| {
            report(place(&file.budget), message);
            Budget::default()
        });
        let tolerance = file.stop_at.value.tolerance().unwrap_or_else(|message| {
            report(place(&file.stop_at), message);
            Tolerance::default()
        });
        let lines = TaskLines { place: place(&file.tasks), tasks: file.tasks.value.0 };
        let tasks = task_order::resolve(lines, path.parent().unwrap_or(Path::new("")), &mut report);
        for example in &file.examples {
            for problem in example.value.problems(&tasks) {
                report(place(example), problem);
            }
        }
        if let Some(answers) = &file.answers {
            for problem in answers.value.problems(path.parent().unwrap_or(Path::new(""))) {
                problems.push(DefinitionProblem::new(path, place(answers), problem));
            }
        }
        if let Some(recommendations) = &file.recommendations {
            for problem in recommendations.value.problems(&tasks) {
                problems.push(DefinitionProblem::new(path, place(recommendations), problem));
            }
        }
        let mut copy = None;
        if let Some(section) = &file.copy {
            match section.value.resolve(&tasks, path.parent().unwrap_or(Path::new(""))) {
                Ok(catalogue) => copy = Some(catalogue),
                Err(wrong) => {
                    problems.extend(wrong.into_iter().map(|message| DefinitionProblem::new(path, place(section), message)))
                }
            }
        }
        if let Some(leads) = &file.leads {
            for problem in leads.value.problems(&tasks, path.parent().unwrap_or(Path::new(""))) {
                problems.push(DefinitionProblem::new(path, place(leads), problem));
            }
        }
        if !problems.is_empty() {
            return Err(DefinitionError { problems });
        }
        let schedule = |(name, entry): (String, Spanned<ScheduleConfig>)| ScheduleDefinition {
            name,
            place: place(&entry),
            written: entry.value,
        };
        Ok(Self {
            name: file.name.value.into(),
            tenant: file.tenant.map_or(DEFAULT_TENANT.into(), |tenant| tenant.value.into()),
            path: path.to_owned(),
            source,
            tasks,
            sinks: file.sinks,
            budget,
            backfill: file.backfill,
            tolerance,
            schedules: file.schedules.into_iter().map(schedule).collect(),
            searches: file.searches,
            answers: file.answers.map(|answers| answers.value),
            recommendations: file.recommendations.map(|recommendations| recommendations.value),
            copy,
            leads: file.leads.map(|leads| leads.value),
            examples: file.examples.into_iter().map(|e| Example { place: place(&e), ..e.value }).collect(),
        })
    }

    /// Tasks whose interactions are with a pipeline that is none of `all`, or another tenant's: nobody would ever ask for them.
    fn strayed(&self, all: &[Self]) -> Vec<DefinitionProblem> {
        let mut problems = Vec::new();
        for task in &self.tasks {
            let TaskSpec::Interact(spec) = &task.spec else { continue };
            let theirs = || all.iter().filter(|other| other.tenant == self.tenant).map(|other| &*other.name);
            if !theirs().any(|name| name == spec.with) {
                let near = suggestion(&spec.with, theirs().filter(|name| **name != *self.name));
                let message = format!("task `{}` interacts with `{}`, which is no pipeline{near}", task.name, spec.with);
                problems.push(DefinitionProblem::new(&self.path, Some(task.place), message));
            }
        }
        problems
    }

    /// The folder that paths in the file are relative to.
    pub fn base_dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The names of the models that the tasks and the answers ask, each once, in the file's order.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        let of_answers = self.answers.as_ref().map(|answers| answers.model.as_str());
        for model in self.tasks.iter().filter_map(|task| task.spec.model()).chain(of_answers) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }

    /// Whether a later task, or the lead that a document is, reads the task's output.
    pub fn is_read(&self, task: &Arc<str>) -> bool {
        self.tasks.iter().any(|later| later.needs.contains(task) || later.watches.contains(task))
            || self.copy.as_ref().is_some_and(|copy| copy.task == *task)
            || self.leads.as_ref().is_some_and(|leads| leads.reads(task))
    }

    /// What in the file does not fit the operator's configuration: models, datasets, webhooks and a registry that it does not name.
    ///
    /// Whether a model fits its task is known once it is loaded: see [`Graph::build`](super::graph::Graph::build).
    pub fn validate(&self, config: &Config) -> Vec<DefinitionProblem> {
        let mut problems = Vec::new();
        for task in &self.tasks {
            if let Some(model) = task.spec.model()
                && !config.models.contains_key(model)
            {
                let near = suggestion(model, config.models.keys().map(String::as_str));
                let message = format!("task `{}` names model `{model}`, which the configuration does not{near}", task.name);
                problems.push(DefinitionProblem::new(&self.path, Some(task.place), message));
            }
        }
        if let Some(AnswerSettings { model, .. }) = &self.answers
            && !config.models.contains_key(model)
        {
            let near = suggestion(model, config.models.keys().map(String::as_str));
            let message = format!("`answers` names model `{model}`, which the configuration does not{near}");
            problems.push(DefinitionProblem::new(&self.path, None, message));
        }
        if let Some(parquet) = &self.sinks.parquet
            && !config.datasets.contains_key(&parquet.dataset.value)
        {
            let name = &parquet.dataset.value;
            let near = suggestion(name, config.datasets.keys().map(String::as_str));
            let message = format!("the Parquet sink names dataset `{name}`, which the configuration does not{near}");
            problems.push(DefinitionProblem::new(&self.path, place(&parquet.dataset), message));
        }
        if let Some(webhook) = self.leads.as_ref().and_then(|leads| leads.webhook.as_ref())
            && !config.webhooks.contains_key(webhook)
        {
            let near = suggestion(webhook, config.webhooks.keys().map(String::as_str));
            let message = format!("`leads` names webhook `{webhook}`, which the configuration does not{near}");
            problems.push(DefinitionProblem::new(&self.path, None, message));
        }
        if self.source.document.format == Format::Avro && config.schema_registry.url.is_none() {
            let message = "the source is Avro, and the configuration names no registry of schemas; set `schema_registry.url`";
            problems.push(DefinitionProblem::new(&self.path, None, message.to_owned()));
        }
        problems
    }
}

/// Whether `name` is a letter followed by letters, digits and `joint`, all of them lower case.
pub(super) fn is_name(name: &str, joint: char) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == joint;
    name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(rest)
}

pub(super) fn place<T>(spanned: &Spanned<T>) -> Option<(u64, u64)> {
    let at = spanned.referenced;
    (at.line() > 0).then(|| (at.line(), at.column()))
}

#[cfg(test)]
mod tests;
