//! The list of Parquet files: a row first, then the file, then the commit that makes it part of the dataset.

use uuid::Uuid;

use super::{InTime, Store};
use tidemill_base::failure::Transient;

/// A file that is written and synced, and not yet part of its dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Its path, as in the file list.
    pub path: String,
    /// Rows in it.
    pub rows: i64,
    /// Its size.
    pub bytes: i64,
    /// The hash of its contents.
    pub blake3: [u8; 32],
}

impl Store {
    /// Announces a file before it is written.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn announce_file(&self, path: &str, dataset: &str, pipeline: &str, batch_id: Uuid) -> Result<(), Transient> {
        sqlx::query!(
            "INSERT INTO parquet_files (path, dataset, pipeline, batch_id, state) VALUES ($1, $2, $3, $4, 'staged')",
            path,
            dataset,
            pipeline,
            batch_id
        )
        .execute(&self.pool)
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// Takes files that never went live, and are older than `seconds`, out of the reach of any commit, and names those of
    /// the dataset so that they can be deleted.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn condemn_files(&self, dataset: &str, seconds: f64) -> Result<Vec<String>, Transient> {
        sqlx::query_scalar!(
            "UPDATE parquet_files SET state = 'deleting'
             WHERE dataset = $1 AND state <> 'live' AND created_at < now() - make_interval(secs => $2) RETURNING path",
            dataset,
            seconds
        )
        .fetch_all(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Strikes deleted files off the list.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn forget_files(&self, paths: &[String]) -> Result<(), Transient> {
        sqlx::query!("DELETE FROM parquet_files WHERE path = ANY($1) AND state = 'deleting'", paths)
            .execute(&self.pool)
            .in_time(self.deadline)
            .await
            .map(drop)
    }
}
