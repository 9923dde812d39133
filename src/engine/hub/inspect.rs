//! Checks that the files of a model can be read, without loading the weights.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::tensor_file::TensorFile;
use crate::{gguf_header, modules};

/// An adapter's folder has this file instead of `config.json` and a tokenizer.
const ADAPTER: &str = "adapter_config.json";

/// Reads the settings, the tokenizer and the headers of the weights at `path`: the folder of a model or adapter, or a GGUF file.
/// Blocks.
///
/// # Errors
/// If a file is missing or cannot be read.
pub fn inspect(path: &Path) -> Result<()> {
    if !path.is_dir() {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let content = gguf_header::content(&file).map_err(anyhow::Error::msg);
        content.with_context(|| format!("{} is not a readable GGUF file; pull it again", path.display()))?;
        return Ok(());
    }
    // An older layout has the model in a subfolder.
    let path = &path.join(modules::transformer_folder(path)?);
    if path.join(ADAPTER).exists() {
        object(&path.join(ADAPTER))?;
    } else {
        let config = object(&path.join("config.json"))?;
        if config.get("model_type").and_then(Value::as_str).is_none() {
            bail!("{} names no model_type; take the file from the model's publisher", path.join("config.json").display());
        }
        let tokenizer = path.join("tokenizer.json");
        let read = Tokenizer::from_file(&tokenizer).map_err(|e| anyhow::anyhow!("{e}"));
        read.with_context(|| format!("{} cannot be read as a tokenizer; pull the model again", tokenizer.display()))?;
    }
    let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let files = entries.filter_map(Result::ok).map(|entry| entry.path());
    let weights: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "safetensors")).collect();
    if weights.is_empty() {
        bail!("{} has no weights; pull the model again", path.display());
    }
    weights.iter().try_for_each(|file| header(file))
}

fn object(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}; pull the model again", path.display()))?;
    let value: Value =
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON; pull the model again", path.display()))?;
    if !value.is_object() {
        bail!("{} is not a JSON object; take the file from the model's publisher", path.display());
    }
    Ok(value)
}

/// Checks the header of a safetensors file, and that the file has the length that the header gives.
fn header(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}; pull the model again", path.display()))?;
    TensorFile::open(file).map(drop).map_err(|e| anyhow::anyhow!("{} {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_as_far_as_it_is_small() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        for sound in ["generators/qwen2", "generators/qwen2-lora", "generators/llama-q4_k_m.gguf"] {
            inspect(&fixtures.join(sound)).unwrap();
        }
        let fixture = fixtures.join("models/tiny-xlm-roberta");
        inspect(&fixture).unwrap();
        let home = tempfile::tempdir().unwrap();
        let copy = |name: &str| std::fs::copy(fixture.join(name), home.path().join(name)).unwrap();
        let error = || format!("{:#}", inspect(home.path()).unwrap_err());
        assert!(error().contains("cannot read") && error().contains("config.json"), "{}", error());
        copy("config.json");
        assert!(error().contains("tokenizer.json cannot be read as a tokenizer"), "{}", error());
        copy("tokenizer.json");
        assert!(error().contains("has no weights"), "{}", error());
        copy("model-00001-of-00002.safetensors");
        inspect(home.path()).unwrap();
        let shard = home.path().join("model-00001-of-00002.safetensors");
        let bytes = std::fs::read(&shard).unwrap();
        std::fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
        assert!(error().contains("its tensors take"), "{}", error());
        std::fs::write(&shard, [0xff; 64]).unwrap();
        assert!(error().contains("is not a whole safetensors file"), "{}", error());
        std::fs::write(home.path().join("m.gguf"), "GGUF").unwrap();
        let error = format!("{:#}", inspect(&home.path().join("m.gguf")).unwrap_err());
        assert!(error.contains("not a readable GGUF file"), "{error}");
    }
}
