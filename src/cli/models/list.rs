//! `tidemill models list`.

use anyhow::Result;
use comfy_table::Table;
use serde_json::{Value, json};

use super::unconfigured;
use crate::cli::args::OutputArgs;
use crate::config::Config;
use crate::demo::defaults::with_models;
use crate::engine::Engine;

/// Loads and lists the models, so that every model in the list works. Servers are not called.
pub async fn run(mut config: Config, args: OutputArgs) -> Result<()> {
    let unconfigured = unconfigured(&config)?;
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
        let pulled: Vec<Value> = unconfigured
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
    for model in unconfigured {
        let state = if model.manifest.complete { "pulled" } else { "pulled in part" };
        say!("{state}, not configured: {} from {}, in {}", model.name, model.manifest.source, model.folder.display());
    }
    Ok(())
}
