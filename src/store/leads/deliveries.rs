//! Deliveries: claimed for an attempt, and what came of it.
//!
//! A claim counts the attempt and moves the next one past its end in one statement, so that of all processes one attempts a delivery
//! at a time, and one that dies in the middle has used an attempt up and is followed by another.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::{InTime, Reader, Store};
use tidemill_base::failure::Transient;

/// A delivery that is attempted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingDelivery {
    /// What the receiver deduplicates by.
    pub id: Uuid,
    /// The bytes to sign and to send.
    pub body: String,
    /// How many attempts there have been, this one counted.
    pub attempts: i32,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryAttempt {
    /// What follows.
    pub verdict: DeliveryOutcome,
    /// The status of the answer, where there was one.
    pub status: Option<i32>,
    /// What was wrong, where something was.
    pub reason: Option<String>,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum DeliveryOutcome {
    /// Nothing: it arrived.
    Delivered,
    /// Another attempt after so many seconds.
    Again(f64),
    /// Nothing: the receiver wants no more.
    Refused,
    /// Nothing: it was attempted often enough.
    GivenUp,
}

impl DeliveryOutcome {
    /// The state as tables, metrics and answers write it.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again(_) => "waiting",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
        }
    }
}

/// A delivery, and what came of it so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeadDelivery {
    /// What the receiver deduplicates by.
    pub id: String,
    /// The pipeline.
    pub pipeline: String,
    /// The lead's document.
    pub document_id: String,
    /// How many times the lead had come up to the threshold by then.
    pub crossing: i32,
    /// The receiver's name.
    pub webhook: String,
    /// `waiting`, `delivered`, `refused` or `given_up`.
    pub state: String,
    /// How often it was attempted.
    pub attempts: i32,
    /// The last answer's status.
    pub status: Option<i32>,
    /// What was wrong with the last attempt.
    pub reason: Option<String>,
    /// When it is attempted next, in Unix milliseconds, while it waits.
    pub next_at_ms: Option<i64>,
    /// When the lead came up to the threshold, in Unix milliseconds.
    pub created_at_ms: i64,
    /// When anything last became of it, in Unix milliseconds.
    pub updated_at_ms: i64,
}

impl Store {
    /// Claims at most `limit` of the webhook's deliveries for an attempt that ends within `seconds`. Those that have had `most`
    /// attempts are given up: whoever made the last of them has ended. Tells how many those are, too.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn claim_deliveries(
        &self,
        webhook: &str,
        (limit, seconds, most): (i64, f64, i32),
    ) -> Result<(Vec<WaitingDelivery>, u64), Transient> {
        let given_up = sqlx::query!(
            "UPDATE deliveries SET state = 'given_up', updated_at = now(), reason = coalesce(reason, 'the process that attempted it last ended')
             WHERE webhook = $1 AND state = 'waiting' AND next_at <= now() AND attempts >= $2",
            webhook,
            most
        )
        .execute(&self.pool)
        .in_time(self.deadline)
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
        .in_time(self.deadline)
        .await?;
        Ok((claimed, given_up))
    }

    /// Puts down what came of the attempt. That a delivery arrived is true whoever has claimed it since; anything else is said by the
    /// last attempt alone.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn settle_delivery(&self, delivery: &WaitingDelivery, attempt: &DeliveryAttempt) -> Result<(), Transient> {
        let wait = match attempt.verdict {
            DeliveryOutcome::Again(seconds) => seconds,
            DeliveryOutcome::Delivered | DeliveryOutcome::Refused | DeliveryOutcome::GivenUp => 0.0,
        };
        sqlx::query!(
            "UPDATE deliveries SET state = $3, status = $4, reason = $5, next_at = now() + make_interval(secs => $6), updated_at = now()
             WHERE id = $1 AND state <> 'delivered' AND (attempts = $2 OR $3 = 'delivered')",
            delivery.id,
            delivery.attempts,
            attempt.verdict.state(),
            attempt.status,
            attempt.reason,
            wait
        )
        .execute(&self.pool)
        .in_time(self.deadline)
        .await
        .map(drop)
    }

    /// How many of the webhook's deliveries wait.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn waiting_deliveries(&self, webhook: &str) -> Result<i64, Transient> {
        sqlx::query_scalar!(r#"SELECT count(*) AS "waiting!" FROM deliveries WHERE webhook = $1 AND state = 'waiting'"#, webhook)
            .fetch_one(&self.pool)
            .in_time(self.deadline)
            .await
    }

    /// Lets a delivery that was refused or given up be attempted anew, under its id. Tells whether there was such a one.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn resend_delivery(&self, id: Uuid) -> Result<bool, Transient> {
        let resent = sqlx::query!(
            "UPDATE deliveries SET state = 'waiting', attempts = 0, next_at = now(), updated_at = now()
             WHERE id = $1 AND state IN ('refused', 'given_up')",
            id
        );
        Ok(resent.execute(&self.pool).in_time(self.deadline).await?.rows_affected() == 1)
    }
}

impl Reader {
    /// The latest deliveries: of one lead, of one pipeline, in one state, as far as that is said.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn deliveries(
        &self,
        (pipeline, document_id): (Option<&str>, Option<&str>),
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
        .in_time(self.deadline())
        .await?;
        view.end(self.deadline()).await?;
        Ok(deliveries)
    }
}
