//! Cuts one partition's records into micro-batches: a batch ends when its budget is full or its first record has waited long
//! enough.
//!
//! A batch never mixes partitions, because each partition is committed, fenced and revoked by itself. Short texts still fill the
//! device: the model host mixes the requests of all batches under way.
//!
//! Evaluation may start before a batch is complete. While it still collects records and nothing else is evaluated, the batcher
//! gives out what has arrived as an early part: at half of `max_wait`, then at half of the rest, and so on. That leaves little to
//! do when the wait ends, with few parts, the largest first. All parts of a batch are committed together.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::batch::MicroBatch;
use super::batch_budget::Budget;
use super::isolation::{self, IsolationMode};
use crate::checkpoint::{CheckpointDelta, PartitionClaim};
use crate::record::Record;
use crate::source::{Delivery, InFlightGuard};
use crate::store::SuspectRange;

/// Cuts one partition's records into batches.
#[derive(Debug)]
pub struct Batcher {
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    budget: Budget,
    suspect: Option<(SuspectRange, IsolationMode)>,
    open: Option<OpenBatch>,
}

/// The batch that collects records.
#[derive(Debug)]
struct OpenBatch {
    opened: Instant,
    /// When its records may be given out as an early part; absent once too little of the wait is left.
    early_at: Option<Instant>,
    records: Vec<Record>,
    guards: Vec<InFlightGuard>,
    /// Records and bytes of payload so far, including those of early parts.
    count: usize,
    bytes: usize,
}

/// An early part is given out only while at least this fraction of `max_wait` is left, which makes four parts at most.
const SMALLEST_FRACTION: u32 = 16;

impl Batcher {
    /// Starts at the claimed position. Offsets in `suspect` are cut as isolation requires.
    pub fn new(
        claim: PartitionClaim,
        records: UnboundedReceiver<Delivery>,
        budget: Budget,
        suspect: Option<SuspectRange>,
    ) -> Self {
        let suspect = suspect.map(|range| (range, isolation::mode(range, claim.next_offset)));
        Self { claim, records, budget, suspect, open: None }
    }

    /// The isolation mode of the next batch.
    pub fn mode(&self) -> IsolationMode {
        match self.suspect {
            Some((range, mode)) if self.claim.next_offset < range.to => mode,
            _ => IsolationMode::Off,
        }
    }

    fn is_full(&self, open: &OpenBatch) -> bool {
        let most = match self.mode() {
            IsolationMode::Off => usize::MAX,
            IsolationMode::SmallBatches => isolation::FEW,
            IsolationMode::OneRecord => 1,
        };
        open.count >= most || self.budget.is_spent(open.count, open.bytes)
    }

    /// When the open batch is to be given out, and whether that is as an early part.
    fn due(&self, open: &OpenBatch, may_start_early: bool) -> (Instant, bool) {
        // The newest record stays behind, so that the last part of the batch is never empty.
        let can_start = may_start_early && open.records.len() > 1 && self.mode() == IsolationMode::Off;
        match open.early_at.filter(|_| can_start) {
            Some(at) => (at, true),
            None => (open.opened + self.budget.max_wait, false),
        }
    }

    /// The next batch, or an early part of it where `may_start_early`; `None` once the source has ended and everything is given
    /// out.
    ///
    /// Cancel safe: no record is lost if the future is dropped.
    pub async fn next(&mut self, may_start_early: bool) -> Option<MicroBatch> {
        loop {
            let delivery = match &self.open {
                None => self.records.recv().await,
                Some(open) if self.is_full(open) => return self.close(),
                Some(open) => {
                    let (due, is_early) = self.due(open, may_start_early);
                    match timeout_at(due.into(), self.records.recv()).await {
                        Ok(delivery) => delivery,
                        Err(_) if is_early => return self.early_part(),
                        Err(_) => return self.close(),
                    }
                }
            };
            let Some(Delivery { record, guard }) = delivery else { return self.close() };
            let open = self.open.get_or_insert_with(|| OpenBatch::new(self.budget.max_wait));
            open.count += 1;
            open.bytes += record.payload.as_ref().map_or(0, |payload| payload.len());
            open.records.push(record);
            open.guards.push(guard);
        }
    }

    /// Everything that has arrived except the newest record.
    fn early_part(&mut self) -> Option<MicroBatch> {
        let open = self.open.as_mut()?;
        open.early_at = half_way(Instant::now(), open.opened, self.budget.max_wait);
        let newest = open.records.len() - 1;
        let (records, guards) = (open.records.drain(..newest).collect(), open.guards.drain(..newest).collect());
        let opened = open.opened;
        self.batch(opened, records, guards, true)
    }

    /// Ends the open batch.
    fn close(&mut self) -> Option<MicroBatch> {
        let OpenBatch { opened, records, guards, .. } = self.open.take()?;
        self.batch(opened, records, guards, false)
    }

    fn batch(
        &mut self,
        opened: Instant,
        records: Vec<Record>,
        guards: Vec<InFlightGuard>,
        is_partial: bool,
    ) -> Option<MicroBatch> {
        let to = records.last()?.place.offset + 1;
        let isolation = self.mode();
        let from = std::mem::replace(&mut self.claim.next_offset, to);
        let delta = CheckpointDelta { partition: self.claim.partition.clone(), epoch: self.claim.epoch, from, to };
        Some(MicroBatch { delta, records, opened, is_partial, isolation, attempts: 1, permit: None, guards })
    }
}

impl OpenBatch {
    fn new(max_wait: Duration) -> Self {
        let opened = Instant::now();
        let early_at = half_way(opened, opened, max_wait);
        Self { opened, early_at, records: Vec::new(), guards: Vec::new(), count: 0, bytes: 0 }
    }
}

/// The middle of the rest of the wait, unless too little is left.
fn half_way(now: Instant, opened: Instant, max_wait: Duration) -> Option<Instant> {
    let left = (opened + max_wait).saturating_duration_since(now) / 2;
    (left >= max_wait / SMALLEST_FRACTION).then(|| now + left)
}

#[cfg(test)]
mod tests {
    use prometheus::IntGauge;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::record::{Partition, RecordLocation};
    use crate::source::InFlight;

    fn delivery(in_flight: &InFlight, offset: i64, bytes: usize) -> Delivery {
        let partition = Partition { topic: "t".into(), number: 0 };
        let payload = Some(vec![b'x'; bytes].into());
        let place = RecordLocation { partition, offset };
        let record = Record { place, timestamp_ms: None, key: None, payload, headers: Vec::new() };
        Delivery { guard: in_flight.track(&record), record }
    }

    async fn cut(offsets: &[i64], bytes: usize, budget: Budget) -> Vec<(i64, i64, usize)> {
        let cuts = cut_suspect(offsets, bytes, budget, None).await;
        cuts.into_iter().map(|(from, to, records, _)| (from, to, records)).collect()
    }

    async fn cut_suspect(
        offsets: &[i64],
        bytes: usize,
        budget: Budget,
        suspect: Option<SuspectRange>,
    ) -> Vec<(i64, i64, usize, IsolationMode)> {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 5 };
        let (sender, receiver) = unbounded_channel();
        for &offset in offsets {
            sender.send(delivery(&in_flight, offset, bytes)).unwrap();
        }
        drop(sender);
        let mut batcher = Batcher::new(claim, receiver, budget, suspect);
        let mut cuts = Vec::new();
        while let Some(batch) = batcher.next(false).await {
            cuts.push((batch.delta.from, batch.delta.to, batch.records.len(), batch.isolation));
        }
        assert!(in_flight.can_resume() && !in_flight.is_full(), "dropping the batches releases their bytes");
        cuts
    }

    fn budget(max_tokens: usize, max_records: usize) -> Budget {
        Budget { max_wait: Duration::from_secs(60), max_tokens, max_records }
    }

    #[tokio::test]
    async fn batches_tile_the_offsets_across_gaps() {
        let cuts = cut(&[5, 7, 9, 20], 1, budget(1_000, 2)).await;
        assert_eq!(cuts, [(5, 8, 2), (8, 21, 2)], "each batch starts where the one before ended, whatever offsets are missing");
    }

    #[tokio::test]
    async fn records_in_doubt_are_cut_one_by_one_and_those_behind_them_together() {
        let suspect = Some(SuspectRange { to: 8, narrowed: false });
        let cuts = cut_suspect(&[5, 7, 8, 9], 1, budget(1_000, 2), suspect).await;
        assert_eq!(
            cuts,
            [(5, 6, 1, IsolationMode::OneRecord), (6, 8, 1, IsolationMode::OneRecord), (8, 10, 2, IsolationMode::Off)]
        );
    }

    #[tokio::test]
    async fn many_records_in_doubt_are_cut_into_small_batches() {
        let few = isolation::FEW as i64;
        let suspect = Some(SuspectRange { to: 5 + few + 8, narrowed: false });
        let cuts = cut_suspect(&(5..5 + 3 * few).collect::<Vec<_>>(), 1, budget(1_000, 1_000), suspect).await;
        let expected = [
            (5, 5 + few, IsolationMode::SmallBatches),
            (5 + few, 5 + 2 * few, IsolationMode::SmallBatches),
            (5 + 2 * few, 5 + 3 * few, IsolationMode::Off),
        ];
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
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 0 };
        let (sender, receiver) = unbounded_channel();
        let mut batcher = Batcher::new(claim, receiver, Budget::default(), None);
        sender.send(delivery(&in_flight, 0, 1)).unwrap();
        let batch = tokio::time::timeout(Duration::from_secs(5), batcher.next(false))
            .await
            .expect("the batch is closed while the source is open");
        assert_eq!(batch.expect("one record is there").records.len(), 1);
    }

    #[tokio::test]
    async fn whoever_is_idle_begins_with_what_is_there_and_the_rest_belongs_to_it() {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 0 };
        let (sender, receiver) = unbounded_channel();
        let budget = Budget { max_wait: Duration::from_millis(500), ..budget(1_000, 5) };
        let mut batcher = Batcher::new(claim, receiver, budget, None);
        let send = |offset| sender.send(delivery(&in_flight, offset, 1)).unwrap();
        (0..3).for_each(send);
        let mut early = batcher.next(true).await.expect("an early part comes");
        assert_eq!((early.delta.from, early.delta.to, early.is_partial), (0, 2, true), "the newest record stays behind");
        (3..6).for_each(send);
        let rest = batcher.next(true).await.expect("the rest comes");
        assert_eq!((rest.delta.from, rest.delta.to, rest.is_partial), (2, 5, false), "the records of the early part count");
        assert_eq!(rest.opened, early.opened);
        early.join(rest);
        let offsets: Vec<i64> = early.records.iter().map(|record| record.place.offset).collect();
        assert_eq!((early.delta.from, early.delta.to, early.is_partial, offsets), (0, 5, false, (0..5).collect()));
    }

    #[tokio::test]
    async fn what_is_in_doubt_is_not_begun_with() {
        let suspect = Some(SuspectRange { to: 1_000, narrowed: false });
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 0 };
        let (sender, receiver) = unbounded_channel();
        (0..3).for_each(|offset| sender.send(delivery(&in_flight, offset, 1)).unwrap());
        let mut batcher =
            Batcher::new(claim, receiver, Budget { max_wait: Duration::from_millis(50), ..budget(1_000, 5) }, suspect);
        let batch = batcher.next(true).await.expect("a batch comes");
        assert_eq!((batch.delta.from, batch.delta.to, batch.is_partial), (0, 3, false));
    }

    #[test]
    fn pieces_are_cut_at_half_of_what_is_left_of_the_wait_until_little_is() {
        let (opened, max_wait) = (Instant::now(), Duration::from_millis(800));
        let next = |now: &Instant| half_way(*now, opened, max_wait);
        let parts = std::iter::successors(next(&opened), next);
        let after: Vec<u128> = parts.map(|at| (at - opened).as_millis()).collect();
        assert_eq!(after, [400, 600, 700, 750]);
        assert_eq!(half_way(opened + Duration::from_secs(9), opened, max_wait), None, "the wait is over");
    }
}
