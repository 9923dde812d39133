//! Reads a Hugging Face model folder: what kind of model it is, how long its input may be, how its vectors are pooled.

use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::EngineError;

/// A model folder whose small files have been read and hashed; the weights follow.
pub(super) struct Folder {
    path: PathBuf,
    revision: blake3::Hasher,
    gguf: Option<Arc<Content>>,
}

/// `config.json`, as far as the encoders of the BERT family need it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ModelShape {
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
    id2label: std::collections::BTreeMap<String, String>,
}

fn gelu() -> String {
    "gelu".into()
}

fn layer_norm_eps() -> f32 {
    1e-12
}

/// The families that share one forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Positions count from 0; the classification head reads the pooler.
    Bert,
    /// RoBERTa and XLM-RoBERTa: positions count from the padding token's id plus one; the head has a layer of its own.
    Roberta,
}

/// How token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
}

impl Folder {
    /// Opens the folder of the model called `model`.
    pub(super) fn open(model: &str, path: &Path) -> Result<Self, EngineError> {
        let file = path.extension().is_some_and(|extension| extension == "gguf") && path.is_file();
        if !path.is_dir() && !file {
            return Err(EngineError::NoFolder { model: model.into(), path: path.into() });
        }
        Ok(Self { path: path.into(), revision: blake3::Hasher::new(), gguf: None })
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
        let content = Content::read(&mut std::io::BufReader::new(file)).map_err(|e| {
            let reason =
                format!("cannot be read as a GGUF file: {e}; fetch it again, or use a file in Q8_0, Q4_K_M, Q5_K_M, Q6_K or F16");
            EngineError::invalid(&path, reason)
        })?;
        Ok(self.gguf.insert(Arc::new(content)).clone())
    }

    /// The folder, or the file where the model is one.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets what was read of another folder, such as an adapter's, count towards this one's revision.
    pub(super) fn include(&mut self, other: &Self) {
        self.revision.update(other.revision.finalize().as_bytes());
    }

    /// The path of `name` inside the folder.
    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file, which then counts towards the revision.
    pub(super) fn read(&mut self, name: &str, mend: &'static str) -> Result<Vec<u8>, EngineError> {
        let path = self.join(name);
        self.read_optional(name)?.ok_or(EngineError::NoFile { path, mend })
    }

    /// Reads a file that may be absent and counts towards the revision where it is not.
    pub(super) fn read_optional(&mut self, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let path = self.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(EngineError::Unreadable { path, source }),
        };
        self.revision.update(&(name.len() as u64).to_le_bytes());
        self.revision.update(name.as_bytes());
        self.revision.update(&(bytes.len() as u64).to_le_bytes());
        self.revision.update(&bytes);
        Ok(Some(bytes))
    }

    /// Opens a file too large to be read whole, which counts towards the revision as if it had been.
    pub(super) fn open_large(&mut self, name: &str, mend: &'static str) -> Result<File, EngineError> {
        let path = self.join(name);
        let unreadable = |source| EngineError::Unreadable { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(EngineError::NoFile { path, mend }),
            Err(source) => return Err(unreadable(source)),
        };
        let length = file.metadata().map_err(unreadable)?.len();
        self.revision.update(&(name.len() as u64).to_le_bytes());
        self.revision.update(name.as_bytes());
        self.revision.update(&length.to_le_bytes());
        self.revision.update_reader(&mut file).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        Ok(file)
    }

    /// Reads a file of settings that may be absent.
    pub(super) fn read_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, EngineError> {
        let Some(bytes) = self.read_optional(name)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            EngineError::invalid(
                self.join(name),
                format!("cannot be read as a model's {name}: {e}; take the file from the model's publisher"),
            )
        })
    }

    /// `model_type` of `config.json`, if that can be read. Whoever goes on to read the file says what is wrong with it.
    pub(super) fn model_type(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        let bytes = fs::read(self.join("config.json")).ok()?;
        serde_json::from_slice(&bytes).ok().map(|kind: Kind| kind.model_type)
    }

    /// Reads `config.json` and refuses what the encoders here would compute wrongly.
    pub(super) fn shape(&mut self) -> Result<(ModelShape, Family), EngineError> {
        const NAME: &str = "config.json";
        let path = self.join(NAME);
        let shape: ModelShape = self
            .read_json(NAME)?
            .ok_or(EngineError::NoFile { path: path.clone(), mend: "config.json names the architecture" })?;
        let family = match shape.model_type.as_str() {
            "bert" => Family::Bert,
            "roberta" | "xlm-roberta" => Family::Roberta,
            other => {
                let reason = format!(
                    "model_type {other:?} is not supported; use a bert, roberta or xlm-roberta encoder, or a llama, mistral, qwen2 or qwen3 decoder"
                );
                return Err(EngineError::invalid(path, reason));
            }
        };
        if shape.hidden_act != "gelu" {
            let reason = format!("hidden_act {:?} is not supported; use a model with \"gelu\"", shape.hidden_act);
            return Err(EngineError::invalid(path, reason));
        }
        if let Some(kind) = shape.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let reason = format!("position_embedding_type {kind:?} is not supported; use a model with \"absolute\"");
            return Err(EngineError::invalid(path, reason));
        }
        let heads = shape.num_attention_heads;
        if heads == 0 || !shape.hidden_size.is_multiple_of(heads) || shape.num_hidden_layers == 0 {
            let reason = format!(
                "hidden_size {} cannot be shared by {heads} heads in {} layers; take the file from the model's publisher",
                shape.hidden_size, shape.num_hidden_layers
            );
            return Err(EngineError::invalid(path, reason));
        }
        Ok((shape, family))
    }

    /// The longest sequence that the folder's settings allow, special tokens included, given what the position table allows.
    pub(super) fn max_tokens(&mut self, table: usize) -> Result<usize, EngineError> {
        #[derive(Deserialize)]
        struct SentenceSettings {
            max_seq_length: Option<usize>,
        }
        #[derive(Deserialize)]
        struct TokenizerSettings {
            // A float: publishers write 1e30 for "no limit".
            model_max_length: Option<f64>,
        }
        let sentence: Option<SentenceSettings> = self.read_json("sentence_bert_config.json")?;
        let tokenizer: Option<TokenizerSettings> = self.read_json("tokenizer_config.json")?;
        let told = sentence.and_then(|s| s.max_seq_length).unwrap_or(usize::MAX);
        let limit = tokenizer.and_then(|t| t.model_max_length).map_or(usize::MAX, |length| length as usize);
        Ok(table.min(told).min(limit))
    }

    /// How the folder says that token vectors become one; the mean where it does not say.
    pub(super) fn pooling(&mut self) -> Result<Pooling, EngineError> {
        #[derive(Deserialize)]
        struct Module {
            #[serde(rename = "type")]
            kind: String,
        }
        #[derive(Deserialize)]
        struct Modes {
            #[serde(default)]
            pooling_mode_mean_tokens: bool,
            #[serde(default)]
            pooling_mode_cls_token: bool,
        }
        const MODULES: &str = "modules.json";
        const MODES: &str = "1_Pooling/config.json";
        // A module that is left out would give wrong vectors without a word.
        for module in self.read_json::<Vec<Module>>(MODULES)?.unwrap_or_default() {
            let name = module.kind.rsplit('.').next().unwrap_or_default();
            if !["Transformer", "Pooling", "Normalize"].contains(&name) {
                let reason =
                    format!("the module {name} is not supported; use a model of Transformer, Pooling and Normalize only");
                return Err(EngineError::invalid(self.join(MODULES), reason));
            }
        }
        let Some(modes) = self.read_json::<Modes>(MODES)? else { return Ok(Pooling::Mean) };
        match (modes.pooling_mode_mean_tokens, modes.pooling_mode_cls_token) {
            (true, false) => Ok(Pooling::Mean),
            (false, true) => Ok(Pooling::First),
            _ => Err(EngineError::invalid(
                self.join(MODES),
                "exactly one of pooling_mode_mean_tokens and pooling_mode_cls_token must be true; use a model that pools so",
            )),
        }
    }

    /// The hash of everything read so far, by name and content.
    pub(super) fn revision(&self) -> String {
        self.revision.finalize().to_hex()[..16].to_owned()
    }
}

impl ModelShape {
    /// Whether the checkpoint carries a sequence-classification head.
    pub(super) fn classifies(&self) -> bool {
        self.architectures.iter().any(|name| name.ends_with("ForSequenceClassification"))
    }

    /// The names of `count` classes, in the order of the logits.
    pub(super) fn labels(&self, count: usize) -> Vec<String> {
        (0..count).map(|i| self.id2label.get(&i.to_string()).cloned().unwrap_or_else(|| format!("LABEL_{i}"))).collect()
    }

    /// The first position of a sequence.
    pub(super) fn first_position(&self, family: Family) -> usize {
        match family {
            Family::Bert => 0,
            Family::Roberta => self.pad_token_id.unwrap_or(1) + 1,
        }
    }
}
