//! Attention of many sequences at once, in products that any device has. Sequences of about the same length are padded and computed together.
//!
//! Padding cannot change results: a padding query repeats a query of the sequence, and a padding key repeats a key of the same sequence and is
//! hidden by the mask. Values that another sequence left in memory are never read.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::accelerator::Accelerator;
use super::layers::softmax;

/// Scores that are held at once, 256 MiB of them. Queries beyond that are computed in turns.
const SCORES: usize = 64 << 20;

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadCounts {
    pub(super) queries: usize,
    /// Heads of keys and values; each serves as many query heads as there are to one.
    pub(super) keys: usize,
    /// Components of a head.
    pub(super) width: usize,
}

/// Consecutive queries of one sequence, and the keys that they may see.
pub(super) struct QuerySpan {
    /// The row of the first query.
    pub(super) first: usize,
    pub(super) count: usize,
    /// The rows of the sequence's keys, in order.
    pub(super) keys: Vec<u32>,
    /// The position of the first query among the keys, if a query sees only keys up to its own; none if each query sees all keys.
    pub(super) past: Option<usize>,
}

/// The groups of queries and keys of one batch or step. Made once, used in every layer.
pub(super) struct GroupedAttention {
    groups: Vec<PaddedGroup>,
    /// The row of each query's result among those of all groups.
    order: Tensor,
    heads: HeadCounts,
}

/// Parts of sequences that are padded to one shape.
struct PaddedGroup {
    sequences: usize,
    queries: usize,
    keys: usize,
    query_rows: Tensor,
    key_rows: Tensor,
    /// Added to the scores; none if every query sees every key.
    mask: Option<Tensor>,
}

/// Some queries of a span, with the keys that at least one of them sees.
struct QueryPart<'a> {
    first: usize,
    count: usize,
    keys: &'a [u32],
    /// The position of the first query among these keys, and how many keys a query sees, including its own.
    causal: Option<(usize, usize)>,
}

impl GroupedAttention {
    /// Groups the queries of `spans`, which together hold each query once. A query sees `window` keys, including its own.
    pub(super) fn new(accelerator: &Accelerator, heads: HeadCounts, spans: &[QuerySpan], window: Option<usize>) -> Result<Self> {
        Self::bounded(accelerator, heads, spans, window, SCORES)
    }

    /// As [`Self::new`], with at most `scores` scores at once.
    pub(super) fn bounded(
        accelerator: &Accelerator,
        heads: HeadCounts,
        spans: &[QuerySpan],
        window: Option<usize>,
        scores: usize,
    ) -> Result<Self> {
        let scores = scores / heads.queries;
        let mut alike: BTreeMap<(usize, usize), Vec<QueryPart<'_>>> = BTreeMap::new();
        for part in spans.iter().flat_map(|span| span.parts(window, scores)) {
            alike.entry((about(part.count), about(part.keys.len()))).or_default().push(part);
        }
        let total: usize = spans.iter().map(|span| span.count).sum();
        let (mut groups, mut order, mut results) = (Vec::new(), vec![0; total], 0);
        for ((queries, keys), parts) in alike {
            for parts in parts.chunks((scores / (queries * keys)).max(1)) {
                let group = PaddedGroup::new(accelerator, parts)?;
                for (i, part) in parts.iter().enumerate() {
                    let first = results + i * group.queries;
                    (0..part.count).for_each(|query| order[part.first + query] = (first + query) as u32);
                }
                results += group.sequences * group.queries;
                groups.push(group);
            }
        }
        Ok(Self { groups, order: accelerator.upload_indexes(order)?, heads })
    }

    /// `softmax(Q·Kᵀ / √width) · V`: a row of `queries`, `keys` and `values` holds the heads of one token side by side, and so does one of
    /// the result.
    pub(super) fn attend(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let results: Vec<Tensor> =
            self.groups.iter().map(|group| group.attend(self.heads, queries, keys, values)).collect::<Result<_>>()?;
        Tensor::cat(&results, 0)?.index_select(&self.order, 0)
    }
}

impl QuerySpan {
    /// Cuts the span into parts of at most `scores` scores for each head, each with only the keys that one of its queries sees.
    fn parts(&self, window: Option<usize>, scores: usize) -> Vec<QueryPart<'_>> {
        let together = (scores / self.keys.len().max(1)).max(1);
        let part = |start: usize| {
            let count = together.min(self.count - start);
            let Some(past) = self.past else {
                return QueryPart { first: self.first + start, count, keys: &self.keys, causal: None };
            };
            let (position, end) = (past + start, past + start + count);
            let window = window.unwrap_or(end);
            let from = (position + 1).saturating_sub(window);
            let keys = &self.keys[from..end];
            QueryPart { first: self.first + start, count, keys, causal: Some((position - from, window)) }
        };
        (0..self.count).step_by(together).map(part).collect()
    }
}

impl QueryPart<'_> {
    /// Whether query `query` sees key `key`.
    fn sees(&self, query: usize, key: usize) -> bool {
        let within = |(first, window): (usize, usize)| key <= first + query && key + window > first + query;
        key < self.keys.len() && self.causal.is_none_or(within)
    }
}

impl PaddedGroup {
    fn new(accelerator: &Accelerator, parts: &[QueryPart<'_>]) -> Result<Self> {
        let queries = parts.iter().map(|part| part.count).max().unwrap_or(0);
        let keys = parts.iter().map(|part| part.keys.len()).max().unwrap_or(0);
        let (mut query_rows, mut key_rows) = (Vec::new(), Vec::new());
        let mut mask = Vec::with_capacity(parts.len() * queries * keys);
        for part in parts {
            query_rows.extend((0..queries).map(|query| (part.first + query.min(part.count - 1)) as u32));
            key_rows.extend((0..keys).map(|key| part.keys[key.min(part.keys.len() - 1)]));
            for query in 0..queries {
                let query = query.min(part.count - 1);
                mask.extend((0..keys).map(|key| if part.sees(query, key) { 0.0 } else { f32::NEG_INFINITY }));
            }
        }
        let hides = mask.iter().any(|value| *value != 0.0);
        let mask = hides.then(|| accelerator.upload_f32(mask, (parts.len(), 1, queries, keys))).transpose()?;
        let (query_rows, key_rows) = (accelerator.upload_indexes(query_rows)?, accelerator.upload_indexes(key_rows)?);
        Ok(Self { sequences: parts.len(), queries, keys, query_rows, key_rows, mask })
    }

    fn attend(&self, heads: HeadCounts, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let HeadCounts { queries: all, keys: shared, width } = heads;
        let (sequences, each) = (self.sequences, all / shared);
        let dtype = queries.dtype();
        // The query heads that share keys are rows of one product.
        let query = queries.index_select(&self.query_rows, 0)?.reshape((sequences, self.queries, shared, each, width))?;
        let query = query.permute((0, 2, 3, 1, 4))?.contiguous()?.reshape((sequences * shared, each * self.queries, width))?;
        let gather = |rows: &Tensor| -> Result<Tensor> {
            let rows = rows.index_select(&self.key_rows, 0)?.reshape((sequences, self.keys, shared, width))?;
            rows.transpose(1, 2)?.contiguous()?.reshape((sequences * shared, self.keys, width))
        };
        let scores = query.matmul(&gather(keys)?.transpose(1, 2)?)?.to_dtype(DType::F32)?;
        let scores = scores.affine(1.0 / (width as f64).sqrt(), 0.0)?.reshape((sequences, all, self.queries, self.keys))?;
        let scores = match &self.mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let weights = softmax(&scores)?.to_dtype(dtype)?.reshape((sequences * shared, each * self.queries, self.keys))?;
        let context = weights.matmul(&gather(values)?)?.reshape((sequences, shared, each, self.queries, width))?;
        context.permute((0, 3, 1, 2, 4))?.contiguous()?.reshape((sequences * self.queries, all * width))
    }
}

/// `count` rounded up to a multiple of an eighth of the next power of two.
pub(super) fn about(count: usize) -> usize {
    count.next_multiple_of((count.next_power_of_two() / 8).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stays_under_a_quarter() {
        for count in 1..5000 {
            let padded = about(count);
            assert!(padded >= count && padded * 4 <= count * 5, "{count} would be padded to {padded}");
        }
    }

    #[test]
    fn a_part_sees_its_window_and_nothing_after_itself() {
        let span = QuerySpan { first: 10, count: 4, keys: (100..107).collect(), past: Some(3) };
        let parts = span.parts(Some(3), 14);
        let shapes: Vec<_> = parts.iter().map(|part| (part.first, part.count, part.keys)).collect();
        assert_eq!(shapes, [(10, 2, &[101, 102, 103, 104][..]), (12, 2, &[103, 104, 105, 106][..])]);
        let seen = |query: usize| (0..4).filter(|key| parts[0].sees(query, *key)).collect::<Vec<_>>();
        assert_eq!((seen(0), seen(1)), (vec![0, 1, 2], vec![1, 2, 3]));
    }

    #[test]
    fn few_scores_at_once_give_what_many_give() {
        let accelerator = Accelerator::on_cpu(DType::F32);
        let heads = HeadCounts { queries: 4, keys: 2, width: 6 };
        let rows = |count: usize, width: usize, step: usize| {
            let values: Vec<f32> = (0..count * width).map(|i| ((i * step) % 101) as f32 / 50.0 - 1.0).collect();
            Tensor::from_vec(values, (count, width), &accelerator.device).unwrap()
        };
        let (queries, keys, values) = (rows(20, 24, 37), rows(64, 12, 29), rows(64, 12, 53));
        let spans = [
            QuerySpan { first: 0, count: 13, keys: (20..53).rev().collect(), past: Some(20) },
            QuerySpan { first: 13, count: 1, keys: (0..9).collect(), past: Some(8) },
            QuerySpan { first: 14, count: 6, keys: (53..59).collect(), past: Some(0) },
        ];
        for window in [None, Some(5)] {
            let attend = |scores: usize| -> Vec<f32> {
                let plan = GroupedAttention::bounded(&accelerator, heads, &spans, window, scores).unwrap();
                plan.attend(&queries, &keys, &values).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            let whole = attend(SCORES);
            for scores in [1, 200, 1000] {
                let worst = whole.iter().zip(attend(scores)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{scores} scores at once, window {window:?}: off by {worst}");
            }
        }
    }
}
