//! Divides the tokens of a step among the sequences.

use std::collections::BTreeMap;

use super::scheduler::Scheduler;
use super::sequence::{GenerationTask, Sequence};
use super::step_part::{AnswerBranch, StepPart};
use super::traits::{BLOCK_TOKENS, Decode};

impl<D: Decode> Scheduler<D> {
    /// Divides the tokens of a step: live sequences first, then generating before reading ones, then in order of admission.
    ///
    /// Only generating sequences may need another block, and only sequences later in this order are preempted for it.
    pub(super) fn plan(&mut self) -> BTreeMap<u64, StepPart> {
        let mut order: Vec<_> =
            self.running.iter().map(|(key, sequence)| (sequence.job.priority, sequence.is_reading(), *key)).collect();
        order.sort_unstable();
        let mut parts = BTreeMap::new();
        let mut left = self.limits.step_tokens;
        for (_, _, key) in order {
            // Sequences that were preempted meanwhile are skipped.
            let Some(sequence) = self.running.get(&key).filter(|_| left > 0) else { continue };
            let pending = sequence.pending();
            let part = if pending > 0 {
                let tokens = pending.min(left);
                let reserved = self.reserve(key, tokens);
                left -= if reserved { tokens } else { 0 };
                reserved.then_some(StepPart::Read { tokens, wanted: tokens == pending })
            } else {
                self.branches(key, &mut left).map(StepPart::Score)
            };
            parts.extend(part.map(|part| (key, part)));
        }
        parts
    }

    /// Allocates the blocks for a sequence's next tokens.
    fn reserve(&mut self, key: u64, tokens: usize) -> bool {
        let Some(sequence) = self.running.get(&key) else { return false };
        let count = Sequence::blocks_for(sequence.past + tokens);
        if !self.make_room_within(key, count.saturating_sub(sequence.table.len())) {
            return false;
        }
        let Some(sequence) = self.running.get_mut(&key) else { return false };
        let mut table = std::mem::take(&mut sequence.table);
        self.extend(&mut table, count);
        if let Some(sequence) = self.running.get_mut(&key) {
            sequence.table = table;
        }
        true
    }

    /// Allocates blocks for the next answers of a sequence: at least for one, and for as many as there are tokens and free blocks.
    fn branches(&mut self, key: u64, left: &mut usize) -> Option<Vec<AnswerBranch>> {
        let mut branches = Vec::new();
        while let Some((answer, tokens)) = self.next_answer(key) {
            let prompt = self.running.get(&key)?.past;
            let shared = prompt / BLOCK_TOKENS;
            let count = Sequence::blocks_for(prompt + tokens);
            if branches.is_empty() {
                if !self.make_room_within(key, count - shared) {
                    return None;
                }
            } else if tokens > *left || self.blocks.free() < count - shared {
                break;
            }
            let sequence = self.running.get_mut(&key)?;
            if let GenerationTask::Score(scoring) = &mut sequence.job.task {
                scoring.next = answer + 1;
            }
            let mut table = sequence.table[..shared].to_vec();
            let last = sequence.table.get(shared).copied();
            self.extend(&mut table, count);
            if let Some(last) = last {
                self.decoder.copy_block(last, table[shared]);
            }
            *left = left.saturating_sub(tokens);
            branches.push(AnswerBranch { answer, table, own: count - shared });
        }
        (!branches.is_empty()).then_some(branches)
    }

    /// The next answer of a sequence that has more than its first token left to score, and how many of its tokens must be read.
    fn next_answer(&mut self, key: u64) -> Option<(usize, usize)> {
        let GenerationTask::Score(scoring) = &mut self.running.get_mut(&key)?.job.task else { return None };
        let answer = scoring.next_answer()?;
        Some((answer, scoring.answers[answer].len() - 1))
    }
}
