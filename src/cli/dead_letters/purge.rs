//! `tidemill dead-letters purge`.

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::filter::{DeadLetterFilterArgs, require};
use crate::store::Store;

/// Which letters to throw away.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// These letters, as `list` numbers them
    #[arg(value_name = "ID")]
    ids: Vec<i64>,
    #[command(flatten)]
    filter: DeadLetterFilterArgs,
    /// Only letters that were sent again
    #[arg(long)]
    replayed: bool,
    /// Every letter
    #[arg(long)]
    all: bool,
    /// Only say how many it would be
    #[arg(long)]
    dry_run: bool,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Throws the letters away.
pub async fn run(store: &Store, args: PurgeArgs) -> Result<()> {
    let mut filter = args.filter.filter(&args.ids, Timestamp::now())?;
    filter.replayed = args.replayed.then_some(true);
    require(&filter, args.all)?;
    let letters = store.purge_dead_letters(&filter, args.dry_run).await?;
    match (args.json, args.dry_run) {
        (true, dry_run) => say!("{}", json!({ "dry_run": dry_run, "letters": letters })),
        (false, true) => say!("would throw {letters} letters away"),
        (false, false) => say!("threw {letters} letters away"),
    }
    Ok(())
}
