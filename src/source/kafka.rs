//! The Kafka source.
//!
//! One thread polls the consumer. The consumer group assigns partitions. In the assign callback, before the first record is read,
//! the ledger provides the position and epoch of each. Offsets committed to Kafka only serve lag monitoring tools and are never
//! read back.
//!
//! | event | what the thread does |
//! |---|---|
//! | partitions assigned | claims each in the ledger and waits as long as that takes, because nothing could be committed before |
//! | partitions revoked | gives the runner a few seconds to finish its work, then unassigns |
//! | partitions lost (the session timed out) | drops them at once, because another consumer owns them |
//! | bytes in flight reach the limit | pauses every partition and keeps polling; resumes at half of the limit |
//! | wrong password, certificate or permissions | reports it at `/readyz` and retries without end, because the fix is outside this process |
//! | position no longer in the topic | stops the pipeline and reports it: a gap is never skipped silently |

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

/// How often the same interruption is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// What to read and how.
#[derive(Debug, Clone)]
pub struct KafkaSourceConfig {
    /// Connection settings. Settings that exactly-once processing depends on are set after them.
    pub brokers: BrokerSettings,
    /// The pipeline. Its consumer group is `tidemill.<pipeline>`.
    pub pipeline: Arc<str>,
    pub topic: Arc<str>,
    /// Where to start a topic that the ledger does not know.
    pub start: StartAt,
    /// The name of this process in the ledger.
    pub owner: String,
    /// Bytes in flight at which reading pauses.
    pub in_flight_bytes: usize,
}

/// Where to start a topic that the ledger does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the oldest record that the broker has.
    Earliest,
    /// After the newest record.
    Latest,
}

/// A running consumer of one topic.
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
    /// Why the brokers refuse the client.
    refusal: BrokerRefusal,
    /// Why the brokers do not let the client read the topic.
    read_refusal: BrokerRefusal,
    /// The last interruption of reading, and when it was logged. Without a broker, the library reports an error many times per
    /// second.
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
    /// The next offset that the ledger has not committed.
    committed: i64,
}

/// How long a poll waits for a record. A command waits at most as long.
const POLL: Duration = Duration::from_millis(50);
/// How often positions are committed to Kafka for lag monitoring.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);

impl KafkaSource {
    /// Joins the group and starts reading. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If librdkafka rejects a setting. An unavailable broker is not an error; the source waits for it.
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
            read_refusal: BrokerRefusal::default(),
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

    /// Reports the position of the ledger to lag monitoring.
    pub fn committed(&self, partition: &Partition, next_offset: i64) {
        self.send(Command::Committed(partition.clone(), next_offset));
    }

    /// Stops delivering the partition, because another process has claimed it in the ledger.
    pub fn forget(&self, partition: &Partition) {
        self.send(Command::Forget(partition.clone()));
    }

    /// Stops reading permanently before a shutdown. The consumer stays in the group.
    pub fn pause(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.send(Command::Pause);
    }

    /// Leaves the group. After `deadline` it stops waiting, and the broker notices the loss by the session timeout.
    pub async fn close(mut self, deadline: Duration) {
        self.shared.closing.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        drop(self);
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(deadline, joined).await.is_err() {
            tracing::warn!("the consumer did not leave its group in time");
        }
    }

    /// If the thread has ended, it has sent [`SourceEvent::Failed`] or was told to stop.
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
        // The queue of the client counts payloads only, and a short record takes several times its payload. Without these limits
        // the queue holds a hundred thousand records, and memory grows with the backlog.
        .set("queued.min.messages", "1000")
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.message.max.bytes", "262144")
        // By default, a partition with a full queue waits a second before it fetches again, long after the queue is empty.
        .set("fetch.queue.backoff.ms", "20");
    config.brokers.apply(&mut client);
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
        let mut uncommitted: HashMap<Partition, i64> = HashMap::new();
        let mut committed_at = Instant::now();
        loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.deliver(&message, &in_flight),
                Some(Err(error)) => self.report(consumer, &error),
                None => {}
            }
            loop {
                match inbox.try_recv() {
                    Ok(Command::Committed(partition, next_offset)) => {
                        if let Some(partition_state) = self.assigned().get_mut(&partition) {
                            partition_state.committed = next_offset;
                        }
                        uncommitted.insert(partition, next_offset);
                    }
                    Ok(Command::Forget(partition)) => self.forget(consumer, &partition),
                    Ok(Command::Pause) => self.set_paused(consumer, true),
                    Err(blocking::TryRecvError::Empty) => break,
                    Err(blocking::TryRecvError::Disconnected) => {
                        commit_positions(consumer, &mut uncommitted, CommitMode::Sync);
                        return;
                    }
                }
            }
            if committed_at.elapsed() >= POSITION_INTERVAL {
                commit_positions(consumer, &mut uncommitted, CommitMode::Async);
                committed_at = Instant::now();
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
        let Some(partition_state) = assigned.get_mut(&partition) else { return };
        if message.offset() < partition_state.position {
            return;
        }
        partition_state.position = message.offset() + 1;
        self.read_refusal.clear();
        let record = Record {
            place: RecordLocation { partition, offset: message.offset() },
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            payload: message.payload().map(Bytes::copy_from_slice),
            headers: headers(message),
        };
        let guard = in_flight.track(&record);
        METRICS.records.with_label_values(&[&self.config.pipeline]).inc();
        // If the receiver has ended, the next owner of the partition reads the record again.
        let _ = partition_state.records.send(Delivery { record, guard });
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
            Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => self.read_refusal.set(format!(
                "the brokers do not let this user read topic {topic} with the group {} ({error}); grant it Read on both",
                group(&self.config.pipeline)
            )),
            _ if broker::is_refusal(error) => {}
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => self.fail(format!("reading {topic} failed: {error}")),
            _ => self.interrupted(error.to_string()),
        }
    }

    fn interrupted(&self, error: String) {
        let mut last = self.interruption.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(logged, at)| *logged != error || at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(pipeline = %self.config.pipeline, error, "reading is interrupted");
            *last = Some((error, Instant::now()));
        }
    }

    fn fail(&self, reason: String) {
        self.health.down(Component::Broker, reason.clone());
        let _ = self.events.send(SourceEvent::Failed(reason));
    }

    fn positions(&self) -> Vec<(i32, i64)> {
        self.assigned().iter().map(|(partition, partition_state)| (partition.number, partition_state.position)).collect()
    }

    fn forget(&self, consumer: &BaseConsumer<Context>, partition: &Partition) {
        if self.assigned().remove(partition).is_some() {
            let mut list = TopicPartitionList::new();
            list.add_partition(&partition.topic, partition.number);
            if let Err(error) = consumer.pause(&list) {
                tracing::warn!(%partition, %error, "cannot pause a partition that another consumer owns");
            }
        }
    }

    fn set_paused(&self, consumer: &BaseConsumer<Context>, paused: bool) {
        let list = topic_partitions(self.assigned().keys());
        let result = if paused { consumer.pause(&list) } else { consumer.resume(&list) };
        match result {
            Ok(()) => self.paused.store(paused, Ordering::Relaxed),
            Err(error) => tracing::warn!(pipeline = %self.config.pipeline, %error, paused, "cannot pause or resume reading"),
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

fn commit_positions(consumer: &BaseConsumer<Context>, positions: &mut HashMap<Partition, i64>, mode: CommitMode) {
    if positions.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for (partition, next_offset) in positions.drain() {
        if let Err(error) = list.add_partition_offset(&partition.topic, partition.number, Offset::Offset(next_offset)) {
            tracing::debug!(%partition, %error, "no offset can be reported for this partition");
        }
    }
    // These offsets only serve monitoring. Another consumer may own the partition by now, and the next commit replaces this one.
    if let Err(error) = consumer.commit(&list, mode) {
        tracing::debug!(%error, "offsets for lag monitoring could not be committed");
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
        // The client library panics on a header name that is not UTF-8. Such a header gets the replacement character as its name.
        let header = catch_unwind(AssertUnwindSafe(|| {
            let header = headers.get(index);
            Header { name: header.key.to_owned(), value: header.value.map(Bytes::copy_from_slice) }
        }));
        header.unwrap_or_else(|_| Header { name: char::REPLACEMENT_CHARACTER.to_string(), value: None })
    };
    (0..headers.count()).map(read).collect()
}
