//! A pipeline file: read strictly and checked as a whole. Every problem is reported with file, line and column.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::copy::CopySettings;
use super::definition_error::{DefinitionError, DefinitionProblem, position, suggestion};
use super::example::Example;
use super::file::PipelineFile;
use super::leads::LeadSettings;
use super::task_definition::is_name;
use super::task_order;
use crate::access::{DEFAULT_TENANT, is_tenant};
use crate::config::{Config, ScheduleConfig};
use crate::document::{Decoder, DocumentSpec, Format};
use crate::failure::Tolerance;
use crate::task::TaskSpec;

pub use super::answer_settings::AnswerSettings;
pub use super::batch_budget::Budget;
pub use super::file::{Backfill, ParquetSink, PostgresSink, Sinks, Start, TopicSink};
pub use super::recommendations::{InteractionWeight, RecommendationSettings, ValueWeight};
pub use super::task_definition::TaskDefinition;

/// A pipeline as its file defines it, checked as a whole.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The pipeline's name; the first part of every key in the database.
    pub name: Arc<str>,
    /// The tenant that owns the pipeline and everything that it writes.
    pub tenant: Arc<str>,
    /// The file it was read from.
    pub path: PathBuf,
    pub source: SourceSpec,
    /// The tasks, in the file's order.
    pub tasks: Vec<TaskDefinition>,
    /// Where results are written besides the ledger.
    pub sinks: Sinks,
    pub budget: Budget,
    pub backfill: Backfill,
    /// How many dead letters the pipeline tolerates before it stops.
    pub tolerance: Tolerance,
    /// Scheduled jobs; `jobs::schedules` checks their content.
    pub schedules: Vec<ScheduleDefinition>,
    /// Records with the outcomes that they must have.
    pub examples: Vec<Example>,
    /// Searches that show what the results are good for; the demo runs them.
    pub searches: Vec<String>,
    pub answers: Option<AnswerSettings>,
    pub recommendations: Option<RecommendationSettings>,
    pub copy: Option<CopySettings>,
    pub leads: Option<LeadSettings>,
}

/// Where documents come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSpec {
    pub topic: String,
    pub start: Start,
    /// How records become documents.
    pub document: DocumentSpec,
}

/// A schedule of the pipeline file.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleDefinition {
    /// Its name within the pipeline.
    pub name: String,
    pub config: ScheduleConfig,
    /// Line and column in the file.
    pub place: Option<(u64, u64)>,
}

impl Definition {
    /// Reads the pipeline file at `path`.
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
        let in_folder = |message: String| DefinitionError { problems: vec![DefinitionProblem::new(folder, None, message)] };
        let entries = std::fs::read_dir(folder).map_err(|error| in_folder(format!("cannot list pipelines: {error}")))?;
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
            problems.extend(definitions.iter().flat_map(|definition| definition.unknown_interactions(&definitions)));
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
            report(position(&file.version), format!("version {} is unknown: write `version: 1`", file.version.value));
        }
        if !is_name(&file.name.value, '-') {
            let message = format!(
                "`{}` is not a pipeline name: use lower-case letters, digits and `-`, a letter first, at most 63 characters",
                file.name.value
            );
            report(position(&file.name), message);
        }
        if let Some(tenant) = &file.tenant
            && !is_tenant(&tenant.value)
        {
            let message = format!(
                "`{}` is not a tenant name: use lower-case letters, digits and `-`, a letter first, at most 63 characters",
                tenant.value
            );
            report(position(tenant), message);
        }
        if file.source.value.topic.is_empty() {
            report(position(&file.source), "`source.topic` is empty: name the topic to read".into());
        }
        let sinks = [("topic", &file.sinks.topic), ("dead_letters", &file.sinks.dead_letters)];
        for (name, sink) in sinks.into_iter().filter_map(|(name, sink)| Some((name, sink.as_ref()?))) {
            if *sink.name == *file.source.value.topic {
                let message = format!(
                    "`sinks.{name}` is the topic `{}`, which the pipeline also reads: each record would create further ones; name another",
                    sink.name
                );
                report(position(&file.source), message);
            }
        }
        let source = SourceSpec {
            topic: file.source.value.topic.clone(),
            start: file.source.value.start,
            document: file.source.value.document(),
        };
        if let Err(error) = Decoder::new(&source.document) {
            report(position(&file.source), format!("the source is wrong: {error:#}"));
        }
        let budget = file.budget.value.budget().unwrap_or_else(|message| {
            report(position(&file.budget), message);
            Budget::default()
        });
        let tolerance = file.stop_at.value.tolerance().unwrap_or_else(|message| {
            report(position(&file.stop_at), message);
            Tolerance::default()
        });
        let base_dir = path.parent().unwrap_or(Path::new(""));
        let tasks = task_order::resolve(position(&file.tasks), file.tasks.value.0, base_dir, &mut report);
        for example in &file.examples {
            for problem in example.value.problems(&tasks) {
                report(position(example), problem);
            }
        }
        if let Some(answers) = &file.answers {
            for problem in answers.value.problems(base_dir) {
                problems.push(DefinitionProblem::new(path, position(answers), problem));
            }
        }
        if let Some(recommendations) = &file.recommendations {
            for problem in recommendations.value.problems(&tasks) {
                problems.push(DefinitionProblem::new(path, position(recommendations), problem));
            }
        }
        let mut copy = None;
        if let Some(section) = &file.copy {
            match section.value.resolve(&tasks, base_dir) {
                Ok(settings) => copy = Some(settings),
                Err(wrong) => {
                    problems.extend(wrong.into_iter().map(|message| DefinitionProblem::new(path, position(section), message)))
                }
            }
        }
        if let Some(leads) = &file.leads {
            for problem in leads.value.problems(&tasks, base_dir) {
                problems.push(DefinitionProblem::new(path, position(leads), problem));
            }
        }
        if !problems.is_empty() {
            return Err(DefinitionError { problems });
        }
        let schedule = |(name, entry): (String, Spanned<ScheduleConfig>)| ScheduleDefinition {
            name,
            place: position(&entry),
            config: entry.value,
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
            examples: file.examples.into_iter().map(|e| Example { place: position(&e), ..e.value }).collect(),
        })
    }

    /// Tasks whose interactions are with a pipeline that does not exist or belongs to another tenant, so that nothing would ever
    /// read them.
    fn unknown_interactions(&self, all: &[Self]) -> Vec<DefinitionProblem> {
        let mut problems = Vec::new();
        for task in &self.tasks {
            let TaskSpec::Interact(spec) = &task.spec else { continue };
            let own = || all.iter().filter(|other| other.tenant == self.tenant).map(|other| &*other.name);
            if !own().any(|name| name == spec.with) {
                let near = suggestion(&spec.with, own().filter(|name| **name != *self.name));
                let message = format!("task `{}` interacts with `{}`, which is not a pipeline{near}", task.name, spec.with);
                problems.push(DefinitionProblem::new(&self.path, Some(task.place), message));
            }
        }
        problems
    }

    /// The folder that paths in the file are relative to.
    pub fn base_dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The names of the models that the tasks and the answers use, each once, in the file's order.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = Vec::new();
        let answer_model = self.answers.as_ref().map(|answers| answers.model.as_str());
        for model in self.tasks.iter().filter_map(|task| task.spec.model()).chain(answer_model) {
            if !models.contains(&model) {
                models.push(model);
            }
        }
        models
    }

    /// Whether a later task, the copy or the leads read the task's output.
    pub fn is_read(&self, task: &Arc<str>) -> bool {
        self.tasks.iter().any(|later| later.needs.contains(task) || later.watches.contains(task))
            || self.copy.as_ref().is_some_and(|copy| copy.task == *task)
            || self.leads.as_ref().is_some_and(|leads| leads.reads(task))
    }

    /// What the file names and the operator's configuration lacks: models, datasets, webhooks and a schema registry.
    ///
    /// Whether a model fits its task is known only once it is loaded: see [`Graph::build`](super::graph::Graph::build).
    pub fn validate(&self, config: &Config) -> Vec<DefinitionProblem> {
        let mut problems = Vec::new();
        for task in &self.tasks {
            if let Some(model) = task.spec.model()
                && !config.models.contains_key(model)
            {
                let near = suggestion(model, config.models.keys().map(String::as_str));
                let message = format!("task `{}` names model `{model}`, which is not configured{near}", task.name);
                problems.push(DefinitionProblem::new(&self.path, Some(task.place), message));
            }
        }
        if let Some(AnswerSettings { model, .. }) = &self.answers
            && !config.models.contains_key(model)
        {
            let near = suggestion(model, config.models.keys().map(String::as_str));
            let message = format!("`answers` names model `{model}`, which is not configured{near}");
            problems.push(DefinitionProblem::new(&self.path, None, message));
        }
        if let Some(parquet) = &self.sinks.parquet
            && !config.datasets.contains_key(&parquet.dataset.value)
        {
            let name = &parquet.dataset.value;
            let near = suggestion(name, config.datasets.keys().map(String::as_str));
            let message = format!("the Parquet sink names dataset `{name}`, which is not configured{near}");
            problems.push(DefinitionProblem::new(&self.path, position(&parquet.dataset), message));
        }
        if let Some(webhook) = self.leads.as_ref().and_then(|leads| leads.webhook.as_ref())
            && !config.webhooks.contains_key(webhook)
        {
            let near = suggestion(webhook, config.webhooks.keys().map(String::as_str));
            let message = format!("`leads` names webhook `{webhook}`, which is not configured{near}");
            problems.push(DefinitionProblem::new(&self.path, None, message));
        }
        if self.source.document.format == Format::Avro && config.schema_registry.url.is_none() {
            let message = "the source is Avro, but no schema registry is configured; set `schema_registry.url`";
            problems.push(DefinitionProblem::new(&self.path, None, message.to_owned()));
        }
        problems
    }
}

#[cfg(test)]
mod tests;
