//! Token batches: sequences packed one after the other, without padding.

use std::ops::Range;

use super::queued_sequence::QueuedSequence;

/// What a device computes at once: sequences of one model, the longest first.
pub(super) struct TokenBatch {
    /// The model's index in the engine's list.
    pub(super) model: usize,
    /// Token ids of all sequences.
    ids: Vec<u32>,
    /// The start of each sequence in `ids`, and the end of the last one (cumulative sequence lengths).
    cu_seqlens: Vec<usize>,
    /// The sequences with their callers' reply channels.
    pub(super) waiting: Vec<QueuedSequence>,
}

/// Whole sequences of a batch that one core computes alone.
#[derive(Clone, Copy)]
pub(super) struct PackedSequences<'a> {
    ids: &'a [u32],
    cu_seqlens: &'a [usize],
}

impl TokenBatch {
    /// Packs sequences of one model.
    pub(super) fn pack(model: usize, mut waiting: Vec<QueuedSequence>) -> Self {
        // The longest first: the short ones at the end let all cores finish at about the same time.
        waiting.sort_by_key(|w| std::cmp::Reverse(w.ids.len()));
        let mut ids = Vec::with_capacity(waiting.iter().map(|w| w.ids.len()).sum());
        let mut cu_seqlens = vec![0];
        for sequence in &waiting {
            ids.extend_from_slice(&sequence.ids);
            cu_seqlens.push(ids.len());
        }
        Self { model, ids, cu_seqlens, waiting }
    }

    /// Tokens of all sequences.
    pub(super) fn tokens(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = &[u32]> {
        self.cu_seqlens.windows(2).map(|pair| &self.ids[pair[0]..pair[1]])
    }

    /// Cuts the batch into parts of whole sequences, each of about `tokens` tokens.
    pub(super) fn parts(&self, tokens: usize) -> Vec<PackedSequences<'_>> {
        let mut parts = Vec::new();
        let mut first = 0;
        for last in 1..self.cu_seqlens.len() {
            let full = self.cu_seqlens[last] - self.cu_seqlens[first] >= tokens;
            if full || last + 1 == self.cu_seqlens.len() {
                parts.push(PackedSequences { ids: &self.ids, cu_seqlens: &self.cu_seqlens[first..=last] });
                first = last;
            }
        }
        parts
    }
}

impl<'a> PackedSequences<'a> {
    pub(super) fn tokens(&self) -> usize {
        self.ranges().last().map_or(0, |range| range.end)
    }

    /// The rows of each sequence within this part.
    pub(super) fn ranges(self) -> impl Iterator<Item = Range<usize>> + 'a {
        let base = self.cu_seqlens[0];
        self.cu_seqlens.windows(2).map(move |pair| pair[0] - base..pair[1] - base)
    }

    pub(super) fn sequences(self) -> impl Iterator<Item = &'a [u32]> {
        self.cu_seqlens.windows(2).map(move |pair| &self.ids[pair[0]..pair[1]])
    }
}
