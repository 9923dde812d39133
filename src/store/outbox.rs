//! Events that are committed and not yet published.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{InTime, Store, unavailable};
use crate::failure::Transient;

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
    pub key: Vec<u8>,
    /// The record's payload.
    pub payload: Option<Vec<u8>>,
    /// The record's headers, an object of strings.
    pub headers: Value,
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

impl RelayLease {
    /// The oldest `limit` events.
    ///
    /// # Errors
    /// Where the database is unavailable; the lease is gone then.
    pub async fn events(&mut self, limit: i64) -> Result<Vec<OutboxEvent>, Transient> {
        sqlx::query_as!(OutboxEvent, "SELECT id, event_id, topic, key, payload, headers FROM outbox ORDER BY id LIMIT $1", limit)
            .fetch_all(&mut self.connection)
            .in_time(self.deadline)
            .await
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
