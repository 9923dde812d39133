//! Delivers recorded events to webhook receivers, at least once. Each event keeps its id over all attempts.
//!
//! | the receiver | result |
//! |---|---|
//! | answers 2xx | delivered |
//! | answers 410 | refused: it does not want this event |
//! | answers anything else, including a redirect, or does not answer in time | another attempt after a wait that doubles each time, or as long as the receiver requests |
//! | has not accepted it after the last attempt | given up; an operator can send it again |
//!
//! Calls are signed according to the Standard Webhooks specification. Redirects are not followed, and response bodies are not read.

mod signature;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use prometheus::IntCounter;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode};
use tokio::time::{sleep, timeout};

use crate::config::{ConfigError, WebhookConfig, WebhookTarget};
use crate::failure::Transient;
use crate::http;
use crate::http::retry::retry_after;
use crate::metrics::METRICS;
use crate::store::{DeliveryAttempt, DeliveryOutcome, Store, WaitingDelivery};

/// Most concurrent calls to one receiver.
const AT_A_TIME: i64 = 8;
/// How long an idle sender waits before it checks for deliveries again.
const IDLE: Duration = Duration::from_millis(500);
/// How long it waits after the database did not answer.
const BACKOFF: Duration = Duration::from_secs(2);
/// Time to record a result, added to the time limit of a call. Until both have passed, no other process attempts the same delivery.
const SETTLE: Duration = Duration::from_secs(5);

/// What an operator can do about a delivery that did not arrive.
const HINT: &str = "send it again with `tidemill leads deliveries --resend`";

/// Sends deliveries to one receiver.
pub struct WebhookSender {
    name: String,
    place: WebhookTarget,
    client: Client,
    store: Store,
}

impl WebhookSender {
    /// A sender to the receiver `name`. It does not connect, because the receiver may be down when the process starts.
    ///
    /// # Errors
    /// If a setting is invalid or the secret is missing.
    pub fn new(name: &str, config: &WebhookConfig, store: Store) -> Result<Self, ConfigError> {
        let place = config.place(name)?;
        let client = http::client(&place.url, |builder| builder.timeout(place.timeout))
            .map_err(|error| ConfigError(format!("`webhooks.{name}`: cannot prepare connections: {}", http::reason(&error))))?;
        Ok(Self { name: name.to_owned(), place, client, store })
    }

    /// Delivers until dropped. Any number of processes can deliver to the same receiver.
    pub async fn run(self) {
        // Starts the counter at zero, because an alert rule does not see an increase of a counter that starts at one.
        self.count(DeliveryOutcome::GivenUp).inc_by(0);
        loop {
            match self.round().await {
                Ok(0) => sleep(IDLE).await,
                Ok(_) => {}
                Err(failure) => {
                    METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
                    tracing::debug!(webhook = self.name, %failure, "deliveries are interrupted");
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    /// Attempts the due deliveries and returns their number.
    async fn round(&self) -> Result<usize, Transient> {
        let held = (self.place.timeout + SETTLE).as_secs_f64();
        let attempts = self.place.attempts.cast_signed();
        let (due, given_up) = self.store.claim_deliveries(&self.name, AT_A_TIME, held, attempts).await?;
        if given_up > 0 {
            self.count(DeliveryOutcome::GivenUp).inc_by(given_up);
            tracing::error!(
                webhook = self.name,
                given_up,
                "deliveries did not arrive, and the process that attempted them last has ended; {HINT}"
            );
        }
        let settled = join_all(due.iter().map(|delivery| self.attempt(delivery))).await;
        METRICS.deliveries_waiting.with_label_values(&[&self.name]).set(self.store.waiting_deliveries(&self.name).await?);
        settled.into_iter().collect::<Result<Vec<()>, Transient>>()?;
        Ok(due.len())
    }

    async fn attempt(&self, delivery: &WaitingDelivery) -> Result<(), Transient> {
        let attempt = self.call(delivery).await;
        tidemill_base::failpoint!("delivery-before-settle", |_| std::process::abort());
        self.store.settle_delivery(delivery, &attempt).await?;
        self.count(attempt.outcome).inc();
        let (id, attempts) = (delivery.id, delivery.attempts);
        let reason = attempt.reason.unwrap_or_default();
        match attempt.outcome {
            DeliveryOutcome::Delivered => tracing::debug!(webhook = self.name, %id, attempts, "delivered"),
            DeliveryOutcome::Retry(_) => {
                tracing::info!(webhook = self.name, %id, attempts, reason, "the delivery will be attempted again")
            }
            DeliveryOutcome::Refused | DeliveryOutcome::GivenUp => {
                tracing::error!(webhook = self.name, %id, attempts, reason, "the delivery did not arrive; {HINT}");
            }
        }
        Ok(())
    }

    /// The counter for the result of an attempt.
    fn count(&self, verdict: DeliveryOutcome) -> IntCounter {
        let outcome = match verdict {
            DeliveryOutcome::Retry(_) => "retried",
            settled => settled.state(),
        };
        METRICS.deliveries.with_label_values(&[self.name.as_str(), outcome])
    }

    async fn call(&self, delivery: &WaitingDelivery) -> DeliveryAttempt {
        let (id, timestamp) = (delivery.id.to_string(), Timestamp::now().as_second());
        let request = self
            .client
            .post(self.place.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature::of(&self.place.secret, &id, timestamp, &delivery.body))
            .body(delivery.body.clone());
        // The client has the same time limit, but it does not cover a name lookup that never ends.
        let answer = match timeout(self.place.timeout, request.send()).await {
            Ok(Ok(response)) => Ok((response.status(), retry_after(response.headers(), Timestamp::now()))),
            Ok(Err(error)) => Err(http::reason(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        };
        self.classify(delivery.attempts, answer)
    }

    fn classify(&self, attempts: i32, answer: Result<(StatusCode, Option<Duration>), String>) -> DeliveryAttempt {
        let (status, asked, reason) = match answer {
            Ok((status, _)) if status.is_success() => {
                return DeliveryAttempt {
                    outcome: DeliveryOutcome::Delivered,
                    status: Some(status.as_u16().into()),
                    reason: None,
                };
            }
            Ok((status, asked)) => (Some(status), asked, format!("the receiver answers {status}")),
            Err(reason) => (None, None, format!("the receiver cannot be reached: {reason}")),
        };
        let outcome = if status == Some(StatusCode::GONE) {
            DeliveryOutcome::Refused
        } else if attempts >= self.place.attempts.cast_signed() {
            DeliveryOutcome::GivenUp
        } else {
            DeliveryOutcome::Retry(self.wait(attempts, asked).as_secs_f64())
        };
        DeliveryAttempt { outcome, status: status.map(|status| status.as_u16().into()), reason: Some(reason) }
    }

    /// The wait after attempt number `attempts`. It doubles each time, and a random factor of 0.5 to 1 spreads deliveries that
    /// failed together. It is at least as long as the receiver requests, but never longer than `longest_wait`.
    fn wait(&self, attempts: i32, asked: Option<Duration>) -> Duration {
        let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(30);
        let doubled = self.place.first_wait.saturating_mul(1 << doublings).min(self.place.longest_wait);
        let share = 0.5 + RandomState::new().hash_one(attempts) as f64 / u64::MAX as f64 / 2.0;
        doubled.mul_f64(share).max(asked.unwrap_or_default()).min(self.place.longest_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;

    fn sender() -> WebhookSender {
        let place = WebhookTarget {
            url: "http://127.0.0.1:1/".parse().expect("an address"),
            secret: vec![7; 24],
            timeout: Duration::from_secs(1),
            attempts: 4,
            first_wait: Duration::from_secs(2),
            longest_wait: Duration::from_secs(60),
        };
        let database = DatabaseConfig { url: Some("postgres://nobody@127.0.0.1:1/none".into()), ..DatabaseConfig::default() };
        let store = Store::connect(&database).expect("nothing connects before it must");
        let client = http::client(&place.url, |builder| builder).expect("a client without TLS");
        WebhookSender { name: "crm".into(), place, client, store }
    }

    #[tokio::test]
    async fn what_a_receiver_answers_decides_what_follows() {
        let sender = sender();
        let verdict = |attempts, status: u16| {
            let status = StatusCode::from_u16(status).expect("a status");
            sender.classify(attempts, Ok((status, None))).verdict
        };
        assert_eq!((verdict(1, 200), verdict(4, 204)), (DeliveryOutcome::Delivered, DeliveryOutcome::Delivered));
        assert_eq!((verdict(1, 410), verdict(4, 500)), (DeliveryOutcome::Refused, DeliveryOutcome::GivenUp));
        for status in [302, 400, 401, 404, 429, 500, 503] {
            assert!(matches!(verdict(3, status), DeliveryOutcome::Retry(_)), "{status}");
        }
        let unreachable = sender.classify(1, Err("cannot connect".into()));
        assert!(matches!(unreachable.verdict, DeliveryOutcome::Retry(_)) && unreachable.status.is_none(), "{unreachable:?}");
    }

    #[tokio::test]
    async fn waits_double_with_jitter_and_heed_the_receiver_within_bounds() {
        let sender = sender();
        for (attempts, most) in [(1, 2.0), (2, 4.0), (3, 8.0), (6, 60.0), (99, 60.0)] {
            let wait = sender.wait(attempts, None).as_secs_f64();
            assert!((most / 2.0..=most).contains(&wait), "attempt {attempts} waits {wait} s");
        }
        assert_eq!(sender.wait(1, Some(Duration::from_secs(30))).as_secs(), 30);
        assert_eq!(
            sender.wait(1, Some(Duration::from_secs(3_600))).as_secs(),
            60,
            "a receiver cannot delay a delivery without limit"
        );
    }
}
