//! Random decoders of each family, written as Hugging Face folders.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::plain::{Plain, Weights};
use crate::decoder::{BLOCK_TOKENS, Decoder, KvCache, StepRow, WantedLogits};
use crate::error::EngineError;
use crate::folder::ModelFolder;

/// What a random decoder is like.
#[derive(Clone)]
pub(crate) struct Random {
    pub(crate) config: Value,
    pub(crate) dtype: DType,
    pub(crate) shards: usize,
}

/// A decoder of a family, with the peculiarities that tell the families apart.
pub(crate) fn random(family: &str) -> Random {
    let mut config = json!({
        "model_type": family, "vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 70, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 1000.0, "hidden_act": "silu", "tie_word_embeddings": false,
    });
    let more = match family {
        "llama" => json!({ "attention_bias": true, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32 } }),
        "mistral" => json!({ "sliding_window": 37, "num_key_value_heads": 3 }),
        "qwen2" => {
            json!({ "tie_word_embeddings": true, "sliding_window": 20, "use_sliding_window": true, "max_window_layers": 1 })
        }
        "qwen3" => json!({ "tie_word_embeddings": true, "sliding_window": null, "num_key_value_heads": 6, "head_dim": 34 }),
        other => panic!("no family {other}"),
    };
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Random { config, dtype: DType::F32, shards: 1 }
}

pub(crate) const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

impl Random {
    /// The names and shapes of the weights.
    pub(super) fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let size = |key: &str| self.config[key].as_u64().unwrap() as usize;
        let (hidden, inner, width) = (size("hidden_size"), size("intermediate_size"), size("head_dim"));
        let (queries, keys) = (size("num_attention_heads") * width, size("num_key_value_heads") * width);
        let mut shapes = BTreeMap::new();
        let mut put = |name: String, shape: &[usize]| shapes.insert(name, shape.to_vec());
        put("model.embed_tokens.weight".into(), &[size("vocab_size"), hidden]);
        put("model.norm.weight".into(), &[hidden]);
        if self.config["tie_word_embeddings"] == false {
            put("lm_head.weight".into(), &[size("vocab_size"), hidden]);
        }
        let (biased, all) = (self.config["model_type"] == "qwen2", self.config["attention_bias"] == true);
        for layer in 0..size("num_hidden_layers") {
            let at = |name: &str| format!("model.layers.{layer}.{name}");
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                put(at(&format!("{norm}.weight")), &[hidden]);
            }
            if self.config["model_type"] == "qwen3" {
                put(at("self_attn.q_norm.weight"), &[width]);
                put(at("self_attn.k_norm.weight"), &[width]);
            }
            let attention = [("q", queries, hidden), ("k", keys, hidden), ("v", keys, hidden), ("o", hidden, queries)];
            for (part, outputs, inputs) in attention {
                put(at(&format!("self_attn.{part}_proj.weight")), &[outputs, inputs]);
                if all || (biased && part != "o") {
                    put(at(&format!("self_attn.{part}_proj.bias")), &[outputs]);
                }
            }
            for (part, outputs, inputs) in [("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)] {
                put(at(&format!("mlp.{part}_proj.weight")), &[outputs, inputs]);
            }
        }
        shapes
    }

    /// The weights as the file holds them, the same for the same model.
    pub(super) fn weights(&self) -> Weights {
        let mut rng = StdRng::seed_from_u64(11);
        let rounded = |value: f32| match self.dtype {
            DType::BF16 => half::bf16::from_f32(value).to_f32(),
            DType::F16 => half::f16::from_f32(value).to_f32(),
            _ => value,
        };
        let values = |(name, shape): (String, Vec<usize>)| {
            let around = if name.contains("norm") { 1.0 } else { 0.0 };
            let values = (0..shape.iter().product()).map(|_| rounded(around + rng.random_range(-0.4..0.4))).collect();
            (name, (shape, values))
        };
        self.shapes().into_iter().map(values).collect()
    }

    /// Writes the model folder.
    pub(crate) fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        write_json(&folder, "config.json", &self.config);
        let tensor = |(name, (shape, values)): (String, (Vec<usize>, Vec<f32>))| {
            (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(self.dtype).unwrap())
        };
        let mut tensors: Vec<(String, Tensor)> = self.weights().into_iter().map(tensor).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        if self.shards == 1 {
            let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
            candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
            return folder;
        }
        let mut map = BTreeMap::new();
        for shard in 0..self.shards {
            let name = format!("model-{shard:05}.safetensors");
            let part: HashMap<String, Tensor> = tensors.iter().skip(shard).step_by(self.shards).cloned().collect();
            map.extend(part.keys().map(|tensor| (tensor.clone(), name.clone())));
            candle_core::safetensors::save(&part, folder.path().join(&name)).unwrap();
        }
        write_json(&folder, "model.safetensors.index.json", &json!({ "metadata": {}, "weight_map": map }));
        folder
    }

    /// Writes the model and loads it.
    pub(super) fn decoder(&self) -> Decoder {
        load(self.write().path(), None).unwrap()
    }

    /// The logits of plain loops after each token.
    pub(crate) fn plain(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        Plain { config: &self.config, weights: &self.weights() }.logits(ids)
    }
}

pub(super) fn write_json(folder: &TempDir, name: &str, value: &Value) {
    std::fs::write(folder.path().join(name), serde_json::to_vec_pretty(value).unwrap()).unwrap();
}

/// Loads the decoder at `path`.
pub(super) fn load(path: &std::path::Path, adapter: Option<&std::path::Path>) -> Result<Decoder, EngineError> {
    Decoder::load(&mut ModelFolder::open("tiny", path)?, adapter)
}

/// Token ids below `vocabulary`.
pub(crate) fn ids(count: usize, seed: u64, vocabulary: u32) -> Vec<u32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(0..vocabulary)).collect()
}

/// The logits after each token, read in chunks of `chunk` tokens through the blocks `blocks`.
pub(super) fn read(decoder: &Decoder, cache: &mut KvCache, ids: &[u32], chunk: usize, blocks: &[u32]) -> Vec<Vec<f32>> {
    let mut logits = Vec::new();
    for (i, part) in ids.chunks(chunk).enumerate() {
        let row = StepRow { ids: part, past: i * chunk, blocks, wanted: WantedLogits::All };
        let step = decoder.forward(cache, &[row]).unwrap();
        logits.extend((0..step.rows()).map(|row| step.row_ref(row).to_vec()));
    }
    logits
}

/// The logits after each token, read at once.
pub(super) fn read_at_once(decoder: &Decoder, ids: &[u32]) -> Vec<Vec<f32>> {
    let blocks: Vec<u32> = (0..ids.len().div_ceil(BLOCK_TOKENS) as u32).collect();
    read(decoder, &mut decoder.cache(blocks.len()).unwrap(), ids, ids.len(), &blocks)
}

/// Fails where logits differ by more than `tolerance` of the largest.
#[track_caller]
pub(crate) fn assert_close(what: &str, got: &[Vec<f32>], expected: &[Vec<f64>], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: rows of logits");
    let largest = expected.iter().flatten().fold(0.0, |most: f64, x| most.max(x.abs()));
    for (row, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.len(), expected.len(), "{what}: logits of row {row}");
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let error = (f64::from(*got) - expected).abs() / largest;
            assert!(
                error <= tolerance,
                "{what}: logit {i} of row {row}: expected {expected}, got {got}: off by {error:e} of the largest"
            );
        }
    }
}

/// Logits as the expected values of a comparison.
pub(crate) fn to_f64(logits: &[Vec<f32>]) -> Vec<Vec<f64>> {
    logits.iter().map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}
