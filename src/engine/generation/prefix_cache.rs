//! Caches the common prefixes of the prompts of a group, so that each is read only once.
//!
//! A prefix is recorded when two prompts start with the same tokens for at least one block. The next prompt that starts with it
//! reads it as part of its own prompt and leaves its blocks in the cache; prompts that arrive meanwhile wait for that. A prompt
//! that agrees with part of a prefix uses that part.
//!
//! | state | blocks | a prompt that starts with the prefix |
//! |---|---|---|
//! | wanted | none | reads it for the group |
//! | being read | those of the reader | waits |
//! | cached | its own | shares the complete blocks, and continues in a copy of a block that agrees only in part |

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::block_allocator::BlockAllocator;
use super::traits::BLOCK_TOKENS;

/// Recent prompts of a group that a new one is compared with.
const COMPARED: usize = 4;

/// Prefixes per group: a task may have several kinds of prompts.
const PREFIXES: usize = 4;

/// Groups that are remembered.
const GROUPS: usize = 256;

/// The prefixes of all groups of one model.
#[derive(Default)]
pub(super) struct PrefixCache {
    groups: HashMap<Arc<str>, PrefixGroup>,
    last_id: u64,
    clock: u64,
}

#[derive(Default)]
struct PrefixGroup {
    recent: VecDeque<Arc<[u32]>>,
    prefixes: Vec<SharedPrefix>,
    used: u64,
}

struct SharedPrefix {
    id: u64,
    ids: Vec<u32>,
    state: PrefixState,
    used: u64,
}

enum PrefixState {
    WantedLogits,
    Reading { by: u64 },
    Cached { table: Vec<u32> },
}

/// How a prompt matches the prefixes of its group.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PrefixMatch {
    /// The cached prefix with the longest agreement, and the length of the agreement in tokens.
    pub(super) cached: Option<(u64, usize)>,
    /// The sequence that is reading a longer prefix.
    pub(super) reading: Option<u64>,
    /// A longer prefix that nobody has read, and the length of the agreement in tokens.
    pub(super) wanted: Option<(u64, usize)>,
}

impl PrefixCache {
    /// Records a new prompt. Releases the blocks of prefixes that are dropped in exchange.
    pub(super) fn learn(&mut self, group: &Arc<str>, prompt: &Arc<[u32]>, blocks: &mut BlockAllocator) {
        self.clock += 1;
        if self.groups.len() >= GROUPS && !self.groups.contains_key(group) {
            let oldest = self.groups.iter().min_by_key(|(_, group)| group.used).map(|(name, _)| name.clone());
            if let Some(forgotten) = oldest.and_then(|name| self.groups.remove(&name)) {
                forgotten.prefixes.into_iter().for_each(|prefix| prefix.free(blocks));
            }
        }
        let known = self.groups.entry(group.clone()).or_default();
        known.used = self.clock;
        // At least one token must remain to be read: its logits choose the next token.
        let agreed = |other: &[u32]| agreement(other, prompt).min(prompt.len() - 1);
        let best = known.prefixes.iter().map(|prefix| agreed(&prefix.ids)).max().unwrap_or(0);
        let found = known.recent.iter().map(|other| agreed(other)).max().unwrap_or(0);
        if found >= best + BLOCK_TOKENS {
            if known.prefixes.len() >= PREFIXES {
                let oldest = (0..known.prefixes.len()).min_by_key(|i| known.prefixes[*i].used).unwrap_or(0);
                known.prefixes.swap_remove(oldest).free(blocks);
            }
            self.last_id += 1;
            let ids = prompt[..found].to_vec();
            known.prefixes.push(SharedPrefix { id: self.last_id, ids, state: PrefixState::WantedLogits, used: self.clock });
        }
        if !known.recent.contains(prompt) {
            known.recent.truncate(COMPARED - 1);
            known.recent.push_front(prompt.clone());
        }
    }

    /// What the cache has for a sequence that starts with `tokens`.
    pub(super) fn find(&mut self, group: &str, tokens: &[u32]) -> PrefixMatch {
        self.clock += 1;
        let mut found = PrefixMatch::default();
        let Some(group) = self.groups.get_mut(group) else { return found };
        let agreed = |ids: &[u32]| agreement(ids, tokens).min(tokens.len() - 1);
        let mut longest = 0;
        for prefix in &group.prefixes {
            let PrefixState::Cached { table } = &prefix.state else { continue };
            let usable = agreed(&prefix.ids).min(table.len() * BLOCK_TOKENS);
            if usable > longest {
                longest = usable;
                found.cached = Some((prefix.id, usable));
            }
        }
        for prefix in &mut group.prefixes {
            let usable = agreed(&prefix.ids);
            // A prefix that this prompt would shorten to less than half is left for other prompts.
            if usable < longest + BLOCK_TOKENS || 2 * usable < prefix.ids.len() {
                continue;
            }
            match prefix.state {
                PrefixState::WantedLogits if found.wanted.is_none_or(|(_, other)| other < usable) => {
                    found.wanted = Some((prefix.id, usable))
                }
                PrefixState::Reading { by } => found.reading = Some(by),
                PrefixState::WantedLogits | PrefixState::Cached { .. } => {}
            }
        }
        if let Some(prefix) = found.cached.and_then(|(id, _)| group.prefixes.iter_mut().find(|prefix| prefix.id == id)) {
            prefix.used = self.clock;
        }
        found
    }

    pub(super) fn ids(&mut self, id: u64) -> &[u32] {
        self.prefix(id).map_or(&[], |prefix| &prefix.ids)
    }

    /// Makes the sequence `by` the reader of the first `length` tokens of a prefix. The prefix is shortened to them.
    pub(super) fn read(&mut self, id: u64, by: u64, length: usize) {
        if let Some(prefix) = self.prefix(id) {
            prefix.ids.truncate(length);
            prefix.state = PrefixState::Reading { by };
        }
    }

    /// The sequence `by` has left the device: the prefixes that it was reading are wanted again.
    pub(super) fn abandon(&mut self, by: u64) {
        for prefix in self.all() {
            if matches!(prefix.state, PrefixState::Reading { by: reader } if reader == by) {
                prefix.state = PrefixState::WantedLogits;
            }
        }
    }

    /// The prefixes that the sequence `by` has finished reading, given that it has read `past` tokens, with their lengths.
    pub(super) fn finished(&mut self, by: u64, past: usize) -> Vec<(u64, usize)> {
        let read = |prefix: &&mut SharedPrefix| {
            prefix.ids.len() <= past && matches!(prefix.state, PrefixState::Reading { by: reader } if reader == by)
        };
        self.all().filter(read).map(|prefix| (prefix.id, prefix.ids.len())).collect()
    }

    /// Caches a prefix in these blocks. The caller has counted the cache as a holder.
    pub(super) fn store(&mut self, id: u64, table: Vec<u32>) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(prefix) = self.prefix(id) {
            prefix.state = PrefixState::Cached { table };
            prefix.used = clock;
        }
    }

    /// The blocks of a cached prefix.
    pub(super) fn table(&mut self, id: u64) -> &[u32] {
        match self.prefix(id).map(|prefix| &prefix.state) {
            Some(PrefixState::Cached { table }) => table,
            _ => &[],
        }
    }

    /// Releases the blocks of the least recently used prefix, among those that are not `spared` and have a block that nobody else
    /// holds. Returns whether there was one.
    pub(super) fn evict(&mut self, blocks: &mut BlockAllocator, spared: impl Fn(u64) -> bool) -> bool {
        let frees = |prefix: &&mut SharedPrefix| match &prefix.state {
            PrefixState::Cached { table } => !spared(prefix.id) && table.iter().any(|block| blocks.holders(*block) == 1),
            _ => false,
        };
        let Some(prefix) = self.all().filter(frees).min_by_key(|prefix| prefix.used) else { return false };
        if let PrefixState::Cached { table } = std::mem::replace(&mut prefix.state, PrefixState::WantedLogits) {
            table.into_iter().for_each(|block| blocks.release(block));
        }
        true
    }

    /// The blocks of every cached prefix.
    #[cfg(test)]
    pub(super) fn tables(&self) -> impl Iterator<Item = &[u32]> {
        self.groups.values().flat_map(|group| &group.prefixes).filter_map(|prefix| match &prefix.state {
            PrefixState::Cached { table } => Some(table.as_slice()),
            PrefixState::WantedLogits | PrefixState::Reading { .. } => None,
        })
    }

    fn all(&mut self) -> impl Iterator<Item = &mut SharedPrefix> {
        self.groups.values_mut().flat_map(|group| &mut group.prefixes)
    }

    fn prefix(&mut self, id: u64) -> Option<&mut SharedPrefix> {
        self.all().find(|prefix| prefix.id == id)
    }
}

impl SharedPrefix {
    fn free(self, blocks: &mut BlockAllocator) {
        if let PrefixState::Cached { table } = self.state {
            table.into_iter().for_each(|block| blocks.release(block));
        }
    }
}

/// The number of leading tokens that both have in common.
fn agreement(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
