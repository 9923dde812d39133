//! Looks up the low and high watermarks of partitions, and explains positions that are no longer in a topic.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;

use super::KafkaSourceConfig;
use super::rebalance::Context;
use crate::broker::BrokerSettings;
use crate::record::Partition;

/// How long one metadata request to the broker may take.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// The offsets of the oldest record of the partition (low watermark) and of the next record to be written (high watermark). Blocks
/// the thread.
///
/// # Errors
/// If the broker cannot be reached or has no such partition.
pub fn watermarks(brokers: &BrokerSettings, partition: &Partition) -> Result<(i64, i64), KafkaError> {
    let mut client = ClientConfig::new();
    brokers.apply(&mut client);
    let consumer: BaseConsumer = client.set("group.id", "tidemill").create()?;
    consumer.fetch_watermarks(&partition.topic, partition.number, METADATA_TIMEOUT)
}

/// Explains which positions were lost and what to do. `positions` are the partition numbers and their next offsets.
pub(super) fn explain_lost_positions(
    config: &KafkaSourceConfig,
    consumer: &BaseConsumer<Context>,
    positions: &[(i32, i64)],
) -> String {
    let KafkaSourceConfig { pipeline, topic, .. } = config;
    let mut sentences = Vec::new();
    for &(number, position) in positions {
        match consumer.fetch_watermarks(topic, number, METADATA_TIMEOUT) {
            Ok((low, _)) if position < low => sentences.push(format!(
                "records {position}..{low} of {topic}[{number}] were deleted before they were read; to continue after them: \
                 tidemill positions skip --pipeline {pipeline} --topic {topic} --partition {number} --to {low} --reason \"…\""
            )),
            Ok((low, high)) if position > high => sentences.push(format!(
                "the position in {topic}[{number}] is {position}, but the topic has only {low}..{high}: it was created again or \
                 truncated; positions never go back, so give the new topic another name"
            )),
            Ok(_) => {}
            Err(error) => sentences.push(format!("the watermarks of {topic}[{number}] cannot be read: {error}")),
        }
    }
    if sentences.is_empty() {
        sentences.push(format!("a position of pipeline {pipeline} is not in topic {topic}: see `tidemill positions list`"));
    }
    sentences.join("; ")
}
