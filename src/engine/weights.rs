//! The safetensors files of a model folder, one or several, as one set of named tensors.
//!
//! Loading is strict in both directions: a tensor that the architecture needs must be there in its shape, and one that it does not account
//! for must be known as harmless. Otherwise a model of twelve layers would be loaded as one of six where `config.json` says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::EngineError;
use super::folder::ModelFolder;
use super::matrix::Matrix;
use super::tensor_file::{TensorFile, TensorFileError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The tensors of a model folder that have not been taken out yet.
pub(super) struct WeightFiles {
    files: Vec<WeightFile>,
    /// The file of each tensor.
    places: BTreeMap<String, usize>,
    /// The index, or the only file.
    origin: PathBuf,
}

/// One file of weights.
pub(super) struct WeightFile {
    path: PathBuf,
    tensors: TensorFile<File>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

impl WeightFile {
    /// Opens the folder's file `name`, all of which counts towards the folder's revision.
    pub(super) fn open(folder: &mut ModelFolder, name: &str) -> Result<Self, EngineError> {
        let file = folder.open_large(name, "the safetensors files hold the weights")?;
        let path = folder.join(name);
        let tensors = TensorFile::open(file).map_err(|e| of_file(&path, e))?;
        Ok(Self { path, tensors })
    }

    /// The tensors that have not been taken, in alphabetical order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.shape(name)
    }

    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Matrix, EngineError> {
        self.tensors.take(name, shape).map_err(|e| of_file(&self.path, e))
    }
}

impl WeightFiles {
    /// Opens the folder's safetensors files and reads their headers.
    pub(super) fn open(folder: &mut ModelFolder) -> Result<Self, EngineError> {
        let is_sharded = folder.join(INDEX).exists();
        let mut files = Vec::new();
        if is_sharded {
            let bytes = folder.read(INDEX, "the index names the shards")?;
            let index: ShardIndex = serde_json::from_slice(&bytes).map_err(|e| {
                let reason = format!("is not an index of shards: {e}; take the file from the model's publisher");
                EngineError::invalid(folder.join(INDEX), reason)
            })?;
            for name in index.weight_map.into_values().collect::<BTreeSet<String>>() {
                files.push(WeightFile::open(folder, &name)?);
            }
        } else {
            files.push(WeightFile::open(folder, SINGLE)?);
        }
        let mut places = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            places.extend(file.names().map(|name| (name.to_owned(), i)));
        }
        Ok(Self { files, places, origin: folder.join(if is_sharded { INDEX } else { SINGLE }) })
    }

    /// Takes the tensor `name`, which must have `shape`, as rows of its last dimension.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Matrix, EngineError> {
        let Some(place) = self.places.remove(name) else {
            return Err(
                self.invalid(&format!("lacks the tensor {name}; the weights are not those of the architecture in config.json"))
            );
        };
        let file = &mut self.files[place];
        file.take(name, shape)
    }

    /// The shape of the tensor `name`, where it is there and has not been taken.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.files[*self.places.get(name)?].shape(name)
    }

    /// Says of the files as a whole what is wrong with them.
    pub(super) fn invalid(&self, reason: &str) -> EngineError {
        EngineError::invalid(&self.origin, reason)
    }

    /// Fails where a tensor is left that the forward pass would leave out without a word.
    ///
    /// `is_harmless` knows the leftovers that change no result: what follows from `config.json`, and parts for other tasks.
    pub(super) fn finish(self, is_harmless: impl Fn(&str) -> bool) -> Result<(), EngineError> {
        let Some((name, place)) = self.places.iter().find(|(name, _)| !is_harmless(name)) else { return Ok(()) };
        let reason = format!(
            "holds the tensor {name}, which config.json does not account for; take config.json and the weights from the same model"
        );
        Err(EngineError::invalid(&self.files[*place].path, reason))
    }
}

fn of_file(path: &PathBuf, error: TensorFileError) -> EngineError {
    match error {
        TensorFileError::Unreadable(source) => EngineError::Unreadable { path: path.clone(), source },
        TensorFileError::Misshapen { name, found, expected } => EngineError::invalid(
            path,
            format!("the tensor {name} has shape {found:?} and config.json says {expected:?}; the two are of different models"),
        ),
        other => EngineError::invalid(path, other.to_string()),
    }
}
