//! Callbacks of the consumer: partitions assigned and revoked, and the state of the brokers.

use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc as blocking};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::sync::mpsc::unbounded_channel;

use super::{AssignedPartition, KafkaSourceConfig, Shared, SourceEvent, StartAt};
use crate::checkpoint::PartitionClaim;
use crate::failure::{Component, Transient};
use crate::metrics::METRICS;
use crate::record::Partition;

/// How long a rebalance waits for batches in progress.
const DRAIN: Duration = Duration::from_secs(5);
/// How much longer it waits until the partitions are released in the ledger.
const RELEASE: Duration = Duration::from_secs(1);
/// How long one metadata request to the broker may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between attempts to claim partitions while the ledger or the broker does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Callbacks of the client library.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let numbers: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        let result = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.shared.assign(consumer, &numbers),
            _ => self.shared.revoke(consumer, list, &numbers),
        };
        if let Err(error) = result {
            tracing::error!(pipeline = %self.shared.config.pipeline, %error, "rebalancing failed");
        }
    }
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let shared = &self.shared;
        let problem = if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            shared.refusal.clear();
            shared.read_refusal.reason()
        } else {
            let why = shared.refusal.reason().map(|refusal| format!(": {refusal}")).unwrap_or_default();
            Some(format!("no broker of {} can be reached{why}", shared.config.brokers.brokers()))
        };
        match problem {
            None => shared.health.up(Component::Broker),
            Some(reason) => shared.health.down(Component::Broker, reason),
        }
        let Some(topic) = statistics.topics.get(&*shared.config.topic) else { return };
        for (partition, assigned) in shared.assigned().iter() {
            let Some(state) = topic.partitions.get(&partition.number) else { continue };
            if state.ls_offset >= 0 {
                let labels = [&*shared.config.pipeline, &partition.topic, &partition.number.to_string()];
                METRICS.lag.with_label_values(&labels).set((state.ls_offset - assigned.committed).max(0));
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(pipeline = %self.shared.config.pipeline, %error, reason, "the Kafka client reports");
        self.shared.refusal.note(&error, reason);
    }
}

impl Shared {
    /// Claims the partitions and retries until it succeeds. `None` on shutdown.
    fn claim(&self, consumer: &BaseConsumer<Context>, numbers: &[i32]) -> Option<Vec<PartitionClaim>> {
        while !self.closing.load(Ordering::Relaxed) {
            match self.try_claim(consumer, numbers) {
                Ok(claims) => return Some(claims),
                Err(failure) => {
                    METRICS.retries.with_label_values(&[failure.component.as_str()]).inc();
                    self.health.blame(&failure);
                    thread::sleep(RETRY);
                }
            }
        }
        None
    }

    fn try_claim(&self, consumer: &BaseConsumer<Context>, numbers: &[i32]) -> Result<Vec<PartitionClaim>, Transient> {
        let KafkaSourceConfig { pipeline, topic, owner, .. } = &self.config;
        if !self.runtime.block_on(self.store.is_seeded(pipeline, topic))? {
            let seeds = self.seeds(consumer).map_err(|error| {
                Transient::new(Component::Broker, format!("cannot read the watermarks of topic {topic}: {error}"))
            })?;
            self.runtime.block_on(self.store.seed(pipeline, topic, &seeds))?;
        }
        let mut claims = Vec::with_capacity(numbers.len());
        for &number in numbers {
            let partition = Partition { topic: topic.clone(), number };
            claims.push(self.runtime.block_on(self.store.claim(pipeline, &partition, owner))?);
        }
        self.health.up(Component::Database);
        Ok(claims)
    }

    fn seeds(&self, consumer: &BaseConsumer<Context>) -> Result<Vec<(i32, i64)>, KafkaError> {
        let topic = &*self.config.topic;
        let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
        let partitions = metadata.topics().iter().filter(|t| t.name() == topic).flat_map(|t| t.partitions());
        let mut seeds = Vec::new();
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?;
            seeds.push((partition.id(), if self.config.start == StartAt::Earliest { low } else { high }));
        }
        Ok(seeds)
    }

    fn assign(&self, consumer: &BaseConsumer<Context>, numbers: &[i32]) -> Result<(), KafkaError> {
        let Some(claims) = self.claim(consumer, numbers) else {
            return consumer.incremental_assign(&TopicPartitionList::new());
        };
        let mut list = TopicPartitionList::new();
        for claim in &claims {
            list.add_partition_offset(&claim.partition.topic, claim.partition.number, Offset::Offset(claim.next_offset))?;
        }
        consumer.incremental_assign(&list)?;
        if self.paused.load(Ordering::Relaxed) {
            consumer.pause(&list)?;
        }
        self.read_refusal.clear();
        for claim in claims {
            let (records, receiver) = unbounded_channel();
            tracing::info!(pipeline = %self.config.pipeline, partition = %claim.partition, epoch = claim.epoch,
                           offset = claim.next_offset, "partition assigned");
            self.assigned().insert(claim.partition.clone(), AssignedPartition::new(records, &claim));
            let _ = self.events.send(SourceEvent::Assigned(claim, receiver));
        }
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Context>, list: &TopicPartitionList, numbers: &[i32]) -> Result<(), KafkaError> {
        let partitions: Vec<Partition> =
            numbers.iter().map(|&number| Partition { topic: self.config.topic.clone(), number }).collect();
        self.assigned().retain(|partition, _| !partitions.contains(partition));
        for partition in &partitions {
            let labels = [&*self.config.pipeline, &partition.topic, &partition.number.to_string()];
            // The next owner of the partition reports these.
            let _ = METRICS.lag.remove_label_values(&labels);
            let _ = METRICS.last_progress.remove_label_values(&labels);
        }
        let lost = consumer.assignment_lost();
        tracing::info!(pipeline = %self.config.pipeline, ?numbers, lost, "partitions revoked");
        let drain = if lost || self.closing.load(Ordering::Relaxed) { Duration::ZERO } else { DRAIN };
        let (done, finished) = blocking::sync_channel(0);
        if self.events.send(SourceEvent::Revoked { partitions, drain, done }).is_ok() && !drain.is_zero() {
            // Ends when `done` is dropped, or after the time limit.
            let _ = finished.recv_timeout(drain + RELEASE);
        }
        consumer.incremental_unassign(list)
    }
}
