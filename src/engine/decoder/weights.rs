//! Reads the weights of the Llama, Mistral, Qwen2 and Qwen3 families, for any kind of device.

use super::config::DecoderShape;
use super::tensor_source::TensorSource;
use crate::backend::DecoderBackend;
use crate::error::EngineError;

/// The weights of a decoder on the device.
pub(crate) struct DecoderNetwork<B: DecoderBackend> {
    /// The embedding table, where it is not the output layer as well.
    embeddings: Option<B::Matrix>,
    pub(crate) layers: Vec<DecoderLayer<B>>,
    pub(crate) norm: B::RmsNorm,
    /// Makes logits of the last vectors.
    pub(crate) head: B::Linear,
}

/// The weights of one layer.
pub(crate) struct DecoderLayer<B: DecoderBackend> {
    pub(crate) attention_norm: B::RmsNorm,
    /// Query, key and value of all heads, side by side.
    pub(crate) qkv: B::Linear,
    /// Norms of each head's query and key.
    pub(crate) head_norms: Option<(B::RmsNorm, B::RmsNorm)>,
    pub(crate) project: B::Linear,
    pub(crate) inner_norm: B::RmsNorm,
    /// Gates and values, side by side.
    pub(crate) widen: B::Linear,
    pub(crate) narrow: B::Linear,
    /// Keys that a query sees, itself included; none for all before it.
    pub(crate) window: Option<usize>,
}

struct Reader<'a, B> {
    tensors: &'a mut dyn TensorSource,
    shape: &'a DecoderShape,
    backend: &'a B,
}

impl<B: DecoderBackend> DecoderNetwork<B> {
    /// Takes the tensors that `shape` promises and puts them on the device, one after the other.
    pub(super) fn read(tensors: &mut dyn TensorSource, shape: &DecoderShape, backend: &B) -> Result<Self, EngineError> {
        let mut reader = Reader { tensors, shape, backend };
        let table = reader.matrix("model.embed_tokens.weight", shape.vocabulary, shape.hidden)?;
        let (embeddings, head) = match shape.tied {
            true => (None, table),
            false => (Some(table), reader.matrix("lm_head.weight", shape.vocabulary, shape.hidden)?),
        };
        let layers = (0..shape.layers).map(|index| reader.layer(index)).collect::<Result<_, _>>()?;
        let norm = reader.norm("model.norm", shape.hidden)?;
        Ok(Self { embeddings, layers, norm, head: backend.linear(vec![head], None)? })
    }

    /// The table that token ids are looked up in.
    pub(crate) fn embeddings(&self) -> &B::Matrix {
        self.embeddings.as_ref().unwrap_or_else(|| B::only_matrix(&self.head))
    }

    /// Bytes on the device.
    pub(crate) fn bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(DecoderLayer::bytes).sum();
        layers + B::linear_bytes(&self.head) + self.embeddings.as_ref().map_or(0, B::matrix_bytes)
    }
}

impl<B: DecoderBackend> DecoderLayer<B> {
    fn bytes(&self) -> usize {
        [&self.qkv, &self.project, &self.widen, &self.narrow].into_iter().map(B::linear_bytes).sum()
    }
}

impl<B: DecoderBackend> Reader<'_, B> {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<B::Matrix, EngineError> {
        self.backend.matrix(self.tensors.matrix(name, outputs, inputs)?, outputs)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<B::RmsNorm, EngineError> {
        self.backend.rms_norm(self.tensors.vector(&format!("{name}.weight"), width)?, self.shape.epsilon)
    }

    /// The matrices called `parts` as one, with as many outputs each, and where `biased` their biases.
    fn linear(&mut self, prefix: &str, parts: &[(&str, usize)], inputs: usize, biased: bool) -> Result<B::Linear, EngineError> {
        let (mut weights, mut biases) = (Vec::with_capacity(parts.len()), Vec::new());
        for (name, outputs) in parts {
            weights.push(self.matrix(&format!("{prefix}.{name}.weight"), *outputs, inputs)?);
            if biased {
                biases.extend(self.tensors.vector(&format!("{prefix}.{name}.bias"), *outputs)?);
            }
        }
        self.backend.linear(weights, biased.then_some(biases))
    }

    fn layer(&mut self, index: usize) -> Result<DecoderLayer<B>, EngineError> {
        let DecoderShape { hidden, head_width: width, inner, heads, kv_heads, .. } = *self.shape;
        let DecoderShape { qkv_bias, output_bias, inner_bias, head_norm, .. } = *self.shape;
        let (queries, keys) = (heads * width, kv_heads * width);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let head_norms = match head_norm {
            true => Some((self.norm(&at("self_attn.q_norm"), width)?, self.norm(&at("self_attn.k_norm"), width)?)),
            false => None,
        };
        Ok(DecoderLayer {
            attention_norm: self.norm(&at("input_layernorm"), hidden)?,
            qkv: self.linear(&at("self_attn"), &qkv, hidden, qkv_bias)?,
            head_norms,
            project: self.linear(&at("self_attn"), &[("o_proj", hidden)], queries, output_bias)?,
            inner_norm: self.norm(&at("post_attention_layernorm"), hidden)?,
            widen: self.linear(&at("mlp"), &[("gate_proj", inner), ("up_proj", inner)], hidden, inner_bias)?,
            narrow: self.linear(&at("mlp"), &[("down_proj", hidden)], inner, inner_bias)?,
            window: self.shape.windows[index],
        })
    }
}
