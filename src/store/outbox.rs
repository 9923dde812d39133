//! The outbox: events that are committed and not yet published.
//!
//! | event | afterwards |
//! |---|---|
//! | acknowledged by the broker | deleted; older parked events of its topic and key are marked as overtaken |
//! | not acknowledged, because of the topic or the broker | stays, and is sent again |
//! | refused for its content | parked (see `parked_events.rs`) |

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, WithDeadline, unavailable};
use tidemill_base::failure::Transient;
use tidemill_base::record::{PLACE, RecordLocation};

/// One event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Ids are in the order of commits.
    pub id: i64,
    /// Consumers deduplicate by this id.
    pub event_id: Uuid,
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    /// The record's headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The record's timestamp; none for the time at which it is published.
    pub timestamp_ms: Option<i64>,
    /// The partition; none where the key decides.
    pub partition: Option<i32>,
    /// The record that the event is the dead letter of; none for any other event.
    pub dead_letter_of: Option<RecordLocation>,
}

/// How many events wait, and how many are parked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Events that wait to be published.
    pub waiting: i64,
    /// Parked events, by topic.
    pub parked: Vec<(String, i64)>,
}

/// The right to publish the outbox. At most one process of a fleet holds it, so that events keep their order. Dropping the lease
/// releases it. Where the database becomes unavailable, the lease is lost.
#[derive(Debug)]
pub struct RelayLease {
    // Detached from the pool: the advisory lock belongs to the session and must end with its connection.
    connection: PgConnection,
    deadline: Duration,
}

/// The key of the lease's advisory lock.
const RELAY_LOCK: i64 = 0x7469_6465_7265_6c61;

impl Store {
    /// Takes the lease; none where another process holds it.
    pub async fn relay_lease(&self) -> Result<Option<RelayLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, RELAY_LOCK)
            .fetch_one(&mut connection)
            .with_deadline(self.deadline)
            .await?;
        Ok(got.then_some(RelayLease { connection, deadline: self.deadline }))
    }
}

/// The headers of an event, the id first. A replayed record has the headers of the original record instead, and names its dead
/// letter.
fn event_headers(id: Uuid, headers: &Value) -> Vec<(String, Option<Vec<u8>>)> {
    let own = headers.as_object().into_iter().flatten();
    let own = own.map(|(name, value)| (name.clone(), value.as_str().map(|text| text.as_bytes().to_vec())));
    std::iter::once(("event-id".to_owned(), Some(id.to_string().into_bytes()))).chain(own).collect()
}

/// The location of the record of a dead letter; none for any other event. Headers of a replayed record are not trusted for this.
fn dead_letter_of(headers: &Value) -> Option<RecordLocation> {
    headers.get(PLACE)?.as_str()?.parse().ok()
}

impl RelayLease {
    /// The topics of waiting events, and of parked events that are marked to be sent again.
    pub async fn topics(&mut self) -> Result<Vec<String>, Transient> {
        // Each step of the recursion is one index look-up, however many events a topic has.
        sqlx::query_scalar!(
            r#"WITH RECURSIVE named AS (
                   (SELECT topic FROM outbox ORDER BY topic LIMIT 1)
                   UNION ALL
                   SELECT (SELECT o.topic FROM outbox o WHERE o.topic > n.topic ORDER BY o.topic LIMIT 1)
                   FROM named n WHERE n.topic IS NOT NULL)
               SELECT topic AS "topic!" FROM named WHERE topic IS NOT NULL
               UNION SELECT topic FROM parked_events WHERE resend"#
        )
        .fetch_all(&mut self.connection)
        .with_deadline(self.deadline)
        .await
    }

    /// The oldest events of the topic: at most `limit`, and no more after their payloads reach `bytes`. Parked events that are
    /// marked to be sent again are moved back first, into their place in the order. Must not be called while events of the topic
    /// are in flight.
    pub async fn events(&mut self, topic: &str, limit: i64, bytes: i64) -> Result<Vec<OutboxEvent>, Transient> {
        sqlx::query!(
            "WITH back AS (DELETE FROM parked_events WHERE topic = $1 AND resend RETURNING *)
             INSERT INTO outbox (id, event_id, pipeline, topic, key, keyless, payload, headers, header_names, header_values,
                                 timestamp_ms, partition)
             OVERRIDING SYSTEM VALUE
             SELECT id, event_id, pipeline, topic, key, keyless, payload, headers, header_names, header_values, timestamp_ms, partition
             FROM back",
            topic
        )
        .execute(&mut self.connection)
        .with_deadline(self.deadline)
        .await?;
        let rows = sqlx::query!(
            r#"SELECT id AS "id!", event_id AS "event_id!", topic AS "topic!", key AS "key!", keyless AS "keyless!", payload,
                      headers AS "headers!", header_names, header_values AS "header_values: Vec<Option<Vec<u8>>>", timestamp_ms, partition
               FROM (SELECT o.*, sum(coalesce(octet_length(payload), 0)::bigint) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING)
                                 - coalesce(octet_length(payload), 0)::bigint AS before
                     FROM outbox o WHERE topic = $1 ORDER BY id LIMIT $2) AS n
               WHERE before < $3::bigint ORDER BY id"#,
            topic,
            limit,
            bytes
        )
        .fetch_all(&mut self.connection)
        .with_deadline(self.deadline)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OutboxEvent {
                id: row.id,
                event_id: row.event_id,
                topic: row.topic,
                key: (!row.keyless).then_some(row.key),
                payload: row.payload,
                dead_letter_of: row.header_names.is_none().then(|| dead_letter_of(&row.headers)).flatten(),
                headers: match row.header_names {
                    Some(names) => names.into_iter().zip(row.header_values.unwrap_or_default()).collect(),
                    None => event_headers(row.event_id, &row.headers),
                },
                timestamp_ms: row.timestamp_ms,
                partition: row.partition,
            })
            .collect())
    }

    /// Deletes the events that the broker has acknowledged. Where the database is unavailable, they are published again later.
    pub async fn published(&mut self, ids: &[i64]) -> Result<(), Transient> {
        sqlx::query!(
            "WITH sent AS (DELETE FROM outbox WHERE id = ANY($1) RETURNING id, topic, key)
             UPDATE parked_events p SET overtaken = true, resend = p.resend AND p.out_of_order
             FROM sent s WHERE p.topic = s.topic AND p.key = s.key AND p.key <> '' AND p.id < s.id",
            ids
        )
        .execute(&mut self.connection)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Parks an event that its topic refuses for its content, with the reason.
    pub async fn park(&mut self, id: i64, reason: &str) -> Result<(), Transient> {
        sqlx::query!(
            "WITH gone AS (DELETE FROM outbox WHERE id = $1 RETURNING *)
             INSERT INTO parked_events (id, event_id, pipeline, topic, key, keyless, payload, headers, header_names, header_values,
                                        timestamp_ms, partition, reason)
             SELECT id, event_id, pipeline, topic, key, keyless, payload, headers, header_names, header_values, timestamp_ms, partition, $2
             FROM gone",
            id,
            reason.replace('\0', "\u{fffd}")
        )
        .execute(&mut self.connection)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// Counts the waiting and the parked events.
    pub async fn counts(&mut self) -> Result<OutboxCounts, Transient> {
        let waiting = sqlx::query_scalar!(r#"SELECT count(*) AS "waiting!" FROM outbox"#)
            .fetch_one(&mut self.connection)
            .with_deadline(self.deadline)
            .await?;
        let parked = sqlx::query!(r#"SELECT topic, count(*) AS "events!" FROM parked_events GROUP BY topic ORDER BY topic"#)
            .fetch_all(&mut self.connection)
            .with_deadline(self.deadline)
            .await?;
        Ok(OutboxCounts { waiting, parked: parked.into_iter().map(|row| (row.topic, row.events)).collect() })
    }
}
