//! `tidemill models`.

mod list;
mod pull;
mod verify;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::config::{Config, ModelLocation};
use crate::engine::hub::Manifest;

#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Load and list the configured models and the built-in one
    List(super::args::OutputArgs),
    /// Download a model from the hub, or copy it from disk, and check each file
    Pull(pull::PullArgs),
    /// Read the files of models again and list those that changed
    Verify(verify::VerifyArgs),
}

/// Runs `tidemill models`.
pub async fn run(config: Config, command: ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::List(args) => list::run(config, args).await,
        ModelsCommand::Pull(args) => pull::run(config, args).await,
        ModelsCommand::Verify(args) => verify::run(config, args).await,
    }
}

/// The folder of pulled models.
fn pulled_models(config: &Config) -> PathBuf {
    config.data_dir.join("models")
}

/// A pulled model that the configuration does not name.
struct UnconfiguredModel {
    name: String,
    folder: PathBuf,
    manifest: Manifest,
}

/// Pulled models that the configuration does not name, sorted by name.
fn unconfigured(config: &Config) -> Result<Vec<UnconfiguredModel>> {
    let configured: Vec<PathBuf> = config
        .models
        .values()
        .flat_map(|model| [model.path.as_deref(), model.adapter.as_deref()])
        .flatten()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    // The folder does not exist before the first pull.
    let Ok(entries) = std::fs::read_dir(pulled_models(config)) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for folder in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let Ok(absolute) = folder.canonicalize() else { continue };
        if configured.iter().any(|path| path.starts_with(&absolute)) {
            continue;
        }
        if let Some(manifest) = Manifest::read(&folder)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(UnconfiguredModel { name, folder: absolute, manifest });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// The folder with a model's manifest: the model folder, or the folder of a GGUF file.
fn folder_of(place: &ModelLocation<'_>) -> Option<PathBuf> {
    let ModelLocation::Local(path) = place else { return None };
    if path.is_dir() { Some(path.to_path_buf()) } else { path.parent().map(Path::to_path_buf) }
}
