//! LoRA adapters in PEFT's layout, merged into the weights as they are read: `W + scale · B · A`.

use std::path::{Path, PathBuf};

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};
use serde::Deserialize;
use serde_json::Value;

use crate::error::EngineError;
use crate::folder::ModelFolder;
use crate::matrix::Matrix;
use crate::weights::WeightFile;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The change of a base model's weights.
pub(super) struct LoraAdapter {
    file: WeightFile,
    scale: f32,
    path: PathBuf,
}

#[derive(Deserialize)]
struct Config {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    bias: Option<String>,
    modules_to_save: Option<Value>,
    rank_pattern: Option<Value>,
    alpha_pattern: Option<Value>,
}

impl Config {
    /// A setting of the adapter that is not supported, if it has any.
    fn unsupported(&self) -> Option<String> {
        let filled = |value: &Option<Value>| match value {
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(items)) => !items.is_empty(),
            Some(Value::Null) | None => false,
            Some(_) => true,
        };
        if self.peft_type != "LORA" {
            return Some(format!("peft_type {:?}", self.peft_type));
        }
        if let Some(bias) = self.bias.as_deref().filter(|bias| *bias != "none") {
            return Some(format!("bias {bias:?}"));
        }
        let parts = [
            ("use_dora", self.use_dora),
            ("lora_bias", self.lora_bias),
            ("fan_in_fan_out", self.fan_in_fan_out),
            ("modules_to_save", filled(&self.modules_to_save)),
            ("rank_pattern", filled(&self.rank_pattern)),
            ("alpha_pattern", filled(&self.alpha_pattern)),
        ];
        parts.into_iter().find(|(_, is_set)| *is_set).map(|(name, _)| name.to_owned())
    }
}

impl LoraAdapter {
    /// Opens the PEFT folder `path`. Its content counts towards the revision of `base`.
    pub(super) fn open(base: &mut ModelFolder, path: &Path) -> Result<Self, EngineError> {
        if !path.is_dir() {
            return Err(EngineError::invalid(
                path,
                "the adapter's folder does not exist; name a PEFT folder with an adapter_config.json",
            ));
        }
        let mut folder = ModelFolder::open("adapter", path)?;
        let place = folder.join(CONFIG);
        let config: Config = folder
            .read_json(CONFIG)?
            .ok_or(EngineError::NoFile { path: place.clone(), fix: "adapter_config.json says how the adapter is scaled" })?;
        if let Some(part) = config.unsupported() {
            let reason =
                format!("{part} is not supported; merge the adapter into its model with PEFT and name the merged folder");
            return Err(EngineError::invalid(place, reason));
        }
        if config.r == 0 {
            return Err(EngineError::invalid(
                place,
                "r is 0, so that the adapter changes nothing; train it with a rank of 1 or more",
            ));
        }
        let rank = config.r as f64;
        let scale = config.lora_alpha / if config.use_rslora { rank.sqrt() } else { rank };
        let file = WeightFile::open(&mut folder, WEIGHTS)?;
        base.include(&folder);
        Ok(Self { file, scale: scale as f32, path: path.join(WEIGHTS) })
    }

    /// The model's matrix `name` with the adapter's change of it, if there is one.
    pub(super) fn merge(&mut self, name: &str, matrix: Matrix, outputs: usize) -> Result<Matrix, EngineError> {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let [narrow, widen] = ["lora_A", "lora_B"].map(|part| format!("base_model.model.{module}.{part}.weight"));
        let (Some(a), Some(b)) = (self.file.shape(&narrow), self.file.shape(&widen)) else { return Ok(matrix) };
        let mut rows = matrix.into_f32();
        let inputs = rows.len() / outputs;
        let fits = matches!((a, b), ([rank, width], [height, other]) if rank == other && *width == inputs && *height == outputs);
        if !fits {
            let reason = format!(
                "changes {module} by {b:?} times {a:?} and the model's is {outputs} by {inputs}; the adapter was trained for another base model"
            );
            return Err(EngineError::invalid(&self.path, reason));
        }
        let rank = a[0];
        let a = self.file.take(&narrow, &[rank, inputs])?.into_f32();
        let b = self.file.take(&widen, &[outputs, rank])?.into_f32();
        rows.par_chunks_mut(inputs).zip(b.par_chunks(rank)).for_each(|(row, b)| {
            for (factor, a) in b.iter().zip(a.chunks_exact(inputs)) {
                let factor = self.scale * factor;
                row.iter_mut().zip(a).for_each(|(weight, a)| *weight += factor * a);
            }
        });
        Ok(Matrix::F32 { rows, inputs })
    }

    /// Fails if the adapter changes a tensor that the model does not have.
    pub(super) fn finish(self) -> Result<(), EngineError> {
        match self.file.names().next() {
            None => Ok(()),
            Some(name) => {
                let reason =
                    format!("changes {name}, which the model does not have; the adapter was trained for another base model");
                Err(EngineError::invalid(&self.path, reason))
            }
        }
    }
}
