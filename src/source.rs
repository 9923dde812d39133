//! Sources of records: Kafka topics and Parquet archives.
//!
//! A source assigns partitions and revokes them; in between it delivers their records in order. Records that are read and not yet
//! committed are counted ([`InFlight`]), and a source pauses when the count reaches a limit.

mod archive;
mod kafka;
mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::checkpoint::PartitionClaim;
use crate::record::{Partition, Record};

pub use archive::{
    Archive, ArchiveError, ArchiveFile, FileLayout, RequestedColumns, RowRange, TimeWindow, WalkError, check_key, find_files,
};
pub use kafka::{KafkaSource, KafkaSourceConfig, StartAt, watermarks};
pub use registry::Registry;

/// Events that a source sends to the runner.
#[derive(Debug)]
pub enum SourceEvent {
    /// The partition is assigned; its records follow, starting at the claimed position. The channel is unbounded because the number
    /// of bytes in flight is limited.
    Assigned(PartitionClaim, UnboundedReceiver<Delivery>),
    /// The partitions are revoked. Finish the work in progress within `drain`, then drop `done`.
    Revoked {
        partitions: Vec<Partition>,
        /// How long the source can wait; zero if another consumer already owns the partitions.
        drain: Duration,
        /// Drop this when no work is in progress any more.
        done: std::sync::mpsc::SyncSender<()>,
    },
    /// The position is no longer in the topic. An operator must decide where to continue.
    PositionLost(String),
    /// This process cannot continue reading.
    Failed(String),
}

/// A record with its guard.
#[derive(Debug)]
pub struct Delivery {
    pub record: Record,
    /// Releases the record's share of the limits when dropped.
    pub guard: InFlightGuard,
}

/// Counts the records that are read and not yet committed.
#[derive(Debug, Clone)]
pub struct InFlight {
    counters: Arc<InFlightCounters>,
    gauge: IntGauge,
    cap: usize,
    limit: InFlightLimit,
}

/// A limit on records and payload bytes in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlightLimit {
    pub records: usize,
    pub bytes: usize,
}

#[derive(Debug, Default)]
struct InFlightCounters {
    weight: AtomicUsize,
    records: AtomicUsize,
    bytes: AtomicUsize,
}

/// The share of one record in the counts. Dropping it subtracts the share.
#[derive(Debug)]
pub struct InFlightGuard {
    in_flight: InFlight,
    weight: usize,
    bytes: usize,
}

impl InFlight {
    /// An empty count with a limit of about `cap` bytes of memory. The record that reaches the limit is still accepted.
    pub fn new(cap: usize, gauge: IntGauge) -> Self {
        Self { counters: Arc::default(), gauge, cap, limit: InFlightLimit { records: usize::MAX, bytes: usize::MAX } }
    }

    /// Adds a limit on records and payload bytes, which applies regardless of memory.
    pub fn with_limit(self, limit: InFlightLimit) -> Self {
        Self { limit, ..self }
    }

    /// Counts the record until the guard is dropped.
    pub fn track(&self, record: &Record) -> InFlightGuard {
        let (weight, bytes) = (record.weight(), record.payload.as_ref().map_or(0, Bytes::len));
        self.counters.weight.fetch_add(weight, Ordering::Relaxed);
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.update_gauge();
        InFlightGuard { in_flight: self.clone(), weight, bytes }
    }

    /// Whether reading should stop.
    pub fn is_full(&self) -> bool {
        let InFlightCounters { weight, records, bytes } = &*self.counters;
        let reaches = |count: &AtomicUsize, cap: usize| count.load(Ordering::Relaxed) >= cap;
        reaches(weight, self.cap) || reaches(records, self.limit.records) || reaches(bytes, self.limit.bytes)
    }

    /// Whether paused reading should resume. This is at half of the limits, so that reading does not pause and resume all the time.
    pub fn can_resume(&self) -> bool {
        let InFlightCounters { weight, records, bytes } = &*self.counters;
        let fits = |count: &AtomicUsize, cap: usize| count.load(Ordering::Relaxed) <= cap / 2;
        fits(weight, self.cap) && fits(records, self.limit.records) && fits(bytes, self.limit.bytes)
    }

    fn update_gauge(&self) {
        self.gauge.set(self.counters.weight.load(Ordering::Relaxed) as i64);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        let counters = &self.in_flight.counters;
        counters.weight.fetch_sub(self.weight, Ordering::Relaxed);
        counters.records.fetch_sub(1, Ordering::Relaxed);
        counters.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.in_flight.update_gauge();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RecordLocation;

    fn record(bytes: usize) -> Record {
        let place = RecordLocation { partition: Partition { topic: "t".into(), number: 0 }, offset: 0 };
        Record { place, timestamp_ms: None, key: None, payload: Some(vec![b'x'; bytes].into()), headers: Vec::new() }
    }

    #[test]
    fn reading_stops_at_the_cap_and_resumes_at_half() {
        let record = record(60);
        let in_flight = InFlight::new(record.weight() * 2 - 20, IntGauge::new("test", "test").unwrap());
        let (first, second) = (in_flight.track(&record), in_flight.track(&record));
        assert!(in_flight.is_full() && !in_flight.can_resume());
        drop(first);
        assert!(!in_flight.is_full() && !in_flight.can_resume(), "a little more than half is neither full nor half empty");
        drop(second);
        assert!(in_flight.can_resume());
    }

    #[test]
    fn records_and_their_payloads_are_bounded_apart_from_memory() {
        let in_flight = |limit| InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap()).with_limit(limit);
        let few = in_flight(InFlightLimit { records: 2, bytes: 1_000 });
        let guards = [few.track(&record(1)), few.track(&record(1))];
        assert!(few.is_full() && !few.can_resume(), "two of two records");
        drop(guards);
        assert!(!few.is_full() && few.can_resume());
        let _long = few.track(&record(1_000));
        assert!(few.is_full(), "1,000 of 1,000 bytes");
    }
}
