//! Records become micro-batches: one partition's next records, until the budget is full or the first has waited long enough.
//!
//! A batch never mixes partitions. Each partition commits, is fenced and is revoked alone, and where devices want company for
//! short texts, the model host mixes the requests of all batches under way.

use std::time::Instant;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::definition::Budget;
use super::isolation;
use crate::checkpoint::{CheckpointDelta, Claim};
use crate::record::Record;
use crate::source::{Delivery, Hold, Load};
use crate::store::Doubt;

/// Records that are worked on and committed together.
#[derive(Debug)]
pub struct MicroBatch {
    /// The offsets covered, gaps included.
    pub delta: CheckpointDelta,
    /// The records in order; at least one.
    pub records: Vec<Record>,
    /// When the first record arrived.
    pub opened: Instant,
    /// How carefully it is to be treated.
    pub care: Care,
    /// How often its records were tried by now, as far as that is known.
    pub attempts: i32,
    /// The right to be under way alone, where the batch has it.
    pub turn: Option<OwnedSemaphorePermit>,
    /// Given back with the batch.
    _holds: Vec<Hold>,
}

/// How carefully a batch is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// Several batches of a partition are under way side by side.
    None,
    /// It is small, and the only one of its partition.
    Narrow,
    /// It has one record, and is the only such batch of the process.
    Alone,
}

/// Cuts one partition's records into batches.
#[derive(Debug)]
pub struct Batcher {
    claim: Claim,
    records: UnboundedReceiver<Delivery>,
    budget: Budget,
    careful: Option<(Doubt, Care)>,
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
    /// What `batches` full batches hold.
    pub fn of(&self, batches: usize) -> Load {
        let bytes = self.max_tokens.saturating_mul(BYTES_PER_TOKEN);
        Load { records: self.max_records.saturating_mul(batches), bytes: bytes.saturating_mul(batches) }
    }

    /// Whether that many records with that many bytes of payload make a full batch.
    pub fn is_spent(&self, records: usize, bytes: usize) -> bool {
        records >= self.max_records || bytes / BYTES_PER_TOKEN >= self.max_tokens
    }
}

impl Batcher {
    /// Starts where the claim says, with care for what is in doubt.
    pub fn new(claim: Claim, records: UnboundedReceiver<Delivery>, budget: Budget, doubt: Option<Doubt>) -> Self {
        let careful = doubt.map(|doubt| (doubt, isolation::care(doubt, claim.next_offset)));
        Self { claim, records, budget, careful, open: None }
    }

    /// How carefully the next batch is to be treated.
    pub fn care(&self) -> Care {
        match self.careful {
            Some((doubt, care)) if self.claim.next_offset < doubt.to => care,
            _ => Care::None,
        }
    }

    fn is_spent(&self, open: &Open) -> bool {
        let most = match self.care() {
            Care::None => usize::MAX,
            Care::Narrow => isolation::FEW,
            Care::Alone => 1,
        };
        open.records.len() >= most || self.budget.is_spent(open.records.len(), open.bytes)
    }

    /// The next batch; `None` once the source has ended and everything is given out.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<MicroBatch> {
        loop {
            let delivery = match &self.open {
                None => self.records.recv().await,
                Some(open) if self.is_spent(open) => return self.cut(),
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
        let care = self.care();
        let from = std::mem::replace(&mut self.claim.next_offset, to);
        let delta = CheckpointDelta { partition: self.claim.partition.clone(), epoch: self.claim.epoch, from, to };
        Some(MicroBatch { delta, records, opened, care, attempts: 1, turn: None, _holds: holds })
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
        Delivery { hold: in_flight.hold(&record), record }
    }

    async fn cut(offsets: &[i64], bytes: usize, budget: Budget) -> Vec<(i64, i64, usize)> {
        let cuts = cut_with_care(offsets, bytes, budget, None).await;
        cuts.into_iter().map(|(from, to, records, _)| (from, to, records)).collect()
    }

    async fn cut_with_care(offsets: &[i64], bytes: usize, budget: Budget, doubt: Option<Doubt>) -> Vec<(i64, i64, usize, Care)> {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = Claim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 5 };
        let (sender, receiver) = unbounded_channel();
        for &offset in offsets {
            sender.send(delivery(&in_flight, offset, bytes)).unwrap();
        }
        drop(sender);
        let mut batcher = Batcher::new(claim, receiver, budget, doubt);
        let mut cuts = Vec::new();
        while let Some(batch) = batcher.next().await {
            cuts.push((batch.delta.from, batch.delta.to, batch.records.len(), batch.care));
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
    async fn records_in_doubt_are_cut_one_by_one_and_those_behind_them_together() {
        let doubt = Some(Doubt { to: 8, narrowed: false });
        let cuts = cut_with_care(&[5, 7, 8, 9], 1, budget(1_000, 2), doubt).await;
        assert_eq!(cuts, [(5, 6, 1, Care::Alone), (6, 8, 1, Care::Alone), (8, 10, 2, Care::None)]);
    }

    #[tokio::test]
    async fn many_records_in_doubt_are_cut_into_small_batches() {
        let few = isolation::FEW as i64;
        let doubt = Some(Doubt { to: 5 + few + 8, narrowed: false });
        let cuts = cut_with_care(&(5..5 + 3 * few).collect::<Vec<_>>(), 1, budget(1_000, 1_000), doubt).await;
        let expected = [(5, 5 + few, Care::Narrow), (5 + few, 5 + 2 * few, Care::Narrow), (5 + 2 * few, 5 + 3 * few, Care::None)];
        assert_eq!(cuts.iter().map(|cut| (cut.0, cut.1, cut.3)).collect::<Vec<_>>(), expected);
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
        let mut batcher = Batcher::new(claim, receiver, Budget::default(), None);
        sender.send(delivery(&in_flight, 0, 1)).unwrap();
        let batch = tokio::time::timeout(Duration::from_secs(5), batcher.next()).await.expect("the batch is cut while open");
        assert_eq!(batch.expect("one record is there").records.len(), 1);
    }
}
