//! Reads a Hugging Face model folder: what kind of model it is, how long its input may be, how its vectors are pooled.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::EngineError;
use super::{gguf_header, modules};

/// A model folder whose small files have been read and hashed; the weights follow.
pub(super) struct ModelFolder {
    path: PathBuf,
    /// Where in the folder the model itself lies: nothing, or a name with a slash at its end.
    inner: String,
    revision: blake3::Hasher,
    gguf: Option<Arc<Content>>,
}

/// `config.json`, as far as the encoders of the BERT family need it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct EncoderConfig {
    pub(super) model_type: String,
    #[serde(default)]
    pub(super) architectures: Vec<String>,
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) max_position_embeddings: usize,
    #[serde(default = "gelu")]
    pub(super) hidden_act: String,
    #[serde(default = "layer_norm_eps")]
    pub(super) layer_norm_eps: f32,
    #[serde(default)]
    pub(super) pad_token_id: Option<usize>,
    #[serde(default)]
    position_embedding_type: Option<String>,
    #[serde(default)]
    id2label: BTreeMap<String, Value>,
    pub(super) problem_type: Option<String>,
    pub(super) tokenizer_class: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    pruned_heads: Option<BTreeMap<String, Value>>,
    quantization_config: Option<Value>,
    auto_map: Option<BTreeMap<String, Value>>,
}

fn gelu() -> String {
    "gelu".into()
}

fn layer_norm_eps() -> f32 {
    1e-12
}

/// The families that share one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EncoderFamily {
    /// Positions count from 0; the classification head reads the pooler.
    Bert,
    /// RoBERTa and XLM-RoBERTa: positions count from the padding token's id plus one; the head has a layer of its own.
    Roberta,
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    Mean,
    First,
}

impl ModelFolder {
    /// Opens the folder of the model called `model`.
    pub(super) fn open(model: &str, path: &Path) -> Result<Self, EngineError> {
        let file = path.extension().is_some_and(|extension| extension == "gguf") && path.is_file();
        if !path.is_dir() && !file {
            return Err(EngineError::NoFolder { model: model.into(), path: path.into() });
        }
        let inner = if file { String::new() } else { modules::transformer_folder(path)? };
        Ok(Self { path: path.into(), inner, revision: blake3::Hasher::new(), gguf: None })
    }

    /// Whether the model is a GGUF file and no folder.
    pub(super) fn is_gguf(&self) -> bool {
        self.path.is_file()
    }

    /// The metadata and the places of the tensors of a GGUF file, all of which counts towards the revision.
    pub(super) fn gguf(&mut self) -> Result<Arc<Content>, EngineError> {
        if let Some(content) = &self.gguf {
            return Ok(content.clone());
        }
        let path = self.path.clone();
        let unreadable = |source| EngineError::Unreadable { path: path.clone(), source };
        let mut file = File::open(&path).map_err(unreadable)?;
        self.revision.update_reader(&mut file).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let content = gguf_header::content(&file).map_err(|reason| {
            let reason = format!(
                "cannot be read as a GGUF file: {reason}; fetch it again, or use a file in Q8_0, Q4_K_M, Q5_K_M, Q6_K or F16"
            );
            EngineError::invalid(&path, reason)
        })?;
        Ok(self.gguf.insert(Arc::new(content)).clone())
    }

    /// The folder, or the file where the model is one.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what was read of another folder, such as an adapter's, to this folder's revision.
    pub(super) fn include(&mut self, other: &Self) {
        self.revision.update(other.revision.finalize().as_bytes());
    }

    /// The path of the model's file `name`.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(format!("{}{name}", self.inner))
    }

    /// The path of `name` in the folder, wherever the model itself lies.
    pub(super) fn join_at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file and adds it to the revision.
    pub(super) fn read(&mut self, name: &str, fix: &'static str) -> Result<Vec<u8>, EngineError> {
        let path = self.join(name);
        self.read_optional(name)?.ok_or(EngineError::NoFile { path, fix })
    }

    /// Reads a file that may be absent. If it exists, it is added to the revision.
    pub(super) fn read_optional(&mut self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        self.read_at(&format!("{}{name}", self.inner))
    }

    fn read_at(&mut self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let bytes = self.peek_at(name)?;
        if let Some(bytes) = &bytes {
            self.count(name, bytes);
        }
        Ok(bytes)
    }

    fn peek_at(&self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let path = self.join_at(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EngineError::Unreadable { path, source }),
        }
    }

    /// Adds bytes to the revision as a file of this name would be.
    pub(super) fn count(&mut self, name: &str, bytes: &[u8]) {
        self.revision.update(&(name.len() as u64).to_le_bytes());
        self.revision.update(name.as_bytes());
        self.revision.update(&(bytes.len() as u64).to_le_bytes());
        self.revision.update(bytes);
    }

    /// Opens a file that is too large to be read at once, and adds its content to the revision.
    pub(super) fn open_large(&mut self, name: &str, fix: &'static str) -> Result<File, EngineError> {
        let path = self.join(name);
        let unreadable = |source| EngineError::Unreadable { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(EngineError::NoFile { path, fix }),
            Err(source) => return Err(unreadable(source)),
        };
        let length = file.metadata().map_err(unreadable)?.len();
        let name = format!("{}{name}", self.inner);
        self.revision.update(&(name.len() as u64).to_le_bytes());
        self.revision.update(name.as_bytes());
        self.revision.update(&length.to_le_bytes());
        self.revision.update_reader(&mut file).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        Ok(file)
    }

    /// Reads a file of settings that may be absent.
    pub(super) fn read_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, EngineError> {
        self.read_json_at(&format!("{}{name}", self.inner))
    }

    /// Reads a file of settings that may be absent, wherever the model itself lies.
    pub(super) fn read_json_at<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, EngineError> {
        let bytes = self.read_at(name)?;
        self.parse(name, bytes)
    }

    /// As [`Self::read_json_at`], without adding the file to the revision.
    pub(super) fn peek_json_at<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, EngineError> {
        self.parse(name, self.peek_at(name)?)
    }

    fn parse<T: DeserializeOwned>(&self, name: &str, bytes: Option<Vec<u8>>) -> Result<Option<T>, EngineError> {
        let Some(bytes) = bytes else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            let reason = format!("cannot be read as a model's {name}: {e}; take the file from the model's publisher");
            EngineError::invalid(self.join_at(name), reason)
        })
    }

    /// `model_type` of `config.json`, if it can be read. If not, reading the whole file will report the reason.
    pub(super) fn model_type(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        let bytes = fs::read(self.join("config.json")).ok()?;
        serde_json::from_slice(&bytes).ok().map(|kind: Kind| kind.model_type)
    }

    /// Reads `config.json` of an encoder and refuses settings that are not supported.
    pub(super) fn shape(&mut self) -> Result<(EncoderConfig, EncoderFamily), EngineError> {
        const NAME: &str = "config.json";
        let path = self.join(NAME);
        let value: Value =
            self.read_json(NAME)?.ok_or(EngineError::NoFile { path: path.clone(), fix: "config.json names the architecture" })?;
        // The name first: the file of another architecture may lack the keys below, and its name is the better message.
        let Some(model_type) = value.get("model_type").and_then(Value::as_str) else {
            return Err(EngineError::invalid(path, "names no model_type; take the file from the model's publisher"));
        };
        let family = match model_type {
            "bert" => EncoderFamily::Bert,
            "roberta" | "xlm-roberta" => EncoderFamily::Roberta,
            other => {
                let reason = format!(
                    "model_type {other:?} is not supported; use a bert, roberta or xlm-roberta encoder, or a llama, mistral, qwen2 or qwen3 decoder"
                );
                return Err(EngineError::invalid(path, reason));
            }
        };
        let shape: EncoderConfig = serde_json::from_value(value).map_err(|e| {
            let reason = format!("cannot be read as a model's {NAME}: {e}; take the file from the model's publisher");
            EngineError::invalid(&path, reason)
        })?;
        if let Some(reason) = shape.unsupported() {
            return Err(EngineError::invalid(path, reason));
        }
        if shape.hidden_act != "gelu" {
            let reason = format!("hidden_act {:?} is not supported; use a model with \"gelu\"", shape.hidden_act);
            return Err(EngineError::invalid(path, reason));
        }
        if let Some(kind) = shape.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let reason = format!("position_embedding_type {kind:?} is not supported; use a model with \"absolute\"");
            return Err(EngineError::invalid(path, reason));
        }
        let heads = shape.num_attention_heads;
        if heads == 0 || shape.hidden_size == 0 || !shape.hidden_size.is_multiple_of(heads) || shape.num_hidden_layers == 0 {
            let reason = format!(
                "hidden_size {} cannot be shared by {heads} heads in {} layers; take the file from the model's publisher",
                shape.hidden_size, shape.num_hidden_layers
            );
            return Err(EngineError::invalid(path, reason));
        }
        Ok((shape, family))
    }

    /// The hash of everything read so far, by name and content.
    pub(super) fn revision(&self) -> String {
        self.revision.finalize().to_hex()[..16].to_owned()
    }
}

impl EncoderConfig {
    /// Whether the checkpoint carries a sequence-classification head.
    pub(super) fn classifies(&self) -> bool {
        self.architectures.iter().any(|name| name.ends_with("ForSequenceClassification"))
    }

    /// The names of `count` classes, in the order of the logits.
    pub(super) fn labels(&self, count: usize) -> Vec<String> {
        let name = |label: &Value| label.as_str().map_or_else(|| label.to_string(), str::to_owned);
        (0..count).map(|i| self.id2label.get(&i.to_string()).map_or_else(|| format!("LABEL_{i}"), name)).collect()
    }

    /// How many classes have names.
    pub(super) fn named_classes(&self) -> usize {
        self.id2label.len()
    }

    /// A setting that would change the results and is not supported, if there is any.
    fn unsupported(&self) -> Option<String> {
        if self.is_decoder {
            return Some("is_decoder true, so that a token sees only those before it, is not supported; use an encoder".into());
        }
        if self.auto_map.iter().flatten().any(|(class, _)| class.starts_with("AutoModel")) {
            return Some("auto_map asks for code of the model's own, which is not run; use a model of a built-in class".into());
        }
        if self.pruned_heads.as_ref().is_some_and(|heads| !heads.is_empty()) {
            return Some("pruned_heads are not supported; use a model with all its heads".into());
        }
        if let Some(settings) = &self.quantization_config {
            let method = settings.get("quant_method").and_then(Value::as_str).unwrap_or("unnamed");
            return Some(format!(
                "the quantization {method:?} of quantization_config is not supported; use the unquantized model"
            ));
        }
        if self.pad_token_id.is_some_and(|id| id >= self.vocab_size) {
            return Some(format!(
                "pad_token_id {} is beyond the vocabulary of {}; take the file from the model's publisher",
                self.pad_token_id.unwrap_or_default(),
                self.vocab_size
            ));
        }
        match self.problem_type.as_deref().filter(|_| self.classifies()) {
            None | Some("single_label_classification" | "multi_label_classification") => None,
            Some(kind) => Some(format!("problem_type {kind:?} is not supported; use a model that tells classes apart")),
        }
    }

    /// Whether each class has a probability of its own.
    pub(super) fn has_several_labels(&self) -> bool {
        self.problem_type.as_deref() == Some("multi_label_classification")
    }

    /// The first position of a sequence.
    pub(super) fn first_position(&self, family: EncoderFamily) -> usize {
        match family {
            EncoderFamily::Bert => 0,
            EncoderFamily::Roberta => self.pad_token_id.unwrap_or(1) + 1,
        }
    }
}
