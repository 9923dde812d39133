//! Candidates by vectors.
//!
//! | case | method | may miss |
//! |---|---|---|
//! | few chunks in all | compare every vector | nothing |
//! | few documents pass the filter | compare every vector of these documents | nothing |
//! | otherwise | scan the embedding set's HNSW index, if it is built, until enough documents pass the filter | a document that is far from all others |
//! | the scan finds too few documents | compare every vector | nothing |

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, PgConnection, Postgres, QueryBuilder, Row};

use super::{Candidate, QueryVector, SearchQuery};
use tidemill_base::outcome::Span;

/// Up to this number of chunks every vector is compared. It takes about 20 ms and misses nothing, while an index may miss a
/// document that is far from all others.
pub(crate) const EXACT_UP_TO: i64 = 10_000;

/// If at most this number of documents pass a filter, all vectors of these documents are compared. Scanning the index for documents
/// that are so rare takes longer and misses some.
const SELECTIVE_UP_TO: usize = 5_000;

/// How many chunks to read from the index for each wanted document. Two are enough for short documents; the second number is tried
/// before every vector is compared.
const CHUNKS_PER_DOCUMENT: [usize; 2] = [2, 16];

/// The stored embedding set of the query's vector.
pub(super) struct VectorSpace<'a> {
    id: i32,
    query: &'a QueryVector,
}

/// Pipelines and tasks that were found to have many chunks. An entry is never removed. If a set becomes small again, searches still
/// find everything: where the index finds too few documents, every vector is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct LargeVectorSets(Arc<Mutex<HashSet<(String, String)>>>);

impl LargeVectorSets {
    /// Whether there are too many chunks to compare all vectors. Counting them takes as long as a search, so a positive answer is
    /// kept.
    pub(crate) async fn contains(&self, pipeline: &str, task: &str, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let key = (pipeline.to_owned(), task.to_owned());
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(true);
        }
        let chunks = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                   SELECT FROM embeddings WHERE pipeline = $1 AND task = $2 LIMIT $3) AS counted"#,
            pipeline,
            task,
            EXACT_UP_TO + 1
        );
        let is_large = chunks.fetch_one(connection).await? > EXACT_UP_TO;
        if is_large {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
        Ok(is_large)
    }
}

/// Which chunks are compared.
enum ChunkScope {
    /// Those of these documents, which pass the filter.
    Documents(Vec<String>),
    /// All chunks. The query applies the filter.
    All,
    /// The nearest chunks, this number of them. The query applies the filter.
    Nearest(usize),
}

impl<'a> VectorSpace<'a> {
    /// The stored set of the query's vector, and whether there are other sets, from which documents may not have been moved yet.
    pub(super) async fn find(query: &'a QueryVector, connection: &mut PgConnection) -> sqlx::Result<(Option<Self>, bool)> {
        let (model, revision) = (&query.set.model, &query.set.revision);
        let spaces = sqlx::query!(
            r#"SELECT id, (model = $1 AND revision = $2) AS "own!" FROM embedding_sets ORDER BY 2 DESC LIMIT 2"#,
            model,
            revision
        );
        let spaces = spaces.fetch_all(connection).await?;
        let own = spaces.iter().find(|space| space.own).map(|space| Self { id: space.id, query });
        Ok((own, spaces.iter().any(|space| !space.own)))
    }

    /// The cosine distance, written exactly as in the index, because the planner would not use the index otherwise.
    fn distance(&self) -> String {
        let dimension = self.query.set.dimension;
        format!("(e.vector::vector({dimension})) <=> $1::real[]::vector({dimension})")
    }

    /// The `depth` nearest documents that pass the filter, ranked by their nearest chunk.
    pub(super) async fn candidates(
        &self,
        query: &SearchQuery,
        depth: usize,
        large_vector_sets: &LargeVectorSets,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        if !query.filter.is_empty()
            && let Some(ids) = passing(query, &mut *connection).await?
        {
            return match ids.is_empty() {
                true => Ok(Vec::new()),
                false => self.by_document(query, &ChunkScope::Documents(ids), depth, connection).await,
            };
        }
        if large_vector_sets.contains(&query.pipeline, &self.query.task, &mut *connection).await? {
            for factor in CHUNKS_PER_DOCUMENT {
                let nearest = self.by_document(query, &ChunkScope::Nearest(depth * factor), depth, &mut *connection).await?;
                if nearest.len() >= depth {
                    return Ok(nearest);
                }
            }
        }
        // There are few vectors, or the scan found too few documents, because few documents own all the near chunks.
        self.by_document(query, &ChunkScope::All, depth, connection).await
    }

    /// The `depth` nearest documents of the scope.
    async fn by_document(
        &self,
        query: &SearchQuery,
        scope: &ChunkScope,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let distance = self.distance();
        let mut bound = PgArguments::default();
        bound.add(&self.query.vector).map_err(sqlx::Error::Encode)?;
        bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
        bound.add(&self.query.task).map_err(sqlx::Error::Encode)?;
        // Only integers are written into the text of the statement. All input of callers is bound.
        let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments(
            format!(
                "WITH chunks AS MATERIALIZED (
                     SELECT e.document_id, e.chunk, e.span_start, e.span_end, {distance} AS distance FROM embeddings e
                     WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3",
                id = self.id
            ),
            bound,
        );
        match scope {
            ChunkScope::Documents(ids) => {
                sql.push(" AND e.document_id = ANY(").push_bind(ids.clone()).push(")");
            }
            ChunkScope::All | ChunkScope::Nearest(_) if query.filter.is_empty() => {}
            ChunkScope::All | ChunkScope::Nearest(_) => {
                sql.push(" AND EXISTS (SELECT FROM documents d WHERE d.pipeline = e.pipeline AND d.id = e.document_id");
                query.filter.push(&mut sql);
                sql.push(")");
            }
        }
        if let ChunkScope::Nearest(chunks) = scope {
            sql.push(format!(" ORDER BY {distance} LIMIT {chunks}"));
        }
        sql.push(format!(
            "), nearest AS (
                 SELECT DISTINCT ON (document_id) document_id, distance, span_start, span_end FROM chunks
                 ORDER BY document_id, distance, chunk)
             SELECT * FROM nearest ORDER BY distance, document_id LIMIT {depth}"
        ));
        let rows = sql.build().persistent(false).fetch_all(connection).await?;
        let candidate = |row: &sqlx::postgres::PgRow| -> sqlx::Result<Candidate> {
            let chunk = Some(span(row.try_get(2)?, row.try_get(3)?));
            Ok(Candidate { id: row.try_get(0)?, score: 1.0 - row.try_get::<f64, _>(1)?, all_words: false, chunk })
        };
        rows.iter().map(candidate).collect()
    }

    /// The nearest chunk of each document, for documents that the list by vectors does not have.
    pub(super) async fn best_chunks(
        &self,
        pipeline: &str,
        ids: &[&str],
        connection: &mut PgConnection,
    ) -> sqlx::Result<SpansByDocument> {
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
        rows.iter().map(|row| Ok((row.try_get(0)?, span(row.try_get(1)?, row.try_get(2)?)))).collect()
    }
}

/// Which of the documents have vectors of another embedding set. All vectors of a document and task are of one set, because a
/// commit replaces them together.
pub(super) async fn of_other_spaces(
    pipeline: &str,
    query: &QueryVector,
    space: Option<&VectorSpace<'_>>,
    ids: &[&str],
    connection: &mut PgConnection,
) -> sqlx::Result<HashSet<String>> {
    let found = sqlx::query_scalar!(
        "SELECT DISTINCT document_id FROM embeddings
         WHERE pipeline = $1 AND task = $2 AND document_id = ANY($3) AND set_id IS DISTINCT FROM $4",
        pipeline,
        query.task,
        ids as &[&str],
        space.map(|space| space.id)
    );
    Ok(found.fetch_all(connection).await?.into_iter().collect())
}

fn span(start: i32, end: i32) -> Span {
    Span { start: start.max(0) as usize, end: end.max(0) as usize }
}

pub(super) type SpansByDocument = HashMap<String, Span>;

/// The documents that pass the filter; none where they are too many.
async fn passing(query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<Option<Vec<String>>> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new("SELECT d.id FROM documents d WHERE NOT d.deleted AND d.pipeline = ");
    sql.push_bind(query.pipeline.clone());
    query.filter.push(&mut sql);
    sql.push(" LIMIT ").push_bind(SELECTIVE_UP_TO as i64 + 1);
    let rows = sql.build().persistent(false).fetch_all(connection).await?;
    if rows.len() > SELECTIVE_UP_TO {
        return Ok(None);
    }
    rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>().map(Some)
}
