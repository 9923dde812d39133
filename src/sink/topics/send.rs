//! One event to the brokers, and what they say to it.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, ClientContext};

use crate::broker::{BrokerRefusal, BrokerSettings};
use crate::store::OutboxEvent;

/// How long librdkafka itself tries to deliver an event before the relay is told that it could not.
const DELIVERY_TIMEOUT_MS: &str = "10000";
/// The largest record that the client itself lets through.
const LARGEST: &str = "100000000";
/// How long the brokers may take to tell a topic's settings.
const SETTINGS: Duration = Duration::from_secs(5);

/// Why an event is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendError {
    /// What it is, or what another is that travelled in the same batch: sent alone, it tells which.
    Event {
        /// Whether it is too large.
        too_large: bool,
        /// What the brokers say.
        why: String,
    },
    /// The topic, or the brokers: it may be taken later as it is.
    Unavailable(String),
}

/// How an event goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadMode {
    /// As it was committed.
    Whole,
    /// Without the payload, and with the place where that lies.
    Bare,
}

/// Sends events. Clients of one process share what the brokers refuse.
pub(super) struct EventSender {
    producer: FutureProducer<Context>,
    access: BrokerSettings,
    refusal: BrokerRefusal,
}

/// What the client library calls back.
struct Context {
    refusal: BrokerRefusal,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the Kafka client reports");
        self.refusal.note(&error, reason);
    }
}

impl EventSender {
    /// A sender through the given brokers.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub(super) fn new(access: &BrokerSettings) -> anyhow::Result<Self> {
        let mut client = ClientConfig::new();
        // Whether a record is too large is the broker's to say: a dead letter may hold the largest that a topic ever took.
        client.set("message.max.bytes", LARGEST);
        access.apply(&mut client);
        let refusal = BrokerRefusal::default();
        let producer = client
            .set("enable.idempotence", "true")
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .create_with_context(Context { refusal: refusal.clone() })?;
        Ok(Self { producer, access: access.clone(), refusal })
    }

    /// The same anew, where the client library has given itself up; it never sends anything again.
    pub(super) fn renewed(&self) -> anyhow::Result<Option<Self>> {
        self.broken().map(|_| Self::new(&self.access)).transpose()
    }

    /// Why the client library has given itself up, where it has.
    pub(super) fn broken(&self) -> Option<String> {
        self.producer
            .client()
            .fatal_error()
            .map(|(code, reason)| format!("the Kafka client is of no use any more: {reason} ({code})"))
    }

    /// A broker has let the client in.
    pub(super) fn is_let_in(&self) {
        self.refusal.clear();
    }

    /// Sends the event and waits until the broker has it.
    pub(super) async fn send(&self, event: &OutboxEvent, form: PayloadMode) -> Result<(), SendError> {
        let sent = match self.producer.send(record(event, event.partition, form), Timeout::Never).await {
            // The topic was made anew with fewer partitions since the record stood there: the key decides.
            Err((error, _)) if event.partition.is_some() && is_unknown_partition(&error) => {
                self.producer.send(record(event, None, form), Timeout::Never).await
            }
            sent => sent,
        };
        match sent {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(fault(&error, self.refusal.sentence())),
        }
    }

    /// The largest batch that the topic takes, as far as the brokers tell.
    pub(super) async fn limit(&self, topic: &str) -> Option<String> {
        let mut client = ClientConfig::new();
        self.access.apply(&mut client);
        let admin: AdminClient<DefaultClientContext> = client.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(SETTINGS));
        let asked = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        asked.into_iter().next()?.ok()?.get("max.message.bytes")?.value.clone()
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        // What is still under way is in the outbox too, and will be sent again.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

fn record(event: &OutboxEvent, partition: Option<i32>, form: PayloadMode) -> FutureRecord<'_, Vec<u8>, Vec<u8>> {
    let headers = event.headers.iter().fold(OwnedHeaders::new_with_capacity(event.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_ref() })
    });
    let (payload, headers) = match form {
        PayloadMode::Whole => (event.payload.as_ref(), headers),
        // Empty and not absent: an absent one would delete the key's last record from a compacted topic.
        PayloadMode::Bare => (
            Some(const { &Vec::new() }),
            lies_elsewhere(event)
                .iter()
                .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) })),
        ),
    };
    FutureRecord {
        topic: &event.topic,
        partition,
        payload,
        key: event.key.as_ref(),
        timestamp: event.timestamp_ms,
        headers: Some(headers),
    }
}

/// Headers that say where the payload lies that a dead letter goes without.
fn lies_elsewhere(event: &OutboxEvent) -> Vec<(&'static str, String)> {
    let bytes = event.payload.as_ref().map_or(0, Vec::len);
    let mut headers = vec![("tidemill-payload-bytes", bytes.to_string())];
    if let Some(place) = &event.dead_letter_of {
        headers.push(("tidemill-payload-topic", place.partition.topic.to_string()));
        headers.push(("tidemill-payload-partition", place.partition.number.to_string()));
        headers.push(("tidemill-payload-offset", place.offset.to_string()));
    }
    headers
}

fn is_unknown_partition(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition))
}

/// Whose fault it is. What is in doubt is the world's: nothing is parked that could be taken tomorrow as it is.
///
/// | the brokers say | fault of |
/// |---|---|
/// | too large; no such record in this topic (a compacted one wants keys), no such timestamp | the event |
/// | another record of the batch is at fault | the event, until it is sent alone |
/// | no such topic, not allowed, no leader, no answer, anything else | the world |
fn fault(error: &KafkaError, refusal: Option<String>) -> SendError {
    use RDKafkaErrorCode as Code;
    let too_large = matches!(
        error.rdkafka_error_code(),
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge)
    );
    let refused =
        matches!(error.rdkafka_error_code(), Some(Code::InvalidRecord | Code::InvalidDifferentRecord | Code::InvalidTimestamp));
    match too_large || refused {
        true => SendError::Event { too_large, why: error.to_string() },
        false => SendError::Unavailable(refusal.unwrap_or_else(|| error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Headers;
    use uuid::Uuid;

    use super::*;

    fn letter() -> OutboxEvent {
        OutboxEvent {
            id: 1,
            event_id: Uuid::nil(),
            topic: "dead".into(),
            key: Some(b"k".to_vec()),
            payload: Some(vec![b'x'; 70_000]),
            headers: vec![("event-id".into(), Some(b"0".to_vec()))],
            timestamp_ms: None,
            partition: None,
            dead_letter_of: "documents[3]@17".parse().ok(),
        }
    }

    #[test]
    fn only_what_no_later_attempt_can_change_is_the_events_fault() {
        use RDKafkaErrorCode as Code;
        let of = |code| fault(&KafkaError::MessageProduction(code), None);
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidMessageSize] {
            assert!(matches!(of(code), SendError::Event { too_large: true, .. }), "{code:?}");
        }
        for code in [Code::InvalidRecord, Code::InvalidDifferentRecord, Code::InvalidTimestamp] {
            assert!(matches!(of(code), SendError::Event { too_large: false, .. }), "{code:?}");
        }
        for code in [
            Code::MessageTimedOut,
            Code::UnknownTopic,
            Code::UnknownTopicOrPartition,
            Code::TopicAuthorizationFailed,
            Code::NotEnoughReplicas,
            Code::BrokerTransportFailure,
            Code::Fatal,
        ] {
            assert!(matches!(of(code), SendError::Unavailable(_)), "{code:?}");
        }
        let refused = fault(&KafkaError::MessageProduction(Code::MessageTimedOut), Some("authentication failed".into()));
        assert_eq!(refused, SendError::Unavailable("authentication failed".into()));
    }

    #[test]
    fn a_letter_without_its_payload_says_where_that_lies_and_deletes_nothing() {
        let letter = letter();
        let whole = record(&letter, None, PayloadMode::Whole);
        assert_eq!((whole.payload.map(Vec::len), whole.headers.unwrap().count()), (Some(70_000), 1));
        let bare = record(&letter, None, PayloadMode::Bare);
        assert_eq!(bare.payload.map(Vec::len), Some(0), "no payload at all would be a delete");
        let headers = bare.headers.unwrap();
        let told: Vec<_> = headers.iter().map(|h| (h.key, std::str::from_utf8(h.value.unwrap()).unwrap())).collect();
        assert_eq!(
            told,
            [
                ("event-id", "0"),
                ("tidemill-payload-bytes", "70000"),
                ("tidemill-payload-topic", "documents"),
                ("tidemill-payload-partition", "3"),
                ("tidemill-payload-offset", "17"),
            ]
        );
    }
}
