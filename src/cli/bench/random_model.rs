//! Model folders with random weights in the shape of real models, for measuring time.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use safetensors::{Dtype, View};
use serde_json::json;

/// The sizes of a Qwen2 model.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelShape {
    /// The name in reports.
    pub(super) name: &'static str,
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    vocabulary: usize,
}

/// Qwen2.5-0.5B: <https://huggingface.co/Qwen/Qwen2.5-0.5B-Instruct/blob/main/config.json>.
pub(super) const HALF_BILLION: ModelShape =
    ModelShape { name: "qwen2.5-0.5b", hidden: 896, inner: 4864, layers: 24, heads: 14, kv_heads: 2, vocabulary: 151_936 };

/// Small enough for a quarter of a million prompt tokens in about a minute on two cores.
pub(super) const SMALL: ModelShape =
    ModelShape { name: "small", hidden: 512, inner: 1408, layers: 6, heads: 8, kv_heads: 2, vocabulary: 8_192 };

/// The demo generator's tokenizer, for every shape: each vocabulary is at least as large.
const TOKENIZER: &[(&str, &str)] = &[
    ("tokenizer.json", include_str!("../../../pipelines/models/writer/tokenizer.json")),
    ("tokenizer_config.json", include_str!("../../../pipelines/models/writer/tokenizer_config.json")),
];

impl ModelShape {
    /// Writes a model folder with random weights.
    pub(super) fn write(&self, folder: &Path, seed: u64) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let config = json!({
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu", "hidden_size": self.hidden,
            "intermediate_size": self.inner, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary, "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6, "rope_theta": 1_000_000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        });
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).with_context(|| format!("cannot write {name} to {}", folder.display()))
        };
        write("config.json", &config.to_string())?;
        for (name, text) in TOKENIZER {
            write(name, text)?;
        }
        let tensors = self.tensors().into_iter().enumerate().map(|(index, (name, shape))| {
            let tensor = RandomTensor { shape, seed: seed.wrapping_add(index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) };
            (name, tensor)
        });
        safetensors::serialize_to_file(tensors, None, &folder.join("model.safetensors"))
            .with_context(|| format!("cannot write the weights to {}", folder.display()))
    }

    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (hidden, kv) = (self.hidden, self.hidden / self.heads * self.kv_heads);
        let mut tensors = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            for (name, shape) in [
                ("self_attn.q_proj.weight", vec![hidden, hidden]),
                ("self_attn.q_proj.bias", vec![hidden]),
                ("self_attn.k_proj.weight", vec![kv, hidden]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.weight", vec![kv, hidden]),
                ("self_attn.v_proj.bias", vec![kv]),
                ("self_attn.o_proj.weight", vec![hidden, hidden]),
                ("mlp.gate_proj.weight", vec![self.inner, hidden]),
                ("mlp.up_proj.weight", vec![self.inner, hidden]),
                ("mlp.down_proj.weight", vec![hidden, self.inner]),
                ("input_layernorm.weight", vec![hidden]),
                ("post_attention_layernorm.weight", vec![hidden]),
            ] {
                tensors.push((format!("model.layers.{layer}.{name}"), shape));
            }
        }
        tensors
    }
}

/// A tensor of values distributed evenly between -0.035 and 0.035 (a standard deviation of 0.02), generated when it is written.
struct RandomTensor {
    shape: Vec<usize>,
    seed: u64,
}

impl View for RandomTensor {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut state = self.seed | 1;
        let mut bytes = Vec::with_capacity(self.data_len());
        for _ in 0..self.shape.iter().product::<usize>() {
            // Xorshift (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let value = ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.07;
            bytes.extend(half::bf16::from_f32(value).to_le_bytes());
        }
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * 2
    }
}
