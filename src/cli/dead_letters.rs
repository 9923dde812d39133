//! `tidemill dead-letters`.

mod filter;
mod list;
mod purge;
mod replay;
mod show;

use anyhow::Result;
use clap::Subcommand;

use super::database::{Database, time};
use crate::config::Config;

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// The latest letters, and how many there are of each class
    List(list::ListArgs),
    /// Everything about one letter
    Show(show::ShowArgs),
    /// Send the records of letters to the topic that their pipeline reads, each once
    Replay(replay::ReplayArgs),
    /// Throw letters away
    Purge(purge::PurgeArgs),
}

/// Runs the command.
pub async fn run(mut config: Config, command: DeadLettersCommand) -> Result<()> {
    let ledger = Database::open(&mut config).await?;
    let done = match command {
        DeadLettersCommand::List(args) => list::run(&ledger.store, args).await,
        DeadLettersCommand::Show(args) => show::run(&ledger.store, args).await,
        DeadLettersCommand::Replay(args) => replay::run(&config, &ledger.store, args).await,
        DeadLettersCommand::Purge(args) => purge::run(&ledger.store, args).await,
    };
    ledger.close().await?;
    done
}
