//! The queue in front of the devices: bounded by tokens; what came first ends first, and who has little to do does not wait for that.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::activity::ActivityTracker;
use super::batch::TokenBatch;
use super::queued_sequence::QueuedSequence;
use super::request::Priority;
use tidemill_base::metrics::METRICS;

/// Sequences that one call queued together.
pub(super) struct SequenceGroup {
    /// The model's place in the engine's list.
    pub(super) model: usize,
    /// Whether they go first.
    pub(super) priority: Priority,
    /// The sequences.
    pub(super) waiting: VecDeque<QueuedSequence>,
}

/// The parts that wait: live ones before others, then in order of arrival.
pub(super) struct BatchQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
    activity: Arc<ActivityTracker>,
}

#[derive(Default)]
struct QueueState {
    live: PriorityLevel,
    backfill: PriorityLevel,
    closed: bool,
}

/// Parts of one priority.
#[derive(Default)]
struct PriorityLevel(VecDeque<SequenceGroup>);

impl BatchQueue {
    /// An empty queue in front of the devices that are watched.
    pub(super) fn new(activity: Arc<ActivityTracker>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), activity }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // The state is whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a part. Where the queue is closed, the part is dropped, which its callers see.
    pub(super) fn push(&self, part: SequenceGroup) {
        let mut state = self.lock();
        if !state.closed {
            METRICS.queue_depth.add(part.waiting.iter().map(|w| w.ids.len() as i64).sum());
            state.level(part.priority).0.push_back(part);
            self.activity.set_queued(true);
            // All of them: it may be another device's turn than that of the one who wakes first.
            self.changed.notify_all();
        }
    }

    /// Ends the queue: what waits is dropped and [`BatchQueue::take`] gives none.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for priority in [Priority::Live, Priority::Backfill] {
            let dropped: usize = state.level(priority).0.drain(..).flat_map(|part| part.waiting).map(|w| w.ids.len()).sum();
            METRICS.queue_depth.sub(dropped as i64);
        }
        self.activity.set_queued(false);
        self.changed.notify_all();
    }

    /// Waits for work and takes a batch for the device at `place`, of about as many tokens as the model's place in `budgets` says; none
    /// once the queue is closed. A device that computes takes a batch ahead only where no other one has nothing to do.
    pub(super) fn take(&self, place: usize, budgets: &[usize]) -> Option<TokenBatch> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let formed = match self.activity.should_yield(place) {
                true => None,
                false => state.live.form_batch(budgets).or_else(|| state.backfill.form_batch(budgets)),
            };
            if let Some((model, waiting)) = formed {
                let rest = !state.live.0.is_empty() || !state.backfill.0.is_empty();
                if waiting.is_empty() {
                    self.activity.set_queued(rest);
                    continue;
                }
                self.activity.batch_formed(place, rest);
                if rest {
                    self.changed.notify_all();
                }
                METRICS.queue_depth.sub(waiting.iter().map(|w| w.ids.len() as i64).sum());
                drop(state);
                return Some(TokenBatch::pack(model, waiting));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl QueueState {
    fn level(&mut self, priority: Priority) -> &mut PriorityLevel {
        match priority {
            Priority::Live => &mut self.live,
            Priority::Backfill => &mut self.backfill,
        }
    }
}

impl SequenceGroup {
    fn is_small(&self, budget: usize) -> bool {
        is_small(self.waiting.iter().map(|waiting| waiting.ids.len()).sum(), budget)
    }
}

/// Whether so many tokens are little work: what has little to do goes before what has much.
pub(super) fn is_small(tokens: usize, budget: usize) -> bool {
    tokens <= budget / 8
}

impl PriorityLevel {
    /// Draws sequences of the model that has waited longest: half of the budget for parts that are small, so that one sentence never waits
    /// behind a book, and then all parts in order of arrival, so that what came first ends first.
    fn form_batch(&mut self, budgets: &[usize]) -> Option<(usize, Vec<QueuedSequence>)> {
        let model = self.0.front()?.model;
        let budget = budgets[model];
        let mut formed = Vec::new();
        let mut left = 0;
        for (small_ones, share) in [(true, budget / 2), (false, budget - budget / 2)] {
            left += share;
            for part in self.0.iter_mut().filter(|part| part.model == model) {
                if small_ones && !part.is_small(budget) {
                    continue;
                }
                while let Some(next) = part.waiting.front() {
                    let tokens = next.ids.len();
                    if next.reply.is_closed() {
                        // Its caller has gone away.
                        METRICS.queue_depth.sub(tokens as i64);
                        part.waiting.pop_front();
                        continue;
                    }
                    // A sequence larger than the budget still has to go some time: alone.
                    if tokens > left && !formed.is_empty() {
                        break;
                    }
                    left = left.saturating_sub(tokens);
                    formed.extend(part.waiting.pop_front());
                }
            }
        }
        self.0.retain(|part| !part.waiting.is_empty());
        // The next batch belongs to another model, where one waits.
        let others = self.0.iter().position(|part| part.model != model);
        if let Some(other) = others.and_then(|at| self.0.remove(at)) {
            self.0.push_front(other);
        }
        Some((model, formed))
    }
}
