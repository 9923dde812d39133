//! `tidemill dead-letters replay`.

use std::collections::HashMap;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::filter::{DeadLetterFilterArgs, require};
use crate::cli::args::OutputArgs;
use crate::config::Config;
use crate::pipeline::definition::Definition;
use crate::store::Store;

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The ids of dead letters, as `list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    /// Leave out records that were replayed this often
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..))]
    max_replays: i32,
    /// Only print what would be sent
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Puts the records into the outbox, from which a running worker publishes them.
pub async fn run(config: &Config, store: &Store, args: ReplayArgs) -> Result<()> {
    let filter = args.filter.filter(&args.ids, Timestamp::now())?;
    require(&filter, args.all)?;
    let names: Vec<String> = args.filter.pipeline().map(str::to_owned).into_iter().collect();
    let definitions = Definition::load_all(&config.pipelines, &names)?;
    let topics: HashMap<String, String> =
        definitions.into_iter().map(|definition| (definition.name.to_string(), definition.source.topic)).collect();
    let replayed = store.replay(&filter, &topics, args.max_replays, args.dry_run).await?;
    if args.output.json {
        let value = json!({
            "dry_run": args.dry_run, "records": replayed.records, "letters": replayed.letters,
            "exhausted": replayed.exhausted, "unknown": replayed.unknown,
        });
        say!("{value}");
        return Ok(());
    }
    let verb = if args.dry_run { "would send" } else { "will send" };
    say!("{verb} {} records of {} dead letters again", replayed.records, replayed.letters);
    if replayed.exhausted > 0 {
        let (left, most) = (replayed.exhausted, args.max_replays);
        say!("leaves {left} dead letters whose records were replayed {most} times already; --max-replays allows more");
    }
    for (pipeline, count) in &replayed.unknown {
        say!("leaves {count} dead letters of pipeline {pipeline}, which is not in {}", config.pipelines.display());
    }
    Ok(())
}
