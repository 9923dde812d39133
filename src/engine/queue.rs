//! The queue in front of the devices, bounded by tokens.
//!
//! Calls finish in order of arrival, except that small calls go ahead of large ones.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::activity::ActivityTracker;
use super::batch::TokenBatch;
use super::queued_sequence::QueuedSequence;
use super::request::Priority;
use tidemill_base::metrics::METRICS;

/// Sequences that one call queued together.
pub(super) struct SequenceGroup {
    /// The model's index in the engine's list.
    pub(super) model: usize,
    pub(super) priority: Priority,
    pub(super) waiting: VecDeque<QueuedSequence>,
}

/// The waiting groups: live ones first, then in order of arrival.
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

/// The groups of one priority.
#[derive(Default)]
struct PriorityLevel(VecDeque<SequenceGroup>);

impl BatchQueue {
    /// An empty queue that reports to `activity`.
    pub(super) fn new(activity: Arc<ActivityTracker>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), activity }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // The state is consistent between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a group. If the queue is closed, the group is dropped and its caller sees the channel close.
    pub(super) fn push(&self, group: SequenceGroup) {
        let mut state = self.lock();
        if !state.closed {
            METRICS.queue_depth.add(group.waiting.iter().map(|w| w.ids.len() as i64).sum());
            state.level(group.priority).0.push_back(group);
            self.activity.set_queued(true);
            // Wakes all devices: the one that wakes first may have to leave the batch to another.
            self.changed.notify_all();
        }
    }

    /// Closes the queue: waiting groups are dropped, and [`BatchQueue::take`] returns none.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for priority in [Priority::Live, Priority::Backfill] {
            let dropped: usize = state.level(priority).0.drain(..).flat_map(|group| group.waiting).map(|w| w.ids.len()).sum();
            METRICS.queue_depth.sub(dropped as i64);
        }
        self.activity.set_queued(false);
        self.changed.notify_all();
    }

    /// Waits for work and takes a batch for the device at `place`, of about as many tokens as `budgets` has for the batch's model.
    /// None once the queue is closed. A device that is computing takes its next batch in advance only if no other device is idle.
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

/// Whether a call with this many tokens is small, and goes ahead of large ones.
pub(super) fn is_small(tokens: usize, budget: usize) -> bool {
    tokens <= budget / 8
}

impl PriorityLevel {
    /// Takes sequences of the model that has waited longest. Half of the budget goes to small groups, so that one sentence never
    /// waits behind a book. The rest is filled with all groups in order of arrival, so that calls finish in that order.
    fn form_batch(&mut self, budgets: &[usize]) -> Option<(usize, Vec<QueuedSequence>)> {
        let model = self.0.front()?.model;
        let budget = budgets[model];
        let mut formed = Vec::new();
        let mut left = 0;
        for (small_ones, share) in [(true, budget / 2), (false, budget - budget / 2)] {
            left += share;
            for group in self.0.iter_mut().filter(|group| group.model == model) {
                if small_ones && !group.is_small(budget) {
                    continue;
                }
                while let Some(next) = group.waiting.front() {
                    let tokens = next.ids.len();
                    if next.reply.is_closed() {
                        // Its caller has stopped waiting.
                        METRICS.queue_depth.sub(tokens as i64);
                        group.waiting.pop_front();
                        continue;
                    }
                    // A sequence larger than the budget forms a batch alone.
                    if tokens > left && !formed.is_empty() {
                        break;
                    }
                    left = left.saturating_sub(tokens);
                    formed.extend(group.waiting.pop_front());
                }
            }
        }
        self.0.retain(|group| !group.waiting.is_empty());
        // If another model has groups waiting, the next batch belongs to it.
        let others = self.0.iter().position(|group| group.model != model);
        if let Some(other) = others.and_then(|at| self.0.remove(at)) {
            self.0.push_front(other);
        }
        Some((model, formed))
    }
}
