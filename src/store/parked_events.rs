//! Events that their topic could not take as they are: looked at, sent again, dropped.
//!
//! An operator only says what is to be done. Whoever publishes the topic does it while nothing of that topic is under way, so that no
//! event goes out behind a later one of its topic and key.

use serde::Serialize;
use utoipa::ToSchema;

use super::{InTime, Reader, Store};
use tidemill_base::failure::Transient;

/// A parked event without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParkedEvent {
    /// Its number, by which it is sent again or dropped.
    pub id: i64,
    /// The pipeline that it comes from, where it comes from one.
    pub pipeline: Option<String>,
    /// The topic that it is for.
    pub topic: String,
    /// The record's key; what is no UTF-8 is replaced.
    pub key: Option<String>,
    /// Bytes of the payload.
    pub payload_bytes: i64,
    /// Why the topic could not take it, and what to do.
    pub reason: String,
    /// Whether a later event of the same topic and key was published since.
    pub overtaken: bool,
    /// Whether it is to be sent again.
    pub resend: bool,
    /// When it was parked, in Unix milliseconds.
    pub parked_ms: i64,
}

/// Which parked events are meant; everything that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedEventFilter {
    /// These; all where it is empty.
    pub ids: Vec<i64>,
    /// Those for this topic.
    pub topic: Option<String>,
}

/// What came of asking for parked events to be sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResendSummary {
    /// Events that are sent again.
    pub events: i64,
    /// Events that stay, because a later one of the same topic and key was published since.
    pub overtaken: i64,
}

impl Reader {
    /// The latest parked events, at most `limit`.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn parked_events(&self, filter: &ParkedEventFilter, limit: i64) -> Result<Vec<ParkedEvent>, Transient> {
        let mut view = self.view().await?;
        let rows = sqlx::query!(
            r#"SELECT id, pipeline, topic, key, keyless, coalesce(octet_length(payload), 0)::bigint AS "payload_bytes!", reason, overtaken,
                      resend, (extract(epoch FROM parked_at) * 1000)::bigint AS "parked_ms!"
               FROM parked_events WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR topic = $2)
               ORDER BY id DESC LIMIT $3"#,
            &filter.ids,
            filter.topic.as_deref(),
            limit
        )
        .fetch_all(view.connection())
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        let event = rows.into_iter().map(|row| ParkedEvent {
            id: row.id,
            pipeline: row.pipeline,
            topic: row.topic,
            key: (!row.keyless).then(|| String::from_utf8_lossy(&row.key).into_owned()),
            payload_bytes: row.payload_bytes,
            reason: row.reason,
            overtaken: row.overtaken,
            resend: row.resend,
            parked_ms: row.parked_ms,
        });
        Ok(event.collect())
    }
}

impl Store {
    /// Says that the parked events are to be sent again. Those that a later event of their topic and key has overtaken stay, unless
    /// they are to go out of order.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn resend_parked(&self, filter: &ParkedEventFilter, out_of_order: bool) -> Result<ResendSummary, Transient> {
        let row = sqlx::query!(
            r#"WITH meant AS (
                   SELECT id, overtaken FROM parked_events
                   WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR topic = $2) FOR UPDATE),
               asked AS (
                   UPDATE parked_events p SET resend = true, out_of_order = $3 FROM meant m
                   WHERE p.id = m.id AND ($3 OR NOT m.overtaken) RETURNING 1)
               SELECT (SELECT count(*) FROM asked) AS "events!",
                      (SELECT count(*) FROM meant WHERE overtaken AND NOT $3) AS "overtaken!""#,
            &filter.ids,
            filter.topic.as_deref(),
            out_of_order
        )
        .fetch_one(&self.pool)
        .in_time(self.deadline)
        .await?;
        Ok(ResendSummary { events: row.events, overtaken: row.overtaken })
    }

    /// Drops the parked events for good, and says how many they were.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn drop_parked(&self, filter: &ParkedEventFilter) -> Result<i64, Transient> {
        let dropped = sqlx::query!(
            "DELETE FROM parked_events WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR topic = $2)",
            &filter.ids,
            filter.topic.as_deref()
        );
        let dropped = dropped.execute(&self.pool).in_time(self.deadline).await?;
        Ok(dropped.rows_affected() as i64)
    }

    /// How many events wait, by topic.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn waiting_events(&self) -> Result<Vec<(String, i64)>, Transient> {
        let rows = sqlx::query!(r#"SELECT topic, count(*) AS "events!" FROM outbox GROUP BY topic ORDER BY topic"#)
            .fetch_all(&self.pool)
            .in_time(self.deadline)
            .await?;
        Ok(rows.into_iter().map(|row| (row.topic, row.events)).collect())
    }
}
