//! The list of Parquet files. A file gets a row first, then it is written, then a commit makes it part of its dataset.

use uuid::Uuid;

use super::{Store, WithDeadline};
use tidemill_base::failure::Transient;

/// A file that is written and synced, and not yet part of its dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// The path of its row.
    pub path: String,
    pub rows: i64,
    pub bytes: i64,
    /// The hash of its contents.
    pub blake3: [u8; 32],
}

impl Store {
    /// Inserts the row of a file that is about to be written.
    pub async fn announce_file(&self, path: &str, dataset: &str, pipeline: &str, batch_id: Uuid) -> Result<(), Transient> {
        sqlx::query!(
            "INSERT INTO parquet_files (path, dataset, pipeline, batch_id, state) VALUES ($1, $2, $3, $4, 'staged')",
            path,
            dataset,
            pipeline,
            batch_id
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Marks files of the dataset for deletion that are older than `seconds` and not part of the dataset, so that no commit can use
    /// them any more, and returns their paths.
    pub async fn condemn_files(&self, dataset: &str, seconds: f64) -> Result<Vec<String>, Transient> {
        sqlx::query_scalar!(
            "UPDATE parquet_files SET state = 'deleting'
             WHERE dataset = $1 AND state <> 'live' AND created_at < now() - make_interval(secs => $2) RETURNING path",
            dataset,
            seconds
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Deletes the rows of files that were marked for deletion.
    pub async fn forget_files(&self, paths: &[String]) -> Result<(), Transient> {
        sqlx::query!("DELETE FROM parquet_files WHERE path = ANY($1) AND state = 'deleting'", paths)
            .execute(&self.pool)
            .with_deadline(self.deadline)
            .await
            .map(drop)
    }
}
