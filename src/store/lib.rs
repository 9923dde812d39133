//! Every line of SQL. The rest of the house speaks of claims, batches and hits; only this room knows the tables.

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

use search::Crowds;
use tidemill_base::config::DatabaseConfig;
use tidemill_base::failure::{Component, Transient};

pub use commit::{CommitError, CommitOutcome};
pub use copy::{
    CopyApproval, CopyDecision, CopyDecisionError, CopyDraft, CopyEdit, CopyFilter, CopyOrigin, CopyRow, CopyState,
    CopySubmission, CopyVersion, CopyVersionKey, PublishedCopy,
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
    AccountTopic, DeliveryAttempt, DeliveryOutcome, LeadAccount, LeadDelivery, LeadDocument, LeadFilter, LeadOrder, LeadPageEnd,
    LeadRow, LeadSubmission, StoredLead, WaitingDelivery,
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
pub use submission::{BatchRow, DeadLetterRow, DocumentContent, DocumentRow, Event, ResultRow, Submission, UsageRow};
pub use tenants::{Enrollment, Reader};
pub use tokens::{NewToken, TokenRow};

/// A handle to the ledger's database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    /// Connections that answer questions of people and programs: however many ask, those of the walk stay free.
    questions: PgPool,
    /// How long a statement or a transaction may take before the database counts as gone.
    deadline: Duration,
    crowds: Crowds,
}

/// Connections of one process unless the configuration says otherwise: a handful of partitions commit at once.
const DEFAULT_CONNECTIONS: u32 = 10;

/// The same for questions.
const QUESTION_CONNECTIONS: u32 = 6;

/// How soon the server notices that nobody waits for an answer any more.
const UNATTENDED: &str = "SET client_connection_check_interval = '1s'";

/// Longest a statement of the walk may run by the server's clock: it ends what takes too long, and says so.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest that we wait for what the server should have ended by itself: one that is frozen, or behind a network that swallows
/// everything, ends nothing, and its sockets stay open.
const DEADLINE: Duration = Duration::from_secs(90);

/// What takes as long is told.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// How long a connection that was alive is taken to be so still.
const RECENT: Duration = Duration::from_secs(1);

/// Longest that a sign of life may take. `/readyz` says within two of these that the database is gone.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

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
        let deadline = config.deadline_seconds.map_or(DEADLINE, Duration::from_secs);
        let statement_timeout = format!("{}s", deadline.min(STATEMENT_TIMEOUT).as_secs());
        // Its lines hold whole statements, which callers can make long; `InTime` and searches tell what took long, and where it stands.
        let options = options.disable_statement_logging();
        let options = options.application_name("tidemill").options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "60s"),
            // A client that the network swallowed holds its locks until the server notices.
            ("tcp_keepalives_idle", "30"),
            ("tcp_keepalives_interval", "10"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "60000"),
        ]);
        let pool = |most: u32| {
            PgPoolOptions::new()
                .max_connections(most)
                .acquire_timeout(Duration::from_secs(5))
                // Under load each connection is used again within milliseconds of being found alive.
                .test_before_acquire(false)
                .before_acquire(|connection, last| {
                    Box::pin(async move { Ok(last.idle_for < RECENT || is_alive(connection).await?) })
                })
                // The pool itself waits without an end for a connection that is given back: each would keep a place for ever.
                .after_release(|connection, _| Box::pin(async move { is_alive(connection).await }))
        };
        // Some systems cannot tell a server that a client is gone; there, a question nobody waits for runs into its time limit.
        let questions = pool(config.question_connections.unwrap_or(QUESTION_CONNECTIONS)).after_connect(|connection, _| {
            Box::pin(async move {
                drop(connection.execute(UNATTENDED).await);
                Ok(())
            })
        });
        Ok(Self {
            pool: pool(config.max_connections.unwrap_or(DEFAULT_CONNECTIONS)).connect_lazy_with(options.clone()),
            questions: questions.connect_lazy_with(options),
            deadline,
            crowds: Crowds::default(),
        })
    }

    /// Brings the schema up to date. Safe to call from several processes at once.
    ///
    /// # Errors
    /// Where the database cannot be reached or a migration fails.
    pub async fn migrate(&self) -> Result<()> {
        sqlx::migrate!("../../migrations").run(&self.pool).await.context("cannot bring the database schema up to date")
    }

    /// Asks the database for a sign of life.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn ping(&self) -> Result<(), Transient> {
        sqlx::query_scalar!("SELECT 1").fetch_one(&self.pool).in_time(SIGN_OF_LIFE.min(self.deadline)).await.map(drop)
    }

    /// Closes every connection, as far as the database answers.
    pub async fn close(&self) {
        let closed = async { tokio::join!(self.questions.close(), self.pool.close()) };
        if timeout(SIGN_OF_LIFE, closed).await.is_err() {
            tracing::debug!("the database did not let every connection go");
        }
    }

    fn silent(&self) -> Transient {
        silent(self.deadline)
    }
}

/// Statements that are given up where the database does not answer. Not for one inside a transaction: there, the connection goes too.
pub(crate) trait InTime<T>: Future<Output = sqlx::Result<T>> + Send + Sized {
    /// Waits for the answer for at most `deadline`.
    #[track_caller]
    fn in_time(self, deadline: Duration) -> impl Future<Output = Result<T, Transient>> + Send {
        let place = Location::caller();
        async move {
            let begun = Instant::now();
            let answer = timeout(deadline, self).await;
            if begun.elapsed() >= SLOW {
                tracing::warn!(%place, seconds = begun.elapsed().as_secs_f32(), "a statement took long");
            }
            match answer {
                Ok(answer) => answer.map_err(unavailable),
                Err(_) => Err(silent(deadline)),
            }
        }
    }
}

impl<T, F: Future<Output = sqlx::Result<T>> + Send> InTime<T> for F {}

fn silent(deadline: Duration) -> Transient {
    Transient::new(Component::Database, format!("no answer within {} s", deadline.as_secs()))
}

/// An error makes the pool close the connection without a word to the server.
async fn is_alive(connection: &mut PgConnection) -> sqlx::Result<bool> {
    match timeout(SIGN_OF_LIFE, connection.ping()).await {
        Ok(answer) => answer.map(|()| true),
        Err(_) => Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())),
    }
}

fn read_secret(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read database.url_file {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// Errors of the walk's own statements are the world's fault: rows were checked before they came here. Of a job or a request, a value
/// may be at fault: those are errors of class 22 (data exception), and a statement with more values than the protocol can count.
fn unavailable(error: sqlx::Error) -> Transient {
    let is_refusal = match &error {
        sqlx::Error::Database(refused) => refused.code().is_some_and(|code| code.starts_with("22")),
        sqlx::Error::Encode(_) => true,
        _ => false,
    };
    Transient { is_refusal, ..Transient::new(Component::Database, error.to_string()) }
}
