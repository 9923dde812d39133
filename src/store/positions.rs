//! Positions and the right to advance them.

use super::{InTime, Store, unavailable};
use tidemill_base::checkpoint::PartitionClaim;
use tidemill_base::failure::Transient;
use tidemill_base::record::Partition;

/// A position as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// The pipeline.
    pub pipeline: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Where the pipeline began to read.
    pub seed_offset: i64,
    /// The next offset to read.
    pub next_offset: i64,
    /// The fence.
    pub epoch: i64,
    /// The process that claimed it last; none where an operator moved it since.
    pub owner: Option<String>,
    /// When it last changed.
    pub updated_at: String,
    /// Offsets that operators gave up.
    pub given_up: i64,
}

/// Offsets that an operator gives up.
#[derive(Debug, Clone, Copy)]
pub struct PositionSkip<'a> {
    /// The pipeline.
    pub pipeline: &'a str,
    /// The partition.
    pub partition: &'a Partition,
    /// Where to go on.
    pub to: i64,
    /// Why, for whoever reads the books later.
    pub reason: &'a str,
    /// Who.
    pub by: &'a str,
}

/// Offsets that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetGap {
    /// The first of them.
    pub from: i64,
    /// The one behind the last of them.
    pub to: i64,
    /// The epoch that began with it.
    pub epoch: i64,
}

/// Why nothing was skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionSkipError {
    /// The ledger has no such position.
    #[error("the ledger has no such position: `tidemill positions list` shows those that it has")]
    Unknown,
    /// Positions never fall.
    #[error("the position is {0} already: a skip goes forward only; a topic made anew under an old name needs another name")]
    Behind(i64),
    /// The database cannot be reached.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

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
        .in_time(self.deadline)
        .await
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// Takes the partition over: every earlier claim on it can no longer commit. A partition that has no position, because it
    /// appeared after the topic was seeded, starts at 0.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await?;
        Ok(PartitionClaim { partition: partition.clone(), epoch: row.epoch, next_offset: row.next_offset })
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
        .in_time(self.deadline)
        .await?;
        Ok(rows.into_iter().map(|r| (r.partition, r.next_offset)).collect())
    }

    /// Every position, or those of one pipeline.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        rows.fetch_all(&self.pool).in_time(self.deadline).await
    }

    /// How many gaps operators have made in the topic for the pipeline. A change tells whoever reads it to start anew.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn count_gaps(&self, pipeline: &str, topic: &str) -> Result<i64, Transient> {
        let count =
            sqlx::query_scalar!(r#"SELECT count(*) AS "gaps!" FROM gaps WHERE pipeline = $1 AND topic = $2"#, pipeline, topic);
        count.fetch_one(&self.pool).in_time(self.deadline).await
    }

    /// Moves a position forward over records that nobody will read, keeps a record of it, and fences whoever owns the partition.
    ///
    /// # Errors
    /// See [`PositionSkipError`]. Nothing has changed then.
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
