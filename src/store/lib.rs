//! Every line of SQL. The other packages work with claims, batches and hits; only this one knows the tables.
//!
//! Every method of [`Store`], [`Reader`] and the leases fails with [`Transient`] where the database is unavailable. Where a method
//! can fail in other ways, its own documentation says how.

mod audit;
mod commit;
mod copy;
mod daily_counts;
mod dead_letters;
mod documents;
mod embedding_sets;
mod embeddings;
mod explain;
mod files;
mod interactions;
mod isolation;
mod jobs;
mod leads;
mod outbox;
mod parked_events;
mod pipeline_states;
mod positions;
mod prompts;
mod recommend;
mod reuse;
mod schedules;
mod search;
mod statistics;
mod submission;
mod tenants;
mod tokens;
mod transaction;

use std::panic::Location;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool};
use tokio::time::timeout;

use search::LargeVectorSets;
use tidemill_base::config::DatabaseConfig;
use tidemill_base::failure::{Component, Transient};

pub use commit::{CommitError, CommitOutcome};
pub use copy::{
    CopyApproval, CopyDecision, CopyDecisionError, CopyEdit, CopyFilter, CopyOrigin, CopyState, CopyVersion, CopyVersionKey,
    PublishedCopy,
};
pub use daily_counts::{DailyCounts, UsageTotals};
pub use dead_letters::{DeadLetter, DeadLetterFilter, DeadLetterSummary, ReplaySummary};
pub use documents::DocumentSource;
pub use explain::{BatchSource, DocumentDeadLetter, DocumentDetails, LiveFile, OutputDetails, OutputSummary};
pub use files::StagedFile;
pub use interactions::InteractionEvent;
pub use isolation::{Attempts, SuspectRange};
pub use jobs::{
    CoordinatorLease, JobDeadLetterRow, JobFilter, JobProgress, JobRow, JobState, LOCAL_JOB_KIND, LocalLease, NewJob, NewUnit,
    SubmitOutcome, UnitFault, UnitOutcome, UnitRow, is_job_topic, ledger_topic,
};
pub use leads::{
    DeliveryAttempt, DeliveryOutcome, LeadAccount, LeadDelivery, LeadDocument, LeadFilter, LeadOrder, LeadPageEnd, StoredLead,
    WaitingDelivery,
};
pub use outbox::{OutboxCounts, OutboxEvent, RelayLease};
pub use parked_events::{ParkedEvent, ParkedEventFilter, ResendSummary};
pub use pipeline_states::{PipelineState, PipelineStop};
pub use positions::{OffsetGap, PositionRow, PositionSkip, PositionSkipError};
pub use recommend::{DocumentSummary, NeighbourQuery, Neighbourhood};
pub use reuse::StoredVersion;
pub use schedules::{Firing, FiringBatch, FiringOutcome, LastFiring, StoredSchedule};
pub use search::{
    Comparison, Explanation, Facet, FacetCounts, FacetValue, FilterCondition, FilterPlace, FilterTest, Fusion, HitLabel,
    ListRank, Passage, QueryVector, SearchFilter, SearchHit, SearchPage, SearchQuery, ValueKind,
};
pub use statistics::{PipelineStatistics, SampleDocument};
pub use submission::{
    AccountTopic, BatchRow, CopyDraft, CopyRow, CopySubmission, DeadLetterRow, DocumentContent, DocumentRow, Event, LeadRow,
    LeadSubmission, ResultRow, Submission, UsageRow,
};
pub use tenants::{Enrollment, Reader};
pub use tokens::{NewToken, TokenRow};

/// A handle to the ledger's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// Connections of the pipelines themselves.
    pool: PgPool,
    /// Connections for requests of people and programs. They are apart from `pool`, so that requests never keep a pipeline waiting.
    request_pool: PgPool,
    /// How long a statement or a transaction may take before the database counts as unavailable.
    deadline: Duration,
    large_vector_sets: LargeVectorSets,
}

/// Connections of one process unless the configuration says otherwise: a handful of partitions commit at once.
const DEFAULT_CONNECTIONS: u32 = 10;

/// Connections of one process for requests, unless the configuration says otherwise.
const DEFAULT_REQUEST_CONNECTIONS: u32 = 6;

/// Makes the server check every second whether the client of a running statement is still connected.
const CHECK_CLIENT: &str = "SET client_connection_check_interval = '1s'";

/// How long a statement may run by the server's clock. The server cancels a longer one and returns an error.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// How long we wait for an answer by our own clock. It is longer than [`STATEMENT_TIMEOUT`] and needed besides it: a server that is
/// frozen, or behind a network that drops every packet, cancels nothing, and its sockets stay open.
const DEADLINE: Duration = Duration::from_secs(90);

/// A statement that takes at least this long is logged.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// A connection that was idle for less than this is used without checking it first.
const RECENT: Duration = Duration::from_secs(1);

/// How long a ping may take. `/readyz` reports within two of these that the database is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

impl Store {
    /// Prepares the pools. Connections are made when first needed, so that a process can start while the database is down.
    ///
    /// # Errors
    /// Where there is no URL, the URL cannot be read, or it is not a Postgres URL. The message never shows the URL, which holds a
    /// password.
    pub fn connect(config: &DatabaseConfig) -> Result<Self> {
        let url = match (&config.url, &config.url_file) {
            (Some(url), None) => url.clone(),
            (None, Some(file)) => read_secret(file)?,
            (Some(_), Some(_)) => bail!("database.url and database.url_file are both set: keep one"),
            (None, None) => bail!("no database is configured: set database.url_file or TIDEMILL_DATABASE__URL"),
        };
        let options: PgConnectOptions =
            url.parse().ok().context("the database URL is not of the form postgres://user:password@host:port/name")?;
        let deadline = config.deadline_seconds.map_or(DEADLINE, Duration::from_secs);
        let statement_timeout = format!("{}s", deadline.min(STATEMENT_TIMEOUT).as_secs());
        // sqlx's own log lines hold whole statements, which can be long. `WithDeadline` and searches log slow statements instead.
        let options = options.disable_statement_logging();
        let options = options.application_name("tidemill").options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "60s"),
            // A client that lost its network holds its locks until the server notices.
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "60000"),
        ]);
        let pool = |max_connections: u32| {
            PgPoolOptions::new()
                .max_connections(max_connections)
                .acquire_timeout(Duration::from_secs(5))
                // The pool's own test pings before every use. Ours skips connections that were used a moment ago.
                .test_before_acquire(false)
                .before_acquire(|connection, last| {
                    Box::pin(async move { Ok(last.idle_for < RECENT || is_alive(connection).await?) })
                })
                // The pool pings a returned connection without a timeout, so that a dead one would occupy its place for ever.
                .after_release(|connection, _| Box::pin(async move { is_alive(connection).await }))
        };
        // Some operating systems cannot tell the server that a client is gone. The setting fails there, and an abandoned request
        // runs until its statement timeout.
        let request_connections = config.question_connections.unwrap_or(DEFAULT_REQUEST_CONNECTIONS);
        let request_pool = pool(request_connections).after_connect(|connection, _| {
            Box::pin(async move {
                drop(connection.execute(CHECK_CLIENT).await);
                Ok(())
            })
        });
        Ok(Self {
            pool: pool(config.max_connections.unwrap_or(DEFAULT_CONNECTIONS)).connect_lazy_with(options.clone()),
            request_pool: request_pool.connect_lazy_with(options),
            deadline,
            large_vector_sets: LargeVectorSets::default(),
        })
    }

    /// Brings the schema up to date. Safe to call from several processes at once.
    ///
    /// # Errors
    /// Where the database cannot be reached or a migration fails.
    pub async fn migrate(&self) -> Result<()> {
        sqlx::migrate!("../../migrations").run(&self.pool).await.context("cannot bring the database schema up to date")
    }

    /// Checks that the database answers.
    pub async fn ping(&self) -> Result<(), Transient> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&self.pool).with_deadline(PING_TIMEOUT.min(self.deadline)).await.map(drop)
    }

    /// Closes every connection. Connections to a database that does not answer are dropped after a few seconds.
    pub async fn close(&self) {
        let closed = async { tokio::join!(self.request_pool.close(), self.pool.close()) };
        if timeout(PING_TIMEOUT, closed).await.is_err() {
            tracing::debug!("the database did not answer while its connections were closed");
        }
    }

    fn no_answer(&self) -> Transient {
        no_answer(self.deadline)
    }
}

/// Runs a statement with a time limit. Not for statements inside a transaction: there the connection must be dropped as well, which
/// [`Store::connected`] does.
pub(crate) trait WithDeadline<T>: Future<Output = sqlx::Result<T>> + Send + Sized {
    /// Waits for the answer for at most `deadline`.
    #[track_caller]
    fn with_deadline(self, deadline: Duration) -> impl Future<Output = Result<T, Transient>> + Send {
        let place = Location::caller();
        async move {
            let begun = Instant::now();
            let answer = timeout(deadline, self).await;
            if begun.elapsed() >= SLOW {
                tracing::warn!(%place, seconds = begun.elapsed().as_secs_f32(), "a statement was slow");
            }
            match answer {
                Ok(answer) => answer.map_err(unavailable),
                Err(_) => Err(no_answer(deadline)),
            }
        }
    }
}

impl<T, F: Future<Output = sqlx::Result<T>> + Send> WithDeadline<T> for F {}

fn no_answer(deadline: Duration) -> Transient {
    Transient::new(Component::Database, format!("no answer within {} s", deadline.as_secs()))
}

/// Whether the server answers on the connection. An error makes the pool drop the connection without telling the server.
async fn is_alive(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(PING_TIMEOUT, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn read_secret(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read database.url_file {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// The failure for an error of the database. Rows of pipelines were checked before they came here, so that their errors mean that
/// the database is unavailable. Only values of a job or a request may be refused: errors of class 22 (data exception), and a
/// statement with more values than the protocol can count.
fn unavailable(error: sqlx::Error) -> Transient {
    let is_refusal = match &error {
        sqlx::Error::Database(refused) => refused.code().is_some_and(|code| code.starts_with("22")),
        sqlx::Error::Encode(_) => true,
        _ => false,
    };
    Transient { is_refusal, ..Transient::new(Component::Database, error.to_string()) }
}
