//! Copy of catalogues: versions of what pages say, written with the batches that bring them, read and decided on by people.
//!
//! | a version is | means | becomes |
//! |---|---|---|
//! | `review` | it waits for a person | approved, rejected, superseded, withdrawn |
//! | `approved` | it is on the page; of a document at most one | superseded, rejected, withdrawn |
//! | `rejected` | a person said no | nothing else |
//! | `superseded` | a later version took its place | nothing else |
//! | `withdrawn` | the document went away, or is not written about any more | nothing else |
//!
//! Whoever changes the versions of a document holds its row in `documents` first. Whoever publishes holds the catalogue's lock next,
//! so that of two who publish the same title at once the second sees the first.

mod commit;
mod decide;
mod read;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use utoipa::ToSchema;

use tidemill_base::outcome::{CheckFailure, FactTrace};

pub(super) use commit::write;
pub use decide::{CopyApproval, CopyDecision, CopyDecisionError, CopyEdit};
pub use read::{CopyFilter, CopyVersionKey, PublishedCopy};

/// Copy of one document as a task made it, or a person.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyDraft {
    /// The object as JSON, its keys in order.
    pub content: String,
    /// The page's address, where one could be made.
    pub url: Option<String>,
    /// What checks said.
    pub reasons: Vec<CheckFailure>,
    /// Where the facts come from.
    pub traces: Vec<FactTrace>,
    /// What no two pages may share: the field, and its value folded and hashed.
    pub keys: Vec<(String, [u8; 32])>,
}

/// Copy of one document that a batch brings.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyRow {
    /// The document.
    pub document_id: String,
    /// Its version.
    pub document_version: i64,
    /// The copy.
    pub draft: CopyDraft,
}

/// The copy that a batch brings.
#[derive(Debug, Clone, PartialEq)]
pub struct CopySubmission {
    /// The task that makes it.
    pub task: String,
    /// Whether what passes every check is published at once.
    pub is_automatic: bool,
    /// Of documents in the batch.
    pub rows: Vec<CopyRow>,
}

/// How a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// It waits for a person
    Review,
    /// It is on the page
    Approved,
    /// A person said no
    Rejected,
    /// A later version took its place
    Superseded,
    /// The document went away, or is not written about any more
    Withdrawn,
}

/// Who wrote a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CopyOrigin {
    /// The pipeline.
    Generated,
    /// A person.
    Edited,
}

/// A version of the copy of a document.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CopyVersion {
    /// The pipeline.
    pub pipeline: String,
    /// The document.
    pub document_id: String,
    /// Its number, from 1.
    pub version: i32,
    /// Who wrote it.
    pub origin: CopyOrigin,
    /// How it stands.
    pub state: CopyState,
    /// What it says.
    pub content: Map<String, Value>,
    /// The page's address.
    pub url: Option<String>,
    /// What checks say against it; empty where all passed.
    pub reasons: Vec<CheckFailure>,
    /// Where its facts come from.
    pub traces: Vec<FactTrace>,
    /// The version of the document that it was checked against.
    pub document_version: i64,
    /// The version that a person changed.
    pub based_on: Option<i32>,
    /// When it came, in Unix milliseconds.
    pub created_ms: i64,
    /// Who wrote it, where a person did.
    pub created_by: Option<String>,
    /// When it was decided on last, in Unix milliseconds.
    pub decided_ms: Option<i64>,
    /// Who decided, where a person did.
    pub decided_by: Option<String>,
    /// What they said of it.
    pub note: Option<String>,
}

impl CopyState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Review, Self::Approved, Self::Rejected, Self::Superseded, Self::Withdrawn];

    /// The word for it in the ledger, in answers and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The state of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl CopyOrigin {
    fn named(name: &str) -> Self {
        if name == "edited" { Self::Edited } else { Self::Generated }
    }
}

impl CopyDraft {
    fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(self.content.as_bytes()).as_bytes()
    }

    fn reasons_json(&self) -> Value {
        // Words and sentences can always be written.
        serde_json::to_value(&self.reasons).unwrap_or_default()
    }

    fn traces_json(&self) -> Value {
        serde_json::to_value(&self.traces).unwrap_or_default()
    }
}

/// What a column of our own JSON holds.
fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> sqlx::Result<T> {
    serde_json::from_value(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Lets nobody else publish in the catalogue until the transaction ends.
async fn lock_catalogue(connection: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    let held = sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('copy of ' || $1, 0))::text AS held", pipeline);
    held.fetch_one(connection).await.map(drop)
}

/// Writes the keys of a version. What the document claimed before, by another version, it claims since then.
async fn insert_keys(
    connection: &mut PgConnection,
    pipeline: &str,
    keys: &[(&str, i32, &str, &[u8])],
    is_published: bool,
) -> sqlx::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = keys.iter().map(|key| key.0).collect();
    let versions: Vec<i32> = keys.iter().map(|key| key.1).collect();
    let fields: Vec<&str> = keys.iter().map(|key| key.2).collect();
    let values: Vec<&[u8]> = keys.iter().map(|key| key.3).collect();
    sqlx::query!(
        "INSERT INTO copy_keys (pipeline, document_id, version, field, value, arrival, published)
         SELECT $1, n.document_id, n.version, n.field, n.value,
                coalesce((SELECT min(k.arrival) FROM copy_keys k
                          WHERE k.pipeline = $1 AND k.field = n.field AND k.value = n.value AND k.document_id = n.document_id),
                         nextval('copy_arrivals')),
                $6
         FROM unnest($2::text[], $3::integer[], $4::text[], $5::bytea[]) AS n (document_id, version, field, value)",
        pipeline,
        &ids as &[&str],
        &versions,
        &fields as &[&str],
        &values as &[&[u8]],
        is_published
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Gives a version that is not published the keys of `draft`. Those that it has already keep their arrival.
async fn renew_keys(
    connection: &mut PgConnection,
    pipeline: &str,
    document_id: &str,
    version: i32,
    draft: &CopyDraft,
) -> sqlx::Result<()> {
    let fields: Vec<&str> = draft.keys.iter().map(|(field, _)| field.as_str()).collect();
    let values: Vec<&[u8]> = draft.keys.iter().map(|(_, value)| value.as_slice()).collect();
    sqlx::query!(
        "DELETE FROM copy_keys WHERE pipeline = $1 AND document_id = $2 AND version = $3
         AND (field, value) NOT IN (SELECT * FROM unnest($4::text[], $5::bytea[]))",
        pipeline,
        document_id,
        version,
        &fields as &[&str],
        &values as &[&[u8]]
    )
    .execute(&mut *connection)
    .await?;
    let held = sqlx::query_scalar!(
        "SELECT field FROM copy_keys WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        pipeline,
        document_id,
        version
    );
    let held = held.fetch_all(&mut *connection).await?;
    let missing = draft.keys.iter().filter(|(field, _)| !held.contains(field));
    let missing: Vec<_> = missing.map(|(field, value)| (document_id, version, field.as_str(), value.as_slice())).collect();
    insert_keys(connection, pipeline, &missing, false).await
}
