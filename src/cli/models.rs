//! `tidemill models`.

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::{Value, json};

use crate::config::Config;
use crate::demo::environment::with_sentence_encoder;
use crate::engine::Engine;

/// What can be done with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Load the configured models, and the built-in one, and say what they are
    List(ListArgs),
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Lists the models. They are loaded for it, so that what is listed works.
pub async fn run(mut config: Config, command: ModelsCommand) -> Result<()> {
    let ModelsCommand::List(args) = command;
    with_sentence_encoder(&mut config).await?;
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
        println!("{}", json!({ "models": models }));
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["model", "kind", "architecture", "dimension", "tokens", "revision", "origin"]);
    for model in engine.models() {
        table.add_row([
            model.name.to_string(),
            model.kind.as_str().to_owned(),
            model.architecture.clone(),
            model.dimension.to_string(),
            model.max_tokens.to_string(),
            model.revision.chars().take(12).collect(),
            model.origin.clone(),
        ]);
    }
    println!("{table}");
    Ok(())
}
