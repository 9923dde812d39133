//! Records become micro-batches: one partition's next records, until the budget is full or the first has waited long enough.
//!
//! A batch never mixes partitions. Each partition commits, is fenced and is revoked alone, and where devices want company for
//! short texts, the model host mixes the requests of all batches under way.

use std::time::Instant;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::definition::Budget;
use crate::checkpoint::{CheckpointDelta, Claim};
use crate::record::Record;
use crate::source::{Delivery, Hold};

/// Records that are worked on and committed together.
#[derive(Debug)]
pub struct MicroBatch {
    /// The offsets covered, gaps included.
    pub delta: CheckpointDelta,
    /// The records in order; at least one.
    pub records: Vec<Record>,
    /// When the first record arrived.
    pub opened: Instant,
    /// Given back with the batch.
    _holds: Vec<Hold>,
}

/// Cuts one partition's records into batches.
#[derive(Debug)]
pub struct Batcher {
    claim: Claim,
    records: UnboundedReceiver<Delivery>,
    budget: Budget,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    opened: Instant,
    records: Vec<Record>,
    holds: Vec<Hold>,
    bytes: usize,
}

/// Bytes of payload that are taken for a token before anything is tokenized. English has four to five to a token; scripts that
/// have more bytes a character have more tokens too.
const BYTES_PER_TOKEN: usize = 4;

impl Budget {
    /// Whether that many records with that many bytes of payload make a full batch.
    pub fn is_spent(&self, records: usize, bytes: usize) -> bool {
        records >= self.max_records || bytes / BYTES_PER_TOKEN >= self.max_tokens
    }
}

impl Batcher {
    /// Starts where the claim says.
    pub fn new(claim: Claim, records: UnboundedReceiver<Delivery>, budget: Budget) -> Self {
        Self { claim, records, budget, open: None }
    }

    /// The next batch; `None` once the source has ended and everything is given out.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<MicroBatch> {
        loop {
            let delivery = match &self.open {
                None => self.records.recv().await,
                Some(open) if self.budget.is_spent(open.records.len(), open.bytes) => return self.cut(),
                Some(open) => match timeout_at((open.opened + self.budget.max_wait).into(), self.records.recv()).await {
                    Ok(delivery) => delivery,
                    Err(_) => return self.cut(),
                },
            };
            let Some(Delivery { record, hold }) = delivery else { return self.cut() };
            let open = self.open.get_or_insert_with(|| Open {
                opened: Instant::now(),
                records: Vec::new(),
                holds: Vec::new(),
                bytes: 0,
            });
            open.bytes += record.payload.as_ref().map_or(0, |payload| payload.len());
            open.records.push(record);
            open.holds.push(hold);
        }
    }

    fn cut(&mut self) -> Option<MicroBatch> {
        let Open { opened, records, holds, .. } = self.open.take()?;
        let to = records.last()?.place.offset + 1;
        let from = std::mem::replace(&mut self.claim.next_offset, to);
        let delta = CheckpointDelta { partition: self.claim.partition.clone(), epoch: self.claim.epoch, from, to };
        Some(MicroBatch { delta, records, opened, _holds: holds })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::IntGauge;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::record::{Partition, Place};
    use crate::source::InFlight;

    fn delivery(in_flight: &InFlight, offset: i64, bytes: usize) -> Delivery {
        let partition = Partition { topic: "t".into(), number: 0 };
        let payload = Some(vec![b'x'; bytes].into());
        let place = Place { partition, offset };
        let record = Record { place, timestamp_ms: None, key: None, payload, headers: Vec::new() };
        Delivery { hold: in_flight.hold(record.weight()), record }
    }

    async fn cut(offsets: &[i64], bytes: usize, budget: Budget) -> Vec<(i64, i64, usize)> {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = Claim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 5 };
        let (sender, receiver) = unbounded_channel();
        for &offset in offsets {
            sender.send(delivery(&in_flight, offset, bytes)).unwrap();
        }
        drop(sender);
        let mut batcher = Batcher::new(claim, receiver, budget);
        let mut cuts = Vec::new();
        while let Some(batch) = batcher.next().await {
            cuts.push((batch.delta.from, batch.delta.to, batch.records.len()));
        }
        assert!(in_flight.has_room() && !in_flight.is_full(), "dropping the batches gives their bytes back");
        cuts
    }

    fn budget(max_tokens: usize, max_records: usize) -> Budget {
        Budget { max_wait: Duration::from_secs(60), max_tokens, max_records }
    }

    #[tokio::test]
    async fn batches_tile_the_offsets_across_gaps() {
        let cuts = cut(&[5, 7, 9, 20], 1, budget(1_000, 2)).await;
        assert_eq!(cuts, [(5, 8, 2), (8, 21, 2)], "from is the end before, whatever offsets are missing");
    }

    #[tokio::test]
    async fn a_batch_is_full_at_its_tokens() {
        let cuts = cut(&[5, 6, 7], 400, budget(150, 100)).await;
        assert_eq!(cuts, [(5, 7, 2), (7, 8, 1)]);
    }

    #[tokio::test]
    async fn the_first_record_waits_no_longer_than_max_wait() {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = Claim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 0 };
        let (sender, receiver) = unbounded_channel();
        let mut batcher = Batcher::new(claim, receiver, Budget::default());
        sender.send(delivery(&in_flight, 0, 1)).unwrap();
        let batch = tokio::time::timeout(Duration::from_secs(5), batcher.next()).await.expect("the batch is cut while open");
        assert_eq!(batch.expect("one record is there").records.len(), 1);
    }
}
