//! The relay: publishes committed events to Kafka, at least once and in order, with an id by which consumers deduplicate.

use std::time::Duration;

use futures::future::join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, ClientContext};
use tokio::time::sleep;

use crate::broker::{Access, Refusal};
use crate::failure::{Component, Transient};
use crate::health::Health;
use crate::metrics::METRICS;
use crate::store::{OutboxEvent, RelayLease, Store};

/// Events taken from the outbox at a time.
const BATCH: i64 = 1000;
/// How long an idle relay waits before it looks again.
const IDLE: Duration = Duration::from_millis(200);
/// How long a process without the lease waits before it asks for it again.
const STANDBY: Duration = Duration::from_secs(2);
/// How long a broken relay waits before it tries again.
const BACKOFF: Duration = Duration::from_secs(1);
/// How long librdkafka itself tries to deliver an event before the relay is told that it could not.
const DELIVERY_TIMEOUT_MS: &str = "10000";
/// The largest record that the client itself lets through.
const LARGEST: &str = "100000000";

/// Publishes what the ledger has committed.
pub struct Relay {
    store: Store,
    producer: FutureProducer<Context>,
    health: Health,
    refusal: Refusal,
}

/// What the client library calls back.
struct Context {
    refusal: Refusal,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client reports");
        self.refusal.note(&error, reason);
    }
}

impl Relay {
    /// A relay that publishes through the given brokers.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn new(store: Store, access: &Access, health: Health) -> anyhow::Result<Self> {
        let mut client = ClientConfig::new();
        // Whether a record is too large is the broker's to say: a dead letter may hold the largest that a topic ever took.
        client.set("message.max.bytes", LARGEST);
        access.apply(&mut client);
        let refusal = Refusal::default();
        let producer = client
            .set("enable.idempotence", "true")
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .create_with_context(Context { refusal: refusal.clone() })?;
        Ok(Self { store, producer, health, refusal })
    }

    /// Publishes until dropped. Of all processes on one ledger, one does the work at a time.
    pub async fn run(self) {
        loop {
            match self.store.relay_lease().await {
                Ok(Some(lease)) => {
                    let failure = self.publish(lease).await;
                    METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
                    self.health.blame(&failure);
                    tracing::warn!(%failure, "publishing from the outbox is interrupted");
                    sleep(BACKOFF).await;
                }
                Ok(None) => sleep(STANDBY).await,
                // The walk itself reports a database that is down.
                Err(_) => sleep(BACKOFF).await,
            }
        }
    }

    async fn publish(&self, mut lease: RelayLease) -> Transient {
        loop {
            match self.publish_batch(&mut lease).await {
                Ok(0) => sleep(IDLE).await,
                Ok(_) => {
                    self.refusal.clear();
                    self.health.up(Component::Broker);
                }
                Err(failure) => return failure,
            }
        }
    }

    async fn publish_batch(&self, lease: &mut RelayLease) -> Result<usize, Transient> {
        let events = lease.events(BATCH).await?;
        if events.is_empty() {
            METRICS.outbox.set(0);
            return Ok(0);
        }
        let results = join_all(events.iter().map(|event| self.send(event))).await;
        // The broker keeps the order in which it acknowledges: nothing after the first failure is struck out, so that it is
        // sent again behind the one that failed.
        let sent = results.iter().take_while(|result| result.is_ok()).count();
        let ids: Vec<i64> = events[..sent].iter().map(|event| event.id).collect();
        tidemill_base::failpoint!("relay-before-delete", |_| std::process::abort());
        lease.published(&ids).await?;
        for event in &events[..sent] {
            METRICS.published.with_label_values(&[&event.topic]).inc();
        }
        METRICS.outbox.set(lease.waiting().await?);
        match results.into_iter().find_map(Result::err) {
            Some(failure) => Err(failure),
            None => Ok(sent),
        }
    }

    async fn send(&self, event: &OutboxEvent) -> Result<(), Transient> {
        let sent = match self.producer.send(record(event, event.partition), Timeout::Never).await {
            // The topic was made anew with fewer partitions since the record stood there: the key decides.
            Err((error, _)) if event.partition.is_some() && is_unknown_partition(&error) => {
                self.producer.send(record(event, None), Timeout::Never).await
            }
            sent => sent,
        };
        match sent {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                let why = self.refusal.sentence().unwrap_or_else(|| error.to_string());
                Err(Transient::new(Component::Broker, format!("cannot publish to {}: {why}", event.topic)))
            }
        }
    }
}

fn record(event: &OutboxEvent, partition: Option<i32>) -> FutureRecord<'_, Vec<u8>, Vec<u8>> {
    let headers = event.headers.iter().fold(OwnedHeaders::new_with_capacity(event.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_ref() })
    });
    FutureRecord {
        topic: &event.topic,
        partition,
        payload: event.payload.as_ref(),
        key: event.key.as_ref(),
        timestamp: event.timestamp_ms,
        headers: Some(headers),
    }
}

fn is_unknown_partition(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition))
}

impl Drop for Relay {
    fn drop(&mut self) {
        // What is still under way is in the outbox too, and will be sent again.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}
