//! Reads the weights of the BERT family's encoders, for any kind of device.
//!
//! | tensors | where |
//! |---|---|
//! | of the encoder | behind the prefix `bert.`, `roberta.` or none |
//! | of a BERT classifier | the encoder's `pooler.dense`, then `classifier` without a prefix |
//! | of a RoBERTa classifier | `classifier.dense` and `classifier.out_proj`, both without a prefix |

use crate::backend::EncoderBackend;
use crate::error::EngineError;
use crate::folder::{EncoderConfig, EncoderFamily, ModelFolder};
use crate::matrix::Matrix;
use crate::weights::WeightFiles;

/// The weights of an encoder on the device.
pub(crate) struct EncoderNetwork<B: EncoderBackend> {
    pub(crate) words: B::Table,
    /// Position vectors plus the vector of the first token type, which is the only one that single texts have.
    pub(crate) positions: B::Table,
    pub(crate) norm: B::LayerNorm,
    pub(crate) layers: Vec<EncoderLayer<B>>,
    /// None where the encoder makes vectors.
    pub(crate) classifier: Option<ClassifierHead<B>>,
}

/// The weights of one layer.
pub(crate) struct EncoderLayer<B: EncoderBackend> {
    /// Query, key and value in one product.
    pub(crate) qkv: B::Linear,
    pub(crate) project: B::Linear,
    pub(crate) attention_norm: B::LayerNorm,
    pub(crate) widen: B::Linear,
    pub(crate) narrow: B::Linear,
    pub(crate) norm: B::LayerNorm,
}

/// The two layers that make logits of the first token's vector, with `tanh` between them.
pub(crate) struct ClassifierHead<B: EncoderBackend> {
    pub(crate) dense: B::Linear,
    pub(crate) classes: B::Linear,
}

struct Reader<'a, B> {
    files: WeightFiles,
    prefix: &'static str,
    config: &'a EncoderConfig,
    backend: &'a B,
}

impl<B: EncoderBackend> EncoderNetwork<B> {
    /// Reads the folder's weights, those of the classifier where `classifies` says so, and puts them on the device.
    pub(crate) fn read(
        folder: &mut ModelFolder,
        config: &EncoderConfig,
        family: EncoderFamily,
        classifies: bool,
        backend: &B,
    ) -> Result<Self, EngineError> {
        let mut reader = Reader::open(folder, config, backend)?;
        let hidden = config.hidden_size;
        let words = reader.encoder("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?;
        let words = backend.table(words, hidden)?;
        let positions = reader.positions()?;
        let norm = reader.layer_norm("embeddings.LayerNorm")?;
        let layers = (0..config.num_hidden_layers).map(|index| reader.layer(index)).collect::<Result<_, _>>()?;
        let classifier = if classifies { Some(reader.classifier(family)?) } else { None };
        reader.finish(classifies)?;
        Ok(Self { words, positions: backend.table(positions, hidden)?, norm, layers, classifier })
    }
}

impl<'a, B: EncoderBackend> Reader<'a, B> {
    fn open(folder: &mut ModelFolder, config: &'a EncoderConfig, backend: &'a B) -> Result<Self, EngineError> {
        let files = WeightFiles::open(folder)?;
        let probe = "embeddings.word_embeddings.weight";
        let prefix = ["bert.", "roberta.", ""].into_iter().find(|prefix| files.shape(&format!("{prefix}{probe}")).is_some());
        let Some(prefix) = prefix else {
            return Err(
                files.invalid(&format!("holds no tensor {probe}; the weights are not those of the architecture in config.json"))
            );
        };
        Ok(Self { files, prefix, config, backend })
    }

    /// Takes the encoder's tensor `name`.
    fn encoder(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        self.exact(&format!("{}{name}", self.prefix), shape)
    }

    /// Takes the tensor with exactly this name.
    fn exact(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        // The first BERT checkpoints were converted from TensorFlow with its names for the two halves of a layer norm.
        let older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let name = if self.files.shape(name).is_none() && self.files.shape(&older).is_some() { &older } else { name };
        self.files.take(name, shape).map(Matrix::into_f32)
    }

    fn positions(&mut self) -> Result<Vec<f32>, EngineError> {
        const TYPES: &str = "embeddings.token_type_embeddings.weight";
        let hidden = self.config.hidden_size;
        let mut positions =
            self.encoder("embeddings.position_embeddings.weight", &[self.config.max_position_embeddings, hidden])?;
        let types = self.files.shape(&format!("{}{TYPES}", self.prefix)).and_then(|shape| shape.first().copied()).unwrap_or(1);
        let types = self.encoder(TYPES, &[types, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            row.iter_mut().zip(&types).for_each(|(position, kind)| *position += kind);
        }
        Ok(positions)
    }

    fn layer_norm(&mut self, name: &str) -> Result<B::LayerNorm, EngineError> {
        let size = [self.config.hidden_size];
        let scale = self.encoder(&format!("{name}.weight"), &size)?;
        let shift = self.encoder(&format!("{name}.bias"), &size)?;
        self.backend.layer_norm(scale, shift, self.config.layer_norm_eps)
    }

    /// The layers called `names`, of `outputs` outputs each, as one.
    fn linear(&mut self, names: &[String], inputs: usize, outputs: usize) -> Result<B::Linear, EngineError> {
        // Grown by what is read, because sizes in config.json may be anything.
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for name in names {
            let weight = self.encoder(&format!("{name}.weight"), &[outputs, inputs])?;
            if weights.is_empty() {
                weights = weight;
            } else {
                weights.extend(weight);
            }
            biases.extend(self.encoder(&format!("{name}.bias"), &[outputs])?);
        }
        self.backend.linear(weights, biases)
    }

    fn layer(&mut self, index: usize) -> Result<EncoderLayer<B>, EngineError> {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let at = |name: &str| format!("encoder.layer.{index}.{name}");
        let qkv = ["query", "key", "value"].map(|part| at(&format!("attention.self.{part}")));
        Ok(EncoderLayer {
            qkv: self.linear(&qkv, hidden, hidden)?,
            project: self.linear(&[at("attention.output.dense")], hidden, hidden)?,
            attention_norm: self.layer_norm(&at("attention.output.LayerNorm"))?,
            widen: self.linear(&[at("intermediate.dense")], hidden, inner)?,
            narrow: self.linear(&[at("output.dense")], inner, hidden)?,
            norm: self.layer_norm(&at("output.LayerNorm"))?,
        })
    }

    fn classifier(&mut self, family: EncoderFamily) -> Result<ClassifierHead<B>, EngineError> {
        let hidden = self.config.hidden_size;
        let (dense, name) = match family {
            EncoderFamily::Bert => (self.linear(&["pooler.dense".into()], hidden, hidden)?, "classifier"),
            EncoderFamily::Roberta => (self.unprefixed("classifier.dense", hidden, hidden)?, "classifier.out_proj"),
        };
        let classes = self.files.shape(&format!("{name}.weight")).and_then(|shape| shape.first().copied()).unwrap_or(1);
        Ok(ClassifierHead { dense, classes: self.unprefixed(name, hidden, classes.max(1))? })
    }

    fn unprefixed(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<B::Linear, EngineError> {
        let weight = self.exact(&format!("{name}.weight"), &[outputs, inputs])?;
        self.backend.linear(weight, self.exact(&format!("{name}.bias"), &[outputs])?)
    }

    fn finish(self, classifies: bool) -> Result<(), EngineError> {
        let prefix = self.prefix;
        self.files.finish(|name| is_harmless(name.strip_prefix(prefix).unwrap_or(name), classifies))
    }
}

/// Whether a tensor may be left out: it follows from `config.json`, or belongs to another task that the checkpoint was trained for.
fn is_harmless(name: &str, classifies: bool) -> bool {
    /// Counters that older versions of the library saved.
    const COUNTERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];
    /// The pooler of models that are pooled otherwise, and heads for guessing words and sentences.
    const HEADS: [&str; 3] = ["pooler.", "cls.", "lm_head."];
    /// Heads of tasks whose models may be used as encoders all the same.
    const TASK_HEADS: [&str; 2] = ["classifier.", "qa_outputs."];
    let begins = |heads: &[&str]| heads.iter().any(|head| name.starts_with(head));
    COUNTERS.contains(&name) || begins(&HEADS) || (!classifies && begins(&TASK_HEADS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_for_other_tasks_may_be_left_out_and_parts_of_the_encoder_may_not() {
        for name in ["embeddings.position_ids", "pooler.dense.weight", "cls.predictions.bias", "lm_head.decoder.weight"] {
            assert!(is_harmless(name, true) && is_harmless(name, false), "{name}");
        }
        assert!(is_harmless("classifier.weight", false) && !is_harmless("classifier.dense.weight", true));
        for name in ["encoder.layer.6.output.dense.bias", "embeddings.LayerNorm.weight", "adapter.weight"] {
            assert!(!is_harmless(name, true) && !is_harmless(name, false), "{name}");
        }
    }
}
