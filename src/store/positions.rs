//! Positions and the right to advance them.

use super::{Store, unavailable};
use crate::checkpoint::Claim;
use crate::failure::Transient;
use crate::record::Partition;

impl Store {
    /// Whether the pipeline has a position in any partition of the topic.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn is_seeded(&self, pipeline: &str, topic: &str) -> Result<bool, Transient> {
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM positions WHERE pipeline = $1 AND topic = $2) AS "seeded!""#,
            pipeline,
            topic
        )
        .fetch_one(&self.pool)
        .await
        .map_err(unavailable)
    }

    /// Gives the topic's partitions their first positions, all at once; those that have one keep it.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn seed(&self, pipeline: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Transient> {
        let (numbers, seeds): (Vec<i32>, Vec<i64>) = offsets.iter().copied().unzip();
        sqlx::query!(
            "INSERT INTO positions (pipeline, topic, partition, seed_offset, next_offset)
             SELECT $1, $2, partition, seed, seed FROM unnest($3::integer[], $4::bigint[]) AS s (partition, seed)
             ON CONFLICT DO NOTHING",
            pipeline,
            topic,
            &numbers,
            &seeds
        )
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(unavailable)
    }

    /// Takes the partition over: every earlier claim on it can no longer commit. A partition that has no position, because it
    /// appeared after the topic was seeded, starts at 0.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn claim(&self, pipeline: &str, partition: &Partition, owner: &str) -> Result<Claim, Transient> {
        let row = sqlx::query!(
            "INSERT INTO positions AS p (pipeline, topic, partition, seed_offset, next_offset, epoch, owner)
             VALUES ($1, $2, $3, 0, 0, 1, $4)
             ON CONFLICT (pipeline, topic, partition)
             DO UPDATE SET epoch = p.epoch + 1, owner = $4, updated_at = now()
             RETURNING p.epoch, p.next_offset",
            pipeline,
            &partition.topic,
            partition.number,
            owner
        )
        .fetch_one(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(Claim { partition: partition.clone(), epoch: row.epoch, next_offset: row.next_offset })
    }

    /// The committed positions of the pipeline in the topic: partition and next offset.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn positions(&self, pipeline: &str, topic: &str) -> Result<Vec<(i32, i64)>, Transient> {
        let rows = sqlx::query!(
            "SELECT partition, next_offset FROM positions WHERE pipeline = $1 AND topic = $2 ORDER BY partition",
            pipeline,
            topic
        )
        .fetch_all(&self.pool)
        .await
        .map_err(unavailable)?;
        Ok(rows.into_iter().map(|r| (r.partition, r.next_offset)).collect())
    }
}
