//! Records from Kafka.
//!
//! One thread polls. The consumer group hands partitions out; the ledger says where each starts and under which epoch, in the
//! assign callback, before the first record is read. Offsets committed to Kafka are a hint for lag tools and never read back.
//!
//! | what happens | what the thread does |
//! |---|---|
//! | assigned | claim each in the ledger, however long the ledger takes to answer: nothing could be committed meanwhile |
//! | revoked | let the runner drain for a moment, then unassign |
//! | lost (the session timed out) | drop at once: someone else owns them |
//! | bytes in flight reach the cap | pause every partition and keep polling; resume at half |
//! | the password, the certificate or the rights do not do | say so at `/readyz` and try again for ever: the mend is not here |
//! | position no longer in the topic | the pipeline halts and tells the operator: a gap is never skipped silently |

mod rebalance;
mod watermarks;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::rebalance::Context;
use super::{Delivery, InFlight, SourceEvent};
use crate::broker::{self, BrokerRefusal, BrokerSettings};
use crate::checkpoint::PartitionClaim;
use crate::failure::Component;
use crate::health::Health;
use crate::metrics::METRICS;
use crate::record::{Header, Partition, Record, RecordLocation};
use crate::store::Store;

pub use self::watermarks::watermarks;

/// How often the same interruption is told again.
const REPEATED: Duration = Duration::from_secs(30);

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    /// How to reach the brokers; the settings of the ledger's guarantees are set after it.
    pub access: BrokerSettings,
    /// The pipeline, whose positions these are; its consumer group is `tidemill.<pipeline>`.
    pub pipeline: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// Where a topic that the ledger does not know is started.
    pub start: StartAt,
    /// Names this process in the ledger.
    pub owner: String,
    /// Bytes read and not yet committed at which reading pauses.
    pub in_flight_bytes: usize,
}

/// Where a topic that the ledger does not know is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record that the broker still has.
    Earliest,
    /// Behind the newest record.
    Latest,
}

/// A running consumer.
pub struct KafkaSource {
    shared: Arc<Shared>,
    commands: blocking::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

enum Command {
    Committed(Partition, i64),
    Forget(Partition),
    Pause,
}

struct Shared {
    config: KafkaSourceConfig,
    store: Store,
    health: Health,
    /// Why no broker lets us in.
    refusal: BrokerRefusal,
    /// Why they let us in and give us nothing.
    denial: BrokerRefusal,
    /// What last interrupted reading, and when that was told: without any broker the library says so many times a second.
    interruption: Mutex<Option<(String, Instant)>>,
    runtime: Handle,
    events: UnboundedSender<SourceEvent>,
    assigned: Mutex<HashMap<Partition, AssignedPartition>>,
    paused: AtomicBool,
    closing: AtomicBool,
}

struct AssignedPartition {
    records: UnboundedSender<Delivery>,
    /// The next offset to deliver.
    position: i64,
    /// The next offset by the ledger.
    committed: i64,
}

/// How long a poll may wait for a record: also how long a command waits at most.
const POLL: Duration = Duration::from_millis(50);
/// How often positions are committed to Kafka as a hint.
const HINTS: Duration = Duration::from_secs(1);

impl KafkaSource {
    /// Joins the group and starts to read. To be called within a tokio runtime.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting. A broker that cannot be reached is waited for.
    pub fn start(
        config: KafkaSourceConfig,
        store: Store,
        health: Health,
    ) -> anyhow::Result<(Self, UnboundedReceiver<SourceEvent>)> {
        let (events, receiver) = unbounded_channel();
        let shared = Arc::new(Shared {
            config,
            store,
            health,
            refusal: BrokerRefusal::default(),
            denial: BrokerRefusal::default(),
            interruption: Mutex::default(),
            runtime: Handle::current(),
            events,
            assigned: Mutex::default(),
            paused: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let consumer = consumer(&shared)?;
        let (commands, inbox) = blocking::channel();
        let thread = {
            let shared = shared.clone();
            thread::Builder::new()
                .name(format!("kafka-{}", shared.config.pipeline))
                .spawn(move || shared.poll(&consumer, &inbox))?
        };
        Ok((Self { shared, commands, thread: Some(thread) }, receiver))
    }

    /// Tells lag tools how far the ledger is.
    pub fn committed(&self, partition: &Partition, next_offset: i64) {
        self.send(Command::Committed(partition.clone(), next_offset));
    }

    /// Stops delivering the partition: someone else owns it by the ledger's word.
    pub fn forget(&self, partition: &Partition) {
        self.send(Command::Forget(partition.clone()));
    }

    /// Stops reading for good, ahead of a shutdown; the group membership stays.
    pub fn pause(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.send(Command::Pause);
    }

    /// Leaves the group. Gives up waiting after `deadline`; the broker then notices by the session timeout.
    pub async fn close(mut self, deadline: Duration) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        drop(self);
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(deadline, joined).await.is_err() {
            tracing::warn!("the consumer group was not left in time");
        }
    }

    /// A thread that is gone has said so by [`SourceEvent::Failed`] or was told to go.
    fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }
}

fn consumer(shared: &Arc<Shared>) -> anyhow::Result<BaseConsumer<Context>> {
    let config = &shared.config;
    let mut client = ClientConfig::new();
    client
        .set("session.timeout.ms", "45000")
        .set("fetch.wait.max.ms", "100")
        // The client's own queue counts payloads only, and a short record costs several times its payload: without these
        // bounds it holds a hundred thousand of them, and memory grows with the backlog.
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.message.max.bytes", "262144")
        // A partition whose queue is at its bound would wait a second before it fetches again, long after the queue has run dry.
        .set("fetch.queue.backoff.ms", "20");
    config.access.apply(&mut client);
    client
        .set("group.id", group(&config.pipeline))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("statistics.interval.ms", "1000");
    let consumer: BaseConsumer<Context> = client.create_with_context(Context { shared: shared.clone() })?;
    consumer.subscribe(&[&config.topic])?;
    Ok(consumer)
}

/// The consumer group of a pipeline.
fn group(pipeline: &str) -> String {
    format!("tidemill.{pipeline}")
}

impl Shared {
    fn poll(&self, consumer: &BaseConsumer<Context>, inbox: &blocking::Receiver<Command>) {
        let gauge = METRICS.in_flight_bytes.with_label_values(&[&self.config.pipeline]);
        let in_flight = InFlight::new(self.config.in_flight_bytes, gauge);
        let mut hints: HashMap<Partition, i64> = HashMap::new();
        let mut hinted = Instant::now();
        loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.deliver(&message, &in_flight),
                Some(Err(error)) => self.report(consumer, &error),
                None => {}
            }
            loop {
                match inbox.try_recv() {
                    Ok(Command::Committed(partition, next_offset)) => {
                        if let Some(lane) = self.assigned().get_mut(&partition) {
                            lane.committed = next_offset;
                        }
                        hints.insert(partition, next_offset);
                    }
                    Ok(Command::Forget(partition)) => self.forget(consumer, &partition),
                    Ok(Command::Pause) => self.set_paused(consumer, true),
                    Err(blocking::TryRecvError::Empty) => break,
                    Err(blocking::TryRecvError::Disconnected) => {
                        commit_hints(consumer, &mut hints, CommitMode::Sync);
                        return;
                    }
                }
            }
            if hinted.elapsed() >= HINTS {
                commit_hints(consumer, &mut hints, CommitMode::Async);
                hinted = Instant::now();
            }
            let paused = self.paused.load(Ordering::Relaxed);
            if !paused && in_flight.is_full() {
                self.set_paused(consumer, true);
            } else if paused && in_flight.can_resume() && !self.closing.load(Ordering::Relaxed) {
                self.set_paused(consumer, false);
            }
        }
    }

    fn deliver(&self, message: &BorrowedMessage<'_>, in_flight: &InFlight) {
        let partition = Partition { topic: self.config.topic.clone(), number: message.partition() };
        let mut assigned = self.assigned();
        let Some(lane) = assigned.get_mut(&partition) else { return };
        if message.offset() < lane.position {
            return;
        }
        lane.position = message.offset() + 1;
        self.denial.clear();
        let record = Record {
            place: RecordLocation { partition, offset: message.offset() },
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: message.payload().map(Bytes::copy_from_slice),
            headers: headers(message),
        };
        let guard = in_flight.track(&record);
        METRICS.records.with_label_values(&[&self.config.pipeline]).inc();
        // A lane that ended is fenced or draining: its records are read again by whoever owns the partition next.
        let _ = lane.records.send(Delivery { record, guard });
    }

    fn report(&self, consumer: &BaseConsumer<Context>, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let topic = &self.config.topic;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                let _ = self.events.send(SourceEvent::PositionLost(watermarks::explain_lost_positions(
                    &self.config,
                    consumer,
                    &self.positions(),
                )));
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => {
                self.health.down(Component::Broker, format!("topic {topic} does not exist"));
            }
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => self.denial.set(format!(
                "the brokers do not let this user read topic {topic} in the group {} ({error}); grant it Read on both",
                group(&self.config.pipeline)
            )),
            _ if broker::is_refusal(error) => {}
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => self.fail(format!("reading {topic} failed: {error}")),
            _ => self.interrupted(error.to_string()),
        }
    }

    fn interrupted(&self, error: String) {
        let mut last = self.interruption.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(told, at)| *told != error || at.elapsed() >= REPEATED) {
            tracing::warn!(pipeline = %self.config.pipeline, error, "reading is interrupted");
            *last = Some((error, Instant::now()));
        }
    }

    fn fail(&self, reason: String) {
        self.health.down(Component::Broker, reason.clone());
        let _ = self.events.send(SourceEvent::Failed(reason));
    }

    fn positions(&self) -> Vec<(i32, i64)> {
        self.assigned().iter().map(|(partition, lane)| (partition.number, lane.position)).collect()
    }

    fn forget(&self, consumer: &BaseConsumer<Context>, partition: &Partition) {
        if self.assigned().remove(partition).is_some() {
            let mut list = TopicPartitionList::new();
            list.add_partition(&partition.topic, partition.number);
            if let Err(error) = consumer.pause(&list) {
                tracing::warn!(%partition, %error, "cannot pause a partition that is not ours any more");
            }
        }
    }

    fn set_paused(&self, consumer: &BaseConsumer<Context>, paused: bool) {
        let list = topic_partitions(self.assigned().keys());
        let result = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        match result {
            Ok(()) => self.paused.store(paused, Ordering::Relaxed),
            Err(error) => tracing::warn!(pipeline = %self.config.pipeline, %error, paused, "cannot change the flow of records"),
        }
    }

    fn assigned(&self) -> MutexGuard<'_, HashMap<Partition, AssignedPartition>> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AssignedPartition {
    fn new(records: UnboundedSender<Delivery>, claim: &PartitionClaim) -> Self {
        Self { records, position: claim.next_offset, committed: claim.next_offset }
    }
}

fn commit_hints(consumer: &BaseConsumer<Context>, hints: &mut HashMap<Partition, i64>, mode: CommitMode) {
    if hints.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for (partition, next_offset) in hints.drain() {
        if let Err(error) = list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(next_offset)) {
            tracing::debug!(%partition, %error, "no hint for this partition");
        }
    }
    // Only a hint: a partition may be another's by now, and the next one will do as well.
    if let Err(error) = consumer.commit(&list, mode) {
        tracing::debug!(%error, "the hint to lag tools did not go through");
    }
}

fn topic_partitions<'a>(partitions: impl Iterator<Item = &'a Partition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.number);
    }
    list
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let read = |index| {
        // The client library panics on a name that is not UTF-8; such a header is kept under the replacement character.
        let header = catch_unwind(AssertUnwindSafe(|| {
            let header = headers.get(index);
            Header { name: header.key.to_owned(), value: header.value.map(Bytes::copy_from_slice) }
        }));
        header.unwrap_or_else(|_| Header { name: char::REPLACEMENT_CHARACTER.to_string(), value: None })
    };
    (0..headers.count()).map(read).collect()
}
