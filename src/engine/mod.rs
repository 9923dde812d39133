//! The model host: models in memory, token batches, and the threads that compute.
//!
//! ```text
//! run() ─ tokenize (blocking threads) ─ Plan: distinct work ─┬ Queue: bounded by tokens, fair ─ TokenBatch ─┬ device thread
//!   ▲                                                        ├ Job ─────────── Scheduler of a generator ────┘      │
//!   │                                                        └ RemoteModel: a server ────────────────────┐         │
//!   └──────────────────────── answers in the order of the requests ◀───── rows, completions, scores ─────┴─────────┘
//! ```
//!
//! Models compute on the cores of this machine with the arithmetic of `kernels`, or with candle's tensors on a GPU: `tensors` has the same
//! forward passes for that. Async code never touches a model. To add an encoder: one file beside `encoder.rs` and one arm in `folder.rs`;
//! to add a decoder: one arm in `decoder/config.rs`, and what is new about it in the two forward passes.

mod batch;
mod budget;
mod decoder;
mod device;
mod encoder;
mod error;
mod folder;
mod generation;
pub mod http;
pub mod hub;
mod kernels;
mod model;
mod plan;
mod prompt;
mod queue;
mod remote;
mod request;
mod schema;
mod tensors;
mod tokens;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::try_join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

pub use budget::Tuning;
pub use device::EngineStats;
pub use error::EngineError;
pub use model::{ModelInfo, ModelKind};
pub use request::{
    Answer, Chunking, Completion, EncodedChunk, EncodedText, Finish, Generate, GeneratedToken, Message, Prediction, Priority,
    Prompt, Request, Role, Sampling, Score, Work,
};
pub use schema::Schema;

use crate::config::{EngineConfig, ModelConfig};
use crate::failure::{Component, Failure, FailureClass, Poison, Transient};
use crate::outcome::Span;
use batch::Row;
use budget::{Place, Tuner};
use device::{Device, DeviceState};
use generation::{GeneratorHost, Job, Prepared};
use model::{Host, Model};
use plan::{Plan, Results};
use queue::{Part, Queue, Waiting};
use tensors::Accelerator;

/// Tokens of a batch for each core: several parts of the size that a core takes at once, and under a second of work, so that a
/// search query never waits long behind a backlog.
const BATCH_TOKENS_PER_CORE: usize = 2048;

/// Tokens of a batch for a GPU: enough that its products are large, and a tenth of a second of work.
const BATCH_TOKENS_OF_GPU: usize = 32 << 10;

/// Batches' worth of tokens that may wait. Enough that the device never runs dry, few enough that nobody waits long.
const QUEUED_BATCHES: usize = 4;

/// Tokens of prompts and answers that may wait for generators or be on their way through them: several times what goes over a device
/// at once, and a few megabytes of memory.
const GENERATOR_TOKENS: usize = 1 << 18;

/// The model host. A clone is another handle on the same models; the last one dropped stops the threads.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    priority: Priority,
}

struct Inner {
    models: Arc<[Model]>,
    queue: Arc<Queue>,
    state: Arc<DeviceState>,
    jobs: crossbeam_channel::Sender<(usize, Job)>,
    /// For encoders.
    room: Room,
    /// For generators.
    job_room: Room,
    /// Tokens of a batch of each model.
    budgets: Vec<usize>,
    /// What they are where nothing is known.
    usual: usize,
}

/// How many tokens may wait. Each priority has room of its own, or what goes first would wait for a place behind what does not.
struct Room {
    live: Arc<Semaphore>,
    backfill: Arc<Semaphore>,
    capacity: usize,
}

impl Room {
    fn new(tokens: usize) -> Self {
        let capacity = tokens.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let semaphore = || Arc::new(Semaphore::new(capacity));
        Self { live: semaphore(), backfill: semaphore(), capacity }
    }

    fn of(&self, priority: Priority) -> &Arc<Semaphore> {
        match priority {
            Priority::Live => &self.live,
            Priority::Backfill => &self.backfill,
        }
    }

    /// Waits for room for so many tokens; for all there is, where they are more.
    async fn take(&self, priority: Priority, tokens: usize) -> Option<OwnedSemaphorePermit> {
        let permits = tokens.min(self.capacity) as u32;
        self.of(priority).clone().acquire_many_owned(permits).await.ok()
    }
}

impl Engine {
    /// Loads every model and starts the threads. Reads gigabytes where models are large: call it where blocking is fine.
    pub fn start(config: &EngineConfig, models: &BTreeMap<String, ModelConfig>) -> Result<Self, EngineError> {
        Self::start_with(config, models, &Tuning::default())
    }

    /// The same, with token budgets of encoders that are remembered or measured, as `tuning` says.
    pub fn start_with(
        config: &EngineConfig,
        models: &BTreeMap<String, ModelConfig>,
        tuning: &Tuning,
    ) -> Result<Self, EngineError> {
        Self::start_on(Accelerator::open(config.device)?, config, models, tuning)
    }

    /// Starts the models on an accelerator, or on the cores of this machine where there is none.
    fn start_on(
        accelerator: Option<Accelerator>,
        config: &EngineConfig,
        models: &BTreeMap<String, ModelConfig>,
        tuning: &Tuning,
    ) -> Result<Self, EngineError> {
        kernels::check_processor().map_err(EngineError::Processor)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(cores).max(1);
        let usual = if accelerator.is_some() { BATCH_TOKENS_OF_GPU } else { threads * BATCH_TOKENS_PER_CORE };
        let load = |(name, config): (&String, &ModelConfig)| Model::load(name, config, accelerator.as_ref());
        let models: Arc<[Model]> = models.iter().map(load).collect::<Result<_, _>>()?;
        let name = accelerator.as_ref().map_or("cpu", Accelerator::name).to_owned();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("device-{i}"))
            .build()
            .map_err(|e| EngineError::NoThreads(e.to_string()))?;
        let kind = match &accelerator {
            Some(accelerator) => accelerator.kind(),
            None => format!("{threads} threads of {}", budget::processor()),
        };
        let budgets =
            Tuner::new(config.batch_tokens, tuning).budgets(&models, &Place { name: &name, kind, usual, pool: &pool })?;
        let (queue, state) = (Arc::new(Queue::default()), Arc::new(DeviceState::new(name)));
        let (jobs, received) = crossbeam_channel::unbounded();
        let mut hosts = Vec::new();
        for index in 0..models.len() {
            hosts.extend(GeneratorHost::new(&models, index, config, accelerator.as_ref())?.map(|host| (index, host)));
        }
        let device = Device {
            models: models.clone(),
            state: state.clone(),
            queue: queue.clone(),
            jobs: received,
            hosts,
            pool,
            budgets: budgets.clone(),
        };
        device.start()?;
        let largest = budgets.iter().copied().max().unwrap_or(usual);
        let (room, job_room) = (Room::new(QUEUED_BATCHES * largest), Room::new(GENERATOR_TOKENS));
        let inner = Arc::new(Inner { models, queue, state, jobs, room, job_room, budgets, usual });
        Ok(Self { inner, priority: Priority::Live })
    }

    /// A handle on the same models whose requests have another priority.
    #[must_use]
    pub fn with_priority(&self, priority: Priority) -> Self {
        Self { inner: self.inner.clone(), priority }
    }

    /// The model that pipelines call `name`.
    pub fn model(&self, name: &str) -> Option<&ModelInfo> {
        self.models().find(|info| &*info.name == name)
    }

    /// Every model, by name.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.inner.models.iter().map(|model| &model.info)
    }

    /// Tokens of a batch of the encoder that pipelines call `name`; none where there is no such model.
    pub fn batch_tokens(&self, name: &str) -> Option<usize> {
        self.index(name).ok().map(|index| self.inner.budgets[index])
    }

    /// The budgets of which a start measures which one is best, the smallest first.
    pub fn batch_tokens_measured(&self) -> Vec<usize> {
        budget::candidates(self.inner.usual)
    }

    /// Whether the device computes; the reason where it does not.
    pub fn health(&self) -> Result<(), Transient> {
        self.inner.state.health()
    }

    /// What the device has done since the engine started.
    pub fn stats(&self) -> EngineStats {
        self.inner.state.stats()
    }

    /// Does the work: one answer or failure a request, in order. Fails as a whole where the device or a server is out of order.
    ///
    /// Sequences of concurrent calls share batches and steps. What is equal within a call is computed once.
    pub async fn run(&self, requests: Vec<Request>) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        self.health()?;
        let models = self.inner.models.clone();
        let mut plan = blocking(move || Plan::make(&models, &requests)).await?;
        let answers = plan.take_answers();
        let (rows, generated, remote) =
            futures::try_join!(self.rows(&plan.sequences), self.generate(plan.jobs), self.ask(&plan.remote))?;
        Ok(answers.finish(&Results { rows, generated, remote }))
    }

    /// Tokens of each text as the model's tokenizer counts them: special tokens not counted, nothing cut off. Estimated for a server.
    pub async fn count_tokens(&self, model: &str, texts: Vec<Arc<str>>) -> Result<Vec<usize>, Failure> {
        let (models, index) = (self.inner.models.clone(), self.index(model)?);
        blocking(move || texts.iter().map(|text| models[index].count(text)).collect()).await?
    }

    /// What counts and cuts texts as the model's tokenizer does, on the caller's thread.
    pub fn splitter(&self, model: &str) -> Option<Splitter> {
        let index = self.index(model).ok()?;
        Some(Splitter { models: self.inner.models.clone(), index })
    }

    /// Whether the model's answers of at most `max_tokens` tokens can be held to the schema. Compiles it: call it where blocking is fine.
    ///
    /// # Errors
    /// One sentence where they cannot.
    pub fn check_schema(&self, model: &str, schema: &Schema, max_tokens: usize) -> Result<(), String> {
        let index = self.index(model).map_err(|failure| failure.to_string())?;
        self.inner.models[index].check_schema(schema, max_tokens)
    }

    fn index(&self, model: &str) -> Result<usize, Failure> {
        self.inner.models.iter().position(|m| &*m.info.name == model).ok_or_else(|| {
            Failure::poison(FailureClass::Model, format!("there is no model {model:?}; name one of the configuration's models"))
        })
    }

    /// Hands the jobs to the device and waits for what comes of them.
    async fn generate(&self, jobs: Vec<(usize, Prepared)>) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        let (reply, mut replies) = mpsc::unbounded_channel();
        let mut answers: Vec<Option<Result<Answer, Failure>>> = vec![None; jobs.len()];
        for (index, (model, prepared)) in jobs.into_iter().enumerate() {
            let room = self.inner.job_room.take(self.priority, prepared.weight()).await.ok_or_else(|| self.stopped())?;
            let job = prepared.into_job(self.priority, index, reply.clone(), room);
            self.inner.jobs.send((model, job)).map_err(|_| self.stopped())?;
        }
        drop(reply);
        while let Some((index, answer)) = replies.recv().await {
            answers[index] = Some(answer);
        }
        // A job that was dropped on the way leaves a hole: the device has stopped.
        answers.into_iter().collect::<Option<_>>().ok_or_else(|| self.stopped())
    }

    /// Asks the servers. The first that is out of order ends the call: the others would only wait for the same.
    async fn ask(&self, requests: &[(usize, Request)]) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        let ask = async |(index, request): &(usize, Request)| {
            let answer = match &self.inner.models[*index].host {
                Host::Remote(remote) => remote.answer(request).await,
                Host::Encoder(_) | Host::Generator(_) => unreachable!("only what servers answer is planned so"),
            };
            match answer {
                Err(Failure::Transient(transient)) => Err(transient),
                answer => Ok(answer),
            }
        };
        try_join_all(requests.iter().map(ask)).await
    }

    /// Queues the sequences and waits for their rows.
    async fn rows(&self, sequences: &[(usize, Arc<[u32]>)]) -> Result<Vec<Result<Row, Poison>>, Transient> {
        let inner = &*self.inner;
        let (reply, mut replies) = mpsc::unbounded_channel();
        let mut indexed: Vec<usize> = (0..sequences.len()).collect();
        // By model, then the longest first, so that a batch's parts come out even.
        indexed.sort_by_key(|i| (sequences[*i].0, std::cmp::Reverse(sequences[*i].1.len())));
        let mut rest = indexed.as_slice();
        while let Some(first) = rest.first() {
            let model = sequences[*first].0;
            let (mut count, mut tokens) = (0, 0);
            // Room is asked for by the batch, so that callers with little to do slip in between.
            while let Some(index) = rest.get(count).filter(|i| sequences[**i].0 == model && tokens < inner.budgets[model]) {
                tokens += sequences[*index].1.len();
                count += 1;
            }
            let room = Arc::new(inner.room.take(self.priority, tokens).await.ok_or_else(|| self.stopped())?);
            let wait = |index: &usize| Waiting {
                ids: sequences[*index].1.clone(),
                index: *index,
                reply: reply.clone(),
                room: room.clone(),
            };
            inner.queue.push(Part { model, priority: self.priority, waiting: rest[..count].iter().map(wait).collect() });
            rest = &rest[count..];
        }
        drop(reply);
        let mut rows: Vec<Option<Result<Row, Poison>>> = vec![None; sequences.len()];
        while let Some((index, row)) = replies.recv().await {
            rows[index] = Some(row);
        }
        // A batch that was dropped on the way leaves holes: the device has stopped.
        rows.into_iter().collect::<Option<_>>().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> Transient {
        let reason = "the device thread stopped; restart the process".to_owned();
        self.health().err().unwrap_or(Transient { component: Component::Model, reason })
    }
}

/// Counts and cuts texts as one model's tokenizer does; by estimate for a server.
#[derive(Clone)]
pub struct Splitter {
    models: Arc<[Model]>,
    index: usize,
}

impl Splitter {
    /// Tokens of the text, special tokens not counted.
    ///
    /// # Errors
    /// Where the text cannot be tokenized.
    pub fn count(&self, text: &str) -> Result<usize, Failure> {
        self.models[self.index].count(text)
    }

    /// Pieces of the text of at most `tokens` tokens, neighbours sharing `overlap` of them; at least one.
    ///
    /// # Errors
    /// Where the text cannot be tokenized.
    pub fn split(&self, text: &str, tokens: usize, overlap: usize) -> Result<Vec<Span>, Failure> {
        self.models[self.index].split(text, tokens, overlap)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("models", &self.models().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// Runs work that takes long on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Transient> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Transient { component: Component::Model, reason: format!("tokenization stopped: {e}") })
}
