//! The device thread: the only one that computes, together with the cores it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use super::batch::{Packed, Row, TokenBatch};
use super::encoder::Workspace;
use super::error::EngineError;
use super::model::Model;
use super::queue::Queue;
use crate::failure::{Component, Transient};
use crate::metrics::METRICS;

/// The label of the CPU in metrics.
const DEVICE: &str = "cpu";

/// Tokens that one core takes at once. Fewer would read the weights from memory too often for each token; more would leave cores
/// idle at the end of a batch.
const PART_TOKENS: usize = 512;

/// The state of the device that callers may look at.
#[derive(Default)]
pub(super) struct DeviceState {
    failure: OnceLock<String>,
    tokens: AtomicU64,
    batches: AtomicU64,
    busy_nanos: AtomicU64,
}

/// What the device has done since the engine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Tokens run through models.
    pub tokens: u64,
    /// Tokens among them that stood for nothing.
    pub padding: u64,
    /// Token batches.
    pub batches: u64,
    /// Time spent computing.
    pub busy: Duration,
}

impl DeviceState {
    /// Why the device is out of order, where it is.
    pub(super) fn health(&self) -> Result<(), Transient> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Transient { component: Component::Model, reason: reason.clone() }),
        }
    }

    /// What the device has done so far.
    pub(super) fn stats(&self) -> EngineStats {
        EngineStats {
            tokens: self.tokens.load(Ordering::Relaxed),
            // Sequences are packed, so there is none.
            padding: 0,
            batches: self.batches.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy_nanos.load(Ordering::Relaxed)),
        }
    }
}

/// The device with its cores.
pub(super) struct Device {
    pub(super) models: Arc<[Model]>,
    pub(super) state: Arc<DeviceState>,
    pub(super) queue: Arc<Queue>,
    pub(super) threads: usize,
    pub(super) batch_tokens: usize,
}

impl Device {
    /// Starts the thread that forms batches and the one that computes them. Both end when the queue is closed.
    pub(super) fn start(self) -> Result<(), EngineError> {
        let no_threads = |e: &dyn std::fmt::Display| EngineError::NoThreads(e.to_string());
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .thread_name(|i| format!("device-cpu-{i}"))
            .build()
            .map_err(|e| no_threads(&e))?;
        // Handing over without a buffer means that exactly one batch is ready while another is computed.
        let (prepared, batches) = crossbeam_channel::bounded::<TokenBatch>(0);
        let (queue, budget) = (self.queue.clone(), self.batch_tokens);
        let form = move || {
            while let Some(batch) = queue.take(budget) {
                if prepared.send(batch).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("token-batches".into()).spawn(form).map_err(|e| no_threads(&e))?;
        let compute = move || {
            let workspaces: Vec<Mutex<Workspace>> = (0..self.threads).map(|_| Mutex::default()).collect();
            for batch in batches {
                let outcome = catch_unwind(AssertUnwindSafe(|| self.compute(&batch, &pool, &workspaces)));
                if let Err(panic) = outcome {
                    // Before the batch goes: its callers must find the reason when their channels close.
                    self.fail(&panic_text(&*panic));
                    return;
                }
            }
        };
        thread::Builder::new().name("device-cpu".into()).spawn(compute).map_err(|e| no_threads(&e))?;
        Ok(())
    }

    fn compute(&self, batch: &TokenBatch, pool: &rayon::ThreadPool, workspaces: &[Mutex<Workspace>]) {
        let model = &self.models[batch.model];
        let start = Instant::now();
        let even = batch.tokens().div_ceil(self.threads);
        let parts = batch.parts(even.clamp(1, PART_TOKENS));
        let run = |part: &Packed<'_>| {
            let worker = rayon::current_thread_index().unwrap_or(0);
            let mut workspace = workspaces[worker].lock().unwrap_or_else(PoisonError::into_inner);
            model.encoder.run(part, &mut workspace)
        };
        let rows: Vec<Vec<Vec<f32>>> = pool.install(|| parts.par_iter().with_max_len(1).map(run).collect());
        let busy = start.elapsed();
        self.account(model, batch.tokens(), busy);
        let micros_per_token = busy.as_secs_f64() * 1e6 / batch.tokens() as f64;
        for (waiting, values) in batch.waiting.iter().zip(rows.into_iter().flatten()) {
            let device_micros = (micros_per_token * waiting.ids.len() as f64).round() as u64;
            // A caller that has gone away needs no answer.
            let _ = waiting.reply.send((waiting.index, Row { values: values.into(), device_micros }));
        }
    }

    fn account(&self, model: &Model, tokens: usize, busy: Duration) {
        self.state.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.state.batches.fetch_add(1, Ordering::Relaxed);
        self.state.busy_nanos.fetch_add(busy.as_nanos() as u64, Ordering::Relaxed);
        METRICS.tokens.with_label_values(&[&*model.info.name]).inc_by(tokens as u64);
        METRICS.padding.with_label_values(&[&*model.info.name]).inc_by(0);
        METRICS.device_busy.with_label_values(&[DEVICE]).inc_by(busy.as_secs_f64());
        METRICS.engine_seconds.observe(busy.as_secs_f64());
    }

    /// Takes the device out of service. Everyone who waits sees the channel close and finds the reason here.
    fn fail(&self, reason: &str) {
        let reason = format!("the device thread stopped: {reason}; restart the process");
        tracing::error!(device = DEVICE, reason, "device out of order");
        let _ = self.state.failure.set(reason);
        self.queue.close();
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a message".into())
}
