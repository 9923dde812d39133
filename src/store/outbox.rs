//! Events that are committed and not yet published.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{InTime, Store, unavailable};
use tidemill_base::failure::Transient;

/// One event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEvent {
    /// Its place in the order of commits.
    pub id: i64,
    /// What consumers deduplicate by.
    pub event_id: Uuid,
    /// The topic to publish to.
    pub topic: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's payload.
    pub payload: Option<Vec<u8>>,
    /// The record's headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The record's timestamp; `None` for the time at which it is published.
    pub timestamp_ms: Option<i64>,
    /// The partition; `None` where the key decides.
    pub partition: Option<i32>,
}

/// The right to publish: at most one process of a fleet holds it, so that events keep their order. Dropping it ends it.
#[derive(Debug)]
pub struct RelayLease {
    // Not of the pool: a session's lock must end with its connection and never return to another user of it.
    connection: PgConnection,
    deadline: Duration,
}

/// Names the lease among advisory locks.
const RELAY_LOCK: i64 = 0x7469_6465_7265_6c61;

impl Store {
    /// Tries to become the one who publishes.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn relay_lease(&self) -> Result<Option<RelayLease>, Transient> {
        let mut connection = self.pool.acquire().await.map_err(unavailable)?.detach();
        let got = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1) AS "got!""#, RELAY_LOCK)
            .fetch_one(&mut connection)
            .in_time(self.deadline)
            .await?;
        Ok(got.then_some(RelayLease { connection, deadline: self.deadline }))
    }
}

/// An event's own headers, the id first. A record that is sent again has those that it came with, and names its letter.
fn event_headers(id: Uuid, headers: &Value) -> Vec<(String, Option<Vec<u8>>)> {
    let own = headers.as_object().into_iter().flatten();
    let own = own.map(|(name, value)| (name.clone(), value.as_str().map(|text| text.as_bytes().to_vec())));
    std::iter::once(("event-id".to_owned(), Some(id.to_string().into_bytes()))).chain(own).collect()
}

impl RelayLease {
    /// The oldest `limit` events.
    ///
    /// # Errors
    /// Where the database is unavailable; the lease is gone then.
    pub async fn events(&mut self, limit: i64) -> Result<Vec<OutboxEvent>, Transient> {
        let rows = sqlx::query!(
            r#"SELECT id, event_id, topic, key, keyless, payload, headers, header_names,
                      header_values AS "header_values: Vec<Option<Vec<u8>>>", timestamp_ms, partition
               FROM outbox ORDER BY id LIMIT $1"#,
            limit
        )
        .fetch_all(&mut self.connection)
        .in_time(self.deadline)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| OutboxEvent {
                id: row.id,
                event_id: row.event_id,
                topic: row.topic,
                key: (!row.keyless).then_some(row.key),
                payload: row.payload,
                headers: match row.header_names {
                    Some(names) => names.into_iter().zip(row.header_values.unwrap_or_default()).collect(),
                    None => event_headers(row.event_id, &row.headers),
                },
                timestamp_ms: row.timestamp_ms,
                partition: row.partition,
            })
            .collect())
    }

    /// Strikes out what the broker has acknowledged.
    ///
    /// # Errors
    /// Where the database is unavailable; the lease is gone then, and the events are published again.
    pub async fn published(&mut self, ids: &[i64]) -> Result<(), Transient> {
        sqlx::query!("DELETE FROM outbox WHERE id = ANY($1)", ids)
            .execute(&mut self.connection)
            .in_time(self.deadline)
            .await
            .map(drop)
    }

    /// How many events wait.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn waiting(&mut self) -> Result<i64, Transient> {
        sqlx::query_scalar!(r#"SELECT count(*) AS "waiting!" FROM outbox"#)
            .fetch_one(&mut self.connection)
            .in_time(self.deadline)
            .await
    }
}
