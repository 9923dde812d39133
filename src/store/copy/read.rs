//! Queries of copy, for people who review it and for the pages that publish it.

use std::sync::Arc;

use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::super::{Reader, WithDeadline, unavailable};
use super::{CopyOrigin, CopyState, CopyVersion};
use tidemill_base::document::Document;
use tidemill_base::failure::Transient;

/// How many versions of one document are listed at most.
const HISTORY: i64 = 100;

/// Which versions to list.
#[derive(Debug, Clone)]
pub struct CopyFilter {
    pub pipeline: String,
    pub state: CopyState,
    /// The document and number of the version after which the page begins.
    pub after: Option<(String, i32)>,
    pub limit: i64,
}

/// The key of a version. Lists are in the order of keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyVersionKey {
    pub pipeline: String,
    pub document_id: String,
    pub version: i32,
}

/// The copy that is published on a page.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedCopy {
    pub document_id: String,
    pub version: i32,
    pub origin: CopyOrigin,
    pub url: String,
    pub content: Map<String, Value>,
    /// When it was approved, in Unix milliseconds.
    pub approved_ms: i64,
    /// The person who approved it; none where the pipeline publishes by itself.
    pub approved_by: Option<String>,
}

/// Reads versions from `copy_versions`. The first argument is the rest of the statement after the table's name.
macro_rules! versions {
    ($rest:tt $(, $argument:expr)+ $(,)?) => {
        sqlx::query!(
            r#"SELECT pipeline, document_id, version, origin, state, content, url, reasons, traces, document_version, based_on,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_ms!", created_by,
                      (extract(epoch FROM decided_at) * 1000)::bigint AS "decided_ms?", decided_by, note
               FROM copy_versions "# + $rest
            $(, $argument)+
        )
        .try_map(|row| {
            Ok(crate::CopyVersion {
                pipeline: row.pipeline,
                document_id: row.document_id,
                version: row.version,
                origin: super::CopyOrigin::named(&row.origin),
                state: super::CopyState::named(&row.state).unwrap_or(super::CopyState::Superseded),
                content: super::read::object(&row.content)?,
                url: row.url,
                reasons: super::parsed(row.reasons)?,
                traces: super::parsed(row.traces)?,
                document_version: row.document_version,
                based_on: row.based_on,
                created_ms: row.created_ms,
                created_by: row.created_by,
                decided_ms: row.decided_ms,
                decided_by: row.decided_by,
                note: row.note,
            })
        })
    };
}

pub(super) use versions;

pub(super) fn object(content: &str) -> sqlx::Result<Map<String, Value>> {
    serde_json::from_str(content).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl Reader {
    /// The versions that match the filter, in the order of documents.
    pub async fn copy_versions(&self, filter: &CopyFilter) -> Result<Vec<CopyVersion>, Transient> {
        let (document_id, version) = filter.after.clone().unwrap_or_default();
        let mut view = self.view().await?;
        let versions = versions!(
            "WHERE pipeline = $1 AND state = $2 AND (document_id, version) > ($3, $4)
             ORDER BY document_id, version LIMIT $5",
            filter.pipeline,
            filter.state.as_str(),
            document_id,
            version,
            filter.limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(versions)
    }

    /// How many versions of the pipelines wait for a decision.
    pub async fn copy_in_review(&self, pipelines: &[String]) -> Result<i64, Transient> {
        let mut view = self.view().await?;
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM copy_versions WHERE pipeline = ANY($1) AND state = 'review'"#,
            pipelines
        )
        .fetch_one(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(count)
    }

    /// The versions of one document, the latest first. Of more than a hundred, those in review or published are always listed.
    pub async fn copy_history(&self, pipeline: &str, document_id: &str) -> Result<Vec<CopyVersion>, Transient> {
        let mut view = self.view().await?;
        let mut versions = versions!(
            "WHERE pipeline = $1 AND document_id = $2
             ORDER BY state IN ('review', 'approved') DESC, version DESC LIMIT $3",
            pipeline,
            document_id,
            HISTORY
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        versions.sort_by_key(|version| std::cmp::Reverse(version.version));
        Ok(versions)
    }

    /// Which of the versions have a value that must be unique and belongs to another document, because that one is published or
    /// came first: the version, the field and the other document.
    pub async fn copy_duplicates(&self, versions: &[CopyVersionKey]) -> Result<Vec<(CopyVersionKey, String, String)>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT k.pipeline, k.document_id, k.version, k.field, o.document_id AS "other!"
               FROM unnest($1::text[], $2::text[], $3::integer[]) AS p (pipeline, document_id, version)
               JOIN copy_keys k ON k.pipeline = p.pipeline AND k.document_id = p.document_id AND k.version = p.version
               JOIN LATERAL (
                   SELECT o.document_id FROM copy_keys o
                   WHERE o.pipeline = k.pipeline AND o.field = k.field AND o.value = k.value AND o.document_id <> k.document_id
                     AND NOT k.published AND (o.published OR o.arrival < k.arrival)
                   ORDER BY o.published DESC, o.arrival LIMIT 1) o ON true
               ORDER BY k.pipeline, k.document_id, k.version, k.field"#,
            &versions.iter().map(|key| key.pipeline.as_str()).collect::<Vec<_>>() as &[&str],
            &versions.iter().map(|key| key.document_id.as_str()).collect::<Vec<_>>() as &[&str],
            &versions.iter().map(|key| key.version).collect::<Vec<_>>()
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let key = |pipeline, document_id, version| CopyVersionKey { pipeline, document_id, version };
        Ok(rows.into_iter().map(|row| (key(row.pipeline, row.document_id, row.version), row.field, row.other)).collect())
    }

    /// The published copy of documents with ids greater than `after`, in the order of ids.
    pub async fn published_copy(&self, pipeline: &str, after: &str, limit: i64) -> Result<Vec<PublishedCopy>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT document_id, version, origin, url AS "url!", content, decided_by,
                      (extract(epoch FROM coalesce(decided_at, created_at)) * 1000)::bigint AS "approved_ms!"
               FROM copy_versions WHERE pipeline = $1 AND state = 'approved' AND document_id > $2
               ORDER BY document_id LIMIT $3"#,
            pipeline,
            after,
            limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let mut published = Vec::with_capacity(rows.len());
        for row in rows {
            published.push(PublishedCopy {
                document_id: row.document_id,
                version: row.version,
                origin: CopyOrigin::named(&row.origin),
                url: row.url,
                content: object(&row.content).map_err(unavailable)?,
                approved_ms: row.approved_ms,
                approved_by: row.decided_by,
            });
        }
        Ok(published)
    }

    /// The addresses of published pages and when each last changed, in Unix milliseconds. The pages are in the order of document
    /// ids; the first `skipped` are left out.
    pub async fn published_pages(&self, pipeline: &str, skipped: i64, limit: i64) -> Result<Vec<(String, i64)>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT url AS "url!", (extract(epoch FROM coalesce(decided_at, created_at)) * 1000)::bigint AS "approved_ms!"
               FROM copy_versions WHERE pipeline = $1 AND state = 'approved' ORDER BY document_id OFFSET $2 LIMIT $3"#,
            pipeline,
            skipped,
            limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(rows.into_iter().map(|row| (row.url, row.approved_ms)).collect())
    }

    /// How many pages are published, and when one last changed, in Unix milliseconds.
    pub async fn count_published(&self, pipeline: &str) -> Result<(i64, Option<i64>), Transient> {
        let mut view = self.view().await?;
        let row = sqlx::query!(
            r#"SELECT count(*) AS "count!", (extract(epoch FROM max(decided_at)) * 1000)::bigint AS "changed_ms?"
               FROM copy_versions WHERE pipeline = $1 AND state = 'approved'"#,
            pipeline
        )
        .fetch_one(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok((row.count, row.changed_ms))
    }

    /// The latest version of the document; none where it does not exist or is deleted.
    pub async fn current_document(&self, pipeline: &str, id: &str) -> Result<Option<Document>, Transient> {
        let mut view = self.view().await?;
        let document = current_document(view.connection(), pipeline, id).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        Ok(document)
    }
}

async fn current_document(connection: &mut PgConnection, pipeline: &str, id: &str) -> sqlx::Result<Option<Document>> {
    let row = sqlx::query!(
        "SELECT id, version, text, metadata, source FROM documents WHERE pipeline = $1 AND id = $2 AND NOT deleted",
        pipeline,
        id
    );
    let Some(row) = row.fetch_optional(connection).await? else { return Ok(None) };
    let fields = |value: Option<Value>| match value {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    Ok(Some(Document {
        id: row.id.into(),
        version: row.version,
        text: Arc::from(row.text),
        metadata: fields(Some(row.metadata)),
        fields: fields(row.source),
    }))
}
