//! Vector spaces, and the index each has for itself once it is large.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::search::EXACT_UP_TO;
use super::{InTime, Store, unavailable};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::EmbeddingSet;

/// Names whoever builds indexes among advisory locks.
const INDEX_LOCK: i64 = 0x7469_6465_696e_6478;

/// Most dimensions of a vector that pgvector indexes. Larger ones are always compared one by one.
const INDEXED_DIMENSIONS: i32 = 2_000;

/// Longest that one index may take: millions of vectors take hours.
const BUILD: Duration = Duration::from_secs(86_400);

impl Store {
    /// The id of the set, which is made where it is new.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn embedding_set(&self, set: &EmbeddingSet) -> Result<i32, Transient> {
        let known =
            sqlx::query_scalar!("SELECT id FROM embedding_sets WHERE model = $1 AND revision = $2", set.model, set.revision)
                .fetch_optional(&self.pool)
                .in_time(self.deadline)
                .await?;
        if let Some(id) = known {
            return Ok(id);
        }
        sqlx::query_scalar!(
            "INSERT INTO embedding_sets AS s (model, revision, dimension) VALUES ($1, $2, $3)
             ON CONFLICT (model, revision) DO UPDATE SET dimension = s.dimension RETURNING id",
            set.model,
            set.revision,
            set.dimension as i32
        )
        .fetch_one(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Builds the HNSW index of every set that searches no longer compare whole, and gives the ids of those that it was built for.
    ///
    /// No search reads the index of a smaller set, and keeping one costs a document more than all else that the database does for it.
    /// Writers go on meanwhile. One process builds at a time; the others find nothing to do.
    ///
    /// # Errors
    /// Where the database is unavailable. What was half built is built anew by the next call.
    pub async fn index_embedding_sets(&self) -> Result<Vec<i32>, Transient> {
        if self.outgrown_sets().await?.is_empty() {
            return Ok(Vec::new());
        }
        // A connection of its own, for the lock and the deadlines are the connection's.
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, INDEX_LOCK)
            .fetch_one(&mut connection)
            .in_time(self.deadline)
            .await?;
        let mut built = Vec::new();
        // Looked up again under the lock: another may just have built them.
        let sets = if got { self.outgrown_sets().await? } else { Vec::new() };
        for (id, dimension) in sets {
            build(&mut connection, id, dimension).in_time(BUILD).await?;
            built.push(id);
        }
        connection.close().in_time(self.deadline).await?;
        Ok(built)
    }

    /// Ids and dimensions of the sets that have too many vectors to compare them all, and no valid index.
    async fn outgrown_sets(&self) -> Result<Vec<(i32, i32)>, Transient> {
        let sets = sqlx::query!(
            "SELECT s.id, s.dimension FROM embedding_sets s
             LEFT JOIN pg_index i ON i.indexrelid = to_regclass('embeddings_set_' || s.id)
             WHERE i.indisvalid IS NOT TRUE AND s.dimension <= $1
               AND EXISTS (SELECT FROM embeddings e WHERE e.set_id = s.id OFFSET $2)
             ORDER BY s.id",
            INDEXED_DIMENSIONS,
            EXACT_UP_TO
        );
        let sets = sets.fetch_all(&self.pool).in_time(self.deadline).await?;
        Ok(sets.into_iter().map(|set| (set.id, set.dimension)).collect())
    }
}

async fn build(connection: &mut PgConnection, id: i32, dimension: i32) -> sqlx::Result<()> {
    // The planner proves a partial index only from literals, and pgvector indexes only vectors of a fixed length.
    let index = format!(
        "CREATE INDEX CONCURRENTLY embeddings_set_{id} ON embeddings
         USING hnsw ((vector::vector({dimension})) vector_cosine_ops) WHERE set_id = {id}"
    );
    // A builder that died leaves an index that takes every write and serves no search.
    let gone = format!("DROP INDEX CONCURRENTLY IF EXISTS embeddings_set_{id}");
    // It waits for every transaction that was there before it, and none of them for it.
    for statement in ["SET statement_timeout = 0", "SET lock_timeout = 0", &gone, &index] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}
