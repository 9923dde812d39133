//! Copy: versions of the texts of pages. A batch writes them with its commit; people read them and decide on them.
//!
//! | state of a version | meaning | next states |
//! |---|---|---|
//! | `review` | it waits for a person's decision | approved, rejected, superseded, withdrawn |
//! | `approved` | it is published on the page; at most one version of a document | superseded, rejected, withdrawn |
//! | `rejected` | a person rejected it | none |
//! | `superseded` | a later version replaced it | none |
//! | `withdrawn` | the document was deleted, or the pipeline no longer writes copy for it | none |
//!
//! A transaction that changes the versions of a document first locks the document's row in `documents`. One that publishes then
//! takes the lock of the pipeline's copy, so that of two transactions that publish the same title, the second sees the first one's
//! row.

mod commit;
mod decide;
mod read;

use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::submission::CopyDraft;
use tidemill_base::outcome::{CheckFailure, FactTrace};

pub(super) use commit::write;
pub use decide::{CopyApproval, CopyDecision, CopyDecisionError, CopyEdit};
pub use read::{CopyFilter, CopyVersionKey, PublishedCopy};

/// The state of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CopyState {
    /// It waits for a person's decision
    Review,
    /// It is published on the page
    Approved,
    /// A person rejected it
    Rejected,
    /// A later version replaced it
    Superseded,
    /// The document was deleted, or the pipeline no longer writes copy for it
    Withdrawn,
}

/// Who wrote a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CopyOrigin {
    /// A task of the pipeline wrote it.
    Generated,
    /// A person edited it.
    Edited,
}

/// A version of the copy of a document.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct CopyVersion {
    /// The pipeline.
    pub pipeline: String,
    /// The document.
    pub document_id: String,
    /// The number of the version, from 1.
    pub version: i32,
    /// Who wrote it.
    pub origin: CopyOrigin,
    /// Its state.
    pub state: CopyState,
    /// The copy, an object.
    pub content: Map<String, Value>,
    /// The page's address.
    pub url: Option<String>,
    /// The checks that failed; empty where all passed.
    pub reasons: Vec<CheckFailure>,
    /// Where each fact in it comes from.
    pub traces: Vec<FactTrace>,
    /// The version of the document that it was checked against.
    pub document_version: i64,
    /// The version that a person edited to make this one.
    pub based_on: Option<i32>,
    /// When it was written, in Unix milliseconds.
    pub created_ms: i64,
    /// The person who wrote it; none where a task did.
    pub created_by: Option<String>,
    /// When its state last changed, in Unix milliseconds.
    pub decided_ms: Option<i64>,
    /// The person who changed its state; none where the service did.
    pub decided_by: Option<String>,
    /// The person's note on the decision.
    pub note: Option<String>,
}

impl CopyState {
    /// In the order of this enum.
    pub const ALL: [Self; 5] = [Self::Review, Self::Approved, Self::Rejected, Self::Superseded, Self::Withdrawn];

    /// The name in the ledger, in answers and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Review => "review",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The inverse of [`CopyState::as_str`].
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl CopyOrigin {
    fn named(name: &str) -> Self {
        if name == "edited" { Self::Edited } else { Self::Generated }
    }
}

/// The value in a JSON column that this crate wrote.
fn parsed<T: serde::de::DeserializeOwned>(value: Value) -> sqlx::Result<T> {
    serde_json::from_value(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Keeps other transactions from publishing copy of the pipeline until this one ends.
async fn lock_publishing(connection: &mut PgConnection, pipeline: &str) -> sqlx::Result<()> {
    let held = sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended('copy of ' || $1, 0))::text AS held", pipeline);
    held.fetch_one(connection).await.map(drop)
}

/// A value that no other page may have.
struct UniqueKey<'a> {
    document_id: &'a str,
    version: i32,
    field: &'a str,
    /// A hash of the normalized value.
    value: &'a [u8],
}

impl<'a> UniqueKey<'a> {
    /// The keys of `draft` as the version of that number.
    fn of(document_id: &'a str, version: i32, draft: &'a CopyDraft) -> impl Iterator<Item = Self> {
        draft.keys.iter().map(move |(field, value)| Self { document_id, version, field, value })
    }
}

/// Writes the keys of a version. A key that another version of the same document has already keeps that one's place in the order of
/// arrival.
async fn insert_keys(
    connection: &mut PgConnection,
    pipeline: &str,
    keys: &[UniqueKey<'_>],
    is_published: bool,
) -> sqlx::Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = keys.iter().map(|key| key.document_id).collect();
    let versions: Vec<i32> = keys.iter().map(|key| key.version).collect();
    let fields: Vec<&str> = keys.iter().map(|key| key.field).collect();
    let values: Vec<&[u8]> = keys.iter().map(|key| key.value).collect();
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

/// Replaces the keys of a version that is not published with those of `draft`. Keys that it already has keep their place in the
/// order of arrival.
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
    let keys = UniqueKey::of(document_id, version, draft);
    let missing: Vec<_> = keys.filter(|key| !held.iter().any(|field| field == key.field)).collect();
    insert_keys(connection, pipeline, &missing, false).await
}
