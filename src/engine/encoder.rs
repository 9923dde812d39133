//! The forward pass of the BERT family over packed sequences.
//!
//! All rows of a part of the batch go through a linear layer together, whatever sequences they belong to. Only attention and pooling
//! distinguish sequences. Nothing is padded.

mod layer;
mod weights;

use std::cell::RefCell;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

pub(super) use self::weights::{EncoderLayer, EncoderNetwork};

use self::layer::{Layer, LayerBuffers};
use self::weights::ClassifierHead;
use super::backend::{Cpu, EncoderBackend};
use super::batch::{PackedSequences, TokenBatch};
use super::error::EngineError;
use super::folder::{EncoderConfig, EncoderFamily, ModelFolder, Pooling};
use tidemill_base::failure::Poison;
use tidemill_kernels::{AttentionShape, LayerNorm, Linear, aligned_slice, normalize, tanh};

/// Tokens that one core computes at once. With fewer, the weights would be read from memory too often for each token. With more, the rows
/// would not stay in the second cache from product to product.
const PART_TOKENS: usize = 256;

/// An encoder on any device.
pub(super) trait Encode: Send + Sync {
    /// Values of a sequence's row: components of its vector, or one logit for each class.
    fn dimension(&self) -> usize;

    /// One row for each sequence, in the order of the batch: its vector of length 1 or its logits, or the reason why it has none. Runs on
    /// the threads of the current pool.
    fn encode(&self, batch: &TokenBatch) -> Result<Vec<Result<Vec<f32>, Poison>>, EngineError>;
}

/// An encoder of the BERT family on the cores of this machine.
pub(super) struct Encoder {
    words: Vec<f32>,
    positions: Vec<f32>,
    first_position: usize,
    norm: LayerNorm,
    layers: Vec<Layer>,
    hidden: usize,
    output: Output,
}

enum Output {
    Pooled(Pooling),
    Logits(Box<ClassifierHead<Cpu>>),
}

impl EncoderBackend for Cpu {
    type Table = Vec<f32>;
    type Linear = Linear;
    type LayerNorm = LayerNorm;

    fn table(&self, rows: Vec<f32>, _: usize) -> Result<Vec<f32>, EngineError> {
        Ok(rows)
    }

    fn linear(&self, weight: Vec<f32>, bias: Vec<f32>) -> Result<Linear, EngineError> {
        Ok(Linear::new(&weight, bias))
    }

    fn layer_norm(&self, scale: Vec<f32>, shift: Vec<f32>, epsilon: f32) -> Result<LayerNorm, EngineError> {
        Ok(LayerNorm { scale, shift, epsilon })
    }
}

thread_local! {
    static WORKSPACE: RefCell<EncoderBuffers> = RefCell::default();
}

/// Buffers of one thread, kept between batches.
#[derive(Default)]
struct EncoderBuffers {
    rows: Vec<f32>,
    space: LayerBuffers,
}

impl Encoder {
    /// Reads the folder's weights. `pooling` is none for a classifier.
    pub(super) fn load(
        folder: &mut ModelFolder,
        config: &EncoderConfig,
        family: EncoderFamily,
        pooling: Option<Pooling>,
    ) -> Result<Self, EngineError> {
        let hidden = config.hidden_size;
        let weights = EncoderNetwork::read(folder, config, family, pooling.is_none(), &Cpu)?;
        let EncoderNetwork { words, positions, norm, layers, classifier } = weights;
        let attention = AttentionShape { heads: config.num_attention_heads, width: hidden / config.num_attention_heads };
        let output = match (pooling, classifier) {
            (_, Some(classifier)) => Output::Logits(Box::new(classifier)),
            (pooling, None) => Output::Pooled(pooling.unwrap_or(Pooling::Mean)),
        };
        let layers = layers.into_iter().map(|weights| Layer::new(weights, attention)).collect();
        Ok(Self { words, positions, first_position: config.first_position(family), norm, layers, hidden, output })
    }

    /// One row for each sequence: its vector of length 1, or its logits.
    fn run(&self, batch: &PackedSequences<'_>, workspace: &mut EncoderBuffers) -> Vec<Vec<f32>> {
        let (hidden, tokens) = (self.hidden, batch.tokens());
        let EncoderBuffers { rows, space } = workspace;
        let rows = aligned_slice(rows, tokens * hidden);
        self.embed(batch, rows);
        space.begin(rows, hidden, self.layers.iter().any(Layer::is_rounded));
        for layer in &self.layers {
            layer.run(batch, rows, space);
        }
        batch.ranges().map(|range| self.output.apply(&rows[range.start * hidden..range.end * hidden], hidden)).collect()
    }

    fn embed(&self, batch: &PackedSequences<'_>, rows: &mut [f32]) {
        let hidden = self.hidden;
        let mut rows = rows.chunks_exact_mut(hidden);
        for sequence in batch.sequences() {
            for (position, (id, row)) in sequence.iter().zip(&mut rows).enumerate() {
                let word = &self.words[*id as usize * hidden..][..hidden];
                let place = &self.positions[(self.first_position + position) * hidden..][..hidden];
                for ((value, word), place) in row.iter_mut().zip(word).zip(place) {
                    *value = word + place;
                }
                self.norm.apply(row);
            }
        }
    }
}

impl Encode for Encoder {
    fn dimension(&self) -> usize {
        match &self.output {
            Output::Pooled(_) => self.hidden,
            Output::Logits(classifier) => classifier.classes.bias().len(),
        }
    }

    fn encode(&self, batch: &TokenBatch) -> Result<Vec<Result<Vec<f32>, Poison>>, EngineError> {
        let even = batch.tokens().div_ceil(rayon::current_num_threads());
        let parts = batch.parts(even.clamp(1, PART_TOKENS));
        let run = |part: &PackedSequences<'_>| WORKSPACE.with_borrow_mut(|workspace| self.run(part, workspace));
        let rows: Vec<Vec<Vec<f32>>> = parts.par_iter().with_max_len(1).map(run).collect();
        Ok(rows.into_iter().flatten().map(Ok).collect())
    }
}

impl Output {
    fn apply(&self, rows: &[f32], hidden: usize) -> Vec<f32> {
        match self {
            Self::Pooled(Pooling::First) => {
                let mut vector = rows[..hidden].to_vec();
                normalize(&mut vector);
                vector
            }
            Self::Pooled(Pooling::Mean) => {
                let mut vector = vec![0.0; hidden];
                for row in rows.chunks_exact(hidden) {
                    vector.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
                // The length is made 1 next, so the division by the number of tokens would change nothing.
                normalize(&mut vector);
                vector
            }
            Self::Logits(classifier) => {
                let ClassifierHead { dense, classes } = &**classifier;
                let mut pooled = vec![0.0; hidden];
                dense.apply(&rows[..hidden], &mut pooled);
                tanh(&mut pooled);
                let mut logits = vec![0.0; classes.bias().len()];
                classes.apply(&pooled, &mut logits);
                logits
            }
        }
    }
}
