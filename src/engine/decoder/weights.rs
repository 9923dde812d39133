//! Reads a decoder's tensors from safetensors files, one at a time, so that a checkpoint is never in memory twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Deserialize;

use super::lora::LoraAdapter;
use super::matrix::Matrix;
use crate::error::EngineError;
use crate::folder::ModelFolder;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The longest header that is read: a hundred times what the largest models have.
const HEADER_BYTES: u64 = 100 << 20;

/// Where the tensors of a decoder come from.
pub(crate) trait TensorSource {
    /// Takes the matrix `name` of `outputs` rows of `inputs`.
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, EngineError>;

    /// Takes the vector `name`.
    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError>;
}

/// An open safetensors file and where its tensors lie.
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    /// The first byte after the header.
    start: u64,
    tensors: HashMap<String, TensorInfo>,
}

/// The tensors of a Hugging Face folder, with an adapter merged into those that it changes.
pub(super) struct Checkpoint {
    shards: Vec<TensorFile>,
    places: BTreeMap<String, usize>,
    adapter: Option<LoraAdapter>,
    origin: PathBuf,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl TensorFile {
    /// Reads the header of the file `name`.
    pub(super) fn open(folder: &mut ModelFolder, name: &str) -> Result<Self, EngineError> {
        let mut file = folder.open_large(name, "the safetensors files hold the weights")?;
        let path = folder.join(name);
        let unreadable = |source| EngineError::Unreadable { path: path.clone(), source };
        let broken = |e: String| {
            EngineError::invalid(&path, format!("is not a whole safetensors file: {e}; fetch it again and compare its size"))
        };
        let length = file.metadata().map_err(unreadable)?.len();
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| broken("it ends before its header".into()))?;
        let size = u64::from_le_bytes(size);
        if size > HEADER_BYTES || size.saturating_add(8) > length {
            return Err(broken(format!("its header claims {size} bytes and the file has {length}")));
        }
        let mut header = Vec::new();
        Read::by_ref(&mut file).take(size).read_to_end(&mut header).map_err(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|e| broken(e.to_string()))?;
        let start = size + 8;
        let tensors: HashMap<String, TensorInfo> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        let expected = start + metadata.data_len() as u64;
        if expected != length {
            return Err(broken(format!("its tensors take {expected} bytes and the file has {length}")));
        }
        if let Some((name, _)) = tensors.iter().find(|(_, info)| !is_filled(info, metadata.data_len())) {
            return Err(broken(format!("the bytes of the tensor {name} are not as many as its shape says")));
        }
        Ok(Self { path, file, start, tensors })
    }

    /// Names of the tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// The shape of the tensor `name`, where it is there.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|info| &*info.shape)
    }

    /// Takes the tensor `name`, rows of `inputs`.
    pub(super) fn take(&mut self, name: &str, inputs: usize) -> Result<Matrix, EngineError> {
        let lacks = || EngineError::invalid(&self.path, format!("lacks the tensor {name}"));
        let info = self.tensors.remove(name).ok_or_else(lacks)?;
        let (from, to) = info.data_offsets;
        let mut bytes = vec![0; to - from];
        let read = self.file.seek(SeekFrom::Start(self.start + from as u64)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| EngineError::Unreadable { path: self.path.clone(), source })?;
        match info.dtype {
            Dtype::BF16 => Ok(Matrix::Bf16 { rows: halves(&bytes).collect(), inputs }),
            Dtype::F16 => {
                Ok(Matrix::F32 { rows: halves(&bytes).map(|bits| half::f16::from_bits(bits).to_f32()).collect(), inputs })
            }
            Dtype::F32 => {
                let rows = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                Ok(Matrix::F32 { rows, inputs })
            }
            other => {
                let reason = format!(
                    "the tensor {name} is stored as {other:?}, which is not supported; use the model in bf16, f16 or f32"
                );
                Err(EngineError::invalid(&self.path, reason))
            }
        }
    }
}

/// Whether the tensor has as many bytes as its shape and type say, all of them inside the file's `length` bytes of data.
fn is_filled(info: &TensorInfo, length: usize) -> bool {
    let (from, to) = info.data_offsets;
    let values = info.shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
    let bits = values.and_then(|values| values.checked_mul(info.dtype.bitsize()));
    from <= to && to <= length && bits.is_some_and(|bits| bits.div_ceil(8) == to - from)
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes))
}

impl Checkpoint {
    /// Opens the folder's safetensors, whole or sharded.
    pub(super) fn open(folder: &mut ModelFolder, adapter: Option<LoraAdapter>) -> Result<Self, EngineError> {
        let sharded = folder.join(INDEX).exists();
        let mut shards = Vec::new();
        if sharded {
            let bytes = folder.read(INDEX, "the index names the shards")?;
            let index: ShardIndex = serde_json::from_slice(&bytes).map_err(|e| {
                let reason = format!("is not an index of shards: {e}; take the file from the model's publisher");
                EngineError::invalid(folder.join(INDEX), reason)
            })?;
            for name in index.weight_map.into_values().collect::<BTreeSet<String>>() {
                shards.push(TensorFile::open(folder, &name)?);
            }
        } else {
            shards.push(TensorFile::open(folder, SINGLE)?);
        }
        let mut places = BTreeMap::new();
        for (i, shard) in shards.iter().enumerate() {
            places.extend(shard.names().map(|name| (name.clone(), i)));
        }
        Ok(Self { shards, places, adapter, origin: folder.join(if sharded { INDEX } else { SINGLE }) })
    }

    /// Fails where tensors are left that the forward pass would have left out without a word.
    pub(super) fn finish(self) -> Result<(), EngineError> {
        // Derived from config.json; old checkpoints carry them along.
        let harmless = |name: &str| name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight";
        if let Some(name) = self.places.keys().find(|name| !harmless(name)) {
            let reason =
                format!("holds the tensor {name}, which config.json does not account for; the two are of different models");
            return Err(EngineError::invalid(self.origin, reason));
        }
        self.adapter.map_or(Ok(()), LoraAdapter::finish)
    }

    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Matrix, EngineError> {
        let Some(shard) = self.places.remove(name) else {
            let reason = format!("lacks the tensor {name}; the weights are not those of the architecture in config.json");
            return Err(EngineError::invalid(&self.origin, reason));
        };
        let shard = &mut self.shards[shard];
        let found = shard.shape(name).unwrap_or_default();
        if found != shape {
            let reason =
                format!("the tensor {name} has shape {found:?} and config.json says {shape:?}; the two are of different models");
            return Err(EngineError::invalid(&shard.path, reason));
        }
        shard.take(name, shape.last().copied().unwrap_or(1))
    }
}

impl TensorSource for Checkpoint {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, EngineError> {
        let matrix = self.take(name, &[outputs, inputs])?;
        match &mut self.adapter {
            Some(adapter) => adapter.merge(name, matrix, outputs),
            None => Ok(matrix),
        }
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        self.take(name, &[length]).map(Matrix::into_f32)
    }
}
