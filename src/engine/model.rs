//! A model of the engine: loaded from a folder or file, or behind a server.

use std::sync::Arc;

use super::decode::DecoderWeights;
use super::decoder::{Decoder, is_decoder};
use super::encoder::{Encode, Encoder};
use super::error::EngineError;
use super::folder::ModelFolder;
use super::gpu::{Accelerator, GpuDecoder, GpuEncoder};
use super::model_info::{ModelInfo, ModelKind};
use super::modules::MODULES;
use super::prompt::{ChatTokenizer, TokenLimits};
use super::remote::RemoteModel;
use super::request::Chunking;
use super::schema::Schema;
use super::sentence_transformers;
use super::text_tokenizer::TextTokenizer;
use super::tokenizer_settings::TokenizerSettings;
use tidemill_base::config::{ModelConfig, ModelLocation};
use tidemill_base::failure::{Failure, FailureClass};
use tidemill_base::outcome::Span;

pub(super) struct Model {
    pub(super) info: ModelInfo,
    pub(super) runtime: ModelRuntime,
}

/// What computes the model's answers.
pub(super) enum ModelRuntime {
    /// An encoder or classifier in memory.
    Encoder(Box<EncoderModel>),
    /// A decoder in memory.
    Generator(Box<GeneratorModel>),
    Remote(Box<RemoteModel>),
}

/// An encoder with its tokenizer.
pub(super) struct EncoderModel {
    pub(super) tokenizer: TextTokenizer,
    pub(super) encoder: Box<dyn Encode>,
}

/// A decoder with its tokenizer and chat template.
pub(super) struct GeneratorModel {
    pub(super) tokenizer: ChatTokenizer,
    pub(super) decoder: Arc<dyn DecoderWeights>,
}

impl Model {
    /// Loads the model that pipelines call `name` onto the accelerator, or into memory if there is none. For a model behind a
    /// server it only prepares the client.
    pub(super) fn load(name: &str, config: &ModelConfig, accelerator: Option<&Accelerator>) -> Result<Self, EngineError> {
        let path = match config.place(name)? {
            ModelLocation::Local(path) => path,
            ModelLocation::Server(_) => {
                let remote = RemoteModel::open(name, config)?;
                return Ok(Self { info: remote.info.clone(), runtime: ModelRuntime::Remote(Box::new(remote)) });
            }
        };
        let mut folder = ModelFolder::open(name, path)?;
        if let Some(kind) = folder.model_type().filter(|kind| is_decoder(kind) && folder.join_at(MODULES).exists()) {
            let reason = format!(
                "makes a sentence encoder of a {kind} decoder, which is not supported; use a bert, roberta or xlm-roberta encoder"
            );
            return Err(EngineError::invalid(folder.join_at(MODULES), reason));
        }
        if folder.is_gguf() || folder.model_type().is_some_and(|kind| is_decoder(&kind)) {
            return Self::generator(name, &mut folder, config, accelerator);
        }
        if let Some(adapter) = &config.adapter {
            let reason = format!(
                "is an adapter, and `models.{name}` is an encoder; merge the adapter into the model's weights, or remove the setting"
            );
            return Err(EngineError::invalid(adapter, reason));
        }
        Self::encoder(name, &mut folder, accelerator)
    }

    fn generator(
        name: &str,
        folder: &mut ModelFolder,
        config: &ModelConfig,
        accelerator: Option<&Accelerator>,
    ) -> Result<Self, EngineError> {
        let adapter = config.adapter.as_deref();
        let decoder: Arc<dyn DecoderWeights> = match accelerator {
            Some(accelerator) => Arc::new(GpuDecoder::load(folder, adapter, accelerator)?),
            None => Arc::new(Decoder::load(folder, adapter)?),
        };
        let shape = decoder.shape();
        let max_tokens = shape.context.min(config.context.unwrap_or(usize::MAX));
        let limits = TokenLimits { vocabulary: shape.vocabulary, context: max_tokens };
        let tokenizer = if folder.is_gguf() {
            let content = folder.gguf()?;
            ChatTokenizer::from_gguf(folder.path(), &content.metadata, limits)?
        } else {
            ChatTokenizer::load(folder, limits)?
        };
        let info = ModelInfo {
            name: name.into(),
            origin: folder.path().display().to_string(),
            kind: ModelKind::Generator,
            architecture: shape.architecture.clone(),
            revision: folder.revision(),
            dimension: shape.hidden,
            max_tokens,
            labels: Vec::new(),
            several_labels: false,
        };
        Ok(Self { info, runtime: ModelRuntime::Generator(Box::new(GeneratorModel { tokenizer, decoder })) })
    }

    fn encoder(name: &str, folder: &mut ModelFolder, accelerator: Option<&Accelerator>) -> Result<Self, EngineError> {
        let (shape, family) = folder.shape()?;
        let positions = shape.max_position_embeddings.saturating_sub(shape.first_position(family));
        let settings = TokenizerSettings::read(folder, &shape)?;
        let max_tokens = settings.max_tokens(folder, positions);
        let mut tokenizer = TextTokenizer::load(folder, &settings, shape.vocab_size, max_tokens)?;
        let kind = if shape.classifies() { ModelKind::Classifier } else { ModelKind::Encoder };
        let pooling = match kind {
            ModelKind::Encoder => {
                let pooling_settings = sentence_transformers::read_settings(folder)?;
                let prompted = tokenizer.with_prompts(pooling_settings.prompts);
                tokenizer =
                    prompted.map_err(|reason| EngineError::invalid(folder.join_at(sentence_transformers::LIBRARY), reason))?;
                Some(pooling_settings.pooling)
            }
            ModelKind::Classifier | ModelKind::Generator => None,
        };
        let encoder: Box<dyn Encode> = match accelerator {
            Some(accelerator) => Box::new(GpuEncoder::load(folder, &shape, family, pooling, accelerator)?),
            None => Box::new(Encoder::load(folder, &shape, family, pooling)?),
        };
        if kind == ModelKind::Classifier {
            let named = shape.named_classes();
            if named != 0 && named != encoder.dimension() {
                let reason = format!(
                    "id2label names {named} classes, and the weights have {}; take both files from the same model",
                    encoder.dimension()
                );
                return Err(EngineError::invalid(folder.join("config.json"), reason));
            }
        }
        let info = ModelInfo {
            name: name.into(),
            origin: folder.path().display().to_string(),
            kind,
            architecture: shape.model_type.clone(),
            revision: folder.revision(),
            dimension: shape.hidden_size,
            max_tokens,
            labels: if kind == ModelKind::Classifier { shape.labels(encoder.dimension()) } else { Vec::new() },
            several_labels: kind == ModelKind::Classifier && shape.has_several_labels(),
        };
        Ok(Self { info, runtime: ModelRuntime::Encoder(Box::new(EncoderModel { tokenizer, encoder })) })
    }

    /// Tokens of the text, without special tokens; an estimate for a model behind a server.
    pub(super) fn count(&self, text: &str) -> Result<usize, Failure> {
        match &self.runtime {
            ModelRuntime::Encoder(encoder_model) => encoder_model.tokenizer.count(text).map_err(|e| untokenizable(&e)),
            ModelRuntime::Generator(generator) => Ok(generator.tokenizer.count(text)?),
            ModelRuntime::Remote(remote) => Ok(remote.count(text)),
        }
    }

    /// Splits the text into pieces of at most `tokens` tokens. Neighbouring pieces share `overlap` tokens. An estimate for a model
    /// behind a server.
    pub(super) fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        match &self.runtime {
            ModelRuntime::Encoder(encoder_model) => {
                let chunks =
                    encoder_model.tokenizer.chunks(text, Chunking::Split { tokens, overlap }).map_err(|e| untokenizable(&e))?;
                Ok(chunks.into_iter().map(|chunk| chunk.span).collect())
            }
            ModelRuntime::Generator(generator) => Ok(generator.tokenizer.split(text, tokens, overlap)?),
            ModelRuntime::Remote(remote) => Ok(remote.split(text, tokens, overlap)),
        }
    }

    /// Whether answers of at most `max_tokens` tokens can be constrained to the schema.
    ///
    /// # Errors
    /// One sentence that says why not.
    pub(super) fn check_schema(&self, schema: &Schema, max_tokens: usize) -> Result<(), String> {
        // What a server supports shows only in its answers.
        let ModelRuntime::Generator(generator) = &self.runtime else { return Ok(()) };
        generator.tokenizer.check_schema(schema)?;
        match generator.tokenizer.shortest_answer_tokens(schema) {
            Some(shortest) if shortest > max_tokens => Err(format!(
                "the shortest answer under the schema has about {shortest} tokens and max_tokens is {max_tokens}; raise max_tokens"
            )),
            _ => Ok(()),
        }
    }
}

fn untokenizable(error: &tokenizers::Error) -> Failure {
    Failure::poison(FailureClass::Model, format!("the text cannot be tokenized: {error}"))
}
