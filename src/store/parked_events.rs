//! Parked events: events that their topic refused for their content, such as one that is too large. An operator lists them, sends
//! them again or drops them.
//!
//! Sending again only marks the event. The process that publishes the topic moves it back to the outbox while no event of that
//! topic is in flight, so that an event is not published after a later one of its topic and key.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Reader, Store, WithDeadline};
use tidemill_base::failure::Transient;

/// A parked event without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParkedEvent {
    /// The number by which it is sent again or dropped.
    pub id: i64,
    /// The pipeline that it comes from, if any.
    pub pipeline: Option<String>,
    /// The topic that it is for.
    pub topic: String,
    /// The record's key; bytes that are not UTF-8 are replaced.
    pub key: Option<String>,
    /// The size of the payload in bytes.
    pub payload_bytes: i64,
    /// Why the topic refused it, and what to do.
    pub reason: String,
    /// Whether a later event of the same topic and key has been published.
    pub overtaken: bool,
    /// Whether it is marked to be sent again.
    pub resend: bool,
    /// When it was parked, in Unix milliseconds.
    pub parked_ms: i64,
}

/// Which parked events to select. An event must match every field that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedEventFilter {
    /// Empty for all ids.
    pub ids: Vec<i64>,
    pub topic: Option<String>,
}

/// The result of marking parked events to be sent again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResendSummary {
    /// Events that are sent again.
    pub events: i64,
    /// Events that stay parked, because a later one of the same topic and key has been published.
    pub overtaken: i64,
}

impl Reader {
    /// The latest parked events, at most `limit`.
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
        .with_deadline(self.deadline())
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
    /// Marks the parked events to be sent again. Events that a later one of their topic and key has overtaken stay parked, unless
    /// `out_of_order` is set.
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
        .with_deadline(self.deadline)
        .await?;
        Ok(ResendSummary { events: row.events, overtaken: row.overtaken })
    }

    /// Deletes the parked events and returns how many they were.
    pub async fn drop_parked(&self, filter: &ParkedEventFilter) -> Result<i64, Transient> {
        let dropped = sqlx::query!(
            "DELETE FROM parked_events WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR topic = $2)",
            &filter.ids,
            filter.topic.as_deref()
        );
        let dropped = dropped.execute(&self.pool).with_deadline(self.deadline).await?;
        Ok(dropped.rows_affected() as i64)
    }

    /// How many events wait in the outbox, by topic.
    pub async fn waiting_events(&self) -> Result<Vec<(String, i64)>, Transient> {
        let rows = sqlx::query!(r#"SELECT topic, count(*) AS "events!" FROM outbox GROUP BY topic ORDER BY topic"#)
            .fetch_all(&self.pool)
            .with_deadline(self.deadline)
            .await?;
        Ok(rows.into_iter().map(|row| (row.topic, row.events)).collect())
    }
}
