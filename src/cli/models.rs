//! `tidemill models`.

mod list;
mod pull;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::config::{Config, ModelLocation};
use crate::engine::hub::Manifest;

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Load the configured models, and the built-in one, and say what they are
    List(list::ListArgs),
    /// Bring a model from the hub or from disk into a folder of its own, checked file by file
    Pull(pull::PullArgs),
    /// Read the files of models again and say which are not what they were
    Verify(verify::VerifyArgs),
}

/// Runs the command.
pub async fn run(config: Config, command: ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::List(args) => list::run(config, args).await,
        ModelsCommand::Pull(args) => pull::run(config, args).await,
        ModelsCommand::Verify(args) => verify::run(config, args).await,
    }
}

/// Where models are pulled to unless told.
fn pulled_models(config: &Config) -> PathBuf {
    config.data_dir.join("models")
}

/// A model that was pulled and that no setting names.
struct UnconfiguredModel {
    name: String,
    folder: PathBuf,
    manifest: Manifest,
}

/// Folders among the pulled models that no configured model is in, by name.
fn unnamed(config: &Config) -> Result<Vec<UnconfiguredModel>> {
    let named: Vec<PathBuf> = config
        .models
        .values()
        .flat_map(|model| [model.path.as_deref(), model.adapter.as_deref()])
        .flatten()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    // Before the first pull there is no folder.
    let Ok(entries) = std::fs::read_dir(pulled_models(config)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for folder in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(whole) = folder.canonicalize() else { continue };
        if named.iter().any(|path| path.starts_with(&whole)) {
            continue;
        }
        if let Some(manifest) = Manifest::read(&folder)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(UnconfiguredModel { name, folder: whole, manifest });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// What a model's manifest stands beside: the folder itself, or the one that a GGUF file is in.
fn folder_of(place: &ModelLocation<'_>) -> Option<PathBuf> {
    let ModelLocation::Local(path) = place else { return None };
    if path.is_dir() { Some(path.to_path_buf()) } else { path.parent().map(Path::to_path_buf) }
}
