//! What the prompts of a group begin with, read once and kept.
//!
//! A prefix is learnt from prompts that agree for at least a block. The next one that begins so reads it as a part of its own prompt and
//! leaves its blocks here; whoever comes meanwhile waits for that. A prompt that agrees with a part of a prefix uses that part.
//!
//! | state | blocks | who begins so |
//! |---|---|---|
//! | wanted | none | reads it for all |
//! | being read | those of the reader | waits |
//! | kept | its own | shares the whole blocks, and goes on in a copy of the one it agrees with in part |

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::block_allocator::BlockAllocator;
use super::traits::BLOCK_TOKENS;

/// Prompts of a group that the next one is compared with.
const COMPARED: usize = 4;

/// Prefixes of a group: a task may have several kinds of prompts.
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
    Kept { table: Vec<u32> },
}

/// What the prefixes of its group mean to a prompt.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PrefixMatch {
    /// The kept prefix that it agrees with longest, and for how many tokens.
    pub(super) kept: Option<(u64, usize)>,
    /// Who is reading a longer one.
    pub(super) reading: Option<u64>,
    /// A longer one that nobody has read, and for how many tokens it agrees.
    pub(super) wanted: Option<(u64, usize)>,
}

impl PrefixCache {
    /// Learns from a prompt that has arrived; gives the blocks back of prefixes that are forgotten for it.
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
        // A token has to be left to read: what follows it is what is wanted.
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

    /// What there is for a sequence that starts with `tokens`.
    pub(super) fn find(&mut self, group: &str, tokens: &[u32]) -> PrefixMatch {
        self.clock += 1;
        let mut found = PrefixMatch::default();
        let Some(group) = self.groups.get_mut(group) else { return found };
        let agreed = |ids: &[u32]| agreement(ids, tokens).min(tokens.len() - 1);
        let mut longest = 0;
        for prefix in &group.prefixes {
            let PrefixState::Kept { table } = &prefix.state else { continue };
            let usable = agreed(&prefix.ids).min(table.len() * BLOCK_TOKENS);
            if usable > longest {
                longest = usable;
                found.kept = Some((prefix.id, usable));
            }
        }
        for prefix in &mut group.prefixes {
            let usable = agreed(&prefix.ids);
            // One that would be cut to less than half by this prompt is not this prompt's.
            if usable < longest + BLOCK_TOKENS || 2 * usable < prefix.ids.len() {
                continue;
            }
            match prefix.state {
                PrefixState::WantedLogits if found.wanted.is_none_or(|(_, other)| other < usable) => {
                    found.wanted = Some((prefix.id, usable))
                }
                PrefixState::Reading { by } => found.reading = Some(by),
                PrefixState::WantedLogits | PrefixState::Kept { .. } => {}
            }
        }
        if let Some(prefix) = found.kept.and_then(|(id, _)| group.prefixes.iter_mut().find(|prefix| prefix.id == id)) {
            prefix.used = self.clock;
        }
        found
    }

    /// The tokens of a prefix.
    pub(super) fn ids(&mut self, id: u64) -> &[u32] {
        self.prefix(id).map_or(&[], |prefix| &prefix.ids)
    }

    /// Lets the sequence `by` read the first `length` tokens of a prefix for all; the rest is cut off.
    pub(super) fn read(&mut self, id: u64, by: u64, length: usize) {
        if let Some(prefix) = self.prefix(id) {
            prefix.ids.truncate(length);
            prefix.state = PrefixState::Reading { by };
        }
    }

    /// The sequence `by` is gone: whatever it was reading for all is wanted again.
    pub(super) fn abandon(&mut self, by: u64) {
        for prefix in self.all() {
            if matches!(prefix.state, PrefixState::Reading { by: reader } if reader == by) {
                prefix.state = PrefixState::WantedLogits;
            }
        }
    }

    /// The prefixes that the sequence `by`, having read `past` tokens, has read for all, with their lengths.
    pub(super) fn finished(&mut self, by: u64, past: usize) -> Vec<(u64, usize)> {
        let read = |prefix: &&mut SharedPrefix| {
            prefix.ids.len() <= past && matches!(prefix.state, PrefixState::Reading { by: reader } if reader == by)
        };
        self.all().filter(read).map(|prefix| (prefix.id, prefix.ids.len())).collect()
    }

    /// Keeps a prefix in these blocks, which now have one holder more.
    pub(super) fn keep(&mut self, id: u64, table: Vec<u32>) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(prefix) = self.prefix(id) {
            prefix.state = PrefixState::Kept { table };
            prefix.used = clock;
        }
    }

    /// The blocks of a kept prefix.
    pub(super) fn table(&mut self, id: u64) -> &[u32] {
        match self.prefix(id).map(|prefix| &prefix.state) {
            Some(PrefixState::Kept { table }) => table,
            _ => &[],
        }
    }

    /// Gives back the blocks of the kept prefix whose use is longest ago, of those that have a block of their own and are not `spared`.
    pub(super) fn evict(&mut self, blocks: &mut BlockAllocator, spared: impl Fn(u64) -> bool) -> bool {
        let frees = |prefix: &&mut SharedPrefix| match &prefix.state {
            PrefixState::Kept { table } => !spared(prefix.id) && table.iter().any(|block| blocks.holders(*block) == 1),
            _ => false,
        };
        let Some(prefix) = self.all().filter(frees).min_by_key(|prefix| prefix.used) else { return false };
        if let PrefixState::Kept { table } = std::mem::replace(&mut prefix.state, PrefixState::WantedLogits) {
            table.into_iter().for_each(|block| blocks.release(block));
        }
        true
    }

    /// The blocks of every kept prefix.
    #[cfg(test)]
    pub(super) fn tables(&self) -> impl Iterator<Item = &[u32]> {
        self.groups.values().flat_map(|group| &group.prefixes).filter_map(|prefix| match &prefix.state {
            PrefixState::Kept { table } => Some(table.as_slice()),
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
        if let PrefixState::Kept { table } = self.state {
            table.into_iter().for_each(|block| blocks.release(block));
        }
    }
}

/// Tokens that both begin with.
fn agreement(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
