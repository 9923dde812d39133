//! The forward pass of the BERT family over packed sequences.
//!
//! All rows of a slice of the batch go through a linear layer together, whatever sequences they belong to; only attention and pooling look at
//! where sequences begin. Nothing is padded.

mod layer;

use std::cell::RefCell;

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::batch::{PackedSequences, TokenBatch};
use super::error::EngineError;
use super::folder::{EncoderConfig, EncoderFamily, Pooling};
use super::weights::Weights;
use layer::{Layer, LayerBuffers};
use tidemill_base::failure::Poison;
use tidemill_kernels::{LayerNorm, Linear, aligned_slice, normalize, tanh};

/// Tokens that one core takes at once. Fewer would read the weights from memory too often for each token; more would not stay in the second
/// cache from product to product.
const PART_TOKENS: usize = 256;

/// What the host needs of an encoder, wherever it computes.
pub(super) trait Encode: Send + Sync {
    /// Components of a sequence's row: of its vector, or one a class.
    fn dimension(&self) -> usize;

    /// One row a sequence, in the order of the batch: its vector of length 1, or its logits; or why it has none. Runs on the threads of
    /// the current pool.
    fn encode(&self, batch: &TokenBatch) -> Result<Vec<Result<Vec<f32>, Poison>>, EngineError>;
}

/// An encoder of the BERT family, with what it makes of the last layer.
pub(super) struct Encoder {
    words: Vec<f32>,
    /// Position vectors plus the vector of the first token type, which is the only one that single texts have.
    positions: Vec<f32>,
    first_position: usize,
    norm: LayerNorm,
    layers: Vec<Layer>,
    hidden: usize,
    output: Output,
}

enum Output {
    Pooled(Pooling),
    Logits { dense: Box<Linear>, classes: Box<Linear> },
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
    /// Takes the tensors that `shape` promises out of `weights`; `pooling` is none for a classifier.
    pub(super) fn load(
        shape: &EncoderConfig,
        family: EncoderFamily,
        pooling: Option<Pooling>,
        weights: &mut Weights,
    ) -> Result<Self, EngineError> {
        let hidden = shape.hidden_size;
        let words = weights.encoder("embeddings.word_embeddings.weight", &[shape.vocab_size, hidden])?;
        let mut positions = weights.encoder("embeddings.position_embeddings.weight", &[shape.max_position_embeddings, hidden])?;
        let kinds = weights.encoder_rows("embeddings.token_type_embeddings.weight").unwrap_or(1);
        let kinds = weights.encoder("embeddings.token_type_embeddings.weight", &[kinds, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&kinds).for_each(|(position, kind)| *position += kind);
        }
        let norm = layer_norm(weights, "embeddings.LayerNorm", shape)?;
        let layers = (0..shape.num_hidden_layers).map(|i| Layer::load(weights, i, shape)).collect::<Result<_, _>>()?;
        let output = match pooling {
            Some(pooling) => Output::Pooled(pooling),
            None => Output::load(weights, family, hidden)?,
        };
        Ok(Self { words, positions, first_position: shape.first_position(family), norm, layers, hidden, output })
    }

    /// One row a sequence: its vector of length 1, or its logits.
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
            Output::Logits { classes, .. } => classes.bias().len(),
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

fn layer_norm(weights: &mut Weights, name: &str, shape: &EncoderConfig) -> Result<LayerNorm, EngineError> {
    let size = [shape.hidden_size];
    Ok(LayerNorm {
        scale: weights.encoder(&format!("{name}.weight"), &size)?,
        shift: weights.encoder(&format!("{name}.bias"), &size)?,
        epsilon: shape.layer_norm_eps,
    })
}

fn linear(weights: &mut Weights, name: &str, inputs: usize, outputs: usize) -> Result<Linear, EngineError> {
    let weight = weights.encoder(&format!("{name}.weight"), &[outputs, inputs])?;
    Ok(Linear::new(&weight, weights.encoder(&format!("{name}.bias"), &[outputs])?))
}

fn head(weights: &mut Weights, name: &str, inputs: usize, outputs: usize) -> Result<Linear, EngineError> {
    let weight = weights.head(&format!("{name}.weight"), &[outputs, inputs])?;
    Ok(Linear::new(&weight, weights.head(&format!("{name}.bias"), &[outputs])?))
}

impl Output {
    fn load(weights: &mut Weights, family: EncoderFamily, hidden: usize) -> Result<Self, EngineError> {
        let (dense, name) = match family {
            EncoderFamily::Bert => (linear(weights, "pooler.dense", hidden, hidden)?, "classifier"),
            EncoderFamily::Roberta => (head(weights, "classifier.dense", hidden, hidden)?, "classifier.out_proj"),
        };
        let classes = weights.head_rows(&format!("{name}.weight")).unwrap_or(1).max(1);
        Ok(Self::Logits { dense: Box::new(dense), classes: Box::new(head(weights, name, hidden, classes)?) })
    }

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
            Self::Logits { dense, classes } => {
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
