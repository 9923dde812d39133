//! `tidemill dead-letters purge`.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::filter::{DeadLetterFilterArgs, require};
use crate::cli::args::OutputArgs;
use crate::store::Store;

#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// The ids of dead letters, as `list` shows them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Only dead letters that were replayed
    #[arg(long)]
    replayed: bool,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    /// Only print how many would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Deletes the dead letters.
pub async fn run(store: &Store, args: PurgeArgs) -> Result<()> {
    let mut filter = args.filter.filter(&args.ids, Timestamp::now())?;
    filter.replayed = args.replayed.then_some(true);
    require(&filter, args.all)?;
    let count = store.purge_dead_letters(&filter, args.dry_run).await?;
    match (args.output.json, args.dry_run) {
        (true, dry_run) => say!("{}", json!({ "dry_run": dry_run, "letters": count })),
        (false, true) => say!("would delete {count} dead letters"),
        (false, false) => say!("deleted {count} dead letters"),
    }
    Ok(())
}
