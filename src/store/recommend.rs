//! Documents that are similar to given documents, for recommendations.
//!
//! | step | method |
//! |---|---|
//! | the vector of a document | the mean of its chunks' vectors, so that two documents with one common passage, such as a shop's terms, do not count as similar |
//! | candidates | for each seed the documents with the nearest chunks, so that every interest of a person gets some |
//! | few chunks in all, or the scan finds too few documents | compare every vector |
//! | otherwise | scan the embedding set's HNSW index, if it is built, until enough documents pass the filter and are not excluded |

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::types::Json;
use sqlx::{Arguments, Connection, PgConnection, Postgres, QueryBuilder, Row};

use super::search::{HitLabel, SNAPSHOT, SearchFilter};
use super::{Reader, WithDeadline, unavailable};
use tidemill_base::failure::Transient;

/// How many chunks to read from the index for each wanted document, because one document may own several of the near chunks. If
/// that is not enough, every vector is compared.
const CHUNKS_PER_DOCUMENT: usize = 4;

/// Which documents to look for.
#[derive(Debug, Clone)]
pub struct NeighbourQuery {
    pub pipeline: String,
    pub task: String,
    /// Documents whose neighbours are wanted.
    pub seeds: Vec<String>,
    /// Documents whose vectors are returned, but whose neighbours are not wanted.
    pub compared: Vec<String>,
    /// Documents that must not be among the neighbours. Seeds never are.
    pub excluded: Vec<String>,
    /// Conditions that every neighbour must meet.
    pub filter: SearchFilter,
    /// How many neighbours to find for each seed.
    pub depth: usize,
}

/// Documents and their vectors. Documents without vectors in the seeds' embedding set are left out.
#[derive(Debug, Clone, Default)]
pub struct Neighbourhood {
    /// The vectors of seeds and compared documents.
    pub known: HashMap<String, Vec<f32>>,
    pub neighbours: Vec<(String, Vec<f32>)>,
}

/// The content of a document that is shown with a recommendation.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSummary {
    pub id: String,
    pub metadata: Value,
    /// The labels of each classification task.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, if a task made one.
    pub summary: Option<String>,
}

/// An embedding set of the seeds.
struct SeedSpace {
    id: i32,
    dimension: i32,
}

impl Reader {
    /// Documents whose vectors are near the seeds'. If the seeds have vectors of several embedding sets, which happens while a
    /// pipeline moves to another model, the set with most seeds is used.
    ///
    /// Candidates are read with the service's rights. Show only those that [`Reader::document_summaries`] returns, which reads with
    /// the caller's rights.
    pub async fn neighbours(&self, query: NeighbourQuery) -> Result<Neighbourhood, Transient> {
        let mut connection = self.request_connection().await.map_err(unavailable)?;
        let found = self.neighbourhood(&query, connection.get()).await.map_err(unavailable)?;
        connection.give_back();
        Ok(found)
    }

    async fn neighbourhood(&self, query: &NeighbourQuery, connection: &mut PgConnection) -> sqlx::Result<Neighbourhood> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SNAPSHOT).execute(&mut *transaction).await?;
        let Some(space) = space_of(query, &mut transaction).await? else { return Ok(Neighbourhood::default()) };
        let is_large = self.store.large_vector_sets.contains(&query.pipeline, &query.task, &mut transaction).await?;
        let mut ids = match is_large {
            true => candidates(query, &space, Some(query.depth * CHUNKS_PER_DOCUMENT), &mut transaction).await?,
            false => Vec::new(),
        };
        if ids.len() < query.depth {
            ids = candidates(query, &space, None, &mut transaction).await?;
        }
        let all: Vec<&str> = ids.iter().chain(&query.seeds).chain(&query.compared).map(String::as_str).collect();
        let mut known = mean_vectors(query, &space, &all, &mut transaction).await?;
        transaction.commit().await?;
        let neighbours = ids.into_iter().filter_map(|id| known.remove(&id).map(|vector| (id, vector))).collect();
        Ok(Neighbourhood { known, neighbours })
    }

    /// Those of the documents that exist and pass the filter, in the given order.
    pub async fn passing(&self, pipeline: &str, ids: &[String], filter: &SearchFilter) -> Result<Vec<String>, Transient> {
        let mut view = self.view().await?;
        let mut sql: QueryBuilder<Postgres> =
            QueryBuilder::new("SELECT d.id FROM documents d WHERE NOT d.deleted AND d.pipeline = ");
        sql.push_bind(pipeline).push(" AND d.id = ANY(").push_bind(ids).push(")");
        filter.push(&mut sql);
        let rows = sql.build().persistent(false).fetch_all(view.connection()).with_deadline(self.deadline()).await?;
        view.end(self.deadline()).await?;
        let found: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>().map_err(unavailable)?;
        Ok(ids.iter().filter(|id| found.contains(id)).cloned().collect())
    }

    /// The content of the documents, by id. Documents that do not exist are left out.
    pub async fn document_summaries(
        &self,
        pipeline: &str,
        ids: &[String],
    ) -> Result<HashMap<String, DocumentSummary>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT d.id, d.metadata,
                      (SELECT jsonb_object_agg(r.task, jsonb_build_object(
                           'label', r.label, 'confidence', r.confidence, 'labels', coalesce(r.fields -> 'labels', '[]')))
                       FROM results r WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'classify'
                      ) AS "labels: Json<BTreeMap<String, HitLabel>>",
                      (SELECT r.text FROM results r
                       WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'summarize'
                       ORDER BY r.task LIMIT 1) AS summary
               FROM documents d WHERE d.pipeline = $1 AND d.id = ANY($2) AND NOT d.deleted"#,
            pipeline,
            ids
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let shown = rows.into_iter().map(|row| {
            let labels = row.labels.map(|labels| labels.0).unwrap_or_default();
            (row.id.clone(), DocumentSummary { id: row.id, metadata: row.metadata, labels, summary: row.summary })
        });
        Ok(shown.collect())
    }

    /// How many documents of the pipeline have vectors of the task.
    pub async fn count_embedded(&self, pipeline: &str, task: &str) -> Result<i64, Transient> {
        let mut view = self.view().await?;
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM results WHERE pipeline = $1 AND task = $2 AND kind = 'embed'"#,
            pipeline,
            task
        )
        .fetch_one(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(count)
    }
}

async fn space_of(query: &NeighbourQuery, connection: &mut PgConnection) -> sqlx::Result<Option<SeedSpace>> {
    sqlx::query_as!(
        SeedSpace,
        "SELECT s.id, s.dimension FROM embeddings e JOIN embedding_sets s ON s.id = e.set_id
         WHERE e.pipeline = $1 AND e.task = $2 AND e.document_id = ANY($3)
         GROUP BY s.id, s.dimension ORDER BY count(DISTINCT e.document_id) DESC, s.id DESC LIMIT 1",
        query.pipeline,
        query.task,
        &query.seeds
    )
    .fetch_optional(connection)
    .await
}

/// The `depth` documents with the chunks nearest to each seed. With `chunks`, only this number of chunks is read for each seed.
async fn candidates(
    query: &NeighbourQuery,
    space: &SeedSpace,
    chunks: Option<usize>,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<String>> {
    let SeedSpace { id, dimension } = space;
    let mut bound = PgArguments::default();
    for names in [&query.seeds, &query.excluded] {
        bound.add(names).map_err(sqlx::Error::Encode)?;
    }
    bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
    bound.add(&query.task).map_err(sqlx::Error::Encode)?;
    // Written exactly as in the index, because the planner would not use the index otherwise. Only integers are written into the
    // text.
    let distance = format!("(e.vector::vector({dimension})) <=> s.place");
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments(
        format!(
            "WITH seeds AS MATERIALIZED (
                 SELECT e.document_id AS seed, avg(e.vector)::vector({dimension}) AS place FROM embeddings e
                 WHERE e.set_id = {id} AND e.pipeline = $3 AND e.task = $4 AND e.document_id = ANY($1) GROUP BY e.document_id),
             near AS (
                 SELECT s.seed, c.document_id, min(c.distance) AS distance
                 FROM seeds s CROSS JOIN LATERAL (
                     SELECT e.document_id, {distance} AS distance FROM embeddings e
                     WHERE e.set_id = {id} AND e.pipeline = $3 AND e.task = $4
                       AND e.document_id <> ALL($1) AND e.document_id <> ALL($2)"
        ),
        bound,
    );
    if !query.filter.is_empty() {
        sql.push(" AND EXISTS (SELECT FROM documents d WHERE d.pipeline = e.pipeline AND d.id = e.document_id");
        query.filter.push(&mut sql);
        sql.push(")");
    }
    if let Some(chunks) = chunks {
        sql.push(format!(" ORDER BY {distance} LIMIT {chunks}"));
    }
    sql.push(format!(
        ") c GROUP BY s.seed, c.document_id),
         ranked AS (
             SELECT document_id, distance, row_number() OVER (PARTITION BY seed ORDER BY distance, document_id) AS rank FROM near)
         SELECT document_id FROM ranked WHERE rank <= {} GROUP BY document_id ORDER BY min(distance), document_id",
        query.depth
    ));
    let rows = sql.build().persistent(false).fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The mean of each document's vectors.
async fn mean_vectors(
    query: &NeighbourQuery,
    space: &SeedSpace,
    ids: &[&str],
    connection: &mut PgConnection,
) -> sqlx::Result<HashMap<String, Vec<f32>>> {
    let rows = sqlx::query!(
        r#"SELECT e.document_id, avg(e.vector)::real[] AS "place!" FROM embeddings e
           WHERE e.pipeline = $1 AND e.task = $2 AND e.set_id = $3 AND e.document_id = ANY($4) GROUP BY e.document_id"#,
        query.pipeline,
        query.task,
        space.id,
        ids as &[&str]
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.document_id, row.place)).collect())
}
