//! The forward pass of the BERT family over packed sequences, in candle's tensors.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::accelerator::Accelerator;
use super::flash_attention::{self, Lengths, Varlen};
use super::grouped_attention::{GroupedAttention, HeadCounts, QuerySpan, about};
use super::layers::{LayerNorm, Linear};
use super::memory_retry::within_memory;
use crate::backend::EncoderBackend;
use crate::batch::TokenBatch;
use crate::encoder::{Encode, EncoderNetwork};
use crate::error::EngineError;
use crate::folder::{EncoderConfig, EncoderFamily, ModelFolder, Pooling};
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_kernels::normalize;

/// An encoder of the BERT family whose weights are on a device.
pub(crate) struct GpuEncoder {
    accelerator: Accelerator,
    model: EncoderNetwork<Accelerator>,
    first_position: usize,
    heads: HeadCounts,
    /// None for a classifier.
    pooling: Option<Pooling>,
}

enum Attention {
    Grouped(GroupedAttention),
    Varlen(Varlen),
}

type Loaded<T> = std::result::Result<T, EngineError>;

impl GpuEncoder {
    /// Reads the folder's weights onto the device. `pooling` is none for a classifier.
    pub(crate) fn load(
        folder: &mut ModelFolder,
        config: &EncoderConfig,
        family: EncoderFamily,
        pooling: Option<Pooling>,
        accelerator: &Accelerator,
    ) -> Loaded<Self> {
        let model = EncoderNetwork::read(folder, config, family, pooling.is_none(), accelerator)?;
        let heads = config.num_attention_heads;
        Ok(Self {
            accelerator: accelerator.clone(),
            model,
            first_position: config.first_position(family),
            heads: HeadCounts { queries: heads, keys: heads, width: config.hidden_size / heads },
            pooling,
        })
    }

    /// One row a sequence, computed by `compute`: all at once, or in pieces where memory asks for it.
    pub(super) fn encode_with(
        &self,
        batch: &TokenBatch,
        compute: impl FnMut(&[&[u32]]) -> Result<Vec<Vec<f32>>>,
    ) -> Loaded<Vec<std::result::Result<Vec<f32>, Poison>>> {
        let sequences: Vec<&[u32]> = batch.sequences().collect();
        let pieces = within_memory(&sequences, || self.accelerator.tidy(), compute);
        let mut rows = Vec::with_capacity(sequences.len());
        for piece in pieces.map_err(|e| self.accelerator.failed(&e))? {
            match piece.outcome {
                Some(computed) => rows.extend(computed.into_iter().map(Ok)),
                None => rows.extend(piece.rows.map(|row| Err(refused(sequences[row].len())))),
            }
        }
        Ok(rows)
    }

    /// One row a sequence.
    pub(super) fn run(&self, sequences: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let mut first = 0;
        let ranges: Vec<Range<usize>> = sequences
            .iter()
            .map(|sequence| {
                first += sequence.len();
                first - sequence.len()..first
            })
            .collect();
        let attention = self.plan(&ranges)?;
        let mut rows = self.embed(sequences)?;
        let hidden = self.heads.queries * self.heads.width;
        for layer in &self.model.layers {
            let qkv = layer.qkv.apply(&rows)?;
            let part = |index: usize| qkv.narrow(1, index * hidden, hidden)?.contiguous();
            let (queries, keys, values) = (part(0)?, part(1)?, part(2)?);
            let context = match &attention {
                Attention::Grouped(plan) => plan.attend(&queries, &keys, &values)?,
                Attention::Varlen(varlen) => varlen.attend(&queries, &keys, &values)?,
            };
            rows = layer.attention_norm.apply(&(rows + layer.project.apply(&context)?)?)?;
            let inner = layer.widen.apply(&rows)?.gelu_erf()?;
            rows = layer.norm.apply(&(rows + layer.narrow.apply(&inner)?)?)?;
        }
        self.outputs(&rows, &ranges)
    }

    fn plan(&self, ranges: &[Range<usize>]) -> Result<Attention> {
        if flash_attention::has_varlen(&self.accelerator, self.heads) {
            let lengths = Lengths::new(ranges.iter().map(Range::len));
            return Varlen::new(&self.accelerator, self.heads, lengths).map(Attention::Varlen);
        }
        let span = |range: &Range<usize>| QuerySpan {
            first: range.start,
            count: range.len(),
            keys: (range.start as u32..range.end as u32).collect(),
            past: None,
        };
        let spans: Vec<QuerySpan> = ranges.iter().map(span).collect();
        GroupedAttention::new(&self.accelerator, self.heads, &spans, None).map(Attention::Grouped)
    }

    /// The vector of length 1 of each sequence, or its logits.
    fn outputs(&self, rows: &Tensor, ranges: &[Range<usize>]) -> Result<Vec<Vec<f32>>> {
        let first = || {
            let starts = ranges.iter().map(|range| range.start as u32).collect();
            rows.index_select(&self.accelerator.upload_indexes(starts)?, 0)
        };
        if let Some(head) = &self.model.classifier {
            return head.classes.apply(&head.dense.apply(&first()?)?.tanh()?)?.to_dtype(DType::F32)?.to_vec2();
        }
        match self.pooling {
            Some(Pooling::First) => Ok(units(first()?.to_dtype(DType::F32)?.to_vec2()?)),
            // The length is made 1 next, so the division by the number of tokens would change nothing.
            Some(Pooling::Mean) | None => sums(&self.accelerator, rows, ranges).map(units),
        }
    }

    fn embed(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let first = self.first_position as u32;
        let ids: Vec<u32> = sequences.iter().flat_map(|sequence| *sequence).copied().collect();
        let positions: Vec<u32> = sequences.iter().flat_map(|sequence| first..first + sequence.len() as u32).collect();
        // A GPU would read past a table without an error.
        let (words, places) = (self.model.words.dims()[0], self.model.positions.dims()[0]);
        assert!(ids.iter().all(|id| (*id as usize) < words), "a token id beyond {words} words");
        assert!(positions.iter().all(|position| (*position as usize) < places), "a sequence longer than {places} positions");
        let words = self.model.words.index_select(&self.accelerator.upload_indexes(ids)?, 0)?;
        let positions = self.model.positions.index_select(&self.accelerator.upload_indexes(positions)?, 0)?;
        self.model.norm.apply(&(words + positions)?)
    }
}

impl Encode for GpuEncoder {
    fn dimension(&self) -> usize {
        self.model.classifier.as_ref().map_or(self.heads.queries * self.heads.width, |head| head.classes.outputs())
    }

    fn encode(&self, batch: &TokenBatch) -> Loaded<Vec<std::result::Result<Vec<f32>, Poison>>> {
        self.encode_with(batch, |sequences| self.run(sequences))
    }
}

/// The error of a sequence that needs too much memory alone.
fn refused(tokens: usize) -> Poison {
    let reason = format!(
        "the device has too little memory for a sequence of {tokens} tokens alone; lower engine.kv_cache_mib, or use shorter chunks"
    );
    Poison { class: FailureClass::Model, reason }
}

impl EncoderBackend for Accelerator {
    type Table = Tensor;
    type Linear = Linear;
    type LayerNorm = LayerNorm;

    fn table(&self, rows: Vec<f32>, width: usize) -> Loaded<Tensor> {
        let count = rows.len() / width;
        self.hold(self.upload(rows, (count, width)))
    }

    fn linear(&self, weight: Vec<f32>, bias: Vec<f32>) -> Loaded<Linear> {
        self.hold(Linear::upload(self, weight, bias))
    }

    fn layer_norm(&self, scale: Vec<f32>, shift: Vec<f32>, epsilon: f32) -> Loaded<LayerNorm> {
        let width = scale.len();
        let (scale, shift) = (self.hold(self.upload(scale, width))?, self.hold(self.upload(shift, width))?);
        Ok(LayerNorm { scale, shift, epsilon })
    }
}

fn units(mut rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    rows.iter_mut().for_each(|row| normalize(row));
    rows
}

/// The sum of each sequence's rows. Sequences of about the same length are padded with rows of zeros and added up together.
fn sums(accelerator: &Accelerator, rows: &Tensor, ranges: &[Range<usize>]) -> Result<Vec<Vec<f32>>> {
    let (tokens, hidden) = rows.dims2()?;
    let rows = rows.to_dtype(DType::F32)?.pad_with_zeros(0, 0, 1)?;
    let mut alike: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, range) in ranges.iter().enumerate() {
        alike.entry(about(range.len())).or_default().push(index);
    }
    let mut sums = vec![Vec::new(); ranges.len()];
    for (length, members) in alike {
        let place_of = |index: usize, i: usize| if i < ranges[index].len() { ranges[index].start + i } else { tokens };
        let places = members.iter().flat_map(|index| (0..length).map(move |i| place_of(*index, i) as u32)).collect();
        let gathered = rows.index_select(&accelerator.upload_indexes(places)?, 0)?.reshape((members.len(), length, hidden))?;
        for (index, sum) in members.iter().zip(gathered.sum(1)?.to_vec2()?) {
            sums[*index] = sum;
        }
    }
    Ok(sums)
}
