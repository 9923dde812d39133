//! Reads safetensors, whole or sharded, and hands tensors out by name with their shape checked.

use std::collections::{BTreeSet, HashMap};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::error::{EngineError, first_line};
use super::folder::ModelFolder;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a checkpoint. Each is taken out once.
pub(super) struct Weights {
    tensors: HashMap<String, Tensor>,
    prefix: String,
    origin: std::path::PathBuf,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Reads every tensor of the folder.
    pub(super) fn read(folder: &mut ModelFolder) -> Result<Self, EngineError> {
        let mut tensors = HashMap::new();
        let sharded = folder.join(INDEX).exists();
        if sharded {
            let bytes = folder.read(INDEX, "the index names the shards")?;
            let index: ShardIndex = serde_json::from_slice(&bytes).map_err(|e| {
                EngineError::invalid(
                    folder.join(INDEX),
                    format!("is not an index of shards: {e}; take the file from the model's publisher"),
                )
            })?;
            let shards: BTreeSet<String> = index.weight_map.into_values().collect();
            for shard in shards {
                read_shard(folder, &shard, &mut tensors)?;
            }
        } else {
            read_shard(folder, SINGLE, &mut tensors)?;
        }
        let origin = folder.join(if sharded { INDEX } else { SINGLE });
        let probe = "embeddings.word_embeddings.weight";
        let prefix = ["bert.", "roberta.", ""].into_iter().find(|prefix| tensors.contains_key(&format!("{prefix}{probe}")));
        let Some(prefix) = prefix else {
            let reason = format!("holds no tensor {probe}; the weights are not those of the architecture in config.json");
            return Err(EngineError::invalid(origin, reason));
        };
        Ok(Self { tensors, prefix: prefix.into(), origin })
    }

    /// Takes the encoder's tensor `name`, which must have `shape`, as rows of f32.
    pub(super) fn encoder(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        let name = format!("{}{name}", self.prefix);
        self.head(&name, shape)
    }

    /// Takes the tensor with exactly this name, which must have `shape`.
    pub(super) fn head(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, EngineError> {
        // The first BERT checkpoints were converted from TensorFlow with its names for the two halves of a layer norm.
        let older = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let tensor = self.tensors.remove(name).or_else(|| self.tensors.remove(&older));
        let Some(tensor) = tensor else {
            let reason = format!("lacks the tensor {name}; the weights are not those of the architecture in config.json");
            return Err(EngineError::invalid(&self.origin, reason));
        };
        if tensor.dims() != shape {
            let reason = format!(
                "the tensor {name} has shape {:?} and config.json says {shape:?}; the two are of different models",
                tensor.dims()
            );
            return Err(EngineError::invalid(&self.origin, reason));
        }
        let values = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1());
        values.map_err(|e| {
            EngineError::invalid(&self.origin, format!("the tensor {name} cannot be read as numbers: {}", first_line(&e)))
        })
    }

    /// Rows of the encoder's tensor `name`, where it is there.
    pub(super) fn encoder_rows(&self, name: &str) -> Option<usize> {
        self.head_rows(&format!("{}{name}", self.prefix))
    }

    /// Rows of the tensor with exactly this name, where it is there.
    pub(super) fn head_rows(&self, name: &str) -> Option<usize> {
        self.tensors.get(name).and_then(|tensor| tensor.dims().first().copied())
    }
}

fn read_shard(folder: &mut ModelFolder, name: &str, tensors: &mut HashMap<String, Tensor>) -> Result<(), EngineError> {
    let bytes = folder.read(name, "the safetensors files hold the weights")?;
    let loaded = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).map_err(|e| {
        EngineError::invalid(
            folder.join(name),
            format!("is not a whole safetensors file: {}; fetch it again and compare its size", first_line(&e)),
        )
    })?;
    tensors.extend(loaded);
    Ok(())
}
