//! A trained classification head: a linear layer over the vectors of a frozen encoder, stored in one safetensors file.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::calibration::LinkFunction;
use crate::engine::{ModelInfo, TensorFile};

/// The format name in the file. Another layout gets another number.
const FORMAT: &str = "tidemill-head-1";

/// A linear layer with the data needed to use it correctly.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    /// The labels, in the order of the rows of `weight`.
    pub labels: Vec<String>,
    /// Whether a document may have several labels.
    pub multi: bool,
    /// Name of the encoder during training; for information only.
    pub model: String,
    /// Revision of the encoder. Vectors of another revision are not comparable.
    pub revision: String,
    /// Number of components of a vector.
    pub dimension: usize,
    /// The temperature fitted on held-out examples.
    pub temperature: f32,
    /// One row of `dimension` weights per label.
    pub weight: Vec<f32>,
    /// One number per label.
    pub bias: Vec<f32>,
}

impl LinearHead {
    /// The score of each label for `vector`.
    pub fn scores(&self, vector: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.dimension);
        rows.zip(&self.bias).map(|(row, bias)| row.iter().zip(vector).map(|(w, x)| w * x).sum::<f32>() + bias).collect()
    }

    /// How its scores become probabilities.
    pub fn link(&self) -> LinkFunction {
        LinkFunction::of(self.multi)
    }

    /// Checks that the head was trained on vectors of `model`.
    pub fn check(&self, model: &ModelInfo) -> anyhow::Result<()> {
        ensure!(
            self.revision == model.revision,
            "the head was trained on revision {} of model `{}`, but the loaded one is {}: train the head again",
            short(&self.revision),
            self.model,
            short(&model.revision)
        );
        ensure!(
            self.dimension == model.dimension,
            "the head takes vectors of {} components, but model `{}` gives {}: train the head again",
            self.dimension,
            model.name,
            model.dimension
        );
        Ok(())
    }

    /// The bytes of the file. The same head always gives the same bytes.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        // The safetensors header has no defined order of entries. A single entry keeps the bytes, and so the version, reproducible.
        let about = serde_json::json!({
            "format": FORMAT, "labels": self.labels, "multi": self.multi, "model": self.model, "revision": self.revision,
            "temperature": self.temperature,
        });
        let metadata = HashMap::from([("tidemill".to_owned(), about.to_string())]);
        let (weight, bias) = (to_le_bytes(&self.weight), to_le_bytes(&self.bias));
        let tensors = [
            ("weight", TensorView::new(Dtype::F32, vec![self.labels.len(), self.dimension], &weight)?),
            ("bias", TensorView::new(Dtype::F32, vec![self.labels.len()], &bias)?),
        ];
        Ok(serialize(tensors, Some(metadata))?)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        let mut file = TensorFile::open(Cursor::new(bytes)).map_err(|e| anyhow!("the file {e}"))?;
        let about =
            file.metadata("tidemill").context("the file contains no trained head: create one with `tidemill train-head`")?;
        let about: HeadMetadata = serde_json::from_str(about).context("the head's description is damaged: train it again")?;
        ensure!(
            about.format == FORMAT,
            "the head has format `{}`, but this version reads `{FORMAT}`: train it again",
            about.format
        );
        let rows = about.labels.len();
        let shape = file.shape("weight").context("the head's file has no weight: train it again")?;
        let [_, dimension] = *shape else { bail!("the head's weight has {} axes, not 2", shape.len()) };
        let unfit = |_| anyhow!("the head's weights do not fit its {rows} labels: train it again");
        let weight = file.take_f32("weight", &[rows, dimension]).map_err(unfit)?;
        let bias = file.take_f32("bias", &[rows]).map_err(unfit)?;
        if let Some(name) = file.names().next() {
            bail!("the head's file holds the tensor `{name}`, which no head has: train it again");
        }
        ensure!(about.labels.len() >= 2 && dimension > 0, "the head has fewer than two labels: train it again");
        ensure!(
            about.temperature.is_finite() && about.temperature > 0.0,
            "the head's temperature is not a positive number: train it again"
        );
        ensure!(
            weight.iter().chain(&bias).all(|w| w.is_finite()),
            "the head has weights that are not finite numbers: train it again"
        );
        Ok(Self {
            labels: about.labels,
            multi: about.multi,
            model: about.model,
            revision: about.revision,
            dimension,
            temperature: about.temperature,
            weight,
            bias,
        })
    }

    /// Reads the file at `path`. The second value is its version, a hash of its bytes.
    pub fn load(path: &Path) -> anyhow::Result<(Self, String)> {
        let bytes = std::fs::read(path)
            .with_context(|| format!("the head `{}` cannot be read: train it with `tidemill train-head`", path.display()))?;
        let head = Self::from_bytes(&bytes).with_context(|| format!("the head `{}`", path.display()))?;
        Ok((head, version(&bytes)))
    }

    /// Writes the file at `path` atomically and returns its version.
    pub fn save(&self, path: &Path) -> anyhow::Result<String> {
        let bytes = self.to_bytes()?;
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).with_context(|| format!("the folder `{}` cannot be created", folder.display()))?;
        let partial = path.with_extension("partial");
        std::fs::write(&partial, &bytes).with_context(|| format!("`{}` cannot be written", partial.display()))?;
        std::fs::rename(&partial, path).with_context(|| format!("`{}` cannot be written", path.display()))?;
        Ok(version(&bytes))
    }
}

#[derive(serde::Deserialize)]
struct HeadMetadata {
    format: String,
    labels: Vec<String>,
    multi: bool,
    model: String,
    revision: String,
    temperature: f32,
}

fn version(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

fn to_le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> LinearHead {
        LinearHead {
            labels: vec!["정원".into(), "kitchen".into()],
            multi: false,
            model: "minilm".into(),
            revision: "abcdef".into(),
            dimension: 3,
            temperature: 0.5,
            weight: vec![1.0, 2.0, 3.0, -1.0, 0.0, 0.5],
            bias: vec![0.25, -0.25],
        }
    }

    #[test]
    fn a_head_comes_back_from_its_file_with_the_same_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heads/topic.safetensors");
        let saved = head().save(&path).unwrap();
        assert_eq!(LinearHead::load(&path).unwrap(), (head(), saved.clone()));
        assert_eq!(head().save(&path).unwrap(), saved, "the same head was given another version");
        assert_ne!(
            LinearHead { temperature: 0.6, ..head() }.save(&path).unwrap(),
            saved,
            "another head was given the same version"
        );
    }

    #[test]
    fn scores_are_the_linear_layer() {
        assert_eq!(head().scores(&[1.0, 0.0, 2.0]), [7.25, -0.25]);
    }

    #[test]
    fn damaged_files_are_refused_with_a_mend() {
        let good = head().to_bytes().unwrap();
        for end in [0, 4, 20, good.len() - 1] {
            assert!(LinearHead::from_bytes(&good[..end]).is_err(), "a file cut off at {end} bytes was read");
        }
        let wrong = LinearHead { labels: vec!["one".into(), "two".into(), "three".into()], ..head() };
        assert!(wrong.to_bytes().and_then(|bytes| LinearHead::from_bytes(&bytes)).is_err(), "labels without weights were read");
        let broken = LinearHead { bias: vec![f32::NAN, 0.0], ..head() }.to_bytes().unwrap();
        assert!(LinearHead::from_bytes(&broken).unwrap_err().to_string().contains("not finite numbers"));
        let missing = LinearHead::load(Path::new("/nowhere/topic.safetensors")).unwrap_err();
        assert!(format!("{missing:#}").contains("train it with `tidemill train-head`"), "{missing:#}");
    }
}
