//! Candidates by meaning: the vector space's own HNSW index, and every vector where that lets too little through.

use std::collections::{HashMap, HashSet};

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Candidate, DEPTH, QueryVector, SearchQuery, columns};
use crate::outcome::Span;

/// Chunks up to which every vector is compared: that takes some 20 ms and misses nothing, while an index may miss a document
/// that lies far from all others.
const EXACT_UP_TO: i64 = 10_000;

/// The vector space that the query lives in, once it holds vectors.
pub(super) struct Space<'a> {
    id: i32,
    query: &'a QueryVector,
}

impl<'a> Space<'a> {
    pub(super) async fn find(query: &'a QueryVector, connection: &mut PgConnection) -> sqlx::Result<Option<Self>> {
        let (model, revision) = (&query.set.model, &query.set.revision);
        let id = sqlx::query_scalar!("SELECT id FROM embedding_sets WHERE model = $1 AND revision = $2", model, revision)
            .fetch_optional(connection)
            .await?;
        Ok(id.map(|id| Self { id, query }))
    }

    /// Whether there are other spaces, from which documents may be on their way.
    pub(super) async fn has_others(query: &QueryVector, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let (model, revision) = (&query.set.model, &query.set.revision);
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM embedding_sets WHERE model <> $1 OR revision <> $2) AS "others!""#,
            model,
            revision
        )
        .fetch_one(connection)
        .await
    }

    /// The cosine distance in the very words of the space's index, or the planner would not use it.
    fn distance(&self) -> String {
        let dimension = self.query.set.dimension;
        format!("(e.vector::vector({dimension})) <=> $1::real[]::vector({dimension})")
    }

    /// The documents by their nearest chunk, as far as the filters let them through.
    pub(super) async fn candidates(&self, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<Vec<Candidate>> {
        let depth = query.limit.max(DEPTH);
        let (id, distance) = (self.id, self.distance());
        let mut conditions = String::new();
        if !query.filter.labels.is_empty() {
            conditions.push_str(LABELS_OF_CHUNK);
        }
        if !query.filter.metadata.is_empty() {
            conditions.push_str(METADATA_OF_CHUNK);
        }
        let matching = format!(
            "SELECT e.document_id, {distance} AS distance FROM embeddings e
             WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3
               AND cardinality($4::text[]) = cardinality($5::text[]) AND $6::jsonb IS NOT NULL {conditions}"
        );
        if self.is_small(&query.pipeline, &mut *connection).await? {
            return self.by_document(&matching, depth, query, connection).await;
        }
        // A document may have several chunks among the nearest: four a document is enough nearly always.
        let nearest = format!("{matching} ORDER BY {distance} LIMIT {}", depth * 4);
        let approximate = self.by_document(&nearest, depth, query, &mut *connection).await?;
        if approximate.len() >= query.limit {
            return Ok(approximate);
        }
        // Too little came through: the filters are narrow, or few documents have all the near chunks. Compare every vector.
        self.by_document(&matching, depth, query, connection).await
    }

    async fn is_small(&self, pipeline: &str, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let chunks = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                   SELECT FROM embeddings WHERE pipeline = $1 AND task = $2 LIMIT $3) AS counted"#,
            pipeline,
            self.query.task,
            EXACT_UP_TO + 1
        );
        Ok(chunks.fetch_one(connection).await? <= EXACT_UP_TO)
    }

    async fn by_document(
        &self,
        chunks: &str,
        depth: usize,
        query: &SearchQuery,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let sql = format!(
            "WITH chunks AS MATERIALIZED ({chunks})
             SELECT document_id, min(distance) AS distance FROM chunks
             GROUP BY document_id ORDER BY min(distance), document_id LIMIT {depth}"
        );
        let (tasks, labels) = columns(&query.filter.labels);
        // Only integers are written into the text; everything that a caller typed is bound.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.query.vector)
            .bind(&query.pipeline)
            .bind(&self.query.task)
            .bind(tasks)
            .bind(labels)
            .bind(Json(&query.filter.metadata))
            .persistent(false)
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| Ok(Candidate { id: row.try_get(0)?, score: 1.0 - row.try_get::<f64, _>(1)? })).collect()
    }

    /// For each document the chunk that is nearest.
    pub(super) async fn best_chunks(&self, pipeline: &str, ids: &[String], connection: &mut PgConnection) -> sqlx::Result<Spans> {
        let sql = format!(
            "SELECT DISTINCT ON (e.document_id) e.document_id, e.span_start, e.span_end FROM embeddings e
             WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3 AND e.document_id = ANY($4)
             ORDER BY e.document_id, {distance}, e.chunk",
            id = self.id,
            distance = self.distance()
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.query.vector)
            .bind(pipeline)
            .bind(&self.query.task)
            .bind(ids)
            .persistent(false)
            .fetch_all(connection)
            .await?;
        let span = |start: i32, end: i32| Span { start: start.max(0) as usize, end: end.max(0) as usize };
        rows.iter().map(|row| Ok((row.try_get(0)?, span(row.try_get(1)?, row.try_get(2)?)))).collect()
    }
}

/// Those of the documents whose vectors are of another space. A commit replaces all that a document has of a task, so that it never
/// has some of each.
pub(super) async fn of_other_spaces(
    pipeline: &str,
    (query, space): (&QueryVector, Option<&Space<'_>>),
    ids: &[String],
    connection: &mut PgConnection,
) -> sqlx::Result<HashSet<String>> {
    let found = sqlx::query_scalar!(
        "SELECT DISTINCT document_id FROM embeddings
         WHERE pipeline = $1 AND task = $2 AND document_id = ANY($3) AND set_id IS DISTINCT FROM $4",
        pipeline,
        query.task,
        ids,
        space.map(|space| space.id)
    );
    Ok(found.fetch_all(connection).await?.into_iter().collect())
}

pub(super) type Spans = HashMap<String, Span>;

/// No wanted label is missing. `$4` and `$5` hold tasks and labels, pair by pair.
const LABELS_OF_CHUNK: &str = "
    AND NOT EXISTS (
        SELECT FROM unnest($4::text[], $5::text[]) AS wanted (task, label)
        WHERE NOT EXISTS (
            SELECT FROM results r
            WHERE r.pipeline = e.pipeline AND r.document_id = e.document_id AND r.task = wanted.task
              AND (r.label = wanted.label OR r.fields -> 'labels' ? wanted.label)))";

/// Of each condition in `$6`, the metadata contains one of the alternatives.
const METADATA_OF_CHUNK: &str = "
    AND EXISTS (
        SELECT FROM documents d
        WHERE d.pipeline = e.pipeline AND d.id = e.document_id
          AND NOT EXISTS (
              SELECT FROM jsonb_array_elements($6::jsonb) AS wanted (alternatives)
              WHERE NOT EXISTS (
                  SELECT FROM jsonb_array_elements(wanted.alternatives) AS alternative (contained)
                  WHERE d.metadata @> alternative.contained)))";
