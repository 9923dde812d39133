//! The waiting sequences: live ones first, and the groups in rotation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::sequence::Sequence;
use crate::request::Priority;

#[derive(Default)]
pub(super) struct WaitingSequences {
    priorities: BTreeMap<Priority, PriorityGroups>,
}

/// The waiting sequences of one priority, by group.
#[derive(Default)]
struct PriorityGroups {
    groups: BTreeMap<Arc<str>, GroupQueue>,
}

#[derive(Default)]
struct GroupQueue {
    sequences: VecDeque<Sequence>,
    /// Admitted tokens. The group with the fewest is next.
    served: u64,
}

impl WaitingSequences {
    /// Adds a sequence at the end of its group.
    pub(super) fn push(&mut self, sequence: Sequence) {
        self.queue(&sequence).sequences.push_back(sequence);
    }

    /// Adds a preempted sequence at the front of its group.
    pub(super) fn push_first(&mut self, sequence: Sequence) {
        self.queue(&sequence).sequences.push_front(sequence);
    }

    fn queue(&mut self, sequence: &Sequence) -> &mut GroupQueue {
        let level = self.priorities.entry(sequence.job.priority).or_default();
        // A new group starts with the smallest count, so that it gets no advantage for the time when it had no work.
        let least = level.groups.values().map(|queue| queue.served).min().unwrap_or(0);
        level.groups.entry(sequence.job.group.clone()).or_insert_with(|| GroupQueue { served: least, ..GroupQueue::default() })
    }

    /// The priorities that have waiting sequences, the highest first.
    pub(super) fn waiting_priorities(&self) -> Vec<Priority> {
        self.priorities.keys().copied().collect()
    }

    /// The groups that have waiting sequences, those served least first.
    pub(super) fn groups(&self, priority: Priority) -> Vec<Arc<str>> {
        let Some(level) = self.priorities.get(&priority) else { return Vec::new() };
        let mut groups: Vec<_> = level.groups.iter().map(|(name, queue)| (queue.served, name)).collect();
        groups.sort();
        groups.into_iter().map(|(_, name)| name.clone()).collect()
    }

    pub(super) fn first(&self, priority: Priority, group: &str) -> Option<&Sequence> {
        self.priorities.get(&priority)?.groups.get(group)?.sequences.front()
    }

    /// Takes the first sequence of a group and counts its tokens as served.
    pub(super) fn take(&mut self, priority: Priority, group: &str) -> Option<Sequence> {
        let level = self.priorities.get_mut(&priority)?;
        let queue = level.groups.get_mut(group)?;
        let sequence = queue.sequences.pop_front()?;
        queue.served += (sequence.tokens.len() + sequence.job.task.extra()) as u64;
        self.tidy();
        Some(sequence)
    }

    /// Drops sequences whose callers have stopped waiting.
    pub(super) fn drop_abandoned(&mut self) {
        for queue in self.priorities.values_mut().flat_map(|level| level.groups.values_mut()) {
            queue.sequences.retain(|sequence| !sequence.job.is_abandoned());
        }
        self.tidy();
    }

    pub(super) fn count(&self) -> usize {
        self.priorities.values().flat_map(|level| level.groups.values()).map(|queue| queue.sequences.len()).sum()
    }

    fn tidy(&mut self) {
        for level in self.priorities.values_mut() {
            level.groups.retain(|_, queue| !queue.sequences.is_empty());
        }
        self.priorities.retain(|_, level| !level.groups.is_empty());
    }
}
