//! Look-ups that avoid work: stored versions of documents, and outputs by fingerprint.

use std::collections::HashMap;

use serde_json::Value;

use super::{Store, WithDeadline};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::{EmbeddedChunk, Fingerprint, Output, Span};

/// The stored version of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredVersion {
    /// The latest committed version.
    pub version: i64,
    /// Whether that version is a delete.
    pub deleted: bool,
}

impl Store {
    /// The stored versions of the documents, by id. Documents that are not stored are left out.
    pub async fn versions(&self, pipeline: &str, ids: &[String]) -> Result<HashMap<String, StoredVersion>, Transient> {
        let rows = sqlx::query!("SELECT id, version, deleted FROM documents WHERE pipeline = $1 AND id = ANY($2)", pipeline, ids)
            .fetch_all(&self.pool)
            .with_deadline(self.deadline)
            .await?;
        Ok(rows.into_iter().map(|r| (r.id, StoredVersion { version: r.version, deleted: r.deleted })).collect())
    }

    /// For each document, task and fingerprint, whether the stored result of that document and task has that fingerprint.
    pub async fn unchanged(&self, pipeline: &str, results: &[(String, String, Fingerprint)]) -> Result<Vec<bool>, Transient> {
        let ids: Vec<&str> = results.iter().map(|result| result.0.as_str()).collect();
        let tasks: Vec<&str> = results.iter().map(|result| result.1.as_str()).collect();
        let fingerprints: Vec<&[u8]> = results.iter().map(|result| result.2.0.as_slice()).collect();
        sqlx::query_scalar!(
            r#"SELECT coalesce((SELECT r.fingerprint = u.fingerprint FROM results r
                                WHERE r.pipeline = $1 AND r.document_id = u.document_id AND r.task = u.task), false) AS "unchanged!"
               FROM unnest($2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY AS u (document_id, task, fingerprint, n)
               ORDER BY u.n"#,
            pipeline,
            &ids as &[&str],
            &tasks as &[&str],
            &fingerprints as &[&[u8]]
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Outputs with the given fingerprints and the number of tokens that each took. They may be of other documents and other
    /// pipelines of the same tenant as `pipeline`. Outputs of other tenants are not used: they would reveal that another tenant has
    /// the same text.
    pub async fn outputs(
        &self,
        pipeline: &str,
        fingerprints: &[Fingerprint],
    ) -> Result<HashMap<Fingerprint, (Output, u32)>, Transient> {
        let wanted: Vec<&[u8]> = fingerprints.iter().map(|f| f.0.as_slice()).collect();
        // One statement, so that a row and its vectors are from the same snapshot.
        let rows = sqlx::query!(
            r#"SELECT r.fingerprint, r.kind, r.text, r.fields, r.tokens,
                      e.span_start AS "span_start?", e.span_end AS "span_end?", e.tokens AS "chunk_tokens?",
                      e.vector::real[] AS "vector?"
               FROM (SELECT DISTINCT ON (fingerprint) * FROM results
                     WHERE fingerprint = ANY($1)
                       AND pipeline IN (SELECT name FROM pipelines WHERE tenant = (SELECT tenant FROM pipelines WHERE name = $2))
                     ORDER BY fingerprint) r
               LEFT JOIN embeddings e ON r.kind = 'embed' AND e.pipeline = r.pipeline AND e.document_id = r.document_id
                                      AND e.task = r.task
               ORDER BY r.fingerprint, e.chunk"#,
            &wanted as &[&[u8]],
            pipeline
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        let mut found: HashMap<Fingerprint, StoredOutput> = HashMap::new();
        for row in rows {
            let Ok(fingerprint) = <[u8; 32]>::try_from(row.fingerprint.as_slice()) else { continue };
            let (kind, text, fields, tokens) = (row.kind, row.text, row.fields, row.tokens);
            let stored = StoredOutput { kind, text, fields, tokens, chunks: Vec::new() };
            let stored = found.entry(Fingerprint(fingerprint)).or_insert(stored);
            if let (Some(start), Some(end), Some(tokens), Some(vector)) =
                (row.span_start, row.span_end, row.chunk_tokens, row.vector)
            {
                let span = Span { start: start as usize, end: end as usize };
                stored.chunks.push(EmbeddedChunk { span, tokens: tokens as u32, vector: vector.into() });
            }
        }
        let restored = found.into_iter().filter_map(|(fingerprint, stored)| {
            let output = Output::restore(&stored.kind, stored.text, stored.fields, stored.chunks)?;
            Some((fingerprint, (output, stored.tokens as u32)))
        });
        Ok(restored.collect())
    }
}

/// The columns of a stored output, collected from several rows where it has several chunks.
struct StoredOutput {
    kind: String,
    text: Option<String>,
    fields: Value,
    tokens: i32,
    chunks: Vec<EmbeddedChunk>,
}
