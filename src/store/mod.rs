//! Every line of SQL. The rest of the house speaks of claims, batches and hits; only this room knows the tables.

mod audit;
mod commit;
mod copy;
mod dead_letters;
mod documents;
mod embedding_sets;
mod files;
mod isolation;
mod jobs;
mod known;
mod outbox;
mod positions;
mod prompts;
mod schedules;
mod search;
mod statistics;
mod stops;
mod submission;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::config::DatabaseConfig;
use crate::failure::{Component, Transient};

pub use commit::{CommitError, Ledgered};
pub use dead_letters::{DeadLetter, LetterFilter, LetterGlance, Replayed};
pub use documents::DocumentSource;
pub use files::StagedFile;
pub use isolation::{Attempts, Doubt};
pub use jobs::{
    ForemanLease, JobFilter, JobLetter, JobProgress, JobRow, JobState, LOCAL, LocalLease, NewJob, NewUnit, Submitted, UnitEnd,
    UnitFault, UnitRow, ledger_topic,
};
pub use known::KnownVersion;
pub use outbox::{OutboxEvent, RelayLease};
pub use schedules::{Firing, FiringOutcome, Firings, KnownSchedule, LastFiring};
pub use search::{HitLabel, Passage, QueryVector, Ranks, SearchFilter, SearchHit, SearchQuery};
pub use statistics::{DocumentGlance, PipelineStatistics};
pub use stops::{PipelineState, Stop};
pub use submission::{BatchRow, DeadLetterRow, DocumentContent, DocumentRow, Event, ResultRow, Submission, UsageRow};

/// A handle to the ledger's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

/// Connections of one process unless the configuration says otherwise: a handful of partitions commit at once.
const DEFAULT_CONNECTIONS: u32 = 10;

/// Longest a statement of the walk may run. Cancelling a transaction from outside can poison a pooled connection, so the
/// server ends what takes too long.
const STATEMENT_TIMEOUT: &str = "60s";

impl Store {
    /// Prepares a pool; connections are made when first needed, so that a database that is down delays and does not kill.
    ///
    /// # Errors
    /// Where there is no URL, the URL cannot be read, or it is not a Postgres URL. Secrets are not repeated in the message.
    pub fn connect(config: &DatabaseConfig) -> Result<Self> {
        let url = match (&config.url, &config.url_file) {
            (Some(url), None) => url.clone(),
            (None, Some(file)) => read_secret(file)?,
            (Some(_), Some(_)) => bail!("database.url and database.url_file are both set: keep one"),
            (None, None) => bail!("no database is configured: set database.url_file, or TIDEMILL_DATABASE__URL"),
        };
        let options: PgConnectOptions =
            url.parse().ok().context("the database URL is not of the form postgres://user:password@host:port/name")?;
        let options = options.application_name("tidemill").options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            ("lock_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "60s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.unwrap_or(DEFAULT_CONNECTIONS))
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// Brings the schema up to date. Safe to call from several processes at once.
    ///
    /// # Errors
    /// Where the database cannot be reached or a migration fails.
    pub async fn migrate(&self) -> Result<()> {
        sqlx::migrate!("./migrations").run(&self.pool).await.context("cannot bring the database schema up to date")
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn ping(&self) -> Result<(), Transient> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&self.pool).await.map(drop).map_err(unavailable)
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

fn read_secret(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read database.url_file {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Every error of the walk's own statements is the world's fault: rows were checked before they came here.
fn unavailable(error: sqlx::Error) -> Transient {
    Transient { component: Component::Database, reason: error.to_string() }
}
