//! Flash attention: one kernel that keeps no scores in memory. For GPUs, if the feature `flash-attn` was compiled.
//!
//! | kernel | for | width of a head |
//! |---|---|---|
//! | `varlen` | sequences that see all of themselves | up to 64, and 104 to 128 |
//! | `varlen_paged` | new tokens over the blocks of a cache | up to 128 |
//!
//! `deploy/build-cuda.sh` compiles these kernels only; each further one would take five minutes. Widths are multiples of 8.

use candle_core::{DType, Result, Tensor};

use super::accelerator::Accelerator;
use super::grouped_attention::HeadCounts;

/// Whether there is a kernel for sequences that see all of themselves.
pub(super) fn has_varlen(accelerator: &Accelerator, heads: HeadCounts) -> bool {
    is_compiled(accelerator, heads) && (heads.width <= 64 || (97..=128).contains(&heads.width))
}

/// Whether there is a kernel for blocks of a cache.
pub(super) fn has_paged(accelerator: &Accelerator, heads: HeadCounts) -> bool {
    is_compiled(accelerator, heads) && heads.width <= 128
}

fn is_compiled(accelerator: &Accelerator, heads: HeadCounts) -> bool {
    cfg!(feature = "flash-attn")
        && accelerator.device.is_cuda()
        && accelerator.dtype == DType::BF16
        && heads.width.is_multiple_of(8)
}

/// The beginning of each sequence, and the end of the last.
#[derive(Default)]
pub(super) struct Lengths {
    starts: Vec<u32>,
    longest: usize,
}

impl Lengths {
    /// The lengths of sequences, in order.
    pub(super) fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut all = Self { starts: vec![0], longest: 0 };
        for length in lengths {
            let end = all.starts.last().copied().unwrap_or(0) + length as u32;
            all.starts.push(end);
            all.longest = all.longest.max(length);
        }
        all
    }
}

/// Sequences that see all of themselves.
pub(super) struct Varlen {
    starts: Tensor,
    longest: usize,
    heads: HeadCounts,
}

/// New tokens over the blocks of a cache.
pub(super) struct Paged {
    starts: Tensor,
    longest: usize,
    ends: Tensor,
    farthest: usize,
    /// A row of blocks for each sequence.
    tables: Tensor,
    heads: HeadCounts,
}

impl Varlen {
    pub(super) fn new(accelerator: &Accelerator, heads: HeadCounts, lengths: Lengths) -> Result<Self> {
        Ok(Self { starts: accelerator.upload_indexes(lengths.starts)?, longest: lengths.longest, heads })
    }

    /// Rows as in [`GroupedAttention::attend`](super::grouped_attention::GroupedAttention::attend).
    pub(super) fn attend(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let HeadCounts { queries: all, keys: shared, width } = self.heads;
        let rows = queries.dims()[0];
        let (queries, keys, values) =
            (queries.reshape((rows, all, width))?, keys.reshape((rows, shared, width))?, values.reshape((rows, shared, width))?);
        self.kernel(&queries, &keys, &values)?.reshape((rows, all * width))
    }

    #[cfg(feature = "flash-attn")]
    fn kernel(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        let scale = 1.0 / (self.heads.width as f32).sqrt();
        let (starts, longest) = (&self.starts, self.longest);
        candle_flash_attn::flash_attn_varlen(queries, keys, values, starts, starts, longest, longest, scale, false)
    }

    #[cfg(not(feature = "flash-attn"))]
    fn kernel(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        unreachable!(
            "has_varlen says that there is no kernel for {:?} from {} on, {} long",
            self.heads, self.starts, self.longest
        )
    }
}

impl Paged {
    /// New tokens of sequences: how many each has, how many tokens it has with them, and its blocks.
    pub(super) fn new<'a>(
        accelerator: &Accelerator,
        heads: HeadCounts,
        rows: impl Iterator<Item = (usize, usize, &'a [u32])> + Clone,
    ) -> Result<Self> {
        let new = Lengths::new(rows.clone().map(|(count, ..)| count));
        let all = Lengths::new(rows.clone().map(|(_, end, _)| end));
        let (mut tables, mut sequences) = (Vec::new(), 0);
        let longest = rows.clone().map(|(.., blocks)| blocks.len()).max().unwrap_or(0);
        for (.., blocks) in rows {
            sequences += 1;
            tables.extend_from_slice(blocks);
            tables.resize(sequences * longest, 0);
        }
        Ok(Self {
            starts: accelerator.upload_indexes(new.starts)?,
            longest: new.longest,
            ends: accelerator.upload_indexes(all.starts)?,
            farthest: all.longest,
            tables: accelerator.upload_indexes(tables)?.reshape((sequences, longest))?,
            heads,
        })
    }

    /// Rows of queries and of the result as in [`GroupedAttention::attend`](super::grouped_attention::GroupedAttention::attend); keys and values are a layer's cache, a
    /// row a block of `tokens` tokens. A query sees `window` keys, itself included.
    pub(super) fn attend(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        tokens: usize,
        window: Option<usize>,
    ) -> Result<Tensor> {
        let HeadCounts { queries: all, keys: shared, width } = self.heads;
        let (rows, blocks) = (queries.dims()[0], keys.dims()[0]);
        let queries = queries.reshape((rows, all, width))?;
        let (keys, values) = (keys.reshape((blocks, tokens, shared, width))?, values.reshape((blocks, tokens, shared, width))?);
        self.kernel(&queries, &keys, &values, window)?.reshape((rows, all * width))
    }

    #[cfg(feature = "flash-attn")]
    fn kernel(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, window: Option<usize>) -> Result<Tensor> {
        let scale = 1.0 / (self.heads.width as f32).sqrt();
        let tokens = keys.dims()[1];
        candle_flash_attn::flash_attn_varlen_paged_windowed(
            queries,
            keys,
            values,
            &self.starts,
            &self.ends,
            &self.tables,
            None,
            self.longest,
            self.farthest,
            scale,
            window.map(|window| window - 1),
            Some(0),
            tokens,
            None,
        )
    }

    #[cfg(not(feature = "flash-attn"))]
    fn kernel(&self, _: &Tensor, _: &Tensor, _: &Tensor, _: Option<usize>) -> Result<Tensor> {
        unreachable!(
            "has_paged says that there is no kernel for {:?} from {} to {}, {} and {} long, over {}",
            self.heads, self.starts, self.ends, self.longest, self.farthest, self.tables
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_become_where_each_begins_and_the_last_ends() {
        let lengths = Lengths::new([3, 0, 5]);
        assert_eq!((lengths.starts, lengths.longest), (vec![0, 3, 3, 8], 5));
    }

    #[test]
    fn tables_of_blocks_are_padded_to_the_longest() {
        let accelerator = Accelerator::on_cpu(DType::F32);
        let heads = HeadCounts { queries: 2, keys: 1, width: 64 };
        let rows = [(1, 70, &[4, 0, 9][..]), (5, 5, &[2][..])];
        let paged = Paged::new(&accelerator, heads, rows.into_iter()).unwrap();
        assert_eq!(paged.tables.to_vec2::<u32>().unwrap(), [[4, 0, 9], [2, 0, 0]]);
        assert_eq!(paged.starts.to_vec1::<u32>().unwrap(), [0, 1, 6]);
        assert_eq!(paged.ends.to_vec1::<u32>().unwrap(), [0, 70, 75]);
        assert_eq!((paged.longest, paged.farthest), (5, 70));
    }

    #[test]
    fn there_is_no_kernel_on_the_cpu() {
        let accelerator = Accelerator::on_cpu(DType::BF16);
        let heads = HeadCounts { queries: 2, keys: 1, width: 64 };
        assert!(!has_varlen(&accelerator, heads) && !has_paged(&accelerator, heads));
    }
}
