//! A Kafka broker in this process, and a producer that never outruns it.
//!
//! librdkafka's mock broker keeps about 5 MiB of a partition and drops what is older without a word. So the producer waits
//! until the ledger has committed what it sent before: at no time does a partition hold more than [`WINDOW`] that is still needed.
//! What is sent at once and needs, with what was sent before it, more than the broker keeps is out of reach itself. So no record is
//! larger than [`LARGEST`].

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
/// Bytes of a partition that are sent and not yet committed. A larger record is sent alone.
const WINDOW: usize = 2 << 20;
/// Records of a partition that are sent and not yet committed: the mock broker also counts, to 100,000.
const WINDOW_RECORDS: usize = 50_000;
/// The most bytes of a record and its key: two of them fit into what the broker keeps of a partition.
pub const LARGEST: usize = 2_500_000;
/// How often the ledger is asked while the window is full.
const LOOK: Duration = Duration::from_millis(50);

/// What went wrong when a record could not be sent.
const REFUSED: &str = "the in-process broker does not take a record";

/// A broker that lives as long as this value.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts a broker.
    ///
    /// # Errors
    /// Where librdkafka cannot.
    pub fn start() -> Result<Self> {
        Ok(Self { cluster: MockCluster::new(1).context("cannot start the in-process Kafka broker")? })
    }

    /// `host:port` of it.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// Where librdkafka cannot.
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
    sent: BTreeMap<i32, PartitionBacklog>,
    under_way: VecDeque<DeliveryFuture>,
    turn: i32,
}

#[derive(Default)]
struct PartitionBacklog {
    next_offset: i64,
    bytes: usize,
    /// Offset and size of each record that was not committed when last looked.
    open: VecDeque<(i64, usize)>,
}

impl PacedProducer {
    /// A feeder for an empty topic that `pipeline` reads.
    ///
    /// # Errors
    /// Where librdkafka refuses.
    pub fn new((store, health): (Store, Health), broker: &EmbeddedBroker, pipeline: &str, topic: &str) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("message.max.bytes", "100000000")
            .set("queue.buffering.max.messages", "1000000")
            .set("linger.ms", "5")
            .create()
            .context("cannot start the producer")?;
        let (pipeline, topic) = (pipeline.to_owned(), topic.to_owned());
        Ok(Self { store, health, pipeline, topic, producer, sent: BTreeMap::new(), under_way: VecDeque::new(), turn: 0 })
    }

    /// Sends one record, as soon as there is room for it.
    ///
    /// # Errors
    /// Where the record is too large, the broker or the ledger refuses, or the pipeline waits for an operator.
    pub async fn send(&mut self, input: InputRecord) -> Result<()> {
        let number = self.partition(input.key.as_deref());
        let size = input.payload.len() + input.key.as_ref().map_or(0, String::len);
        if size > LARGEST {
            let sent: i64 = self.sent.values().map(|sent| sent.next_offset).sum();
            return Err(too_large(&format!("record {}", sent + 1), size).into());
        }
        loop {
            let sent = self.sent.entry(number).or_default();
            let fits = sent.bytes + size <= WINDOW && sent.open.len() < WINDOW_RECORDS;
            if fits || sent.open.is_empty() {
                sent.open.push_back((sent.next_offset, size));
                sent.next_offset += 1;
                sent.bytes += size;
                break;
            }
            self.look().await?;
            if !self.has_room(number, size) {
                sleep(LOOK).await;
            }
        }
        let mut record = FutureRecord::to(&self.topic).partition(number).payload(&input.payload);
        if let Some(key) = &input.key {
            record = record.key(key);
        }
        // Queued in order; whether it arrived is looked at later, so that records travel in batches.
        let delivery = self.producer.send_result(record).map_err(|(error, _)| error).context(REFUSED)?;
        self.under_way.push_back(delivery);
        Ok(())
    }

    /// Waits until the ledger has committed everything that was sent; `told` hears how many records that is so far.
    ///
    /// # Errors
    /// Where the ledger does not answer, or the pipeline waits for an operator.
    pub async fn drained(&mut self, mut told: impl FnMut(u64)) -> Result<()> {
        loop {
            told(self.committed().await?);
            if self.sent.values().all(|sent| sent.open.is_empty()) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    /// How many of the records sent are committed.
    ///
    /// # Errors
    /// Where the ledger does not answer, or the pipeline waits for an operator.
    pub async fn committed(&mut self) -> Result<u64> {
        self.look().await?;
        Ok(self.sent.values().map(|sent| sent.next_offset as u64 - sent.open.len() as u64).sum())
    }

    fn partition(&mut self, key: Option<&str>) -> i32 {
        match key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                (hasher.finish() % PARTITIONS as u64) as i32
            }
            None => {
                self.turn = (self.turn + 1) % PARTITIONS;
                self.turn
            }
        }
    }

    fn has_room(&self, number: i32, size: usize) -> bool {
        self.sent.get(&number).is_none_or(|sent| sent.open.is_empty() || sent.bytes + size <= WINDOW)
    }

    async fn look(&mut self) -> Result<()> {
        waits_for_nobody(&self.health, &self.pipeline)?;
        while let Some(delivery) = self.under_way.front_mut().and_then(FutureExt::now_or_never) {
            self.under_way.pop_front();
            delivery?.map_err(|(error, _)| error).context(REFUSED)?;
        }
        for (number, next_offset) in self.store.positions(&self.pipeline, &self.topic).await? {
            let Some(sent) = self.sent.get_mut(&number) else { continue };
            while let Some(&(offset, size)) = sent.open.front() {
                if offset >= next_offset {
                    break;
                }
                sent.open.pop_front();
                sent.bytes -= size;
            }
        }
        Ok(())
    }
}

/// What is said of a record that the broker would lose.
pub fn too_large(what: &str, size: usize) -> ConfigError {
    ConfigError(format!(
        "{what} of the input has {size} bytes, and the in-process broker of `demo` takes {LARGEST} at most; leave it out, or run the \
         pipeline against a Kafka broker or by `tidemill backfill`"
    ))
}

/// A pipeline that waits for an operator commits nothing more, however long somebody waits for it.
///
/// # Errors
/// Where it does.
pub fn waits_for_nobody(health: &Health, pipeline: &str) -> Result<()> {
    let (halts, stops) = (health.halts(), health.stops());
    match halts.get(pipeline).or_else(|| stops.get(pipeline)) {
        Some(reason) => bail!("pipeline `{pipeline}` waits for an operator and commits nothing more: {reason}"),
        None => Ok(()),
    }
}
