//! The model host: models in memory, token batches, and the threads that compute.
//!
//! ```text
//! run() ─ tokenize (blocking threads) ─ CallPlan: distinct ─┬ BatchQueue: bounded by tokens ───── TokenBatch ─┬ a device's thread
//!   ▲                      work                             ├ GenerationJob ─ Dispatcher ─ Scheduler ─────────┘      │
//!   │                                                       └ RemoteModel: a server ─────────────────────────┐       │
//!   └─────────────────────── answers in the order of the requests ◀────── rows, completions, scores ─────────┴───────┘
//! ```
//!
//! Models compute on the cores of this machine with the functions of `kernels`, or on a GPU with candle's tensors; `gpu` has the
//! same forward passes for that. Several devices take batches from one queue, and a dispatcher distributes generation jobs among
//! them. Async code never touches a model.
//!
//! To add an encoder, add one file beside `encoder.rs` and one match arm in `folder.rs`. To add a decoder, add one match arm in
//! `decoder/config.rs`, and extend the two forward passes where the architecture differs.

mod activity;
mod backend;
mod batch;
mod budget;
mod call_plan;
mod capacity;
mod completion;
mod decode;
mod decoder;
mod device;
mod dispatch;
mod encoder;
mod error;
mod folder;
mod generation;
mod gguf_header;
mod gpu;
pub mod hub;
mod matrix;
mod model;
mod model_info;
mod modules;
mod prompt;
mod queue;
mod queued_sequence;
mod remote;
mod request;
mod schema;
mod sentence_transformers;
mod span_grammar;
mod start;
mod tensor_file;
mod text_tokenizer;
mod tokenizer_settings;
mod weights;
mod wordpiece;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::mpsc;

pub use activity::IdleTime;
pub use budget::BatchTuning;
pub use completion::{Completion, Finish, GeneratedToken};
pub use device::EngineStats;
pub use error::EngineError;
pub use model_info::{ModelInfo, ModelKind};
pub use remote::LEAST_SCORE;
pub use request::{
    Answer, Chunking, EncodedChunk, EncodedText, Generate, Message, Prediction, Priority, Prompt, Request, Role, Sampling, Score,
    TextKind, Work,
};
pub use schema::Schema;
pub use span_grammar::{LeafType, LeafValues, PASSAGE_END, SpanGrammar, SpanGrammarError};
pub use tensor_file::{TensorFile, TensorFileError};

use activity::{ActivityTracker, PreparationGuard};
use call_plan::{CallPlan, WorkResults};
use capacity::{FairQueue, TokenCapacity};
use device::DeviceState;
use dispatch::Dispatcher;
use generation::TokenizedRequest;
use model::{Model, ModelRuntime};
use queue::{BatchQueue, SequenceGroup};
use queued_sequence::{EncoderRow, QueuedSequence};
use tidemill_base::failure::{Component, Failure, FailureClass, Poison, Transient};
use tidemill_base::outcome::Span;

/// The model host. A clone is another handle on the same models; dropping the last handle stops the threads.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<EngineInner>,
    priority: Priority,
}

struct EngineInner {
    /// The models as loaded on the first device. Their tokenizers serve all devices.
    models: Arc<[Model]>,
    queue: Arc<BatchQueue>,
    activity: Arc<ActivityTracker>,
    devices: Vec<Arc<DeviceState>>,
    dispatch: Dispatcher,
    /// Tokens that may wait for encoders.
    encoder_capacity: TokenCapacity,
    encoder_turns: FairQueue,
    /// Tokens that may wait for generators.
    generator_capacity: TokenCapacity,
    /// Tokens per batch, for each model.
    budgets: Vec<usize>,
    /// Tokens per batch of a model that was neither configured nor measured.
    default_budget: usize,
}

impl Engine {
    /// Another handle on the same models, whose requests have this priority.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self { inner: self.inner.clone(), priority }
    }

    /// The model that pipelines call `name`.
    pub fn model(&self, name: &str) -> Option<&ModelInfo> {
        self.models().find(|info| &*info.name == name)
    }

    /// All models, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.inner.models.iter().map(|model| &model.info)
    }

    /// Tokens per batch of the encoder that pipelines call `name`; none if there is no such model.
    pub fn batch_tokens(&self, name: &str) -> Option<usize> {
        self.index(name).ok().map(|index| self.inner.budgets[index])
    }

    /// The batch sizes, in tokens, that a measuring start compares, in ascending order.
    pub fn batch_tokens_measured(&self) -> Vec<usize> {
        budget::candidates(self.inner.default_budget)
    }

    /// Whether all devices work; otherwise why the first failed one does not. Work queued for a failed device would wait forever,
    /// and only a restart of the process brings a device back. So one failed device makes the whole engine unavailable.
    pub fn health(&self) -> Result<(), Transient> {
        self.inner.devices.iter().try_for_each(|device| device.health())
    }

    /// The sum of what all devices have done since the engine started.
    pub fn stats(&self) -> EngineStats {
        let devices = self.inner.devices.iter().enumerate();
        devices.map(|(place, device)| device.stats(self.inner.activity.device_time(place))).sum()
    }

    /// Does the work of the requests: one answer or failure for each, in order. Fails as a whole if a device or a server is
    /// unavailable.
    ///
    /// Sequences of concurrent calls share batches and steps. Equal requests within a call are computed once.
    pub async fn run(&self, requests: Vec<Request>) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        self.health()?;
        let preparing = self.inner.activity.begin_preparation();
        let models = self.inner.models.clone();
        let mut plan = blocking(move || CallPlan::make(&models, &requests)).await?;
        let answers = plan.take_assembler();
        let (rows, generated, remote) = futures::try_join!(
            self.rows(&plan.sequences, preparing.clone()),
            self.generate(plan.jobs, preparing),
            self.ask_servers(&plan.remote)
        )?;
        Ok(answers.finish(&WorkResults { rows, generated, remote }))
    }

    /// Tokens of each text as the model's tokenizer counts them, without special tokens and without truncation. An estimate for a
    /// model behind a server.
    pub async fn count_tokens(&self, model: &str, texts: Vec<Arc<str>>) -> Result<Vec<usize>, Failure> {
        let (models, index) = (self.inner.models.clone(), self.index(model)?);
        blocking(move || texts.iter().map(|text| models[index].count(text)).collect()).await?
    }

    /// Counts and splits texts with the model's tokenizer, on the caller's thread.
    pub fn splitter(&self, model: &str) -> Option<TextSplitter> {
        let index = self.index(model).ok()?;
        Some(TextSplitter { models: self.inner.models.clone(), index })
    }

    /// Whether the model's answers of at most `max_tokens` tokens can be constrained to the schema. Compiles the schema, so call it
    /// where blocking is fine.
    ///
    /// # Errors
    /// One sentence that says why not.
    pub fn check_schema(&self, model: &str, schema: &Schema, max_tokens: usize) -> Result<(), String> {
        let index = self.index(model).map_err(|failure| failure.to_string())?;
        self.inner.models[index].check_schema(schema, max_tokens)
    }

    fn index(&self, model: &str) -> Result<usize, Failure> {
        self.inner.models.iter().position(|m| &*m.info.name == model).ok_or_else(|| {
            Failure::poison(FailureClass::Model, format!("there is no model {model:?}; name one of the configuration's models"))
        })
    }

    /// Sends the jobs to the devices and waits for their answers.
    async fn generate(
        &self,
        jobs: Vec<(usize, TokenizedRequest)>,
        preparing: PreparationGuard,
    ) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let mut answers: Vec<Option<Result<Answer, Failure>>> = vec![None; jobs.len()];
        let mut loads = Vec::with_capacity(jobs.len());
        for (index, (model, prepared)) in jobs.into_iter().enumerate() {
            let tokens = prepared.weight();
            let permit = self.inner.generator_capacity.take(self.priority, tokens).await.ok_or_else(|| self.stopped())?;
            // Account for finished jobs first, so that the choice of a device sees its current load.
            while let Ok((index, answer)) = replies.try_recv() {
                answers[index] = Some(answer);
                loads[index] = None;
            }
            let job = prepared.into_job(self.priority, index, reply.clone(), permit);
            let load = self.inner.dispatch.send(model, tokens, job).ok_or_else(|| self.stopped())?;
            loads.push(Some(load));
        }
        drop((reply, preparing));
        while let Some((index, answer)) = replies.recv().await {
            answers[index] = Some(answer);
            loads[index] = None;
        }
        // A job without an answer was dropped: its device has stopped.
        answers.into_iter().collect::<Option<_>>().ok_or_else(|| self.stopped())
    }

    /// Asks the servers. The first failure ends the call, because the caller evaluates the whole batch again. Answers that arrived
    /// before the failure are cached for that next call.
    async fn ask_servers(&self, requests: &[(usize, Request)]) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        let remote = |index: usize| match &self.inner.models[index].runtime {
            ModelRuntime::Remote(remote) => remote,
            ModelRuntime::Encoder(_) | ModelRuntime::Generator(_) => unreachable!("only requests for servers are in this list"),
        };
        let ask = async |(index, request): &(usize, Request)| {
            let remote = remote(*index);
            if let Some(answer) = remote.cache.get(request) {
                return Ok(answer);
            }
            let outcome = match remote.answer(request).await {
                Err(Failure::Transient(transient)) => return Err(transient),
                Err(Failure::Poison(poison)) => Err(poison),
                Ok(answer) => Ok(answer),
            };
            remote.cache.keep(request, outcome.clone());
            Ok(outcome.map_err(Failure::Poison))
        };
        let answers = try_join_all(requests.iter().map(ask)).await?;
        for (index, request) in requests {
            remote(*index).cache.forget(request);
        }
        Ok(answers)
    }

    /// Whether the model is behind a server, which may be down.
    pub fn is_remote(&self, model: &str) -> bool {
        self.index(model).is_ok_and(|index| matches!(self.inner.models[index].runtime, ModelRuntime::Remote(_)))
    }

    /// Queues the sequences and waits for their results.
    async fn rows(
        &self,
        sequences: &[(usize, Arc<[u32]>)],
        preparing: PreparationGuard,
    ) -> Result<Vec<Result<EncoderRow, Poison>>, Transient> {
        let inner = &*self.inner;
        let (reply, mut replies) = mpsc::unbounded_channel();
        let mut indexed: Vec<usize> = (0..sequences.len()).collect();
        // By model, and the longest first, so that the parts of a batch take equally long.
        indexed.sort_by_key(|i| (sequences[*i].0, std::cmp::Reverse(sequences[*i].1.len())));
        let mut rest = indexed.as_slice();
        // The current model; for a large call also the guard that lets it queue all its sequences without a break.
        let mut turn = None;
        while let Some(first) = rest.first() {
            let model = sequences[*first].0;
            if turn.as_ref().is_none_or(|(of, _)| *of != model) {
                let all = sequences.iter().filter(|sequence| sequence.0 == model).map(|sequence| sequence.1.len()).sum();
                let is_small = queue::is_small(all, inner.budgets[model]);
                turn = Some((model, if is_small { None } else { Some(inner.encoder_turns.wait(self.priority, model).await) }));
            }
            let (mut count, mut tokens) = (0, 0);
            // Capacity is acquired batch by batch, so that callers with little work get in between.
            while let Some(index) = rest.get(count).filter(|i| sequences[**i].0 == model && tokens < inner.budgets[model]) {
                tokens += sequences[*index].1.len();
                count += 1;
            }
            let permit = Arc::new(inner.encoder_capacity.take(self.priority, tokens).await.ok_or_else(|| self.stopped())?);
            let wait = |index: &usize| QueuedSequence {
                ids: sequences[*index].1.clone(),
                index: *index,
                reply: reply.clone(),
                permit: permit.clone(),
            };
            inner.queue.push(SequenceGroup { model, priority: self.priority, waiting: rest[..count].iter().map(wait).collect() });
            rest = &rest[count..];
        }
        drop((reply, preparing, turn));
        let mut rows: Vec<Option<Result<EncoderRow, Poison>>> = vec![None; sequences.len()];
        while let Some((index, row)) = replies.recv().await {
            rows[index] = Some(row);
        }
        // A sequence without a result was in a batch that was dropped: its device has stopped.
        rows.into_iter().collect::<Option<_>>().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> Transient {
        let reason = "the devices' threads stopped; restart the process".to_owned();
        self.health().err().unwrap_or(Transient::new(Component::Model, reason))
    }
}

/// Counts and splits texts with one model's tokenizer, or by an estimate for a model behind a server.
#[derive(Clone)]
pub struct TextSplitter {
    models: Arc<[Model]>,
    index: usize,
}

impl TextSplitter {
    /// Tokens of the text, without special tokens.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn count(&self, text: &str) -> Result<usize, Failure> {
        self.models[self.index].count(text)
    }

    /// Splits the text into at least one piece of at most `tokens` tokens each. Neighbouring pieces share `overlap` tokens.
    ///
    /// # Errors
    /// If the text cannot be tokenized.
    pub fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        self.models[self.index].split(text, tokens, overlap)
    }
}

impl Drop for EngineInner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("models", &self.models().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Runs long work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Transient> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Transient::new(Component::Model, format!("tokenization stopped: {e}")))
}
