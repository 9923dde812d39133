//! Records become micro-batches: one partition's next records, until the budget is full or the first has waited long enough.
//!
//! A batch never mixes partitions. Each partition commits, is fenced and is revoked alone, and where devices want company for
//! short texts, the model host mixes the requests of all batches under way.
//!
//! While a batch waits, whoever has nothing to do may begin with what is there: at half of the wait, then at half of what is left of it,
//! so that little is to be done when it ends, and few pieces are made, the largest first. What is begun is committed with the rest.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout_at;

use super::definition::Budget;
use super::isolation;
use crate::checkpoint::{CheckpointDelta, PartitionClaim};
use crate::record::Record;
use crate::source::{Delivery, InFlightGuard, InFlightLimit};
use crate::store::SuspectRange;

/// Records that are worked on together, and committed together with those of the same batch that were given out before.
#[derive(Debug)]
pub struct MicroBatch {
    /// The offsets covered, gaps included.
    pub delta: CheckpointDelta,
    /// The records in order; at least one.
    pub records: Vec<Record>,
    /// When the first record arrived, of those given out before as well.
    pub opened: Instant,
    /// Whether it is the beginning of one that still takes records in, and more of it is to come.
    pub is_open: bool,
    /// How carefully it is to be treated.
    pub care: IsolationMode,
    /// How often its records were tried by now, as far as that is known.
    pub attempts: i32,
    /// The right to be under way alone, where the batch has it.
    pub turn: Option<OwnedSemaphorePermit>,
    /// Given back with the batch.
    guards: Vec<InFlightGuard>,
}

/// How carefully a batch is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationMode {
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
    claim: PartitionClaim,
    records: UnboundedReceiver<Delivery>,
    budget: Budget,
    careful: Option<(SuspectRange, IsolationMode)>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    opened: Instant,
    /// When what is there may be begun with, if it is worth it.
    begins: Option<Instant>,
    records: Vec<Record>,
    guards: Vec<InFlightGuard>,
    /// Records and bytes of payload so far, those that were begun with included.
    count: usize,
    bytes: usize,
}

/// Bytes of payload that are taken for a token before anything is tokenized. English has four to five to a token; scripts that
/// have more bytes a character have more tokens too.
const BYTES_PER_TOKEN: usize = 4;

/// The least part of the wait that is left when a batch is begun with: four beginnings at most.
const LEAST_LEFT: u32 = 16;

impl Budget {
    /// What `batches` full batches hold.
    pub fn of(&self, batches: usize) -> InFlightLimit {
        let bytes = self.max_tokens.saturating_mul(BYTES_PER_TOKEN);
        InFlightLimit { records: self.max_records.saturating_mul(batches), bytes: bytes.saturating_mul(batches) }
    }

    /// Whether that many records with that many bytes of payload make a full batch.
    pub fn is_spent(&self, records: usize, bytes: usize) -> bool {
        records >= self.max_records || bytes / BYTES_PER_TOKEN >= self.max_tokens
    }
}

impl Batcher {
    /// Starts where the claim says, with care for what is in doubt.
    pub fn new(claim: PartitionClaim, records: UnboundedReceiver<Delivery>, budget: Budget, doubt: Option<SuspectRange>) -> Self {
        let careful = doubt.map(|doubt| (doubt, isolation::care(doubt, claim.next_offset)));
        Self { claim, records, budget, careful, open: None }
    }

    /// How carefully the next batch is to be treated.
    pub fn care(&self) -> IsolationMode {
        match self.careful {
            Some((doubt, care)) if self.claim.next_offset < doubt.to => care,
            _ => IsolationMode::None,
        }
    }

    fn is_spent(&self, open: &Open) -> bool {
        let most = match self.care() {
            IsolationMode::None => usize::MAX,
            IsolationMode::Narrow => isolation::FEW,
            IsolationMode::Alone => 1,
        };
        open.count >= most || self.budget.is_spent(open.count, open.bytes)
    }

    /// When the batch is to be given out, as it is or to begin with.
    fn due(&self, open: &Open, may_begin: bool) -> (Instant, bool) {
        // The newest record stays, so that there is one when the batch ends.
        let can_begin = may_begin && open.records.len() > 1 && self.care() == IsolationMode::None;
        match open.begins.filter(|_| can_begin) {
            Some(begins) => (begins, true),
            None => (open.opened + self.budget.max_wait, false),
        }
    }

    /// The next batch, or the beginning of one if that is asked for; `None` once the source has ended and everything is given out.
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn next(&mut self, may_begin: bool) -> Option<MicroBatch> {
        loop {
            let delivery = match &self.open {
                None => self.records.recv().await,
                Some(open) if self.is_spent(open) => return self.cut(),
                Some(open) => {
                    let (due, begins) = self.due(open, may_begin);
                    match timeout_at(due.into(), self.records.recv()).await {
                        Ok(delivery) => delivery,
                        Err(_) if begins => return self.begin(),
                        Err(_) => return self.cut(),
                    }
                }
            };
            let Some(Delivery { record, guard }) = delivery else { return self.cut() };
            let open = self.open.get_or_insert_with(|| Open::new(self.budget.max_wait));
            open.count += 1;
            open.bytes += record.payload.as_ref().map_or(0, |payload| payload.len());
            open.records.push(record);
            open.guards.push(guard);
        }
    }

    /// All that is there but the newest record.
    fn begin(&mut self) -> Option<MicroBatch> {
        let open = self.open.as_mut()?;
        open.begins = half_way(Instant::now(), open.opened, self.budget.max_wait);
        let newest = open.records.len() - 1;
        let (records, guards) = (open.records.drain(..newest).collect(), open.guards.drain(..newest).collect());
        let opened = open.opened;
        self.batch(opened, records, guards, true)
    }

    fn cut(&mut self) -> Option<MicroBatch> {
        let Open { opened, records, guards, .. } = self.open.take()?;
        self.batch(opened, records, guards, false)
    }

    fn batch(&mut self, opened: Instant, records: Vec<Record>, guards: Vec<InFlightGuard>, is_open: bool) -> Option<MicroBatch> {
        let to = records.last()?.place.offset + 1;
        let care = self.care();
        let from = std::mem::replace(&mut self.claim.next_offset, to);
        let delta = CheckpointDelta { partition: self.claim.partition.clone(), epoch: self.claim.epoch, from, to };
        Some(MicroBatch { delta, records, opened, is_open, care, attempts: 1, turn: None, guards })
    }
}

impl Open {
    fn new(max_wait: Duration) -> Self {
        let opened = Instant::now();
        let begins = half_way(opened, opened, max_wait);
        Self { opened, begins, records: Vec::new(), guards: Vec::new(), count: 0, bytes: 0 }
    }
}

/// The middle of what is left of the wait, unless too little is.
fn half_way(now: Instant, opened: Instant, max_wait: Duration) -> Option<Instant> {
    let left = (opened + max_wait).saturating_duration_since(now) / 2;
    (left >= max_wait / LEAST_LEFT).then(|| now + left)
}

impl MicroBatch {
    /// Takes in what came next of the same batch.
    pub fn join(&mut self, next: Self) {
        self.delta.to = next.delta.to;
        self.records.extend(next.records);
        self.is_open = next.is_open;
        self.guards.extend(next.guards);
    }
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
        let cuts = cut_with_care(offsets, bytes, budget, None).await;
        cuts.into_iter().map(|(from, to, records, _)| (from, to, records)).collect()
    }

    async fn cut_with_care(
        offsets: &[i64],
        bytes: usize,
        budget: Budget,
        doubt: Option<SuspectRange>,
    ) -> Vec<(i64, i64, usize, IsolationMode)> {
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 5 };
        let (sender, receiver) = unbounded_channel();
        for &offset in offsets {
            sender.send(delivery(&in_flight, offset, bytes)).unwrap();
        }
        drop(sender);
        let mut batcher = Batcher::new(claim, receiver, budget, doubt);
        let mut cuts = Vec::new();
        while let Some(batch) = batcher.next(false).await {
            cuts.push((batch.delta.from, batch.delta.to, batch.records.len(), batch.care));
        }
        assert!(in_flight.can_resume() && !in_flight.is_full(), "dropping the batches gives their bytes back");
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
        let doubt = Some(SuspectRange { to: 8, narrowed: false });
        let cuts = cut_with_care(&[5, 7, 8, 9], 1, budget(1_000, 2), doubt).await;
        assert_eq!(cuts, [(5, 6, 1, IsolationMode::Alone), (6, 8, 1, IsolationMode::Alone), (8, 10, 2, IsolationMode::None)]);
    }

    #[tokio::test]
    async fn many_records_in_doubt_are_cut_into_small_batches() {
        let few = isolation::FEW as i64;
        let doubt = Some(SuspectRange { to: 5 + few + 8, narrowed: false });
        let cuts = cut_with_care(&(5..5 + 3 * few).collect::<Vec<_>>(), 1, budget(1_000, 1_000), doubt).await;
        let expected = [
            (5, 5 + few, IsolationMode::Narrow),
            (5 + few, 5 + 2 * few, IsolationMode::Narrow),
            (5 + 2 * few, 5 + 3 * few, IsolationMode::None),
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
        let batch = tokio::time::timeout(Duration::from_secs(5), batcher.next(false)).await.expect("the batch is cut while open");
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
        let mut begun = batcher.next(true).await.expect("a beginning comes");
        assert_eq!((begun.delta.from, begun.delta.to, begun.is_open), (0, 2, true), "the newest stays");
        (3..6).for_each(send);
        let rest = batcher.next(true).await.expect("the rest comes");
        assert_eq!((rest.delta.from, rest.delta.to, rest.is_open), (2, 5, false), "those that are begun with count");
        assert_eq!(rest.opened, begun.opened);
        begun.join(rest);
        let offsets: Vec<i64> = begun.records.iter().map(|record| record.place.offset).collect();
        assert_eq!((begun.delta.from, begun.delta.to, begun.is_open, offsets), (0, 5, false, (0..5).collect()));
    }

    #[tokio::test]
    async fn what_is_in_doubt_is_not_begun_with() {
        let doubt = Some(SuspectRange { to: 1_000, narrowed: false });
        let in_flight = InFlight::new(1 << 20, IntGauge::new("test", "test").unwrap());
        let claim = PartitionClaim { partition: Partition { topic: "t".into(), number: 0 }, epoch: 1, next_offset: 0 };
        let (sender, receiver) = unbounded_channel();
        (0..3).for_each(|offset| sender.send(delivery(&in_flight, offset, 1)).unwrap());
        let mut batcher =
            Batcher::new(claim, receiver, Budget { max_wait: Duration::from_millis(50), ..budget(1_000, 5) }, doubt);
        let batch = batcher.next(true).await.expect("a batch comes");
        assert_eq!((batch.delta.from, batch.delta.to, batch.is_open), (0, 3, false));
    }

    #[test]
    fn pieces_are_cut_at_half_of_what_is_left_of_the_wait_until_little_is() {
        let (opened, max_wait) = (Instant::now(), Duration::from_millis(800));
        let next = |now: &Instant| half_way(*now, opened, max_wait);
        let beginnings = std::iter::successors(next(&opened), next);
        let after: Vec<u128> = beginnings.map(|begins| (begins - opened).as_millis()).collect();
        assert_eq!(after, [400, 600, 700, 750]);
        assert_eq!(half_way(opened + Duration::from_secs(9), opened, max_wait), None, "the wait is over");
    }
}
