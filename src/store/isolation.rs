//! What owners of partitions have begun, and which records ended them.
//!
//! | row | written | gone |
//! |---|---|---|
//! | `under_way` | before a batch is evaluated | when the owner lets go of the partition in good order |
//! | `attempts` | before a record is evaluated alone | when the position moves past the record |

use super::{InTime, Store};
use tidemill_base::checkpoint::{CheckpointDelta, PartitionClaim};
use tidemill_base::failure::Transient;
use tidemill_base::record::{Partition, RecordLocation};

/// Offsets among which is one that may have ended the last owner of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspectRange {
    /// The end of the range; it starts at the position.
    pub to: i64,
    /// Whether one small batch was under way at a time, and not several side by side.
    pub narrowed: bool,
}

/// What is known of a record that is to be evaluated alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// How often it was begun and not finished before.
    pub earlier: i32,
    /// When it was first begun, in Unix milliseconds.
    pub first_ms: i64,
    /// When it was last begun, in Unix milliseconds.
    pub last_ms: i64,
}

impl Store {
    /// Notes that the batch is about to be evaluated. The first batch of an epoch replaces what an earlier one left.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// What an earlier owner of the partition had begun when it ended without letting go.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
    }

    /// Lets go of the partition in good order: what was begun under this epoch and not finished is in no doubt. What an
    /// earlier epoch left stays, as does everything where someone else owns the partition by now.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// Notes that the record is about to be evaluated alone, unless it was `most` times before. `None` where someone else owns
    /// the partition.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn begin_attempt(
        &self,
        pipeline: &str,
        place: &RecordLocation,
        epoch: i64,
        most: i32,
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
            most
        )
        .fetch_optional(&self.pool)
        .in_time(self.deadline)
        .await
    }

    /// Takes one attempt back: the record was begun, and the process lived to say that it was not finished.
    ///
    /// # Errors
    /// Where the database is unavailable.
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
        .in_time(self.deadline)
        .await
        .map(drop)
    }
}
