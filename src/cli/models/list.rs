//! `tidemill models list`.

use anyhow::Result;
use clap::Args;
use comfy_table::Table;
use serde_json::{Value, json};

use super::unnamed;
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::engine::Engine;

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Lists the models. They are loaded for it, so that what is listed works; those behind servers are not asked.
pub async fn run(mut config: Config, args: ListArgs) -> Result<()> {
    let unnamed = unnamed(&config)?;
    with_models(&mut config).await?;
    let engine = tokio::task::spawn_blocking(move || Engine::start(&config.engine, &config.models)).await??;
    if args.json {
        let models: Vec<Value> = engine
            .models()
            .map(|model| {
                json!({
                    "name": model.name, "origin": model.origin, "kind": model.kind.as_str(), "revision": model.revision,
                    "architecture": model.architecture, "dimension": model.dimension, "max_tokens": model.max_tokens,
                })
            })
            .collect();
        let pulled: Vec<Value> = unnamed
            .iter()
            .map(|model| {
                json!({
                    "name": model.name, "path": model.folder, "source": model.manifest.source,
                    "revision": model.manifest.revision, "complete": model.manifest.complete, "bytes": model.manifest.bytes(),
                })
            })
            .collect();
        say!("{}", json!({ "models": models, "pulled": pulled }));
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["model", "kind", "architecture", "dimension", "tokens", "revision", "origin"]);
    for model in engine.models() {
        table.add_row([
            model.name.to_string(),
            model.kind.as_str().to_owned(),
            model.architecture.clone(),
            if model.dimension == 0 { String::new() } else { model.dimension.to_string() },
            model.max_tokens.to_string(),
            model.revision.chars().take(12).collect(),
            model.origin.clone(),
        ]);
    }
    say!("{table}");
    for model in unnamed {
        let state = if model.manifest.complete { "pulled" } else { "pulled in part" };
        say!("{state} and not configured: {} from {}, in {}", model.name, model.manifest.source, model.folder.display());
    }
    Ok(())
}
