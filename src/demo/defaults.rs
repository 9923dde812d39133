//! Defaults for what is not configured: models, a database, datasets.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::download;
use super::postgres::{PostgresOptions, PrivatePostgres};
use crate::config::{Config, DatasetConfig, ModelConfig};
use crate::pipeline::definition::{Definition, TaskDefinition};
use crate::task::TaskSpec;
use crate::terminal::escaped;

/// The name of the downloaded sentence encoder in pipelines.
pub const SENTENCE_ENCODER: &str = "minilm";

/// Adds models that are not configured: those in folders under `models/` beside the pipelines, named after the folder, and the
/// sentence encoder, which is downloaded if it is missing.
///
/// # Errors
/// If the download fails.
pub async fn with_models(config: &mut Config) -> Result<()> {
    let shipped = std::fs::read_dir(config.pipelines.join("models")).into_iter().flatten().flatten();
    for folder in shipped.map(|entry| entry.path()).filter(|path| path.join("config.json").is_file()) {
        if let Some(name) = folder.file_name().and_then(|name| name.to_str()) {
            config.models.entry(name.to_owned()).or_insert_with(|| ModelConfig::local(&folder));
        }
    }
    if !config.models.contains_key(SENTENCE_ENCODER) {
        let path = tokio::task::spawn_blocking(|| download::sentence_encoder(&tell)).await??;
        config.models.insert(SENTENCE_ENCODER.to_owned(), ModelConfig::local(path));
    }
    Ok(())
}

/// Starts the private Postgres of the data folder if no database is configured. It runs as long as the returned value lives.
///
/// # Errors
/// If it does not start.
pub async fn with_database(config: &mut Config) -> Result<Option<PrivatePostgres>> {
    if config.database.url.is_some() || config.database.url_file.is_some() {
        return Ok(None);
    }
    let options = PostgresOptions { data_dir: config.data_dir.clone(), port: None, durable: true };
    let postgres = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options, &tell)).await??;
    config.database.url = Some(postgres.url().to_owned());
    Ok(Some(postgres))
}

/// Adds the pipeline's dataset, in the data folder, if it is not configured. Returns the folder of the pipeline's files.
///
/// # Errors
/// If the data folder cannot be created.
pub fn with_dataset(config: &mut Config, definition: &Definition) -> Result<Option<PathBuf>> {
    let Some(sink) = &definition.sinks.parquet else { return Ok(None) };
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot create the data folder {}", config.data_dir.display()))?;
    let data_dir = config.data_dir.canonicalize()?;
    let name = sink.dataset.value.clone();
    let dataset =
        config.datasets.entry(name.clone()).or_insert_with(|| DatasetConfig::local(data_dir.join("parquet").join(name)));
    Ok(Some(dataset.path.join(&*definition.name)))
}

/// Prints a line to stderr, about something that takes long.
pub fn tell(message: &str) {
    eprintln!("{}", escaped(message));
}

/// Pipelines in the same folder with interactions about this pipeline's documents and with samples. An invalid file is left out and
/// reported.
pub fn interaction_pipelines(definition: &Definition) -> Vec<Definition> {
    let folder = definition.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    let mut pipelines = Vec::new();
    for path in paths {
        match Definition::load(&path) {
            Ok(other) => pipelines.push(other),
            Err(error) => tell(&format!("leaving out {}: {error}", path.display())),
        }
    }
    let is_about = |task: &TaskDefinition| matches!(&task.spec, TaskSpec::Interact(spec) if *spec.with == *definition.name);
    pipelines.retain(|other| other.name != definition.name && other.tasks.iter().any(is_about) && samples(other).exists());
    pipelines
}

/// The file of sample documents beside a pipeline file.
pub fn samples(definition: &Definition) -> PathBuf {
    definition.path.parent().unwrap_or(Path::new(".")).join("samples").join(format!("{}.jsonl", definition.name))
}
