//! `tidemill check`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::args::OutputArgs;
use super::engine;
use crate::config::{Config, DatasetConfig};
use crate::demo::defaults::with_models;
use crate::jobs::schedules::Schedule;
use crate::pipeline::check::check;
use crate::pipeline::definition::Definition;
use crate::pipeline::definition_error::{DefinitionError, DefinitionProblem};
use crate::pipeline::passages;
use crate::sink::Dataset;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files; by default those of the configured folder
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Checks keys, templates, task graph, models and datasets of each file, and runs its examples. Commits nothing.
pub async fn run(mut config: Config, args: CheckArgs) -> Result<()> {
    with_models(&mut config).await?;
    let (mut definitions, mut problems) = (Vec::new(), Vec::new());
    let read: Vec<_> = match args.files.is_empty() {
        true => Definition::load_all(&config.pipelines, &[])?.into_iter().map(Ok).collect(),
        false => args.files.iter().map(Definition::load).collect(),
    };
    for definition in read {
        match definition {
            Ok(definition) => definitions.push(definition),
            Err(error) => problems.extend(error.problems),
        }
    }
    let mut assumed = with_assumed_datasets(&config, &definitions);
    if !args.files.is_empty() {
        // Schedules of the configuration may name pipelines that were not given.
        assumed.schedules.clear();
    }
    if let Err(error) = Schedule::all(&assumed, &definitions) {
        problems.extend(error.problems);
    }
    if args.files.is_empty() {
        // Given files may search passages of pipelines that were not given.
        problems.extend(passages::problems(&definitions));
    }
    let mut valid = Vec::new();
    for definition in definitions {
        let mut found = definition.validate(&assumed);
        found.extend(unwritable(&config, &definition));
        if found.is_empty() {
            valid.push(definition);
        }
        problems.extend(found);
    }
    let engine = engine(config, &valid).await?;
    let mut examples = 0;
    for definition in &valid {
        tracing::info!(pipeline = %definition.name, examples = definition.examples.len(), "running examples");
        examples += definition.examples.len();
        problems.extend(check(definition, &engine).await);
    }
    if args.output.json {
        let names: Vec<_> = valid.iter().map(|definition| &definition.name).collect();
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        say!("{}", json!({ "pipelines": names, "examples": examples, "problems": texts }));
    } else if problems.is_empty() {
        let names: Vec<_> = valid.iter().map(|definition| &*definition.name).collect();
        say!("{}: valid; {examples} examples passed", names.join(", "));
    }
    if problems.is_empty() { Ok(()) } else { Err(DefinitionError { problems }.into()) }
}

/// The configuration; if it has no dataset at all, every dataset that pipelines name gets the folder that `demo` would give it.
fn with_assumed_datasets(config: &Config, definitions: &[Definition]) -> Config {
    let mut assumed = config.clone();
    if assumed.datasets.is_empty() {
        let sinks =
            definitions.iter().filter_map(|definition| definition.sinks.parquet.as_ref()).map(|sink| sink.dataset.value.as_str());
        let schedules = definitions.iter().flat_map(|definition| &definition.schedules);
        let read = schedules.filter_map(|schedule| schedule.config.job.get("dataset")?.as_str());
        let datasets =
            sinks.chain(read).map(|name| (name.to_owned(), DatasetConfig::local(config.data_dir.join("parquet").join(name))));
        assumed.datasets = datasets.collect();
    }
    assumed
}

fn unwritable(config: &Config, definition: &Definition) -> Option<DefinitionProblem> {
    let sink = definition.sinks.parquet.as_ref()?;
    let dataset = config.datasets.get(&sink.dataset.value)?;
    let error = Dataset::open(&sink.dataset.value, &dataset.path).err()?;
    let (name, path) = (&sink.dataset.value, dataset.path.display());
    Some(DefinitionProblem::new(
        &definition.path,
        None,
        format!("dataset `{name}` cannot be written to {path}: {error}; fix the folder"),
    ))
}
