//! Embedded defaults: what the commands use where nothing is configured.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::download;
use super::postgres::{PostgresOptions, PrivatePostgres};
use crate::cli::visible;
use crate::config::{Config, DatasetConfig, ModelConfig};
use crate::pipeline::definition::{Definition, TaskDefinition};
use crate::task::TaskSpec;

/// The name under which pipelines find the sentence encoder that we fetch.
pub const SENTENCE_ENCODER: &str = "minilm";

/// Makes models known that are not configured: those in folders under `models/` beside the pipelines, by the folder's name, and the
/// sentence encoder, which is fetched where it is not here yet.
///
/// # Errors
/// Where it cannot be fetched.
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

/// Makes a database known: the private Postgres of the data folder where none is configured. It lives as long as the value.
///
/// # Errors
/// Where it cannot be started.
pub async fn with_database(config: &mut Config) -> Result<Option<PrivatePostgres>> {
    if config.database.url.is_some() || config.database.url_file.is_some() {
        return Ok(None);
    }
    let options = PostgresOptions { data_dir: config.data_dir.clone(), port: None, durable: true };
    let postgres = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options, &tell)).await??;
    config.database.url = Some(postgres.url().to_owned());
    Ok(Some(postgres))
}

/// Makes the pipeline's dataset known: a folder of the data folder where none is configured. Tells which.
///
/// # Errors
/// Where the data folder cannot be made.
pub fn with_dataset(config: &mut Config, definition: &Definition) -> Result<Option<PathBuf>> {
    let Some(sink) = &definition.sinks.parquet else { return Ok(None) };
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("cannot make the data folder {}", config.data_dir.display()))?;
    let data_dir = config.data_dir.canonicalize()?;
    let name = sink.dataset.value.clone();
    let dataset =
        config.datasets.entry(name.clone()).or_insert_with(|| DatasetConfig::local(data_dir.join("parquet").join(name)));
    Ok(Some(dataset.path.join(&*definition.name)))
}

/// Says on stderr what takes long.
pub fn tell(message: &str) {
    eprintln!("{}", visible(message));
}

/// Pipelines beside this one whose interactions are with its documents, as far as there are samples of them. One that cannot be read
/// is left out, and that is said.
pub fn companions(definition: &Definition) -> Vec<Definition> {
    let folder = definition.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    let mut companions = Vec::new();
    for path in paths {
        match Definition::load(&path) {
            Ok(other) => companions.push(other),
            Err(error) => tell(&format!("leaving out {}: {error}", path.display())),
        }
    }
    let is_with = |task: &TaskDefinition| matches!(&task.spec, TaskSpec::Interact(spec) if *spec.with == *definition.name);
    companions.retain(|other| other.name != definition.name && other.tasks.iter().any(is_with) && samples(other).exists());
    companions
}

/// The file of sample documents beside a pipeline file.
pub fn samples(definition: &Definition) -> PathBuf {
    definition.path.parent().unwrap_or(Path::new(".")).join("samples").join(format!("{}.jsonl", definition.name))
}
