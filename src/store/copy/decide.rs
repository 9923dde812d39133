//! Decisions of people on copy. Each decision is one transaction that locks the document's row. Where two people decide on one
//! version at once, the second gets an error that names the first decision.

use sqlx::PgConnection;

use super::super::{Store, unavailable};
use super::read::versions;
use super::{CopyDraft, CopyState, CopyVersion, UniqueKey, insert_keys, lock_publishing, renew_keys};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::Check;

/// A decision on a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyDecision {
    pub pipeline: String,
    pub document_id: String,
    /// The version that the person saw.
    pub version: i32,
    /// The person who decides.
    pub by: String,
    pub note: Option<String>,
}

/// The decision to publish a version.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyApproval {
    pub decision: CopyDecision,
    /// The version's content, checked again against the current document.
    pub draft: CopyDraft,
    /// The version of the document that it was checked against.
    pub document_version: i64,
    /// Checks that the person overrules.
    pub despite: Vec<Check>,
}

/// A version that a person wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct CopyEdit {
    /// The version that the person edited, and who it is.
    pub decision: CopyDecision,
    /// The task whose copy it is.
    pub task: String,
    /// The new content, checked against the document.
    pub draft: CopyDraft,
    /// The version of the document that it was checked against.
    pub document_version: i64,
}

/// Why a decision was not carried out. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum CopyDecisionError {
    /// The version or its document does not exist.
    #[error("there is no such version")]
    Unknown,
    /// The version has another state, in which this decision is not possible.
    #[error("the version is {}", .0.as_str())]
    Decided(CopyState),
    /// A person wrote a later version, which is in review or approved.
    #[error("version {version} is later, by {by}")]
    Overtaken {
        version: i32,
        /// The person who wrote it.
        by: String,
    },
    /// The document has changed since the version was checked.
    #[error("the document has changed in the meantime")]
    Moved,
    /// Another document has a value that must be unique.
    #[error("document `{document_id}` has the same `{field}`")]
    Taken {
        field: String,
        document_id: String,
        /// Whether the other document's value is published, which cannot be overruled.
        is_published: bool,
    },
    /// The database is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl Store {
    /// Publishes a version. The version that was published, and earlier ones in review, are superseded.
    ///
    /// # Errors
    /// See [`CopyDecisionError`].
    pub async fn approve_copy(&self, approval: &CopyApproval) -> Result<CopyVersion, CopyDecisionError> {
        self.transact(async |connection| approve(connection, approval).await).await
    }

    /// Rejects a version that is in review or published.
    ///
    /// # Errors
    /// See [`CopyDecisionError`].
    pub async fn reject_copy(&self, decision: &CopyDecision) -> Result<CopyVersion, CopyDecisionError> {
        self.transact(async |connection| {
            let state = lock(connection, decision, None).await?;
            if !matches!(state, CopyState::Review | CopyState::Approved) {
                return Err(CopyDecisionError::Decided(state));
            }
            set(connection, decision, CopyState::Rejected).await.map_err(unavailable)?;
            drop_keys(connection, decision, decision.version).await.map_err(unavailable)?;
            version(connection, decision, decision.version).await
        })
        .await
    }

    /// Adds a version in review. It supersedes the version that the person edited, if that was in review.
    ///
    /// # Errors
    /// See [`CopyDecisionError`].
    pub async fn edit_copy(&self, edit: &CopyEdit) -> Result<CopyVersion, CopyDecisionError> {
        self.transact(async |connection| insert_edit(connection, edit).await).await
    }
}

/// Locks the document's row and returns the version's state. With `document_version`, the document must still have that version.
async fn lock(
    connection: &mut PgConnection,
    decision: &CopyDecision,
    document_version: Option<i64>,
) -> Result<CopyState, CopyDecisionError> {
    let document = sqlx::query!(
        "SELECT version, deleted FROM documents WHERE pipeline = $1 AND id = $2 FOR UPDATE",
        decision.pipeline,
        decision.document_id
    );
    let document = document.fetch_optional(&mut *connection).await.map_err(unavailable)?.ok_or(CopyDecisionError::Unknown)?;
    if document_version.is_some_and(|version| document.deleted || version != document.version) {
        return Err(CopyDecisionError::Moved);
    }
    let state = sqlx::query_scalar!(
        "SELECT state FROM copy_versions WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        decision.pipeline,
        decision.document_id,
        decision.version
    );
    let state = state.fetch_optional(connection).await.map_err(unavailable)?;
    state.and_then(|state| CopyState::named(&state)).ok_or(CopyDecisionError::Unknown)
}

async fn approve(connection: &mut PgConnection, approval: &CopyApproval) -> Result<CopyVersion, CopyDecisionError> {
    let CopyApproval { decision, document_version, despite, .. } = approval;
    let state = lock(connection, decision, Some(*document_version)).await?;
    if state != CopyState::Review {
        return Err(CopyDecisionError::Decided(state));
    }
    lock_publishing(connection, &decision.pipeline).await.map_err(unavailable)?;
    refresh(connection, approval).await.map_err(unavailable)?;
    let others = sqlx::query!(
        "SELECT k.field, o.document_id, o.published FROM copy_keys k
         JOIN copy_keys o ON o.pipeline = k.pipeline AND o.field = k.field AND o.value = k.value AND o.document_id <> k.document_id
         WHERE k.pipeline = $1 AND k.document_id = $2 AND k.version = $3 AND (o.published OR o.arrival < k.arrival)
         ORDER BY o.published DESC, o.arrival LIMIT 1",
        decision.pipeline,
        decision.document_id,
        decision.version
    );
    let other = others.fetch_optional(&mut *connection).await.map_err(unavailable)?;
    if let Some(other) = other.filter(|other| other.published || !despite.contains(&Check::Unique)) {
        return Err(CopyDecisionError::Taken {
            field: other.field,
            document_id: other.document_id,
            is_published: other.published,
        });
    }
    supersede(connection, decision).await.map_err(unavailable)?;
    set(connection, decision, CopyState::Approved).await.map_err(unavailable)?;
    sqlx::query!(
        "UPDATE copy_keys SET published = true WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        decision.pipeline,
        decision.document_id,
        decision.version
    )
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    version(connection, decision, decision.version).await
}

/// Stores the results of the new check: failures, traces, address and keys.
async fn refresh(connection: &mut PgConnection, approval: &CopyApproval) -> sqlx::Result<()> {
    let CopyApproval { decision, draft, document_version, .. } = approval;
    sqlx::query!(
        "UPDATE copy_versions SET reasons = $4, traces = $5, document_version = $6, url = $7
         WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        decision.pipeline,
        decision.document_id,
        decision.version,
        draft.reasons_json(),
        draft.traces_json(),
        document_version,
        draft.url
    )
    .execute(&mut *connection)
    .await?;
    renew_keys(connection, &decision.pipeline, &decision.document_id, decision.version, draft).await
}

/// Supersedes the published version and earlier versions in review.
async fn supersede(connection: &mut PgConnection, decision: &CopyDecision) -> sqlx::Result<()> {
    sqlx::query!(
        "WITH old AS (
             UPDATE copy_versions SET state = 'superseded', decided_at = now(), decided_by = $4
             WHERE pipeline = $1 AND document_id = $2 AND (state = 'approved' OR state = 'review' AND version < $3)
             RETURNING version)
         DELETE FROM copy_keys k USING old o WHERE k.pipeline = $1 AND k.document_id = $2 AND k.version = o.version",
        decision.pipeline,
        decision.document_id,
        decision.version,
        decision.by
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn insert_edit(connection: &mut PgConnection, edit: &CopyEdit) -> Result<CopyVersion, CopyDecisionError> {
    let CopyEdit { decision, task, draft, document_version } = edit;
    let state = lock(connection, decision, Some(*document_version)).await?;
    if !matches!(state, CopyState::Review | CopyState::Approved) {
        return Err(CopyDecisionError::Decided(state));
    }
    let later = sqlx::query!(
        r#"SELECT version, created_by AS "created_by!" FROM copy_versions
           WHERE pipeline = $1 AND document_id = $2 AND version > $3 AND origin = 'edited' AND state IN ('review', 'approved')
           ORDER BY version LIMIT 1"#,
        decision.pipeline,
        decision.document_id,
        decision.version
    );
    if let Some(later) = later.fetch_optional(&mut *connection).await.map_err(unavailable)? {
        return Err(CopyDecisionError::Overtaken { version: later.version, by: later.created_by });
    }
    let number = sqlx::query_scalar!(
        r#"SELECT max(version) + 1 AS "version!" FROM copy_versions WHERE pipeline = $1 AND document_id = $2"#,
        decision.pipeline,
        decision.document_id
    );
    let number = number.fetch_one(&mut *connection).await.map_err(unavailable)?;
    sqlx::query!(
        "INSERT INTO copy_versions (pipeline, document_id, version, task, origin, state, content, url, reasons, traces,
                                    document_version, fingerprint, based_on, created_by, note)
         VALUES ($1, $2, $3, $4, 'edited', 'review', $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        decision.pipeline,
        decision.document_id,
        number,
        task,
        draft.content,
        draft.url,
        draft.reasons_json(),
        draft.traces_json(),
        document_version,
        &draft.fingerprint()[..],
        decision.version,
        decision.by,
        decision.note
    )
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    let keys: Vec<_> = UniqueKey::of(&decision.document_id, number, draft).collect();
    insert_keys(connection, &decision.pipeline, &keys, false).await.map_err(unavailable)?;
    if state == CopyState::Review {
        let old = CopyDecision { note: None, ..decision.clone() };
        set(connection, &old, CopyState::Superseded).await.map_err(unavailable)?;
        drop_keys(connection, decision, decision.version).await.map_err(unavailable)?;
    }
    version(connection, decision, number).await
}

async fn set(connection: &mut PgConnection, decision: &CopyDecision, state: CopyState) -> sqlx::Result<()> {
    sqlx::query!(
        "UPDATE copy_versions SET state = $4, decided_at = now(), decided_by = $5, note = coalesce($6, note)
         WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        decision.pipeline,
        decision.document_id,
        decision.version,
        state.as_str(),
        decision.by,
        decision.note
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn drop_keys(connection: &mut PgConnection, decision: &CopyDecision, version: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "DELETE FROM copy_keys WHERE pipeline = $1 AND document_id = $2 AND version = $3",
        decision.pipeline,
        decision.document_id,
        version
    )
    .execute(connection)
    .await
    .map(drop)
}

async fn version(connection: &mut PgConnection, decision: &CopyDecision, number: i32) -> Result<CopyVersion, CopyDecisionError> {
    let row =
        versions!("WHERE pipeline = $1 AND document_id = $2 AND version = $3", decision.pipeline, decision.document_id, number);
    Ok(row.fetch_one(connection).await.map_err(unavailable)?)
}
