//! Sends one event to the brokers and classifies their answer.

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

/// How long librdkafka retries an event before it reports a failure.
const DELIVERY_TIMEOUT_MS: &str = "10000";
/// The largest record that the client accepts.
const MAX_RECORD_BYTES: &str = "100000000";
/// How long the brokers may take to describe a topic.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an event was not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendError {
    /// The event, or another one in the same batch, is invalid. Sending it alone shows which.
    Event {
        too_large: bool,
        /// The error of the brokers.
        why: String,
    },
    /// The topic or the brokers are unavailable. The same event may be accepted later.
    Unavailable(String),
}

/// How the payload of an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PayloadMode {
    Whole,
    /// Without its payload, with headers that say where the payload is.
    Bare,
}

/// Sends events and remembers why the brokers refuse the client.
pub(super) struct EventSender {
    producer: FutureProducer<Context>,
    brokers: BrokerSettings,
    refusal: BrokerRefusal,
}

/// Callbacks of the client library.
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
    /// A sender to the given brokers.
    ///
    /// # Errors
    /// If librdkafka rejects a setting.
    pub(super) fn new(brokers: &BrokerSettings) -> anyhow::Result<Self> {
        let mut client = ClientConfig::new();
        // The broker decides whether a record is too large, because a dead letter contains a record as large as any topic accepts.
        client.set("message.max.bytes", MAX_RECORD_BYTES);
        brokers.apply(&mut client);
        let refusal = BrokerRefusal::default();
        let producer = client
            .set("enable.idempotence", "true")
            .set("delivery.timeout.ms", DELIVERY_TIMEOUT_MS)
            .set("compression.type", "zstd")
            .set("linger.ms", "5")
            .create_with_context(Context { refusal: refusal.clone() })?;
        Ok(Self { producer, brokers: brokers.clone(), refusal })
    }

    /// A new sender, if the client library had a fatal error, after which it never sends again.
    pub(super) fn recreated(&self) -> anyhow::Result<Option<Self>> {
        self.fatal_error().map(|_| Self::new(&self.brokers)).transpose()
    }

    /// The fatal error of the client library, if it had one.
    pub(super) fn fatal_error(&self) -> Option<String> {
        self.producer
            .client()
            .fatal_error()
            .map(|(code, reason)| format!("the Kafka client had a fatal error: {reason} ({code})"))
    }

    /// Records that a broker has accepted the client.
    pub(super) fn note_success(&self) {
        self.refusal.clear();
    }

    /// Sends the event and waits until the broker has it.
    pub(super) async fn send(&self, event: &OutboxEvent, form: PayloadMode) -> Result<(), SendError> {
        let sent = match self.producer.send(record(event, event.partition, form), Timeout::Never).await {
            // The topic was created again with fewer partitions since the record was written, so the key selects the partition.
            Err((error, _)) if event.partition.is_some() && is_unknown_partition(&error) => {
                self.producer.send(record(event, None, form), Timeout::Never).await
            }
            sent => sent,
        };
        match sent {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(send_error(&error, self.refusal.reason())),
        }
    }

    /// The largest batch that the topic accepts, if the brokers report it.
    pub(super) async fn limit(&self, topic: &str) -> Option<String> {
        let mut client = ClientConfig::new();
        self.brokers.apply(&mut client);
        let admin: AdminClient<DefaultClientContext> = client.create().ok()?;
        let options = AdminOptions::new().request_timeout(Some(DESCRIBE_TIMEOUT));
        let asked = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        asked.into_iter().next()?.ok()?.get("max.message.bytes")?.value.clone()
    }
}

impl Drop for EventSender {
    fn drop(&mut self) {
        // Events in flight are still in the outbox and will be sent again.
        self.producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    }
}

fn record(event: &OutboxEvent, partition: Option<i32>, form: PayloadMode) -> FutureRecord<'_, Vec<u8>, Vec<u8>> {
    let headers = event.headers.iter().fold(OwnedHeaders::new_with_capacity(event.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: value.as_ref() })
    });
    let (payload, headers) = match form {
        PayloadMode::Whole => (event.payload.as_ref(), headers),
        // The payload is empty, not absent: an absent payload would delete the last record of the key from a compacted topic.
        PayloadMode::Bare => (
            Some(const { &Vec::new() }),
            payload_location(event)
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

/// Headers that say where the omitted payload of a dead letter is.
fn payload_location(event: &OutboxEvent) -> Vec<(&'static str, String)> {
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

/// Classifies an error. Unclear errors count as unavailable, so that no event is parked that may be accepted later unchanged.
///
/// | error | class |
/// |---|---|
/// | too large; record not allowed in this topic (a compacted topic requires keys); invalid timestamp | event |
/// | another record of the batch is invalid | event, until it is sent alone |
/// | unknown topic, not authorized, no leader, no answer, anything else | unavailable |
fn send_error(error: &KafkaError, refusal: Option<String>) -> SendError {
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
        let of = |code| send_error(&KafkaError::MessageProduction(code), None);
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
        let refused = send_error(&KafkaError::MessageProduction(Code::MessageTimedOut), Some("authentication failed".into()));
        assert_eq!(refused, SendError::Unavailable("authentication failed".into()));
    }

    #[test]
    fn a_letter_without_its_payload_says_where_that_lies_and_deletes_nothing() {
        let letter = letter();
        let whole = record(&letter, None, PayloadMode::Whole);
        assert_eq!((whole.payload.map(Vec::len), whole.headers.unwrap().count()), (Some(70_000), 1));
        let bare = record(&letter, None, PayloadMode::Bare);
        assert_eq!(bare.payload.map(Vec::len), Some(0), "an absent payload would be a delete");
        let headers = bare.headers.unwrap();
        let received: Vec<_> = headers.iter().map(|h| (h.key, std::str::from_utf8(h.value.unwrap()).unwrap())).collect();
        assert_eq!(
            received,
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
