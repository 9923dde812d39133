//! The database of commands that read or change it: the configured one, or the private one of the data folder.

use anyhow::Result;
use jiff::Timestamp;
use nix::unistd::{Uid, User};

use super::store;
use crate::config::Config;
use crate::demo::defaults::with_database;
use crate::demo::postgres::PrivatePostgres;
use crate::store::Store;

/// A connection to the database, and the private Postgres if the command started one.
pub struct Database {
    pub store: Store,
    postgres: Option<PrivatePostgres>,
}

impl Database {
    /// Connects to the configured database, or to the private one that an earlier command left in the data folder, and applies the
    /// migrations.
    ///
    /// # Errors
    /// If no database is configured and the data folder has none, or the database is unavailable.
    pub async fn open(config: &mut Config) -> Result<Self> {
        match config.data_dir.join("postgres").exists() {
            true => Self::open_or_create(config).await,
            false => Self::connect(config, None).await,
        }
    }

    /// The same, but creates a private database if none is configured and the data folder has none.
    ///
    /// # Errors
    /// If the database is unavailable or cannot be created.
    pub async fn open_or_create(config: &mut Config) -> Result<Self> {
        let postgres = with_database(config).await?;
        Self::connect(config, postgres).await
    }

    async fn connect(config: &Config, postgres: Option<PrivatePostgres>) -> Result<Self> {
        let store = store(config)?;
        store.migrate().await?;
        Ok(Self { store, postgres })
    }

    /// Closes the connections and stops the private Postgres.
    ///
    /// # Errors
    /// If a thread panicked.
    pub async fn close(self) -> Result<()> {
        self.store.close().await;
        if let Some(postgres) = self.postgres {
            tokio::task::spawn_blocking(move || postgres.stop()).await?;
        }
        Ok(())
    }
}

/// A time of the database, in Unix milliseconds, for people to read.
pub fn time(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds).map_or_else(|_| milliseconds.to_string(), |time| format!("{time:.0}"))
}

/// Who runs the command, as `user@host`; stored with what the command changes.
pub fn caller() -> String {
    let user = User::from_uid(Uid::effective()).ok().flatten().map_or_else(|| "someone".to_owned(), |user| user.name);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}
