//! Documents as they came in, for running their tasks again.

use std::collections::HashMap;

use serde_json::Value;

use super::{InTime, Store};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::Lineage;

/// What a document was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSource {
    /// Its version.
    pub version: i64,
    /// Its text.
    pub text: String,
    /// Every field of the source, where they are kept.
    pub source: Option<Value>,
}

impl Store {
    /// What the documents were made of, by id. Deleted ones are left out.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn document_sources(&self, pipeline: &str, ids: &[String]) -> Result<HashMap<String, DocumentSource>, Transient> {
        let rows = sqlx::query!(
            "SELECT id, version, text, source FROM documents WHERE pipeline = $1 AND id = ANY($2) AND NOT deleted",
            pipeline,
            ids
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await?;
        let described = |(version, text, source)| DocumentSource { version, text, source };
        Ok(rows.into_iter().map(|row| (row.id, described((row.version, row.text, row.source)))).collect())
    }

    /// Ids, in order and greater than `after`, of documents for which an output of `tasks` is missing or comes from another model
    /// or prompt than `lineages` says, task by task; at most `limit`.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn outdated_documents(
        &self,
        pipeline: &str,
        (tasks, lineages): (&[String], &[Lineage]),
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
        .in_time(self.deadline)
        .await
    }
}
