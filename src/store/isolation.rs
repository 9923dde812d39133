//! Notes that find the record that kills the process: which batches the owner of a partition has started, and how often a record
//! was evaluated alone.
//!
//! | table | a row is written | and deleted |
//! |---|---|---|
//! | `under_way` | before a batch is evaluated | when the owner releases the partition in an orderly shutdown |
//! | `attempts` | before a record is evaluated alone | when the position moves past the record |

use super::{Store, WithDeadline};
use tidemill_base::checkpoint::{CheckpointDelta, PartitionClaim};
use tidemill_base::failure::Transient;
use tidemill_base::record::{Partition, RecordLocation};

/// Offsets of records, one of which may have killed the last owner of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspectRange {
    /// The end of the range. It starts at the partition's position.
    pub to: i64,
    /// Whether the last owner evaluated one small batch at a time, and not several in parallel.
    pub narrowed: bool,
}

/// The attempts at a record that is evaluated alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// How often the record was started before and not finished.
    pub earlier: i32,
    /// When it was first started, in Unix milliseconds.
    pub first_ms: i64,
    /// When it was last started, in Unix milliseconds.
    pub last_ms: i64,
}

impl Store {
    /// Records that the batch is about to be evaluated. The first batch of an epoch replaces the row of an earlier epoch.
    pub async fn note_batch_started(&self, pipeline: &str, delta: &CheckpointDelta, narrowed: bool) -> Result<(), Transient> {
        sqlx::query!(
            "INSERT INTO under_way AS u (pipeline, topic, partition, epoch, begun_to, narrowed)
             SELECT $1::text, $2::text, $3::integer, $4::bigint, $5::bigint, $6::boolean
             FROM set_config('synchronous_commit', 'off', true)
             ON CONFLICT (pipeline, topic, partition) DO UPDATE
             SET epoch = excluded.epoch, begun_to = excluded.begun_to, narrowed = excluded.narrowed, updated_at = now()
             WHERE u.epoch < excluded.epoch OR (u.epoch = excluded.epoch AND u.begun_to < excluded.begun_to)",
            pipeline,
            &*delta.partition.topic,
            delta.partition.number,
            delta.epoch,
            delta.to,
            narrowed
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// The offsets that an earlier owner of the partition was evaluating when it ended without releasing the partition.
    pub async fn suspect_range(&self, pipeline: &str, claim: &PartitionClaim) -> Result<Option<SuspectRange>, Transient> {
        sqlx::query_as!(
            SuspectRange,
            r#"SELECT begun_to AS "to", narrowed FROM under_way
               WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND epoch < $4 AND begun_to > $5"#,
            pipeline,
            &*claim.partition.topic,
            claim.partition.number,
            claim.epoch,
            claim.next_offset
        )
        .fetch_optional(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Releases the partition in an orderly way: records that were started under this epoch and not finished are no longer suspect.
    /// A row of an earlier epoch stays, and nothing changes where another worker owns the partition now.
    pub async fn release_partition(&self, pipeline: &str, partition: &Partition, epoch: i64) -> Result<(), Transient> {
        sqlx::query!(
            "DELETE FROM under_way u USING positions p
             WHERE (p.pipeline, p.topic, p.partition) = (u.pipeline, u.topic, u.partition) AND p.epoch = u.epoch
               AND u.pipeline = $1 AND u.topic = $2 AND u.partition = $3 AND u.epoch = $4",
            pipeline,
            &*partition.topic,
            partition.number,
            epoch
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Counts an attempt at a record that is about to be evaluated alone, unless there were `max_attempts` before. None where
    /// another worker owns the partition.
    pub async fn begin_attempt(
        &self,
        pipeline: &str,
        place: &RecordLocation,
        epoch: i64,
        max_attempts: i32,
    ) -> Result<Option<Attempts>, Transient> {
        sqlx::query_as!(
            Attempts,
            r#"INSERT INTO attempts AS a (pipeline, topic, partition, record_offset)
               SELECT pipeline, topic, partition, $4::bigint FROM positions
               WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND epoch = $5
               ON CONFLICT (pipeline, topic, partition, record_offset) DO UPDATE
               SET attempts = least(a.attempts, $6) + 1, last_at = CASE WHEN a.attempts < $6 THEN now() ELSE a.last_at END
               RETURNING attempts - 1 AS "earlier!", (extract(epoch FROM first_at) * 1000)::bigint AS "first_ms!",
                         (extract(epoch FROM last_at) * 1000)::bigint AS "last_ms!""#,
            pipeline,
            &*place.partition.topic,
            place.partition.number,
            place.offset,
            epoch,
            max_attempts
        )
        .fetch_optional(&self.pool)
        .with_deadline(self.deadline)
        .await
    }

    /// Removes one attempt: the record was not finished, but the process is alive, so that the record did not kill it.
    pub async fn withdraw_attempt(&self, pipeline: &str, place: &RecordLocation) -> Result<(), Transient> {
        sqlx::query!(
            "UPDATE attempts SET attempts = attempts - 1
             WHERE pipeline = $1 AND topic = $2 AND partition = $3 AND record_offset = $4 AND attempts > 0",
            pipeline,
            &*place.partition.topic,
            place.partition.number,
            place.offset
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }
}
