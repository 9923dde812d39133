//! One layer of a decoder.

use super::config::DecoderShape;
use super::linear::Linear;
use super::matrix::Matrix;
use super::weights::TensorSource;
use crate::error::EngineError;
use tidemill_kernels::RmsNorm;

/// The weights of one layer.
pub(super) struct Layer {
    pub(super) attention_norm: RmsNorm,
    /// Query, key and value of all heads, side by side.
    pub(super) qkv: Linear,
    /// Norms of each head's query and key.
    pub(super) head_norms: Option<(RmsNorm, RmsNorm)>,
    pub(super) project: Linear,
    pub(super) inner_norm: RmsNorm,
    /// Gates and values, side by side.
    pub(super) widen: Linear,
    pub(super) narrow: Linear,
    pub(super) window: Option<usize>,
}

/// The norm called `name`.
pub(super) fn norm(
    tensors: &mut dyn TensorSource,
    name: &str,
    width: usize,
    shape: &DecoderShape,
) -> Result<RmsNorm, EngineError> {
    Ok(RmsNorm { scale: tensors.vector(&format!("{name}.weight"), width)?, epsilon: shape.epsilon })
}

/// The matrices called `names`, with as many outputs each, and where `biased` their biases.
fn linear(
    tensors: &mut dyn TensorSource,
    prefix: &str,
    parts: &[(&str, usize)],
    inputs: usize,
    biased: bool,
) -> Result<Linear, EngineError> {
    let (mut weights, mut biases) = (Vec::with_capacity(parts.len()), Vec::new());
    for (name, outputs) in parts {
        weights.push(tensors.matrix(&format!("{prefix}.{name}.weight"), *outputs, inputs).map(Matrix::pack)?);
        if biased {
            biases.extend(tensors.vector(&format!("{prefix}.{name}.bias"), *outputs)?);
        }
    }
    Ok(Linear::new(weights, biased.then_some(biases)))
}

impl Layer {
    /// Takes the tensors of layer `index`.
    pub(super) fn load(tensors: &mut dyn TensorSource, index: usize, shape: &DecoderShape) -> Result<Self, EngineError> {
        let (hidden, width, inner) = (shape.hidden, shape.head_width, shape.inner);
        let (queries, keys) = (shape.heads * width, shape.kv_heads * width);
        let at = |name: &str| format!("model.layers.{index}.{name}");
        let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let head_norms = if shape.head_norm {
            let query = norm(tensors, &at("self_attn.q_norm"), width, shape)?;
            Some((query, norm(tensors, &at("self_attn.k_norm"), width, shape)?))
        } else {
            None
        };
        Ok(Self {
            attention_norm: norm(tensors, &at("input_layernorm"), hidden, shape)?,
            qkv: linear(tensors, &at("self_attn"), &qkv, hidden, shape.qkv_bias)?,
            head_norms,
            project: linear(tensors, &at("self_attn"), &[("o_proj", hidden)], queries, shape.output_bias)?,
            inner_norm: norm(tensors, &at("post_attention_layernorm"), hidden, shape)?,
            widen: linear(tensors, &at("mlp"), &[("gate_proj", inner), ("up_proj", inner)], hidden, shape.inner_bias)?,
            narrow: linear(tensors, &at("mlp"), &[("down_proj", hidden)], inner, shape.inner_bias)?,
            window: shape.windows[index],
        })
    }

    /// Bytes of the weights.
    pub(super) fn bytes(&self) -> usize {
        [&self.qkv, &self.project, &self.widen, &self.narrow].iter().map(|linear| linear.bytes()).sum()
    }
}
