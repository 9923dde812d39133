//! Vector spaces, and the index each has for itself.

use sqlx::{AssertSqlSafe, PgConnection};

use super::{InTime, Store, unavailable};
use crate::failure::Transient;
use crate::outcome::EmbeddingSet;

/// Serializes the creation of indexes: two workers that start together would otherwise both build one.
const INDEX_LOCK: i64 = 0x7469_6465_696e_6478;

impl Store {
    /// The id of the set, which is made, with its HNSW index, where it is new.
    ///
    /// # Errors
    /// Where the database is unavailable, or the dimension is beyond what pgvector can index (2,000).
    pub async fn embedding_set(&self, set: &EmbeddingSet) -> Result<i32, Transient> {
        let known =
            sqlx::query_scalar!("SELECT id FROM embedding_sets WHERE model = $1 AND revision = $2", set.model, set.revision)
                .fetch_optional(&self.pool)
                .in_time(self.deadline)
                .await?;
        match known {
            Some(id) => Ok(id),
            None => self.transact(async |connection| create(connection, set).await.map_err(unavailable)).await,
        }
    }
}

async fn create(connection: &mut PgConnection, set: &EmbeddingSet) -> sqlx::Result<i32> {
    sqlx::query!("SELECT pg_advisory_xact_lock($1)", INDEX_LOCK).execute(&mut *connection).await?;
    let id = sqlx::query_scalar!(
        "INSERT INTO embedding_sets AS s (model, revision, dimension) VALUES ($1, $2, $3)
         ON CONFLICT (model, revision) DO UPDATE SET dimension = s.dimension RETURNING id",
        set.model,
        set.revision,
        set.dimension as i32
    )
    .fetch_one(&mut *connection)
    .await?;
    // The planner proves a partial index only from literals, and pgvector indexes only vectors of a fixed length.
    let index = format!(
        "CREATE INDEX IF NOT EXISTS embeddings_set_{id} ON embeddings
         USING hnsw ((vector::vector({dimension})) vector_cosine_ops) WHERE set_id = {id}",
        dimension = set.dimension
    );
    sqlx::query(AssertSqlSafe(index)).execute(&mut *connection).await?;
    Ok(id)
}
