//! Positions of pipelines in partitions, and claims on partitions.

use super::{Store, WithDeadline, unavailable};
use tidemill_base::checkpoint::PartitionClaim;
use tidemill_base::failure::Transient;
use tidemill_base::record::Partition;

/// A row of `positions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    pub pipeline: String,
    pub topic: String,
    pub partition: i32,
    /// The offset at which the pipeline began to read.
    pub seed_offset: i64,
    /// The next offset to read.
    pub next_offset: i64,
    /// Grows with every claim. Only the holder of the latest epoch can commit.
    pub epoch: i64,
    /// The process that claimed the partition last; none where an operator has skipped offsets since.
    pub owner: Option<String>,
    /// When the position last changed.
    pub updated_at: String,
    /// How many offsets operators skipped.
    pub given_up: i64,
}

/// A request of an operator to skip offsets.
#[derive(Debug, Clone, Copy)]
pub struct PositionSkip<'a> {
    pub pipeline: &'a str,
    pub partition: &'a Partition,
    /// The next offset to read.
    pub to: i64,
    /// Why; stored with the skip.
    pub reason: &'a str,
    pub by: &'a str,
}

/// Offsets that were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetGap {
    pub from: i64,
    /// One past the last offset.
    pub to: i64,
    /// The epoch that began with the skip.
    pub epoch: i64,
}

/// Why nothing was skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionSkipError {
    #[error("the ledger has no such position: `tidemill positions list` shows all of them")]
    Unknown,
    /// Positions never move back.
    #[error(
        "the position is {0} already: a skip only moves it forward; a topic that was deleted and created again needs another name"
    )]
    Behind(i64),
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

impl Store {
    /// Whether the pipeline has a position in any partition of the topic.
    pub async fn is_seeded(&self, pipeline: &str, topic: &str) -> Result<bool, Transient> {
        sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM positions WHERE pipeline = $1 AND topic = $2) AS "seeded!""#,
            pipeline,
            topic
        )
        .fetch_one(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Inserts the first positions of the topic's partitions, all at once. Partitions that have one keep it.
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
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Claims the partition: holders of earlier claims on it can no longer commit. A partition without a position was added after
    /// the topic was seeded, and starts at offset 0.
    pub async fn claim(&self, pipeline: &str, partition: &Partition, owner: &str) -> Result<PartitionClaim, Transient> {
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
        .with_deadline(self.deadline)
        .await?;
        Ok(PartitionClaim { partition: partition.clone(), epoch: row.epoch, next_offset: row.next_offset })
    }

    /// The committed positions of the pipeline in the topic: partition and next offset.
    pub async fn positions(&self, pipeline: &str, topic: &str) -> Result<Vec<(i32, i64)>, Transient> {
        let rows = sqlx::query!(
            "SELECT partition, next_offset FROM positions WHERE pipeline = $1 AND topic = $2 ORDER BY partition",
            pipeline,
            topic
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok(rows.into_iter().map(|r| (r.partition, r.next_offset)).collect())
    }

    /// All positions, or those of one pipeline.
    pub async fn list_positions(&self, pipeline: Option<&str>) -> Result<Vec<PositionRow>, Transient> {
        let rows = sqlx::query_as!(
            PositionRow,
            r#"SELECT p.pipeline, p.topic, p.partition, p.seed_offset, p.next_offset, p.epoch, p.owner,
                      to_char(p.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS "updated_at!",
                      coalesce((SELECT sum(g.to_offset - g.from_offset) FROM gaps g
                                WHERE (g.pipeline, g.topic, g.partition) = (p.pipeline, p.topic, p.partition)), 0)::bigint
                          AS "given_up!"
               FROM positions p WHERE $1::text IS NULL OR p.pipeline = $1 ORDER BY p.pipeline, p.topic, p.partition"#,
            pipeline
        );
        rows.fetch_all(&self.pool).with_deadline(self.deadline).await
    }

    /// How often operators skipped offsets of the topic for the pipeline. When the number changes, the pipeline must read its
    /// positions again.
    pub async fn count_gaps(&self, pipeline: &str, topic: &str) -> Result<i64, Transient> {
        let count =
            sqlx::query_scalar!(r#"SELECT count(*) AS "gaps!" FROM gaps WHERE pipeline = $1 AND topic = $2"#, pipeline, topic);
        count.fetch_one(&self.pool).with_deadline(self.deadline).await
    }

    /// Moves a position forward over records that are not to be read, stores who did so and why, and fences the partition's owner.
    ///
    /// # Errors
    /// See [`PositionSkipError`]; the position has not moved then.
    pub async fn skip_offsets(&self, skip: PositionSkip<'_>) -> Result<OffsetGap, PositionSkipError> {
        self.transact(async |connection| {
            let (topic, number) = (&*skip.partition.topic, skip.partition.number);
            let from = sqlx::query_scalar!(
                "SELECT next_offset FROM positions WHERE pipeline = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
                skip.pipeline,
                topic,
                number
            )
            .fetch_optional(&mut *connection)
            .await
            .map_err(unavailable)?
            .ok_or(PositionSkipError::Unknown)?;
            if skip.to <= from {
                return Err(PositionSkipError::Behind(from));
            }
            let epoch = sqlx::query_scalar!(
                "UPDATE positions SET next_offset = $4, epoch = epoch + 1, owner = NULL, updated_at = now()
                 WHERE pipeline = $1 AND topic = $2 AND partition = $3 RETURNING epoch",
                skip.pipeline,
                topic,
                number,
                skip.to
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(unavailable)?;
            sqlx::query!(
                "INSERT INTO gaps (pipeline, topic, partition, from_offset, to_offset, epoch, reason, made_by)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                skip.pipeline,
                topic,
                number,
                from,
                skip.to,
                epoch,
                skip.reason,
                skip.by
            )
            .execute(&mut *connection)
            .await
            .map_err(unavailable)?;
            Ok(OffsetGap { from, to: skip.to, epoch })
        })
        .await
    }
}
