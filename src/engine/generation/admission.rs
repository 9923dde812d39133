//! Decides which sequences get blocks of the key-value cache, and which lose them when blocks run short.
//!
//! | blocks are needed for | what frees them, in this order |
//! |---|---|
//! | a waiting sequence | cached prefixes that no running sequence uses; running sequences of lower priority, the youngest first; otherwise it waits |
//! | a running sequence's next tokens | the same prefixes; the youngest sequence of the lowest priority, which may be that sequence itself |

use std::sync::Arc;

use super::scheduler::Scheduler;
use super::sequence::Sequence;
use super::traits::{BLOCK_TOKENS, Decode};
use crate::request::Priority;

/// The result of an attempt to admit a sequence.
enum Admission {
    Admitted,
    /// It waits for a prefix that another sequence is reading.
    Deferred,
    /// There are not enough blocks or rows.
    Full,
}

impl<D: Decode> Scheduler<D> {
    /// Admits as many sequences as there are blocks and rows for: live ones first, the groups in rotation.
    pub(super) fn admit(&mut self) {
        for priority in self.waiting.waiting_priorities() {
            'next: loop {
                for group in self.waiting.groups(priority) {
                    match self.admit_first(priority, &group) {
                        Admission::Admitted => continue 'next,
                        Admission::Deferred => {}
                        Admission::Full => return,
                    }
                }
                break;
            }
        }
    }

    fn admit_first(&mut self, priority: Priority, group: &Arc<str>) -> Admission {
        let Some(sequence) = self.waiting.first(priority, group) else { return Admission::Deferred };
        let tokens = sequence.tokens.clone();
        let mut found = self.prefixes.find(group, &tokens);
        if let Some((wanted, _)) = found.wanted {
            self.assign_reader(wanted, group);
            found = self.prefixes.find(group, &tokens);
        }
        // A reader of lower priority may take long, so it is not worth waiting for.
        if found.reading.and_then(|by| self.running.get(&by)).is_some_and(|reader| reader.job.priority <= priority) {
            return Admission::Deferred;
        }
        if self.running.len() >= self.limits.rows && !self.preempt_below(priority) {
            return Admission::Full;
        }
        let (prefix, mut shared) = found.cached.map_or((None, 0), |(id, shared)| (Some(id), shared));
        let blocks = Sequence::blocks_for(tokens.len());
        if !self.make_room(blocks - shared / BLOCK_TOKENS, prefix, priority) {
            if !self.running.is_empty() {
                return Admission::Full;
            }
            // A single sequence needs no cached prefix, and with all prefixes evicted, any accepted job fits.
            while self.prefixes.evict(&mut self.blocks, |_| false) {}
            shared = 0;
        }
        let Some(mut sequence) = self.waiting.take(priority, group) else { return Admission::Deferred };
        self.admissions += 1;
        let key = self.admissions;
        self.place(&mut sequence, prefix.filter(|_| shared > 0), shared);
        if sequence.read.is_none() {
            let prompt = sequence.job.prompt.len();
            sequence.read = Some(prompt - shared.min(prompt));
            self.counts.prompt_tokens += (prompt - shared.min(prompt)) as u64;
            self.counts.prefix_tokens_saved += shared.min(prompt) as u64;
        }
        if let Some((wanted, length)) = found.wanted {
            self.prefixes.read(wanted, key, length);
        }
        self.running.insert(key, sequence);
        Admission::Admitted
    }

    /// Assigns blocks to a sequence: shared ones, and its own. The first of its own blocks may start as a copy.
    fn place(&mut self, sequence: &mut Sequence, prefix: Option<u64>, shared: usize) {
        let full_blocks = shared / BLOCK_TOKENS;
        let cached = prefix.map(|id| self.prefixes.table(id).to_vec()).unwrap_or_default();
        for block in &cached[..full_blocks] {
            self.blocks.share(*block);
            sequence.table.push(*block);
        }
        self.extend(&mut sequence.table, Sequence::blocks_for(sequence.tokens.len()));
        if !shared.is_multiple_of(BLOCK_TOKENS) {
            self.decoder.copy_block(cached[full_blocks], sequence.table[full_blocks]);
        }
        sequence.prefix = prefix;
        sequence.past = shared;
        sequence.target = sequence.tokens.len();
    }

    /// Extends a table to `count` blocks. The blocks must have been freed before.
    pub(super) fn extend(&mut self, table: &mut Vec<u32>, count: usize) {
        while table.len() < count {
            table.push(self.blocks.take().expect("enough blocks were freed before"));
        }
    }

    /// Makes a running sequence that starts with this prefix read it for the group, if there is one.
    fn assign_reader(&mut self, prefix: u64, group: &Arc<str>) {
        let ids = self.prefixes.ids(prefix).to_vec();
        let reader = self.running.iter().find(|(_, one)| one.job.group == *group && one.tokens.starts_with(&ids));
        if let Some(key) = reader.map(|(key, _)| *key) {
            self.prefixes.read(prefix, key, ids.len());
            self.cache_prefixes(key);
        }
    }

    /// Caches the prefixes that the sequence has finished reading for its group.
    pub(super) fn cache_prefixes(&mut self, key: u64) {
        let Some(sequence) = self.running.get(&key) else { return };
        for (id, length) in self.prefixes.finished(key, sequence.past) {
            let full_blocks = length / BLOCK_TOKENS;
            let mut table = sequence.table[..full_blocks].to_vec();
            table.iter().for_each(|block| self.blocks.share(*block));
            // The reader continues to write into a block that is not full. So the prefix gets a copy of it, if a block is free.
            if !length.is_multiple_of(BLOCK_TOKENS)
                && let Some(copy) = self.blocks.take()
            {
                self.decoder.copy_block(sequence.table[full_blocks], copy);
                table.push(copy);
            }
            self.prefixes.store(id, table);
        }
    }

    /// Frees blocks for a waiting sequence, plus one in reserve if others are running.
    fn make_room(&mut self, blocks: usize, prefix: Option<u64>, priority: Priority) -> bool {
        loop {
            let needed = blocks + usize::from(!self.running.is_empty());
            if self.blocks.free() >= needed {
                return true;
            }
            if !self.evict_idle(prefix) && !self.preempt_below(priority) {
                return false;
            }
        }
    }

    /// Frees `blocks` blocks for a running sequence. Returns false if that required preempting the sequence itself.
    pub(super) fn make_room_within(&mut self, key: u64, blocks: usize) -> bool {
        while self.blocks.free() < blocks {
            if self.evict_idle(None) {
                continue;
            }
            let youngest = self.running.iter().map(|(key, sequence)| (sequence.job.priority, *key)).max();
            let alone = self.running.len() == 1;
            if alone && self.prefixes.evict(&mut self.blocks, |_| false) {
                continue;
            }
            let (_, victim) = youngest.expect("the sequence is running");
            self.preempt(victim);
            if victim == key {
                return false;
            }
        }
        true
    }

    /// Evicts a cached prefix that no running sequence started with.
    fn evict_idle(&mut self, spared: Option<u64>) -> bool {
        let used = |id| spared == Some(id) || self.running.values().any(|sequence| sequence.prefix == Some(id));
        self.prefixes.evict(&mut self.blocks, used)
    }

    /// Preempts the youngest sequence of a lower priority.
    fn preempt_below(&mut self, priority: Priority) -> bool {
        let below = self.running.iter().filter(|(_, sequence)| sequence.job.priority > priority);
        let Some((_, victim)) = below.map(|(key, sequence)| (sequence.job.priority, *key)).max() else { return false };
        self.preempt(victim);
        true
    }

    /// Preempts a sequence. It is read again later.
    fn preempt(&mut self, key: u64) {
        if let Some(sequence) = self.leave(key) {
            self.counts.preemptions += 1;
            self.waiting.push_first(sequence);
        }
    }
}
