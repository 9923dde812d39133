//! The model host: models in memory, token batches, and the threads that compute.
//!
//! ```text
//! run() ─ tokenize (blocking threads) ─ Plan: distinct sequences ─ Queue: bounded by tokens, fair ─ TokenBatch ─ device thread
//!   ▲                                                                                            (one prepared)        │
//!   └───────────────────────────── answers in the order of the requests ◀──────────────── rows, one a sequence ────────┘
//! ```
//!
//! Async code never touches a model. To add an architecture: one file beside `encoder.rs` and one arm in `folder.rs`.

mod batch;
mod decoder;
mod device;
mod encoder;
mod error;
mod folder;
mod kernels;
mod model;
mod plan;
mod queue;
mod request;
mod schema;
mod tokens;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

pub use device::EngineStats;
pub use error::EngineError;
pub use model::{ModelInfo, ModelKind};
pub use request::{
    Answer, Chunking, Completion, EncodedChunk, EncodedText, Finish, Generate, GeneratedToken, Message, Prediction, Priority,
    Prompt, Request, Role, Sampling, Score, Work,
};
pub use schema::Schema;

use crate::config::{EngineConfig, ModelConfig};
use crate::failure::{Component, Failure, FailureClass, Transient};
use batch::Row;
use device::{Device, DeviceState};
use model::Model;
use plan::Plan;
use queue::{Part, Queue, Waiting};

/// Tokens of a batch for each core: several parts of the size that a core takes at once, and under a second of work, so that a
/// search query never waits long behind a backlog.
const BATCH_TOKENS_PER_CORE: usize = 2048;

/// Batches' worth of tokens that may wait. Enough that the device never runs dry, few enough that nobody waits long.
const QUEUED_BATCHES: usize = 4;

/// The model host. A clone is another handle on the same models; the last one dropped stops the threads.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    models: Arc<[Model]>,
    queue: Arc<Queue>,
    state: Arc<DeviceState>,
    room: Arc<Semaphore>,
    capacity: usize,
    batch_tokens: usize,
}

impl Engine {
    /// Loads every model and starts the threads. Reads gigabytes where models are large: call it where blocking is fine.
    pub fn start(config: &EngineConfig, models: &BTreeMap<String, ModelConfig>) -> Result<Self, EngineError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(cores).max(1);
        let batch_tokens = config.batch_tokens.unwrap_or(threads * BATCH_TOKENS_PER_CORE).max(1);
        let models: Arc<[Model]> = models.iter().map(|(name, config)| Model::load(name, config)).collect::<Result<_, _>>()?;
        let (queue, state) = (Arc::new(Queue::default()), Arc::new(DeviceState::default()));
        Device { models: models.clone(), state: state.clone(), queue: queue.clone(), threads, batch_tokens }.start()?;
        let capacity = (QUEUED_BATCHES * batch_tokens).min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(capacity));
        Ok(Self { inner: Arc::new(Inner { models, queue, state, room, capacity, batch_tokens }) })
    }

    /// The model that pipelines call `name`.
    pub fn model(&self, name: &str) -> Option<&ModelInfo> {
        self.models().find(|info| &*info.name == name)
    }

    /// Every model, by name.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.inner.models.iter().map(|model| &model.info)
    }

    /// Whether the device computes; the reason where it does not.
    pub fn health(&self) -> Result<(), Transient> {
        self.inner.state.health()
    }

    /// What the device has done since the engine started.
    pub fn stats(&self) -> EngineStats {
        self.inner.state.stats()
    }

    /// Does the work: one answer or failure a request, in order. Fails as a whole only where the device is out of order.
    ///
    /// Sequences of concurrent calls share batches. Those that are equal within a call are computed once.
    pub async fn run(&self, requests: Vec<Request>) -> Result<Vec<Result<Answer, Failure>>, Transient> {
        self.health()?;
        let models = self.inner.models.clone();
        let plan = blocking(move || Plan::make(&models, &requests)).await?;
        let rows = self.rows(&plan.sequences).await?;
        Ok(plan.finish(&rows))
    }

    /// Tokens of each text as the model's tokenizer counts them: special tokens not counted, nothing cut off.
    pub async fn count_tokens(&self, model: &str, texts: Vec<Arc<str>>) -> Result<Vec<usize>, Failure> {
        let Some(index) = self.inner.models.iter().position(|m| &*m.info.name == model) else {
            return Err(Failure::poison(
                FailureClass::Model,
                format!("there is no model {model:?}; name one of the configuration's models"),
            ));
        };
        let models = self.inner.models.clone();
        let count = move || texts.iter().map(|text| models[index].tokenizer.count(text)).collect::<Result<_, _>>();
        blocking(count).await?.map_err(|e| Failure::poison(FailureClass::Model, format!("the text cannot be tokenized: {e}")))
    }

    /// Queues the sequences and waits for their rows.
    async fn rows(&self, sequences: &[(usize, Arc<[u32]>)]) -> Result<Vec<Row>, Transient> {
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
            while let Some(index) = rest.get(count).filter(|i| sequences[**i].0 == model && tokens < inner.batch_tokens) {
                tokens += sequences[*index].1.len();
                count += 1;
            }
            let permits = tokens.min(inner.capacity).min(u32::MAX as usize) as u32;
            let room = inner.room.clone().acquire_many_owned(permits).await.map_err(|_| self.stopped())?;
            let room = Arc::new(room);
            let wait = |index: &usize| Waiting {
                ids: sequences[*index].1.clone(),
                index: *index,
                reply: reply.clone(),
                room: room.clone(),
            };
            inner.queue.push(Part { model, waiting: rest[..count].iter().map(wait).collect() });
            rest = &rest[count..];
        }
        drop(reply);
        let mut rows: Vec<Option<Row>> = vec![None; sequences.len()];
        while let Some((index, row)) = replies.recv().await {
            rows[index] = Some(row);
        }
        // A batch that was dropped on the way leaves holes: the device has stopped.
        rows.into_iter().collect::<Option<Vec<Row>>>().ok_or_else(|| self.stopped())
    }

    fn stopped(&self) -> Transient {
        let reason = "the device thread stopped; restart the process".to_owned();
        self.health().err().unwrap_or(Transient { component: Component::Model, reason })
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
