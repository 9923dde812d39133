//! The ledger of the commands that look into it: the configured database, or the private one that a demo left behind.

use anyhow::Result;
use jiff::Timestamp;
use nix::unistd::{Uid, User};

use super::store;
use crate::config::Config;
use crate::demo::defaults::with_database;
use crate::demo::postgres::PrivatePostgres;
use crate::store::Store;

/// An open ledger.
pub struct Database {
    /// What is in it.
    pub store: Store,
    postgres: Option<PrivatePostgres>,
}

impl Database {
    /// Opens it and brings it up to date.
    ///
    /// # Errors
    /// Where no database is configured and none was left behind, or it cannot be reached.
    pub async fn open(config: &mut Config) -> Result<Self> {
        let postgres = match config.data_dir.join("postgres").exists() {
            true => with_database(config).await?,
            false => None,
        };
        let store = store(config)?;
        store.migrate().await?;
        Ok(Self { store, postgres })
    }

    /// Closes it.
    ///
    /// # Errors
    /// Where a thread panicked.
    pub async fn close(self) -> Result<()> {
        self.store.close().await;
        if let Some(postgres) = self.postgres {
            tokio::task::spawn_blocking(move || postgres.stop()).await?;
        }
        Ok(())
    }
}

/// A time of the ledger, in Unix milliseconds, as people read it.
pub fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| milliseconds.to_string(), |time| format!("{time:.0}"))
}

/// Who gives the order, for others to ask.
pub fn caller() -> String {
    let user = User::from_uid(Uid::effective()).ok().flatten().map_or_else(|| "someone".to_owned(), |user| user.name);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}
