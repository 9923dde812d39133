//! A Kafka broker in this process, and a producer that never sends more than it keeps.
//!
//! librdkafka's mock broker keeps about 5 MiB of a partition and silently drops older records. So the producer waits until the
//! database has committed what it sent before: a partition never holds more than [`WINDOW_BYTES`] of uncommitted records, or a
//! single larger record. No record is larger than [`MAX_RECORD_BYTES`], so that one and its predecessor always fit.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use tokio::time::sleep;

use super::input::InputRecord;
use crate::config::ConfigError;
use crate::health::Health;
use crate::store::Store;

/// Partitions of a topic.
pub const PARTITIONS: i32 = 4;
/// The most bytes of a partition that are sent and not committed. A larger record is sent alone.
const WINDOW_BYTES: usize = 2 << 20;
/// The most records of a partition that are sent and not committed. The mock broker keeps 100,000.
const WINDOW_RECORDS: usize = 50_000;
/// The most bytes of a record and its key. The broker keeps two of them in a partition.
pub const MAX_RECORD_BYTES: usize = 2_500_000;
/// How often positions are read while the window is full.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The error when a record cannot be sent.
const REFUSED: &str = "the in-process broker refused a record";

/// A broker that runs as long as this value lives.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    ///
    /// # Errors
    /// If librdkafka fails.
    pub fn start() -> Result<Self> {
        Ok(Self { cluster: MockCluster::new(1).context("cannot start the in-process Kafka broker")? })
    }

    /// As `host:port`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic with [`PARTITIONS`] partitions.
    ///
    /// # Errors
    /// If librdkafka fails.
    pub fn create_topic(&self, name: &str) -> Result<()> {
        self.cluster.create_topic(name, PARTITIONS, 1).with_context(|| format!("cannot create the topic {name}"))
    }
}

/// Sends records to a topic of the [`EmbeddedBroker`], no faster than a pipeline commits them.
pub struct PacedProducer {
    store: Store,
    health: Health,
    pipeline: String,
    topic: String,
    producer: FutureProducer,
    backlogs: BTreeMap<i32, PartitionBacklog>,
    deliveries: VecDeque<DeliveryFuture>,
    /// The partition of the last record without a key.
    last_partition: i32,
}

#[derive(Default)]
struct PartitionBacklog {
    next_offset: i64,
    bytes: usize,
    /// Offset and size of each record that was not committed at the last look.
    uncommitted: VecDeque<(i64, usize)>,
}

impl PacedProducer {
    /// A producer for an empty topic that `pipeline` reads.
    ///
    /// # Errors
    /// If librdkafka fails.
    pub fn new(store: Store, health: Health, broker: &EmbeddedBroker, pipeline: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("message.max.bytes", "100000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "5")
            .create()
            .context("cannot start the producer")?;
        let (pipeline, topic) = (pipeline.to_owned(), topic.to_owned());
        Ok(Self {
            store,
            health,
            pipeline,
            topic,
            producer,
            backlogs: BTreeMap::new(),
            deliveries: VecDeque::new(),
            last_partition: 0,
        })
    }

    /// Sends one record, once the window has room for it.
    ///
    /// # Errors
    /// If the record is too large, the broker refuses it, the database is unavailable, or the pipeline has stopped.
    pub async fn send(&mut self, input: InputRecord) -> Result<()> {
        let number = self.partition(input.key.as_deref());
        let size = input.payload.len() + input.key.as_ref().map_or(0, String::len);
        if size > MAX_RECORD_BYTES {
            let sent: i64 = self.backlogs.values().map(|backlog| backlog.next_offset).sum();
            return Err(too_large(&format!("record {}", sent + 1), size).into());
        }
        loop {
            let backlog = self.backlogs.entry(number).or_default();
            let fits = backlog.bytes + size <= WINDOW_BYTES && backlog.uncommitted.len() < WINDOW_RECORDS;
            if fits || backlog.uncommitted.is_empty() {
                backlog.uncommitted.push_back((backlog.next_offset, size));
                backlog.next_offset += 1;
                backlog.bytes += size;
                break;
            }
            self.update().await?;
            if !self.has_room(number, size) {
                sleep(POLL_INTERVAL).await;
            }
        }
        let mut record = FutureRecord::to(&self.topic).partition(number).payload(&input.payload);
        if let Some(key) = &input.key {
            record = record.key(key);
        }
        // The record is queued in order. Its delivery is checked later, so that records are sent in batches.
        let delivery = self.producer.send_result(record).map_err(|(error, _)| error).context(REFUSED)?;
        self.deliveries.push_back(delivery);
        Ok(())
    }

    /// Waits until everything that was sent is committed, and passes the number of committed records to `report` meanwhile.
    ///
    /// # Errors
    /// If the database is unavailable, or the pipeline has stopped.
    pub async fn wait_until_committed(&mut self, mut report: impl FnMut(u64)) -> Result<()> {
        loop {
            report(self.committed().await?);
            if self.backlogs.values().all(|backlog| backlog.uncommitted.is_empty()) {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The number of sent records that are committed.
    ///
    /// # Errors
    /// If the database is unavailable, or the pipeline has stopped.
    pub async fn committed(&mut self) -> Result<u64> {
        self.update().await?;
        Ok(self.backlogs.values().map(|backlog| backlog.next_offset as u64 - backlog.uncommitted.len() as u64).sum())
    }

    fn partition(&mut self, key: Option<&str>) -> i32 {
        match key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                (hasher.finish() % PARTITIONS as u64) as i32
            }
            None => {
                self.last_partition = (self.last_partition + 1) % PARTITIONS;
                self.last_partition
            }
        }
    }

    fn has_room(&self, number: i32, size: usize) -> bool {
        self.backlogs.get(&number).is_none_or(|backlog| backlog.uncommitted.is_empty() || backlog.bytes + size <= WINDOW_BYTES)
    }

    async fn update(&mut self) -> Result<()> {
        check_not_stopped(&self.health, &self.pipeline)?;
        while let Some(delivery) = self.deliveries.front_mut().and_then(FutureExt::now_or_never) {
            self.deliveries.pop_front();
            delivery?.map_err(|(error, _)| error).context(REFUSED)?;
        }
        for (number, next_offset) in self.store.positions(&self.pipeline, &self.topic).await? {
            let Some(backlog) = self.backlogs.get_mut(&number) else { continue };
            while let Some(&(offset, size)) = backlog.uncommitted.front() {
                if offset >= next_offset {
                    break;
                }
                backlog.uncommitted.pop_front();
                backlog.bytes -= size;
            }
        }
        Ok(())
    }
}

/// The error for a record that the broker would lose.
pub fn too_large(what: &str, size: usize) -> ConfigError {
    ConfigError(format!(
        "{what} of the input has {size} bytes, and the in-process broker of `demo` takes at most {MAX_RECORD_BYTES}; leave it out, \
         or run the pipeline on a Kafka broker or with `tidemill backfill`"
    ))
}

/// Checks that the pipeline is neither stopped nor halted: it would commit nothing more.
///
/// # Errors
/// If it is, with the reason.
pub fn check_not_stopped(health: &Health, pipeline: &str) -> Result<()> {
    let (halts, stops) = (health.halts(), health.stops());
    match halts.get(pipeline).or_else(|| stops.get(pipeline)) {
        Some(reason) => bail!("pipeline `{pipeline}` waits for an operator and commits nothing more: {reason}"),
        None => Ok(()),
    }
}
