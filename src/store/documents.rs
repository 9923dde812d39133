//! Stored documents, for running their tasks again.

use std::collections::HashMap;

use serde_json::Value;

use super::{Store, WithDeadline};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::Lineage;

/// The text and the source of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSource {
    pub version: i64,
    pub text: String,
    /// Every field of the source; none where the database could not store them.
    pub source: Option<Value>,
}

impl Store {
    /// The sources of the documents, by id. Deleted documents are left out.
    pub async fn document_sources(&self, pipeline: &str, ids: &[String]) -> Result<HashMap<String, DocumentSource>, Transient> {
        let rows = sqlx::query!(
            "SELECT id, version, text, source FROM documents WHERE pipeline = $1 AND id = ANY($2) AND NOT deleted",
            pipeline,
            ids
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        let sources = rows.into_iter().map(|row| {
            let source = DocumentSource { version: row.version, text: row.text, source: row.source };
            (row.id, source)
        });
        Ok(sources.collect())
    }

    /// Ids of documents whose output of one of the `tasks` is missing, or was made by another model or prompt than the task's entry
    /// in `lineages`. The ids are greater than `after` and in order, at most `limit` of them.
    pub async fn outdated_documents(
        &self,
        pipeline: &str,
        tasks: &[String],
        lineages: &[Lineage],
        after: &str,
        limit: i64,
    ) -> Result<Vec<String>, Transient> {
        let column = |field: fn(&Lineage) -> Option<&str>| lineages.iter().map(field).collect::<Vec<_>>();
        sqlx::query_scalar!(
            "SELECT d.id FROM documents d
             WHERE d.pipeline = $1 AND NOT d.deleted AND d.id > $2
               AND EXISTS (
                   SELECT FROM unnest($3::text[], $4::text[], $5::text[]) AS t (task, revision, prompt)
                   LEFT JOIN results r ON r.pipeline = d.pipeline AND r.document_id = d.id AND r.task = t.task
                   WHERE r.task IS NULL OR r.model_revision IS DISTINCT FROM t.revision OR r.prompt IS DISTINCT FROM t.prompt)
             ORDER BY d.id LIMIT $6",
            pipeline,
            after,
            tasks,
            &column(|lineage| lineage.revision.as_deref()) as &[Option<&str>],
            &column(|lineage| lineage.prompt.as_deref()) as &[Option<&str>],
            limit
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }
}
