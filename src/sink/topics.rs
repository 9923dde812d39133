//! The relay publishes committed events from the outbox to Kafka, at least once and in order. Each event has an id with which
//! consumers can deduplicate.
//!
//! Topics are independent, so a topic that accepts no events does not block others. Events with the same topic and key are sent one
//! after another; different keys are sent concurrently.
//!
//! | answer of the broker | what the relay does |
//! |---|---|
//! | it has stored the event | deletes the event from the outbox, regardless of other events |
//! | the topic or the brokers are unavailable | the events of the key wait; retries the topic after a pause and reports the reason at `/readyz` |
//! | the event, or another one in its batch, is invalid | sends the event alone to find out which |
//! | the event alone is too large, and it is a dead letter | sends it without its payload, with headers that say where the payload is |
//! | the event alone is invalid | parks it with the reason; later events continue |

mod send;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use self::send::{EventSender, PayloadMode, SendError};
use crate::broker::BrokerSettings;
use crate::failure::{Component, Transient};
use crate::health::Health;
use crate::metrics::METRICS;
use crate::record::REPLAY_OF;
use crate::store::{OutboxCounts, OutboxEvent, RelayLease, Store};

/// Most events of one topic read from the outbox at a time.
const BATCH: i64 = 1000;
/// Bytes of payloads after which no more events are read at a time.
const BATCH_BYTES: i64 = 32 << 20;
/// How often an idle relay checks which topics have events.
const IDLE: Duration = Duration::from_millis(200);
/// How often the relay counts waiting and parked events.
const COUNT: Duration = Duration::from_secs(1);
/// How long a process without the lease waits before it requests the lease again.
const STANDBY: Duration = Duration::from_secs(2);
/// How long the relay waits after a failure. Also the first pause of a topic that accepts no events.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause of a topic that accepts no events.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Most characters of a key or an id in a reason.
const QUOTED: usize = 200;

/// Publishes committed events from the outbox.
pub struct Relay {
    store: Store,
    sender: EventSender,
    health: Health,
}

/// A finished step of the relay.
enum RelayStep {
    /// The topics that have events, and the counts if they were due.
    Checked(Vec<String>, Option<OutboxCounts>),
    /// The topic has no more waiting events.
    Drained(String),
}

impl Relay {
    /// A relay that publishes through the given brokers.
    ///
    /// # Errors
    /// If librdkafka rejects a setting.
    pub fn new(store: Store, brokers: &BrokerSettings, health: Health) -> anyhow::Result<Self> {
        Ok(Self { store, sender: EventSender::new(brokers)?, health })
    }

    /// Publishes until dropped. Of all processes that share a ledger, one holds the lease and publishes.
    pub async fn run(mut self) {
        loop {
            match self.store.relay_lease().await {
                Ok(Some(lease)) => {
                    let failure = self.publish(lease).await;
                    METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
                    self.health.blame(&failure);
                    tracing::warn!(%failure, "publishing from the outbox is interrupted");
                    match self.sender.recreated() {
                        Ok(Some(sender)) => self.sender = sender,
                        Ok(None) => {}
                        Err(error) => tracing::error!(%error, "the Kafka client cannot be created again"),
                    }
                    sleep(BACKOFF).await;
                }
                Ok(None) => sleep(STANDBY).await,
                // The pipelines report that the database is unavailable.
                Err(_) => sleep(BACKOFF).await,
            }
        }
    }

    /// Publishes as long as the lease is valid. Returns the failure that ended it.
    async fn publish(&self, lease: RelayLease) -> Transient {
        let lease = Mutex::new(lease);
        let mut shown = BTreeSet::new();
        let mut in_progress = BTreeSet::new();
        let mut counted = None;
        // All steps are polled together here, so the step that holds the lock always makes progress.
        let mut steps: FuturesUnordered<BoxFuture<'_, Result<RelayStep, Transient>>> = FuturesUnordered::new();
        steps.push(check_topics(&lease, true).boxed());
        let failure = loop {
            match steps.next().await {
                Some(Ok(RelayStep::Checked(topics, counts))) => {
                    if let Some(counts) = counts {
                        set_metrics(&counts, &mut shown);
                        counted = Some(Instant::now());
                    }
                    for topic in topics.into_iter().filter(|topic| in_progress.insert(topic.clone())) {
                        steps.push(self.drain(topic, &lease).boxed());
                    }
                    let is_time = counted.is_none_or(|at: Instant| at.elapsed() >= COUNT);
                    steps.push(check_topics(&lease, is_time).boxed());
                }
                Some(Ok(RelayStep::Drained(topic))) => {
                    self.health.unblock_topic(&topic);
                    in_progress.remove(&topic);
                }
                Some(Err(failure)) => break failure,
                None => unreachable!("a step that checks for topics is always pending"),
            }
        };
        drop(steps);
        // The next lease holder determines the state of the topics again.
        in_progress.iter().for_each(|topic| self.health.unblock_topic(topic));
        set_metrics(&OutboxCounts::default(), &mut shown);
        failure
    }

    /// Publishes the waiting events of the topic until there are none.
    async fn drain(&self, topic: String, lease: &Mutex<RelayLease>) -> Result<RelayStep, Transient> {
        let mut pause = BACKOFF;
        loop {
            let events = lease.lock().await.events(&topic, BATCH, BATCH_BYTES).await?;
            if events.is_empty() {
                return Ok(RelayStep::Drained(topic));
            }
            match self.send_batch(&topic, &events, lease).await? {
                None => {
                    pause = BACKOFF;
                    self.sender.note_success();
                    self.health.unblock_topic(&topic);
                    self.health.up(Component::Broker);
                }
                Some(reason) => {
                    if let Some(broken) = self.sender.fatal_error() {
                        return Err(Transient::new(Component::Broker, broken));
                    }
                    METRICS.retries.with_label_values(&[Component::Broker.as_str()]).inc();
                    self.health.block_topic(&topic, &reason);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Sends the events and records the outcome of each. Returns the reason if some must be sent again.
    async fn send_batch(
        &self,
        topic: &str,
        events: &[OutboxEvent],
        lease: &Mutex<RelayLease>,
    ) -> Result<Option<String>, Transient> {
        let sent = join_all(by_key(events).into_iter().map(|group| self.send_in_order(group))).await;
        let mut done: Vec<i64> = Vec::new();
        let mut suspects = Vec::new();
        let mut unavailable = None;
        for (event, outcome) in sent.into_iter().flatten() {
            match outcome {
                Ok(()) => done.push(event.id),
                Err(SendError::Event { .. }) => suspects.push(event),
                Err(SendError::Unavailable(reason)) => drop(unavailable.get_or_insert(reason)),
            }
        }
        self.delete_published(topic, &done, lease).await?;
        suspects.sort_unstable_by_key(|event| event.id);
        let mut limit = None;
        for event in suspects {
            // The events are sent one at a time and nothing else of the topic is in flight, so a failure belongs to this event.
            if let Some(reason) = self.send_alone(event, lease, &mut limit).await? {
                unavailable = Some(reason);
                break;
            }
        }
        Ok(unavailable)
    }

    /// Sends events of one key in order. Each is sent after the previous one was acknowledged.
    async fn send_in_order<'a>(&self, group: Vec<&'a OutboxEvent>) -> Vec<(&'a OutboxEvent, Result<(), SendError>)> {
        let mut sent = Vec::with_capacity(group.len());
        for event in group {
            let outcome = self.sender.send(event, PayloadMode::Whole).await;
            let is_sent = outcome.is_ok();
            sent.push((event, outcome));
            if !is_sent {
                break;
            }
        }
        sent
    }

    /// Sends one event alone and records the outcome. Returns the reason if it must be sent again.
    async fn send_alone(
        &self,
        event: &OutboxEvent,
        lease: &Mutex<RelayLease>,
        limit: &mut Option<Option<String>>,
    ) -> Result<Option<String>, Transient> {
        let (too_large, why) = match self.sender.send(event, PayloadMode::Whole).await {
            Ok(()) => return self.delete_published(&event.topic, &[event.id], lease).await.map(|()| None),
            Err(SendError::Unavailable(reason)) => return Ok(Some(reason)),
            Err(SendError::Event { too_large, why }) => (too_large, why),
        };
        let has_payload = event.payload.as_ref().is_some_and(|payload| !payload.is_empty());
        if let Some(place) = event.dead_letter_of.as_ref().filter(|_| too_large && has_payload) {
            match self.sender.send(event, PayloadMode::Bare).await {
                Ok(()) => {
                    tracing::warn!(topic = event.topic, %place, "a dead letter is too large for its topic and is sent without its payload");
                    METRICS.published_bare.with_label_values(&[&event.topic]).inc();
                    return self.delete_published(&event.topic, &[event.id], lease).await.map(|()| None);
                }
                Err(SendError::Unavailable(reason)) => return Ok(Some(reason)),
                Err(SendError::Event { .. }) => {}
            }
        }
        if too_large && limit.is_none() {
            *limit = Some(self.sender.limit(&event.topic).await);
        }
        let why =
            if too_large { size_problem(event, limit.as_ref().and_then(Option::as_deref)) } else { format!("{why}; fix that") };
        let reason = parking_reason(event, &why);
        tracing::error!(topic = event.topic, event = event.id, reason, "an event is parked");
        lease.lock().await.park(event.id, &reason).await?;
        Ok(None)
    }

    async fn delete_published(&self, topic: &str, ids: &[i64], lease: &Mutex<RelayLease>) -> Result<(), Transient> {
        if ids.is_empty() {
            return Ok(());
        }
        tidemill_base::failpoint!("relay-before-delete", |_| std::process::abort());
        lease.lock().await.published(ids).await?;
        METRICS.published.with_label_values(&[topic]).inc_by(ids.len() as u64);
        Ok(())
    }
}

async fn check_topics(lease: &Mutex<RelayLease>, counts: bool) -> Result<RelayStep, Transient> {
    sleep(IDLE).await;
    let mut lease = lease.lock().await;
    let counts = if counts { Some(lease.counts().await?) } else { None };
    Ok(RelayStep::Checked(lease.topics().await?, counts))
}

/// Sets the metrics of the outbox, and removes those of topics without parked events.
fn set_metrics(counts: &OutboxCounts, shown: &mut BTreeSet<String>) {
    METRICS.outbox.set(counts.waiting);
    let now: BTreeSet<String> = counts.parked.iter().map(|(topic, _)| topic.clone()).collect();
    for topic in shown.difference(&now) {
        // Removal cannot fail, because the metric was set before.
        let _ = METRICS.outbox_parked.remove_label_values(&[topic]);
    }
    for (topic, events) in &counts.parked {
        METRICS.outbox_parked.with_label_values(&[topic]).set(*events);
    }
    *shown = now;
}

/// Groups the events by key, in order. Events without a key form a group of their own each, because Kafka does not order them
/// either.
fn by_key(events: &[OutboxEvent]) -> Vec<Vec<&OutboxEvent>> {
    let mut groups: Vec<Vec<&OutboxEvent>> = Vec::with_capacity(events.len());
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for event in events {
        let key = event.key.as_deref().filter(|key| !key.is_empty());
        match key.and_then(|key| places.get(key)) {
            Some(place) => groups[*place].push(event),
            None => {
                key.map(|key| places.insert(key, groups.len()));
                groups.push(vec![event]);
            }
        }
    }
    groups
}

/// Why an event is parked, and what an operator can do about it.
fn parking_reason(event: &OutboxEvent, why: &str) -> String {
    let (topic, id) = (&event.topic, event.id);
    format!(
        "topic {topic} does not accept {}: {why} and run `tidemill outbox resend {id}`, or discard it with `tidemill outbox drop {id}`",
        describe(event)
    )
}

/// Why the event is too large, and what an operator can do about it.
fn size_problem(event: &OutboxEvent, limit: Option<&str>) -> String {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    let headers: usize = event.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
    let bytes = length(&event.payload) + length(&event.key) + headers;
    match limit {
        Some(limit) => {
            format!("it has {bytes} bytes before compression, and `max.message.bytes` of the topic is {limit}; raise that")
        }
        None => format!("it has {bytes} bytes before compression, more than `max.message.bytes` of the topic allows; raise that"),
    }
}

/// Describes the event in terms that an operator knows.
fn describe(event: &OutboxEvent) -> String {
    let cut = |text: &str| text.chars().take(QUOTED).flat_map(escaped).collect::<String>();
    if let Some(place) = &event.dead_letter_of {
        return format!("the dead letter of record {place}");
    }
    if let Some((_, Some(letter))) = event.headers.iter().rfind(|(name, _)| name == REPLAY_OF) {
        return format!("the record of dead letter {}", cut(&String::from_utf8_lossy(letter)));
    }
    let body: Option<Value> = event.payload.as_deref().and_then(|payload| serde_json::from_slice(payload).ok());
    let word = |key: &str| body.as_ref()?.get(key)?.as_str().map(&cut);
    match (word("document_id"), word("task"), &event.key) {
        (Some(document), Some(task), _) => format!("the result of task {task} for document `{document}`"),
        (_, _, Some(key)) => format!("the event with key `{}`", cut(&String::from_utf8_lossy(key))),
        _ => format!("event {}", event.id),
    }
}

/// Escapes control characters, which a terminal would execute.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let spelt = c.is_control().then(|| c.escape_default());
    let plain = spelt.is_none().then_some(c);
    spelt.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event(id: i64, key: Option<&str>, payload: &str) -> OutboxEvent {
        OutboxEvent {
            id,
            event_id: Uuid::nil(),
            topic: "results".into(),
            key: key.map(|key| key.as_bytes().to_vec()),
            payload: Some(payload.as_bytes().to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
            partition: None,
            dead_letter_of: None,
        }
    }

    #[test]
    fn events_of_one_key_take_turns_and_those_without_one_do_not() {
        let keys = [Some("a"), None, Some("b"), Some("a"), Some(""), None, Some("a"), Some("")];
        let events: Vec<OutboxEvent> = (0..).zip(keys).map(|(id, key)| event(id, key, "")).collect();
        let groups: Vec<Vec<i64>> = by_key(&events).iter().map(|group| group.iter().map(|event| event.id).collect()).collect();
        assert_eq!(groups, [vec![0, 3, 6], vec![1], vec![2], vec![4], vec![5], vec![7]]);
    }

    #[test]
    fn the_reason_names_the_event_the_topic_the_limit_and_what_to_do() {
        let large = event(7, Some("large/echo"), r#"{"document_id":"large","task":"echo","text":"…"}"#);
        let said = parking_reason(&large, &size_problem(&large, Some("65536")));
        for part in
            ["topic results", "document `large`", "task echo", "is 65536", "tidemill outbox resend 7", "tidemill outbox drop 7"]
        {
            assert!(said.contains(part), "{said} does not contain `{part}`");
        }
        assert!(size_problem(&large, None).contains("more than `max.message.bytes`"));
        assert_eq!(describe(&event(1, Some("\u{1b}[2J"), "no object")), "the event with key `\\u{1b}[2J`");
        let letter = OutboxEvent {
            dead_letter_of: "documents[0]@3".parse().ok(),
            ..event(1, Some("k"), r#"{"document_id":"x","task":"y"}"#)
        };
        assert_eq!(describe(&letter), "the dead letter of record documents[0]@3", "the payload of a dead letter is not read");
        let headers = vec![(REPLAY_OF.to_owned(), Some(b"12".to_vec()))];
        assert_eq!(describe(&OutboxEvent { headers, ..event(1, None, "{}") }), "the record of dead letter 12");
    }
}
