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

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the latest dead letters, and how many each class has
    List(list::ListArgs),
    /// Show everything about one dead letter
    Show(show::ShowArgs),
    /// Send the records of dead letters to the topic that their pipeline reads, each once
    Replay(replay::ReplayArgs),
    /// Delete dead letters
    Purge(purge::PurgeArgs),
}

/// Runs `tidemill dead-letters`.
pub async fn run(mut config: Config, command: DeadLettersCommand) -> Result<()> {
    let database = Database::open(&mut config).await?;
    let done = match command {
        DeadLettersCommand::List(args) => list::run(&database.store, args).await,
        DeadLettersCommand::Show(args) => show::run(&database.store, args).await,
        DeadLettersCommand::Replay(args) => replay::run(&config, &database.store, args).await,
        DeadLettersCommand::Purge(args) => purge::run(&database.store, args).await,
    };
    database.close().await?;
    done
}
