//! The forward pass of the BERT family over packed sequences.
//!
//! All rows of a slice of the batch go through a linear layer together, whatever sequences they belong to; only attention and pooling look at
//! where sequences begin. Nothing is padded.

use super::batch::Packed;
use super::error::EngineError;
use super::folder::{Family, ModelShape, Pooling};
use super::kernels::{AttentionShape, LayerNorm, Linear, attend, gelu, normalize, tanh};
use super::weights::Weights;

/// An encoder of the BERT family, with what it makes of the last layer.
pub(super) struct Encoder {
    words: Vec<f32>,
    /// Position vectors plus the vector of the first token type, which is the only one that single texts have.
    positions: Vec<f32>,
    first_position: usize,
    norm: LayerNorm,
    layers: Vec<Layer>,
    hidden: usize,
    inner: usize,
    attention: AttentionShape,
    output: Output,
}

struct Layer {
    /// Query, key and value in one product.
    qkv: Linear,
    qkv_bias: Vec<f32>,
    project: Linear,
    project_bias: Vec<f32>,
    attention_norm: LayerNorm,
    widen: Linear,
    widen_bias: Vec<f32>,
    narrow: Linear,
    narrow_bias: Vec<f32>,
    norm: LayerNorm,
}

enum Output {
    Pooled(Pooling),
    Logits { dense: Linear, dense_bias: Vec<f32>, classes: Linear, classes_bias: Vec<f32> },
}

/// Buffers of one thread, kept between batches.
#[derive(Default)]
pub(super) struct Workspace {
    rows: Vec<f32>,
    wide: Vec<f32>,
    context: Vec<f32>,
    product: Vec<f32>,
    scratch: Vec<f32>,
}

impl Encoder {
    /// Takes the tensors that `shape` promises out of `weights`; `pooling` is none for a classifier.
    pub(super) fn load(
        shape: &ModelShape,
        family: Family,
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
        Ok(Self {
            words,
            positions,
            first_position: shape.first_position(family),
            norm,
            layers,
            hidden,
            inner: shape.intermediate_size,
            attention: AttentionShape { heads: shape.num_attention_heads, width: hidden / shape.num_attention_heads },
            output,
        })
    }

    /// Components of a row that [`Encoder::run`] gives: of the vector, or one a class.
    pub(super) fn dimension(&self) -> usize {
        match &self.output {
            Output::Pooled(_) => self.hidden,
            Output::Logits { classes_bias, .. } => classes_bias.len(),
        }
    }

    /// One row a sequence: its vector of length 1, or its logits.
    pub(super) fn run(&self, batch: &Packed<'_>, workspace: &mut Workspace) -> Vec<Vec<f32>> {
        let (hidden, tokens) = (self.hidden, batch.tokens());
        let Workspace { rows, wide, context, product, scratch } = workspace;
        let rows = sized(rows, tokens * hidden);
        let context = sized(context, tokens * hidden);
        let product = sized(product, tokens * hidden);
        let wide = sized(wide, tokens * self.inner.max(3 * hidden));
        self.embed(batch, rows);
        for layer in &self.layers {
            let qkv = &mut wide[..tokens * 3 * hidden];
            layer.qkv.apply(rows, qkv);
            for row in qkv.chunks_exact_mut(3 * hidden) {
                row.iter_mut().zip(&layer.qkv_bias).for_each(|(value, bias)| *value += bias);
            }
            for range in batch.ranges() {
                let context = &mut context[range.start * hidden..range.end * hidden];
                attend(self.attention, &qkv[range.start * 3 * hidden..range.end * 3 * hidden], context, scratch);
            }
            layer.project.apply(context, product);
            layer.attention_norm.add(rows, product, &layer.project_bias);
            let inner = &mut wide[..tokens * self.inner];
            layer.widen.apply(rows, inner);
            gelu(inner, &layer.widen_bias);
            layer.narrow.apply(inner, product);
            layer.norm.add(rows, product, &layer.narrow_bias);
        }
        batch.ranges().map(|range| self.output.apply(&rows[range.start * hidden..range.end * hidden], hidden)).collect()
    }

    fn embed(&self, batch: &Packed<'_>, rows: &mut [f32]) {
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

fn sized(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

fn layer_norm(weights: &mut Weights, name: &str, shape: &ModelShape) -> Result<LayerNorm, EngineError> {
    let size = [shape.hidden_size];
    Ok(LayerNorm {
        scale: weights.encoder(&format!("{name}.weight"), &size)?,
        shift: weights.encoder(&format!("{name}.bias"), &size)?,
        epsilon: shape.layer_norm_eps,
    })
}

impl Layer {
    fn load(weights: &mut Weights, index: usize, shape: &ModelShape) -> Result<Self, EngineError> {
        let (hidden, inner) = (shape.hidden_size, shape.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        let (mut qkv, mut qkv_bias) = (Vec::with_capacity(3 * hidden * hidden), Vec::with_capacity(3 * hidden));
        for part in ["query", "key", "value"] {
            qkv.extend(weights.encoder(&at(&format!("attention.self.{part}.weight")), &[hidden, hidden])?);
            qkv_bias.extend(weights.encoder(&at(&format!("attention.self.{part}.bias")), &[hidden])?);
        }
        Ok(Self {
            qkv: Linear::new(qkv, hidden, 3 * hidden),
            qkv_bias,
            project: Linear::new(weights.encoder(&at("attention.output.dense.weight"), &[hidden, hidden])?, hidden, hidden),
            project_bias: weights.encoder(&at("attention.output.dense.bias"), &[hidden])?,
            attention_norm: layer_norm(weights, &at("attention.output.LayerNorm"), shape)?,
            widen: Linear::new(weights.encoder(&at("intermediate.dense.weight"), &[inner, hidden])?, hidden, inner),
            widen_bias: weights.encoder(&at("intermediate.dense.bias"), &[inner])?,
            narrow: Linear::new(weights.encoder(&at("output.dense.weight"), &[hidden, inner])?, inner, hidden),
            narrow_bias: weights.encoder(&at("output.dense.bias"), &[hidden])?,
            norm: layer_norm(weights, &at("output.LayerNorm"), shape)?,
        })
    }
}

impl Output {
    fn load(weights: &mut Weights, family: Family, hidden: usize) -> Result<Self, EngineError> {
        let (dense, dense_bias, head) = match family {
            Family::Bert => (
                weights.encoder("pooler.dense.weight", &[hidden, hidden])?,
                weights.encoder("pooler.dense.bias", &[hidden])?,
                "classifier",
            ),
            Family::Roberta => (
                weights.head("classifier.dense.weight", &[hidden, hidden])?,
                weights.head("classifier.dense.bias", &[hidden])?,
                "classifier.out_proj",
            ),
        };
        let classes = weights.head_rows(&format!("{head}.weight")).unwrap_or(1);
        Ok(Self::Logits {
            dense: Linear::new(dense, hidden, hidden),
            dense_bias,
            classes: Linear::new(weights.head(&format!("{head}.weight"), &[classes, hidden])?, hidden, classes),
            classes_bias: weights.head(&format!("{head}.bias"), &[classes])?,
        })
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
            Self::Logits { dense, dense_bias, classes, classes_bias } => {
                let mut pooled = vec![0.0; hidden];
                dense.apply(&rows[..hidden], &mut pooled);
                pooled.iter_mut().zip(dense_bias).for_each(|(value, bias)| *value += bias);
                tanh(&mut pooled);
                let mut logits = vec![0.0; classes_bias.len()];
                classes.apply(&pooled, &mut logits);
                logits.iter_mut().zip(classes_bias).for_each(|(value, bias)| *value += bias);
                logits
            }
        }
    }
}
