//! Models behind OpenAI-compatible servers: the same requests, answers and failures as for models in memory.
//!
//! A server reports less than a model in memory, and accepts fewer parameters. So some things differ:
//!
//! | | in memory | behind a server |
//! |---|---|---|
//! | revision | hash of the files | hash of the address and the model's name; the server may change the model unnoticed |
//! | tokens of a text | counted | estimated by [`RemoteModel::count`] |
//! | special tokens in a document | stay text | stay text: a space is inserted into each, see `escaping.rs` |
//! | schema | always satisfied | requested, then validated; an invalid answer is requested once more with another seed |
//! | label scores | exact | approximate, see `scores.rs` |
//! | cost | device time | tokens, as the server counts them; device time is 0 |

mod answer_cache;
mod call;
mod chat_request;
mod dialect;
mod escaping;
mod lenient_json;
mod reasoning;
mod refusal;
mod reply;
mod retries;
mod scores;
mod token_estimate;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Url};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::completion::Completion;
use super::error::EngineError;
use super::model_info::{ModelInfo, ModelKind};
use super::request::{Answer, Generate, Prediction, Request, Sampling, Score, Work};
use answer_cache::AnswerCache;
use chat_request::ChatRequest;
use dialect::Dialect;
use reply::Reply;
use retries::FaultTracker;
use tidemill_base::config::{ConfigError, ModelConfig, ModelLocation};
use tidemill_base::failure::{Component, Failure, FailureClass};
use tidemill_base::http;
use tidemill_base::http::retry::{BackoffGate, RetryPolicy};
use tidemill_base::metrics::METRICS;

pub use scores::LEAST_SCORE;

pub(crate) struct RemoteModel {
    pub(crate) info: ModelInfo,
    server_model: String,
    /// The setting as it was written, for messages.
    base_url: String,
    completions: Url,
    client: Client,
    key: Option<ApiKey>,
    timeout: Duration,
    patience: RetryPolicy,
    slots: Semaphore,
    gate: BackoffGate,
    dialect: Mutex<Dialect>,
    faults: FaultTracker,
    /// Answers of calls that failed as a whole.
    pub(crate) cache: AnswerCache,
}

/// The API key. It is never printed.
struct ApiKey {
    variable: String,
    secret: String,
    header: HeaderValue,
}

impl RemoteModel {
    /// Prepares the model that pipelines call `name`. It does not contact the server, which may be down when the process starts.
    pub(crate) fn open(name: &str, config: &ModelConfig) -> Result<Self, EngineError> {
        Self::open_with(name, config, |variable| std::env::var(variable).ok())
    }

    /// [`RemoteModel::open`] with the given environment variables.
    fn open_with(name: &str, config: &ModelConfig, environment: impl Fn(&str) -> Option<String>) -> Result<Self, EngineError> {
        let place = match config.place(name)? {
            ModelLocation::Server(place) => place,
            ModelLocation::Local(_) => {
                let reason = format!("`models.{name}` names no server; set `base_url` instead of `path`");
                return Err(ConfigError(reason).into());
            }
        };
        let key = place.key_variable.map(|variable| ApiKey::read(name, variable, environment)).transpose()?;
        let base_url = place.base_url.as_str().trim_end_matches('/').to_owned();
        let completions = Url::parse(&format!("{base_url}/chat/completions"))
            .map_err(|e| ConfigError(format!("`models.{name}.base_url` cannot be extended by a path: {e}")))?;
        let client = http::client(&completions, |builder| builder)
            .map_err(|e| ConfigError(format!("`models.{name}`: cannot prepare connections: {}", http::reason(&e))))?;
        let mut revision = blake3::Hasher::new();
        for part in [&base_url, place.server_model] {
            revision.update(&(part.len() as u64).to_le_bytes());
            revision.update(part.as_bytes());
        }
        let info = ModelInfo {
            name: name.into(),
            origin: base_url.clone(),
            kind: ModelKind::Generator,
            architecture: place.server_model.to_owned(),
            revision: revision.finalize().to_hex()[..16].to_owned(),
            dimension: 0,
            max_tokens: place.context,
            labels: Vec::new(),
            several_labels: false,
        };
        Ok(Self {
            info,
            server_model: place.server_model.to_owned(),
            base_url,
            completions,
            client,
            key,
            timeout: place.timeout,
            patience: RetryPolicy::new(place.timeout),
            slots: Semaphore::new(place.concurrency.min(Semaphore::MAX_PERMITS)),
            gate: BackoffGate::default(),
            dialect: Mutex::default(),
            faults: FaultTracker::default(),
            cache: AnswerCache::default(),
        })
    }

    /// Does the work of one request, with retries. The future may be dropped at any time.
    pub(crate) async fn answer(&self, request: &Request) -> Result<Answer, Failure> {
        match &request.work {
            Work::Generate(generate) => self.generate(generate).await,
            Work::Score(score) => self.score(score).await,
            Work::Encode { .. } | Work::Classify { .. } => Err(Failure::poison(
                FailureClass::Model,
                format!(
                    "model {:?} is behind a server, which can only generate text and score labels; use a model on disk",
                    self.info.name
                ),
            )),
        }
    }

    async fn generate(&self, generate: &Generate) -> Result<Answer, Failure> {
        let mut question = ChatRequest {
            messages: &generate.prompt.messages,
            max_tokens: generate.max_tokens,
            sampling: generate.sampling,
            stop: &generate.stop,
            schema: generate.schema.as_deref().map(|schema| schema.standard()),
            alternatives: false,
        };
        let read = |reply: &Reply| {
            let completion = Completion { text: reply.text().to_owned(), tokens: reply.generated(), finish: reply.finish };
            if let Some(schema) = &generate.schema {
                schema.judge(&completion, generate.max_tokens)?;
            }
            Ok(Prediction::Completion(completion))
        };
        self.ask(&mut question, read).await
    }

    async fn score(&self, score: &Score) -> Result<Answer, Failure> {
        let schema: Value = scores::schema(&score.answers);
        let mut question = ChatRequest {
            messages: &score.prompt.messages,
            max_tokens: scores::max_tokens(&score.answers),
            sampling: Sampling::default(),
            stop: &[],
            schema: Some(&schema),
            alternatives: true,
        };
        let read = |reply: &Reply| {
            let no_choice = || {
                Failure::poison(
                    FailureClass::Schema,
                    "the server's model had to choose one of the labels, and its answer is none of them",
                )
            };
            scores::read(reply, &score.answers).map(Prediction::Scores).ok_or_else(no_choice)
        };
        self.ask(&mut question, read).await
    }

    /// Sends the request, and sends it once more with another seed if the answer violates its schema: another random draw is the
    /// only thing that could give a valid answer.
    async fn ask(
        &self,
        question: &mut ChatRequest<'_>,
        read: impl Fn(&Reply) -> Result<Prediction, Failure>,
    ) -> Result<Answer, Failure> {
        self.refuse_oversized(question)?;
        let (mut tokens, mut generated) = (0, 0);
        let mut is_last = false;
        loop {
            let reply = self.reply(question).await?;
            let read_tokens = reply.prompt_tokens.unwrap_or_else(|| self.prompt_tokens(question));
            let written = reply.completion_tokens.unwrap_or_else(|| self.completion_tokens(&reply));
            METRICS.tokens.with_label_values(&[&*self.info.name]).inc_by(u64::from(read_tokens) + u64::from(written));
            tokens += read_tokens;
            generated += written;
            match read(&reply) {
                Ok(prediction) => return Ok(Answer { prediction, tokens, generated, device_micros: 0 }),
                Err(Failure::Poison(poison)) if poison.class == FailureClass::Schema && !is_last => {
                    is_last = true;
                    question.sampling.seed = question.sampling.seed.wrapping_add(1);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn dialect(&self) -> Dialect {
        *self.dialect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adopts a dialect in which a request was accepted. Each parameter that is newly left out or replaced is logged as a warning.
    fn learn(&self, leaner: Dialect) {
        let mut dialect = self.dialect.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, common) = (*dialect, dialect.common(leaner));
        *dialect = common;
        drop(dialect);
        for (parameter, instead) in common.changes_since(before) {
            tracing::warn!(model = &*self.info.name, parameter, instead, "the server refuses a parameter; continuing without it");
        }
    }

    fn transient(&self, reason: &str) -> Failure {
        Failure::transient(Component::Model, format!("model {}: the server {} {reason}", self.info.name, self.base_url))
    }
}

impl ApiKey {
    fn read(name: &str, variable: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let setting = format!("`models.{name}.api_key_env` names the variable {variable}");
        let secret = environment(variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let secret = secret.ok_or_else(|| ConfigError(format!("{setting}, which is not set; set it to the server's key")))?;
        let mut header = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| ConfigError(format!("{setting}, which has characters that no key has; set it to the server's key")))?;
        header.set_sensitive(true);
        Ok(Self { variable: variable.to_owned(), secret, header })
    }
}

impl std::fmt::Debug for RemoteModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteModel").field("info", &self.info).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("variable", &self.variable).finish_non_exhaustive()
    }
}

/// Fails to compile if the model cannot be shared between threads.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<RemoteModel>>();
};
