//! Candidates by meaning.
//!
//! | where | how | may miss |
//! |---|---|---|
//! | few chunks in all | every vector is compared | nothing |
//! | few documents pass the filter | every vector of theirs is compared | nothing |
//! | otherwise | the vector space's own HNSW index, once it is built, read on until enough has come through | a document that lies far from all others |
//! | that lets too little through | every vector is compared | nothing |

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, AssertSqlSafe, PgConnection, Postgres, QueryBuilder, Row};

use super::{Candidate, QueryVector, SearchQuery};
use tidemill_base::outcome::Span;

/// Chunks up to which every vector is compared: that takes some 20 ms and misses nothing, while an index may miss a document
/// that lies far from all others.
pub(crate) const EXACT_UP_TO: i64 = 10_000;

/// Documents that pass a filter up to which all of theirs are compared. Reading the index until so rare a document comes through
/// takes longer and misses some.
const SELECTIVE_UP_TO: usize = 5_000;

/// Chunks to read for each document wanted: two are enough where documents are short. More are tried before every vector is.
const CHUNKS_A_DOCUMENT: [usize; 2] = [2, 16];

/// The vector space that the query lives in, once it holds vectors.
pub(super) struct Space<'a> {
    id: i32,
    query: &'a QueryVector,
}

/// Pipelines and tasks that were seen with many chunks. They hardly ever have few again, and then nothing is missed: where the index
/// lets too little through, every vector is compared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Crowds(Arc<Mutex<HashSet<(String, String)>>>);

impl Crowds {
    /// Whether there are too many chunks to compare them all. Counting them takes as long as a search, so what was seen is kept.
    pub(crate) async fn is_crowded(&self, pipeline: &str, task: &str, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let place = (pipeline.to_owned(), task.to_owned());
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&place) {
            return Ok(true);
        }
        let chunks = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM (
                   SELECT FROM embeddings WHERE pipeline = $1 AND task = $2 LIMIT $3) AS counted"#,
            pipeline,
            task,
            EXACT_UP_TO + 1
        );
        let is_crowded = chunks.fetch_one(connection).await? > EXACT_UP_TO;
        if is_crowded {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
        }
        Ok(is_crowded)
    }
}

/// Which chunks are compared.
enum Among {
    /// The few documents that pass the filter.
    Documents(Vec<String>),
    /// All, and each document must pass the filter.
    All,
}

impl<'a> Space<'a> {
    /// The query's space, where it is known, and whether there are others, from which documents may be on their way.
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

    /// The cosine distance in the very words of the space's index, or the planner would not use it.
    fn distance(&self) -> String {
        let dimension = self.query.set.dimension;
        format!("(e.vector::vector({dimension})) <=> $1::real[]::vector({dimension})")
    }

    /// The documents by their nearest chunk, as far as the filters let them through.
    pub(super) async fn candidates(
        &self,
        query: &SearchQuery,
        (depth, crowds): (usize, &Crowds),
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        if !query.filter.is_empty()
            && let Some(ids) = passing(query, &mut *connection).await?
        {
            return match ids.is_empty() {
                true => Ok(Vec::new()),
                false => self.by_document(query, (&Among::Documents(ids), None), depth, connection).await,
            };
        }
        if crowds.is_crowded(&query.pipeline, &self.query.task, &mut *connection).await? {
            for factor in CHUNKS_A_DOCUMENT {
                let nearest = self.by_document(query, (&Among::All, Some(depth * factor)), depth, &mut *connection).await?;
                if nearest.len() >= depth {
                    return Ok(nearest);
                }
            }
        }
        // Few vectors; or too little came through, because few documents have all the near chunks.
        self.by_document(query, (&Among::All, None), depth, connection).await
    }

    /// The `depth` nearest documents of those among which is looked; of the nearest so many chunks only, where that is said.
    async fn by_document(
        &self,
        query: &SearchQuery,
        (among, chunks): (&Among, Option<usize>),
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let distance = self.distance();
        let mut bound = PgArguments::default();
        bound.add(&self.query.vector).map_err(sqlx::Error::Encode)?;
        bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
        bound.add(&self.query.task).map_err(sqlx::Error::Encode)?;
        // Only integers are written into the text; everything that a caller typed is bound.
        let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments(
            format!(
                "WITH chunks AS MATERIALIZED (
                     SELECT e.document_id, e.chunk, e.span_start, e.span_end, {distance} AS distance FROM embeddings e
                     WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3",
                id = self.id
            ),
            bound,
        );
        match among {
            Among::Documents(ids) => {
                sql.push(" AND e.document_id = ANY(").push_bind(ids.clone()).push(")");
            }
            Among::All if query.filter.is_empty() => {}
            Among::All => {
                sql.push(" AND EXISTS (SELECT FROM documents d WHERE d.pipeline = e.pipeline AND d.id = e.document_id");
                query.filter.push(&mut sql);
                sql.push(")");
            }
        }
        if let Some(chunks) = chunks {
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

    /// For each document the chunk that is nearest, where its place among the vectors has not told it.
    pub(super) async fn best_chunks(&self, pipeline: &str, ids: &[&str], connection: &mut PgConnection) -> sqlx::Result<Spans> {
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

/// Those of the documents whose vectors are of another space. A commit replaces all that a document has of a task, so that it never
/// has some of each.
pub(super) async fn of_other_spaces(
    pipeline: &str,
    (query, space): (&QueryVector, Option<&Space<'_>>),
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

pub(super) type Spans = HashMap<String, Span>;

/// The documents that pass the filter, where they are few.
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
