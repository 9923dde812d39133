//! Webhook deliveries of leads: claimed for an attempt, and settled with its outcome.
//!
//! A claim increments the number of attempts and sets the time of the next attempt past the end of this one, in one statement. So
//! one process at a time attempts a delivery, and a process that dies in the middle has used up one attempt.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{Reader, Store, WithDeadline};
use tidemill_base::failure::Transient;

/// A delivery that was claimed for an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// The receiver deduplicates by this id.
    pub id: Uuid,
    /// The bytes to sign and to send.
    pub body: String,
    /// How many attempts there have been, including this one.
    pub attempts: i32,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryAttempt {
    pub outcome: DeliveryOutcome,
    /// The HTTP status of the answer, if there was one.
    pub status: Option<i32>,
    /// Why the attempt failed.
    pub reason: Option<String>,
}

/// The outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DeliveryOutcome {
    /// The receiver accepted the delivery.
    Delivered,
    /// The delivery is attempted again after this many seconds.
    Retry(f64),
    /// The receiver refused the delivery for good.
    Refused,
    /// The last allowed attempt failed.
    GivenUp,
}

impl DeliveryOutcome {
    /// The delivery's state in tables, metrics and answers.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(_) => "waiting",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
        }
    }
}

/// A delivery with its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeadDelivery {
    /// The receiver deduplicates by this id.
    pub id: String,
    /// The pipeline.
    pub pipeline: String,
    /// The lead's document.
    pub document_id: String,
    /// How many times the lead had reached the threshold by then.
    pub crossing: i32,
    /// The receiver's name.
    pub webhook: String,
    /// `waiting`, `delivered`, `refused` or `given_up`.
    pub state: String,
    /// How often it was attempted.
    pub attempts: i32,
    /// The HTTP status of the last answer.
    pub status: Option<i32>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
    /// When it is attempted next, in Unix milliseconds; only in the state `waiting`.
    pub next_at_ms: Option<i64>,
    /// When the lead reached the threshold, in Unix milliseconds.
    pub created_at_ms: i64,
    /// When the delivery last changed, in Unix milliseconds.
    pub updated_at_ms: i64,
}

impl Store {
    /// Claims at most `limit` of the webhook's deliveries for an attempt that ends within `seconds`. Deliveries that have had
    /// `max_attempts` and are due again are given up: the process that made their last attempt ended before it could say how it
    /// went. Returns the claimed deliveries and the number of those given up.
    pub async fn claim_deliveries(
        &self,
        webhook: &str,
        limit: i64,
        seconds: f64,
        max_attempts: i32,
    ) -> Result<(Vec<WaitingDelivery>, u64), Transient> {
        let given_up = sqlx::query!(
            "UPDATE deliveries SET state = 'given_up', updated_at = now(), reason = coalesce(reason, 'the process that attempted it last ended')
             WHERE webhook = $1 AND state = 'waiting' AND next_at <= now() AND attempts >= $2",
            webhook,
            max_attempts
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await?
        .rows_affected();
        let claimed = sqlx::query_as!(
            WaitingDelivery,
            "UPDATE deliveries SET attempts = attempts + 1, next_at = now() + make_interval(secs => $3), updated_at = now()
             WHERE id IN (SELECT id FROM deliveries WHERE webhook = $1 AND state = 'waiting' AND next_at <= now()
                          ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED)
             RETURNING id, body, attempts",
            webhook,
            limit,
            seconds
        )
        .fetch_all(&self.pool)
        .with_deadline(self.deadline)
        .await?;
        Ok((claimed, given_up))
    }

    /// Stores the result of the attempt. A success is stored even if another process has claimed the delivery since; any other
    /// outcome only by the process that made the last attempt.
    pub async fn settle_delivery(&self, delivery: &WaitingDelivery, attempt: &DeliveryAttempt) -> Result<(), Transient> {
        let wait = match attempt.outcome {
            DeliveryOutcome::Retry(seconds) => seconds,
            DeliveryOutcome::Delivered | DeliveryOutcome::Refused | DeliveryOutcome::GivenUp => 0.0,
        };
        sqlx::query!(
            "UPDATE deliveries SET state = $3, status = $4, reason = $5, next_at = now() + make_interval(secs => $6), updated_at = now()
             WHERE id = $1 AND state <> 'delivered' AND (attempts = $2 OR $3 = 'delivered')",
            delivery.id,
            delivery.attempts,
            attempt.outcome.state(),
            attempt.status,
            attempt.reason,
            wait
        )
        .execute(&self.pool)
        .with_deadline(self.deadline)
        .await
        .map(drop)
    }

    /// How many of the webhook's deliveries wait.
    pub async fn waiting_deliveries(&self, webhook: &str) -> Result<i64, Transient> {
        sqlx::query_scalar!(r#"SELECT count(*) AS "waiting!" FROM deliveries WHERE webhook = $1 AND state = 'waiting'"#, webhook)
            .fetch_one(&self.pool)
            .with_deadline(self.deadline)
            .await
    }

    /// Sends a delivery again that was refused or given up, under the same id. Returns whether there was such a delivery.
    pub async fn resend_delivery(&self, id: Uuid) -> Result<bool, Transient> {
        let resent = sqlx::query!(
            "UPDATE deliveries SET state = 'waiting', attempts = 0, next_at = now(), updated_at = now()
             WHERE id = $1 AND state IN ('refused', 'given_up')",
            id
        );
        Ok(resent.execute(&self.pool).with_deadline(self.deadline).await?.rows_affected() == 1)
    }
}

impl Reader {
    /// The latest deliveries, at most `limit`, that match every argument that is given.
    pub async fn deliveries(
        &self,
        pipeline: Option<&str>,
        document_id: Option<&str>,
        state: Option<&str>,
        limit: i64,
    ) -> Result<Vec<LeadDelivery>, Transient> {
        let mut view = self.view().await?;
        let deliveries = sqlx::query_as!(
            LeadDelivery,
            r#"SELECT id::text AS "id!", pipeline, document_id, crossing, webhook, state, attempts, status, reason,
                      CASE WHEN state = 'waiting' THEN (extract(epoch FROM next_at) * 1000)::bigint END AS next_at_ms,
                      (extract(epoch FROM created_at) * 1000)::bigint AS "created_at_ms!",
                      (extract(epoch FROM updated_at) * 1000)::bigint AS "updated_at_ms!"
               FROM deliveries
               WHERE ($1::text IS NULL OR pipeline = $1) AND ($2::text IS NULL OR document_id = $2) AND ($3::text IS NULL OR state = $3)
               ORDER BY created_at DESC, id LIMIT $4"#,
            pipeline,
            document_id,
            state,
            limit
        )
        .fetch_all(view.connection())
        .with_deadline(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(deliveries)
    }
}
