//! Embedding sets, which are vector spaces, and the index that each gets once it is large.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::search::EXACT_UP_TO;
use super::{Store, WithDeadline, unavailable};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::EmbeddingSet;

/// The key of the advisory lock of the process that builds indexes.
const INDEX_LOCK: i64 = 0x7469_6465_696e_6478;

/// The largest dimension that pgvector can index. Larger vectors are always compared one by one.
const INDEXED_DIMENSIONS: i32 = 2_000;

/// How long building one index may take: millions of vectors take hours.
const BUILD: Duration = Duration::from_secs(86_400);

impl Store {
    /// The id of the set. A new set is inserted.
    pub async fn embedding_set(&self, set: &EmbeddingSet) -> Result<i32, Transient> {
        let known =
            sqlx::query_scalar!("SELECT id FROM embedding_sets WHERE model = $1 AND revision = $2", set.model, set.revision)
                .fetch_optional(&self.pool)
                .with_deadline(self.deadline)
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
        .with_deadline(self.deadline)
        .await
    }

    /// Builds the missing HNSW indexes of large sets, and returns the ids of those sets.
    ///
    /// Searches of a smaller set compare every vector and read no index, and maintaining an index costs more than everything else
    /// that the database does for a document. Writers are not blocked. One process builds at a time; the others return at once. If
    /// the database becomes unavailable, the next call builds the unfinished index again.
    pub async fn index_embedding_sets(&self) -> Result<Vec<i32>, Transient> {
        if self.outgrown_sets().await?.is_empty() {
            return Ok(Vec::new());
        }
        // A connection of its own, because the lock and the timeouts belong to the connection.
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, INDEX_LOCK)
            .fetch_one(&mut connection)
            .with_deadline(self.deadline)
            .await?;
        let mut built = Vec::new();
        // Looked up again under the lock: another process may just have built them.
        let sets = if got { self.outgrown_sets().await? } else { Vec::new() };
        for (id, dimension) in sets {
            build(&mut connection, id, dimension).with_deadline(BUILD).await?;
            built.push(id);
        }
        connection.close().with_deadline(self.deadline).await?;
        Ok(built)
    }

    /// Ids and dimensions of the sets that have too many vectors to compare all of them, and no valid index.
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
        let sets = sets.fetch_all(&self.pool).with_deadline(self.deadline).await?;
        Ok(sets.into_iter().map(|set| (set.id, set.dimension)).collect())
    }
}

async fn build(connection: &mut PgConnection, id: i32, dimension: i32) -> sqlx::Result<()> {
    // The planner uses a partial index only for a literal id, and pgvector indexes only vectors of a fixed dimension.
    let index = format!(
        "CREATE INDEX CONCURRENTLY embeddings_set_{id} ON embeddings
         USING hnsw ((vector::vector({dimension})) vector_cosine_ops) WHERE set_id = {id}"
    );
    // A process that died while it built an index leaves an invalid one, which costs every write and serves no search.
    let drop_invalid = format!("DROP INDEX CONCURRENTLY IF EXISTS embeddings_set_{id}");
    // The build waits for every earlier transaction, which may take longer than the usual timeouts.
    for statement in ["SET statement_timeout = 0", "SET lock_timeout = 0", &drop_invalid, &index] {
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *connection).await?;
    }
    Ok(())
}
