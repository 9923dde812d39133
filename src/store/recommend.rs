//! Documents near others, by what all their chunks say together.
//!
//! | step | how |
//! |---|---|
//! | where a document lies | the mean of its chunks' vectors: two that share one passage, as shops' terms are, are not alike for that |
//! | candidates | for each seed the documents with the nearest chunks, so that no interest drowns in another |
//! | few chunks in all, or too little came through | every vector is compared |
//! | otherwise | the vector space's own HNSW index, once it is built, read on until the filter and what is excluded have let enough through |

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sqlx::postgres::PgArguments;
use sqlx::types::Json;
use sqlx::{Arguments, Connection, PgConnection, Postgres, QueryBuilder, Row};

use super::search::{HitLabel, SNAPSHOT, SearchFilter};
use super::{InTime, Reader, unavailable};
use tidemill_base::failure::Transient;

/// Chunks to read for each document wanted, as one may have several of the near ones. Where that is not enough, every vector is
/// compared.
const CHUNKS_A_DOCUMENT: usize = 4;

/// Which documents are looked for.
#[derive(Debug, Clone)]
pub struct NeighbourQuery {
    /// The pipeline.
    pub pipeline: String,
    /// Its embedding task.
    pub task: String,
    /// Documents whose neighbours are wanted.
    pub seeds: Vec<String>,
    /// Documents that are wanted to compare with, and not looked around.
    pub compared: Vec<String>,
    /// Documents that are not wanted. Seeds never are.
    pub excluded: Vec<String>,
    /// What every neighbour must fulfil.
    pub filter: SearchFilter,
    /// Neighbours of each seed.
    pub depth: usize,
}

/// Documents and where they lie. Those without vectors in the seeds' space are missing.
#[derive(Debug, Clone, Default)]
pub struct Neighbourhood {
    /// Where seeds and compared documents lie.
    pub known: HashMap<String, Vec<f32>>,
    /// The neighbours.
    pub neighbours: Vec<(String, Vec<f32>)>,
}

/// What people are shown of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentSummary {
    /// The document.
    pub id: String,
    /// Its metadata.
    pub metadata: Value,
    /// What each classification task said.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, where a task made one.
    pub summary: Option<String>,
}

/// A vector space of the seeds.
struct Space {
    id: i32,
    dimension: i32,
}

impl Reader {
    /// Documents that lie near the seeds. Where seeds lie in several spaces, as while documents move to another model, those of the
    /// space with the most of them count.
    ///
    /// What is to leave the database must pass [`Reader::document_summaries`].
    ///
    /// # Errors
    /// Where the database is unavailable or takes too long.
    pub async fn neighbours(&self, query: NeighbourQuery) -> Result<Neighbourhood, Transient> {
        let mut lease = self.lease().await.map_err(unavailable)?;
        let found = self.neighbourhood(&query, lease.connection()).await.map_err(unavailable)?;
        lease.give_back();
        Ok(found)
    }

    async fn neighbourhood(&self, query: &NeighbourQuery, connection: &mut PgConnection) -> sqlx::Result<Neighbourhood> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SNAPSHOT).execute(&mut *transaction).await?;
        let Some(space) = space_of(query, &mut transaction).await? else { return Ok(Neighbourhood::default()) };
        let crowded = self.store.crowds.is_crowded(&query.pipeline, &query.task, &mut transaction).await?;
        let mut ids = match crowded {
            true => candidates(query, &space, Some(query.depth * CHUNKS_A_DOCUMENT), &mut transaction).await?,
            false => Vec::new(),
        };
        if ids.len() < query.depth {
            ids = candidates(query, &space, None, &mut transaction).await?;
        }
        let of_all: Vec<&str> = ids.iter().chain(&query.seeds).chain(&query.compared).map(String::as_str).collect();
        let mut known = places(query, &space, &of_all, &mut transaction).await?;
        transaction.commit().await?;
        let neighbours = ids.into_iter().filter_map(|id| known.remove(&id).map(|place| (id, place))).collect();
        Ok(Neighbourhood { known, neighbours })
    }

    /// Those of the documents that are there and pass the filter, in the order in which they are named.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn passing(&self, pipeline: &str, ids: &[String], filter: &SearchFilter) -> Result<Vec<String>, Transient> {
        let mut view = self.view().await?;
        let mut sql: QueryBuilder<Postgres> =
            QueryBuilder::new("SELECT d.id FROM documents d WHERE NOT d.deleted AND d.pipeline = ");
        sql.push_bind(pipeline).push(" AND d.id = ANY(").push_bind(ids).push(")");
        filter.push(&mut sql);
        let rows = sql.build().persistent(false).fetch_all(view.connection()).in_time(self.deadline()).await?;
        view.end(self.deadline()).await?;
        let found: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<sqlx::Result<_>>().map_err(unavailable)?;
        Ok(ids.iter().filter(|id| found.contains(id)).cloned().collect())
    }

    /// What people are shown of the documents that are there.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let shown = rows.into_iter().map(|row| {
            let labels = row.labels.map(|labels| labels.0).unwrap_or_default();
            (row.id.clone(), DocumentSummary { id: row.id, metadata: row.metadata, labels, summary: row.summary })
        });
        Ok(shown.collect())
    }

    /// Documents of the pipeline that have vectors.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn count_embedded(&self, pipeline: &str, task: &str) -> Result<i64, Transient> {
        let mut view = self.view().await?;
        let count = sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM results WHERE pipeline = $1 AND task = $2 AND kind = 'embed'"#,
            pipeline,
            task
        )
        .fetch_one(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(count)
    }
}

async fn space_of(query: &NeighbourQuery, connection: &mut PgConnection) -> sqlx::Result<Option<Space>> {
    sqlx::query_as!(
        Space,
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

/// The documents with the chunks nearest to each seed, so many for each; of the nearest `chunks` of each only, where that is said.
async fn candidates(
    query: &NeighbourQuery,
    space: &Space,
    chunks: Option<usize>,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<String>> {
    let Space { id, dimension } = space;
    let mut bound = PgArguments::default();
    for names in [&query.seeds, &query.excluded] {
        bound.add(names).map_err(sqlx::Error::Encode)?;
    }
    bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
    bound.add(&query.task).map_err(sqlx::Error::Encode)?;
    // In the very words of the space's index, or the planner would not use it. Only integers are written into the text.
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

/// Where the documents lie.
async fn places(
    query: &NeighbourQuery,
    space: &Space,
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
