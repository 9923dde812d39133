//! The shape of a decoder, read from `config.json`.

use std::path::Path;

use serde::Deserialize;

use super::rope::RotaryEmbedding;
use crate::error::EngineError;

/// The families that share one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecoderFamily {
    /// Llama 2 and 3, and models of the same shape.
    Llama,
    /// Mistral: Llama with a sliding window.
    Mistral,
    /// Qwen2 and 2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: query and key of each head normalized.
    Qwen3,
}

/// All that the forward pass needs besides the weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DecoderShape {
    /// `model_type` of the family.
    pub(crate) architecture: String,
    /// Rows of the embedding table, and logits of a token.
    pub(crate) vocabulary: usize,
    /// Components of a token's vector.
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub(crate) kv_heads: usize,
    /// Components of a head, which need not be `hidden / heads`.
    pub(crate) head_width: usize,
    /// Components between the two products of a feed-forward layer.
    pub(crate) inner: usize,
    /// Positions that the model was made for.
    pub(crate) context: usize,
    /// Keys that a query sees, including its own, in the layers that have a window; none if no layer has one.
    pub(crate) sliding_window: Option<usize>,
    /// The window of each layer.
    pub(crate) windows: Vec<Option<usize>>,
    /// Added to the mean square before its root is taken.
    pub(crate) epsilon: f32,
    /// How positions rotate queries and keys.
    pub(crate) rotation: RotaryEmbedding,
    /// Whether the output layer is the embedding table.
    pub(crate) tied: bool,
    /// Whether query, key and value products have a bias.
    pub(crate) qkv_bias: bool,
    /// Whether the product after attention has a bias.
    pub(crate) output_bias: bool,
    /// Whether the feed-forward products have a bias.
    pub(crate) inner_bias: bool,
    /// Whether each head's query and key are normalized.
    pub(crate) head_norm: bool,
}

#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "epsilon")]
    rms_norm_eps: f32,
    #[serde(default = "silu")]
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeConfig>,
    rope_parameters: Option<RopeConfig>,
    partial_rotary_factor: Option<f64>,
    quantization_config: Option<serde_json::Value>,
}

/// `rope_scaling`, or `rope_parameters` as newer configurations call it.
#[derive(Deserialize, Clone, Default)]
struct RopeConfig {
    rope_type: Option<String>,
    /// The name of `rope_type` in older configurations. Files that a newer library has saved again have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
    full_attention: Option<serde_json::Value>,
    sliding_attention: Option<serde_json::Value>,
}

/// Limits beyond the sizes of any model. A larger size is refused before anything of that size is allocated.
const MOST_LAYERS: usize = 10_000;
const MOST_HEADS: usize = 1 << 16;
const MOST_COMPONENTS: usize = 1 << 24;

fn epsilon() -> f32 {
    1e-6
}

fn silu() -> String {
    "silu".into()
}

impl DecoderFamily {
    /// The family that `model_type` or a GGUF architecture names.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "mistral" => Some(Self::Mistral),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }
}

/// Whether `model_type` names a supported decoder.
pub(crate) fn is_decoder(model_type: &str) -> bool {
    DecoderFamily::named(model_type).is_some()
}

impl DecoderShape {
    /// Reads the `config.json` whose text is `json`; `path` is named in errors.
    pub(super) fn parse(json: &[u8], path: &Path) -> Result<Self, EngineError> {
        let refuse = |reason: String| EngineError::invalid(path, reason);
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        let unreadable = |e: serde_json::Error| {
            refuse(format!("cannot be read as a decoder's config.json: {e}; take the file from the model's publisher"))
        };
        // The name first: the file of another architecture may lack the keys below, and its name is the better message.
        let Kind { model_type } = serde_json::from_slice(json).map_err(unreadable)?;
        let Some(family) = DecoderFamily::named(&model_type) else {
            let reason = format!(
                "model_type {model_type:?} is not supported; use a llama, mistral, qwen2 or qwen3 decoder, or a remote model"
            );
            return Err(refuse(reason));
        };
        let config: Config = serde_json::from_slice(json).map_err(unreadable)?;
        config.shape(family).and_then(Self::checked).map_err(refuse)
    }

    /// Refuses sizes that no model has. Each comes with its key in the file, for the message.
    pub(super) fn bounded(layers: (&str, usize), heads: &[(&str, usize)], components: &[(&str, usize)]) -> Result<(), String> {
        let within = |most: usize| move |(key, size): &(&str, usize)| (*size > most).then(|| (key.to_string(), *size, most));
        let beyond = within(MOST_LAYERS)(&layers)
            .or_else(|| heads.iter().find_map(within(MOST_HEADS)))
            .or_else(|| components.iter().find_map(within(MOST_COMPONENTS)));
        match beyond {
            Some((key, size, most)) => {
                Err(format!("{key} is {size}, and no model has more than {most}; take the file from the model's publisher"))
            }
            None => Ok(()),
        }
    }

    /// Returns the shape if its sizes fit together, otherwise what does not fit.
    pub(super) fn checked(self) -> Result<Self, String> {
        let Self { heads, kv_heads, head_width, .. } = self;
        if kv_heads == 0 || heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!(
                "{heads} query heads cannot share {kv_heads} key and value heads; take the file from the model's publisher"
            ));
        }
        if head_width == 0 || !head_width.is_multiple_of(2) || self.layers == 0 || self.hidden == 0 || self.inner == 0 {
            return Err(format!(
                "heads of {head_width} components in {} layers of {} and {} components cannot be computed; take the file from the model's publisher",
                self.layers, self.hidden, self.inner
            ));
        }
        Ok(self)
    }
}

impl Config {
    fn shape(self, family: DecoderFamily) -> Result<DecoderShape, String> {
        if let Some(quantization) = &self.quantization_config {
            let method = quantization.get("quant_method").and_then(|method| method.as_str()).unwrap_or("unnamed");
            return Err(format!(
                "the quantization {method:?} of quantization_config is not supported; use the unquantized model or a GGUF file of it"
            ));
        }
        if self.hidden_act != "silu" {
            return Err(format!("hidden_act {:?} is not supported; use a model with \"silu\"", self.hidden_act));
        }
        let kv_heads = self.num_key_value_heads.unwrap_or(self.num_attention_heads);
        DecoderShape::bounded(
            ("num_hidden_layers", self.num_hidden_layers),
            &[
                ("num_attention_heads", self.num_attention_heads),
                ("num_key_value_heads", kv_heads),
                ("head_dim", self.head_dim.unwrap_or(0)),
            ],
            &[("hidden_size", self.hidden_size), ("intermediate_size", self.intermediate_size), ("vocab_size", self.vocab_size)],
        )?;
        if self.num_attention_heads == 0 {
            return Err("num_attention_heads is 0; take the file from the model's publisher".into());
        }
        let head_width = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        let windows = self.windows(family)?;
        let rotation = self.rotation(head_width)?;
        Ok(DecoderShape {
            architecture: self.model_type,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads,
            head_width,
            inner: self.intermediate_size,
            context: self.max_position_embeddings,
            sliding_window: windows.iter().flatten().copied().max(),
            windows,
            epsilon: self.rms_norm_eps,
            rotation,
            tied: self.tie_word_embeddings,
            qkv_bias: family == DecoderFamily::Qwen2 || (self.attention_bias && family != DecoderFamily::Mistral),
            output_bias: self.attention_bias && matches!(family, DecoderFamily::Llama | DecoderFamily::Qwen3),
            inner_bias: self.mlp_bias && family == DecoderFamily::Llama,
            head_norm: family == DecoderFamily::Qwen3,
        })
    }

    /// The window of each layer. Mistral's layers always have one; Qwen's only if `use_sliding_window` is true, from `max_window_layers` on.
    fn windows(&self, family: DecoderFamily) -> Result<Vec<Option<usize>>, String> {
        let layers = self.num_hidden_layers;
        let window = match family {
            DecoderFamily::Llama => None,
            DecoderFamily::Mistral => self.sliding_window,
            DecoderFamily::Qwen2 | DecoderFamily::Qwen3 => self.sliding_window.filter(|_| self.use_sliding_window == Some(true)),
        };
        let Some(window) = window else { return Ok(vec![None; layers]) };
        if window == 0 {
            return Err("sliding_window is 0, so that no token would see itself; take the file from the model's publisher".into());
        }
        let Some(kinds) = &self.layer_types else {
            let first = if family == DecoderFamily::Mistral { 0 } else { self.max_window_layers.unwrap_or(0) };
            return Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect());
        };
        if kinds.len() != layers {
            return Err(format!(
                "layer_types names {} layers of {layers}; take the file from the model's publisher",
                kinds.len()
            ));
        }
        let kind = |kind: &String| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(Some(window)),
            other => Err(format!("layer type {other:?} is not supported; use a model with full or sliding attention")),
        };
        kinds.iter().map(kind).collect()
    }

    fn rotation(&self, head_width: usize) -> Result<RotaryEmbedding, String> {
        let publisher = "take the file from the model's publisher";
        match (&self.rope_parameters, &self.rope_scaling) {
            (Some(newer), Some(older)) => {
                let (newer, older) = (self.turned(newer, head_width)?, self.turned(older, head_width)?);
                match newer == older {
                    true => Ok(newer),
                    false => Err(format!("rope_parameters and rope_scaling say different things; {publisher}")),
                }
            }
            (rope, other) => self.turned(rope.as_ref().or(other.as_ref()).unwrap_or(&RopeConfig::default()), head_width),
        }
    }

    fn turned(&self, rope: &RopeConfig, head_width: usize) -> Result<RotaryEmbedding, String> {
        let publisher = "take the file from the model's publisher";
        if rope.full_attention.is_some() || rope.sliding_attention.is_some() {
            return Err("rope_parameters by kind of layer are not supported; use a model with the same for all layers".into());
        }
        let partial = rope.partial_rotary_factor.or(self.partial_rotary_factor).unwrap_or(1.0);
        if partial != 1.0 {
            return Err(format!(
                "partial_rotary_factor {partial} is not supported; use a model whose positions turn whole heads"
            ));
        }
        if let (Some(inner), Some(outer)) = (rope.rope_theta, self.rope_theta)
            && inner != outer
        {
            return Err(format!("rope_theta is {outer} in one place and {inner} in another; {publisher}"));
        }
        let theta = rope.rope_theta.or(self.rope_theta).unwrap_or(10_000.0);
        let rotation = RotaryEmbedding::new(theta, head_width);
        if let (Some(newer), Some(older)) = (&rope.rope_type, &rope.older_type)
            && newer != older
        {
            return Err(format!("the rope scaling has rope_type {newer:?} and type {older:?}; {publisher}"));
        }
        match rope.rope_type.as_deref().or(rope.older_type.as_deref()).unwrap_or("default") {
            "default" => Ok(rotation),
            "llama3" => {
                let missing = |key: &str| format!("rope scaling \"llama3\" lacks {key}; {publisher}");
                Ok(rotation.stretched(
                    rope.factor.ok_or_else(|| missing("factor"))?,
                    rope.low_freq_factor.ok_or_else(|| missing("low_freq_factor"))?,
                    rope.high_freq_factor.ok_or_else(|| missing("high_freq_factor"))?,
                    rope.original_max_position_embeddings.ok_or_else(|| missing("original_max_position_embeddings"))?,
                ))
            }
            other => Err(format!(
                "rope scaling {other:?} is not supported; remove it to use the model up to its original length, or use a model with \"llama3\" or none"
            )),
        }
    }
}
