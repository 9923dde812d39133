//! The tensors of a decoder's Hugging Face folder, with an adapter merged into those that it changes.

use super::lora::LoraAdapter;
use super::tensor_source::TensorSource;
use crate::error::EngineError;
use crate::folder::ModelFolder;
use crate::matrix::Matrix;
use crate::weights::WeightFiles;

pub(super) struct FolderTensors {
    files: WeightFiles,
    adapter: Option<LoraAdapter>,
}

impl FolderTensors {
    pub(super) fn open(folder: &mut ModelFolder, adapter: Option<LoraAdapter>) -> Result<Self, EngineError> {
        Ok(Self { files: WeightFiles::open(folder)?, adapter })
    }

    /// Fails where the folder or the adapter holds a tensor that the decoder has no use for.
    pub(super) fn finish(self) -> Result<(), EngineError> {
        self.files.finish(is_harmless)?;
        self.adapter.map_or(Ok(()), LoraAdapter::finish)
    }
}

/// Whether a tensor may be left out: the frequencies follow from `config.json`, and checkpoints with a tied head may hold it all the same.
fn is_harmless(name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == "lm_head.weight"
}

impl TensorSource for FolderTensors {
    fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Matrix, EngineError> {
        let matrix = self.files.take(name, &[outputs, inputs])?;
        match &mut self.adapter {
            Some(adapter) => adapter.merge(name, matrix, outputs),
            None => Ok(matrix),
        }
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, EngineError> {
        self.files.take(name, &[length]).map(Matrix::into_f32)
    }
}
