//! The forward pass of the BERT family over packed sequences, in candle's tensors.

use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::accelerator::Accelerator;
use super::flash_attention::{self, Lengths, Varlen};
use super::grouped_attention::{GroupedAttention, HeadCounts, QuerySpan, about};
use super::layers::{LayerNorm, Linear};
use super::memory_retry::within_memory;
use crate::batch::TokenBatch;
use crate::encoder::Encode;
use crate::error::EngineError;
use crate::folder::{EncoderConfig, EncoderFamily, Pooling};
use crate::weights::Weights;
use tidemill_base::failure::{FailureClass, Poison};
use tidemill_kernels::normalize;

/// An encoder of the BERT family whose weights are on a device.
pub(crate) struct GpuEncoder {
    place: Accelerator,
    words: Tensor,
    /// Position vectors plus the vector of the first token type, which is the only one that single texts have.
    positions: Tensor,
    first_position: usize,
    norm: LayerNorm,
    layers: Vec<Layer>,
    heads: HeadCounts,
    output: Output,
}

struct Layer {
    /// Query, key and value in one product.
    qkv: Linear,
    project: Linear,
    attention_norm: LayerNorm,
    widen: Linear,
    narrow: Linear,
    norm: LayerNorm,
}

enum Output {
    Pooled(Pooling),
    Logits { dense: Linear, classes: Linear },
}

enum Attention {
    Grouped(GroupedAttention),
    Varlen(Varlen),
}

/// Takes tensors of a checkpoint onto the device.
struct Loader<'a> {
    place: &'a Accelerator,
    weights: &'a mut Weights,
    epsilon: f32,
}

type Loaded<T> = std::result::Result<T, EngineError>;

impl GpuEncoder {
    /// Takes the tensors that `shape` promises out of `weights`; `pooling` is none for a classifier.
    pub(crate) fn load(
        shape: &EncoderConfig,
        family: EncoderFamily,
        pooling: Option<Pooling>,
        weights: &mut Weights,
        place: &Accelerator,
    ) -> Loaded<Self> {
        let hidden = shape.hidden_size;
        let words = weights.encoder("embeddings.word_embeddings.weight", &[shape.vocab_size, hidden])?;
        let mut positions = weights.encoder("embeddings.position_embeddings.weight", &[shape.max_position_embeddings, hidden])?;
        let kinds = weights.encoder_rows("embeddings.token_type_embeddings.weight").unwrap_or(1);
        let kinds = weights.encoder("embeddings.token_type_embeddings.weight", &[kinds, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&kinds).for_each(|(position, kind)| *position += kind);
        }
        let mut loader = Loader { place, weights, epsilon: shape.layer_norm_eps };
        let norm = loader.norm("embeddings.LayerNorm", hidden)?;
        let layers = (0..shape.num_hidden_layers).map(|index| loader.layer(index, shape)).collect::<Loaded<_>>()?;
        let output = match pooling {
            Some(pooling) => Output::Pooled(pooling),
            None => loader.head(family, hidden)?,
        };
        let upload = |values: Vec<f32>| {
            let rows = values.len() / hidden;
            place.upload(values, (rows, hidden)).map_err(|e| place.cannot_hold(&e))
        };
        let heads = shape.num_attention_heads;
        Ok(Self {
            place: place.clone(),
            words: upload(words)?,
            positions: upload(positions)?,
            first_position: shape.first_position(family),
            norm,
            layers,
            heads: HeadCounts { queries: heads, keys: heads, width: hidden / heads },
            output,
        })
    }

    /// One row a sequence, computed by `compute`: all at once, or in pieces where memory asks for it.
    pub(super) fn encode_with(
        &self,
        batch: &TokenBatch,
        compute: impl FnMut(&[&[u32]]) -> Result<Vec<Vec<f32>>>,
    ) -> Loaded<Vec<std::result::Result<Vec<f32>, Poison>>> {
        let sequences: Vec<&[u32]> = batch.sequences().collect();
        let pieces = within_memory(&sequences, || self.place.tidy(), compute);
        let mut rows = Vec::with_capacity(sequences.len());
        for piece in pieces.map_err(|e| self.place.failed(&e))? {
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
        for layer in &self.layers {
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
        self.output.apply(&self.place, &rows, &ranges)
    }

    fn plan(&self, ranges: &[Range<usize>]) -> Result<Attention> {
        if flash_attention::has_varlen(&self.place, self.heads) {
            let lengths = Lengths::new(ranges.iter().map(Range::len));
            return Varlen::new(&self.place, self.heads, lengths).map(Attention::Varlen);
        }
        let span = |range: &Range<usize>| QuerySpan {
            first: range.start,
            count: range.len(),
            keys: (range.start as u32..range.end as u32).collect(),
            past: None,
        };
        let spans: Vec<QuerySpan> = ranges.iter().map(span).collect();
        GroupedAttention::new(&self.place, self.heads, &spans, None).map(Attention::Grouped)
    }

    fn embed(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let first = self.first_position as u32;
        let ids: Vec<u32> = sequences.iter().flat_map(|sequence| *sequence).copied().collect();
        let positions: Vec<u32> = sequences.iter().flat_map(|sequence| first..first + sequence.len() as u32).collect();
        // A GPU reads past a table without a word.
        let (words, places) = (self.words.dims()[0], self.positions.dims()[0]);
        assert!(ids.iter().all(|id| (*id as usize) < words), "a token id beyond {words} words");
        assert!(positions.iter().all(|position| (*position as usize) < places), "a sequence longer than {places} positions");
        let words = self.words.index_select(&self.place.upload_indexes(ids)?, 0)?;
        let positions = self.positions.index_select(&self.place.upload_indexes(positions)?, 0)?;
        self.norm.apply(&(words + positions)?)
    }
}

impl Encode for GpuEncoder {
    fn dimension(&self) -> usize {
        match &self.output {
            Output::Pooled(_) => self.heads.queries * self.heads.width,
            Output::Logits { classes, .. } => classes.outputs(),
        }
    }

    fn encode(&self, batch: &TokenBatch) -> Loaded<Vec<std::result::Result<Vec<f32>, Poison>>> {
        self.encode_with(batch, |sequences| self.run(sequences))
    }
}

/// Why a sequence has no row.
fn refused(tokens: usize) -> Poison {
    let reason = format!(
        "the device has too little memory for a sequence of {tokens} tokens alone; lower engine.kv_cache_mib, or use shorter chunks"
    );
    Poison { class: FailureClass::Model, reason }
}

impl Loader<'_> {
    fn upload<T>(&self, upload: impl FnOnce(&Accelerator) -> Result<T>) -> Loaded<T> {
        upload(self.place).map_err(|e| self.place.cannot_hold(&e))
    }

    fn norm(&mut self, name: &str, width: usize) -> Loaded<LayerNorm> {
        let scale = self.weights.encoder(&format!("{name}.weight"), &[width])?;
        let shift = self.weights.encoder(&format!("{name}.bias"), &[width])?;
        let scale = self.upload(|place| place.upload(scale, width))?;
        Ok(LayerNorm { scale, shift: self.upload(|place| place.upload(shift, width))?, epsilon: self.epsilon })
    }

    fn linear(&mut self, names: &[String], inputs: usize, outputs: usize) -> Loaded<Linear> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            weights.extend(self.weights.encoder(&format!("{name}.weight"), &[outputs, inputs])?);
            biases.extend(self.weights.encoder(&format!("{name}.bias"), &[outputs])?);
        }
        self.upload(|place| Linear::upload(place, weights, biases))
    }

    fn layer(&mut self, index: usize, shape: &EncoderConfig) -> Loaded<Layer> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        let qkv = ["query", "key", "value"].map(|part| at(&format!("attention.self.{part}")));
        Ok(Layer {
            qkv: self.linear(&qkv, hidden, hidden)?,
            project: self.linear(&[at("attention.output.dense")], hidden, hidden)?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"), hidden)?,
            widen: self.linear(&[at("intermediate.dense")], hidden, inner)?,
            narrow: self.linear(&[at("output.dense")], inner, hidden)?,
            norm: self.norm(&at("output.LayerNorm"), hidden)?,
        })
    }

    /// A classifier's head, whose tensors but the pooler's have no prefix.
    fn head(&mut self, family: EncoderFamily, hidden: usize) -> Loaded<Output> {
        let (dense, name) = match family {
            EncoderFamily::Bert => (self.linear(&["pooler.dense".into()], hidden, hidden)?, "classifier"),
            EncoderFamily::Roberta => (self.unprefixed("classifier.dense", hidden, hidden)?, "classifier.out_proj"),
        };
        let classes = self.weights.head_rows(&format!("{name}.weight")).unwrap_or(1).max(1);
        Ok(Output::Logits { dense, classes: self.unprefixed(name, hidden, classes)? })
    }

    fn unprefixed(&mut self, name: &str, inputs: usize, outputs: usize) -> Loaded<Linear> {
        let weight = self.weights.head(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.weights.head(&format!("{name}.bias"), &[outputs])?;
        self.upload(|place| Linear::upload(place, weight, bias))
    }
}

impl Output {
    fn apply(&self, place: &Accelerator, rows: &Tensor, ranges: &[Range<usize>]) -> Result<Vec<Vec<f32>>> {
        let first = || {
            let starts = ranges.iter().map(|range| range.start as u32).collect();
            rows.index_select(&place.upload_indexes(starts)?, 0)
        };
        match self {
            Self::Pooled(Pooling::First) => Ok(units(first()?.to_dtype(DType::F32)?.to_vec2()?)),
            // The length is made 1 next, so the division by the number of tokens would change nothing.
            Self::Pooled(Pooling::Mean) => sums(place, rows, ranges).map(units),
            Self::Logits { dense, classes } => classes.apply(&dense.apply(&first()?)?.tanh()?)?.to_dtype(DType::F32)?.to_vec2(),
        }
    }
}

fn units(mut rows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    rows.iter_mut().for_each(|row| normalize(row));
    rows
}

/// The sum of each sequence's rows. Those of about the same length are padded with a row of zeros and added up together.
fn sums(place: &Accelerator, rows: &Tensor, ranges: &[Range<usize>]) -> Result<Vec<Vec<f32>>> {
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
        let gathered = rows.index_select(&place.upload_indexes(places)?, 0)?.reshape((members.len(), length, hidden))?;
        for (index, sum) in members.iter().zip(gathered.sum(1)?.to_vec2()?) {
            sums[*index] = sum;
        }
    }
    Ok(sums)
}
