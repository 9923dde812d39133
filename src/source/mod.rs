//! Where records come from.
//!
//! A source gives out partitions and takes them back; between the two it delivers their records in order. What is read and not
//! yet committed is counted in bytes ([`InFlight`]), and a source stops reading at the cap.

mod archive;
mod kafka;
mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::checkpoint::Claim;
use crate::record::{Partition, Record};

pub use archive::{Archive, ArchiveError, ArchiveFile, Needs, RowRange, Shape, Window, check_key};
pub use kafka::{KafkaSource, KafkaSourceConfig, StartAt, ends};
pub use registry::Registry;

/// What a source tells the runner.
#[derive(Debug)]
pub enum SourceEvent {
    /// The partition is ours, and its records follow from the claimed position. Unbounded, because the cap counts bytes.
    Assigned(Claim, UnboundedReceiver<Delivery>),
    /// The partitions are to be given up: finish what is being worked on within `drain`, then drop `done`.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
        /// How long the source can wait; zero where someone else owns the partitions already.
        drain: Duration,
        /// Dropped once nothing is under way any more.
        done: std::sync::mpsc::SyncSender<()>,
    },
    /// The position is not in the topic any more: an operator must say where to go on.
    Lost(String),
    /// Reading cannot go on in this process.
    Failed(String),
}

/// A record and its share of the bytes in flight.
#[derive(Debug)]
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// Given back when dropped.
    pub hold: Hold,
}

/// Bytes read and not yet committed.
#[derive(Debug, Clone)]
pub struct InFlight {
    bytes: Arc<AtomicUsize>,
    gauge: IntGauge,
    cap: usize,
}

/// A share of the bytes in flight; dropping it gives it back.
#[derive(Debug)]
pub struct Hold {
    in_flight: InFlight,
    weight: usize,
}

impl InFlight {
    /// Nothing in flight yet, and at most about `cap` bytes: one record more than fits is always taken.
    pub fn new(cap: usize, gauge: IntGauge) -> Self {
        Self { bytes: Arc::default(), gauge, cap }
    }

    /// Counts `weight` bytes until the hold is dropped.
    pub fn hold(&self, weight: usize) -> Hold {
        self.change(|bytes| bytes.fetch_add(weight, Ordering::Relaxed));
        Hold { in_flight: self.clone(), weight }
    }

    /// Whether reading should stop.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.cap
    }

    /// Whether stopped reading should go on: at half the cap, so that it does not flutter.
    pub fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) <= self.cap / 2
    }

    fn change(&self, change: impl FnOnce(&AtomicUsize) -> usize) {
        change(&self.bytes);
        self.gauge.set(self.bytes.load(Ordering::Relaxed) as i64);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.in_flight.change(|bytes| bytes.fetch_sub(self.weight, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_stops_at_the_cap_and_resumes_at_half() {
        let in_flight = InFlight::new(100, IntGauge::new("test", "test").unwrap());
        let (first, second) = (in_flight.hold(60), in_flight.hold(60));
        assert!(in_flight.is_full() && !in_flight.has_room());
        drop(first);
        assert!(!in_flight.is_full() && !in_flight.has_room(), "60 of 100 bytes are neither full nor half empty");
        drop(second);
        assert!(in_flight.has_room());
    }
}
