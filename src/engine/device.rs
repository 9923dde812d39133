//! The thread of a device. Only this thread computes there: with its share of the cores, or by driving a GPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, select};

use super::activity::{Activity, ActivityTracker, DeviceTime, IdleTime};
use super::batch::TokenBatch;
use super::error::{EngineError, panic_text};
use super::generation::{GenerationJob, GeneratorRunner, SchedulerCounts};
use super::model::{Model, ModelRuntime};
use super::queue::BatchQueue;
use super::queued_sequence::EncoderRow;
use tidemill_base::failure::{Component, Transient};
use tidemill_base::metrics::METRICS;

/// A device that waits counts its idle time at least this often, so that the metrics are current whenever they are read.
const IDLE_COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// The part of a device's state that callers may read.
#[derive(Default)]
pub(super) struct DeviceState {
    failure: OnceLock<String>,
    tokens: AtomicU64,
    batches: AtomicU64,
    steps: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    prefix_tokens_saved: AtomicU64,
    preemptions: AtomicU64,
    name: String,
}

/// What devices have done since the engine started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Tokens that went through models.
    pub tokens: u64,
    pub padding: u64,
    /// Token batches of encoders.
    pub batches: u64,
    /// Forward passes of generators.
    pub steps: u64,
    /// Tokens that generators read for requests. Tokens read again after a preemption are not counted again.
    pub prompt_tokens: u64,
    /// Tokens that generators wrote.
    pub generated_tokens: u64,
    /// Tokens of prompts that were already in the prefix cache.
    pub prefix_tokens_saved: u64,
    /// Sequences that were preempted and read again.
    pub preemptions: u64,
    pub busy: Duration,
    pub idle: IdleTime,
}

impl std::iter::Sum for EngineStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum.tokens += one.tokens;
            sum.padding += one.padding;
            sum.batches += one.batches;
            sum.steps += one.steps;
            sum.prompt_tokens += one.prompt_tokens;
            sum.generated_tokens += one.generated_tokens;
            sum.prefix_tokens_saved += one.prefix_tokens_saved;
            sum.preemptions += one.preemptions;
            sum.busy += one.busy;
            sum.idle += one.idle;
            sum
        })
    }
}

impl DeviceState {
    /// The state of the device with this metric name.
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Why the device is unavailable, if it is.
    pub(super) fn health(&self) -> Result<(), Transient> {
        match self.failure.get() {
            None => Ok(()),
            Some(reason) => Err(Transient::new(Component::Model, reason.clone())),
        }
    }

    /// The device's counters, together with its times.
    pub(super) fn stats(&self, spent: DeviceTime) -> EngineStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            tokens: read(&self.tokens),
            // Sequences are packed without padding.
            padding: 0,
            batches: read(&self.batches),
            steps: read(&self.steps),
            prompt_tokens: read(&self.prompt_tokens),
            generated_tokens: read(&self.generated_tokens),
            prefix_tokens_saved: read(&self.prefix_tokens_saved),
            preemptions: read(&self.preemptions),
            busy: spent.busy,
            idle: spent.idle,
        }
    }

    fn count(&self, counts: SchedulerCounts) {
        let add = |counter: &AtomicU64, more: u64| counter.fetch_add(more, Ordering::Relaxed);
        add(&self.tokens, counts.tokens);
        add(&self.steps, counts.steps);
        add(&self.prompt_tokens, counts.prompt_tokens);
        add(&self.generated_tokens, counts.generated);
        add(&self.prefix_tokens_saved, counts.prefix_tokens_saved);
        add(&self.preemptions, counts.preemptions);
    }
}

/// A device with its cores.
pub(super) struct Device {
    /// Its index in the engine's list of devices.
    pub(super) place: usize,
    pub(super) models: Arc<[Model]>,
    pub(super) state: Arc<DeviceState>,
    pub(super) queue: Arc<BatchQueue>,
    pub(super) activity: Arc<ActivityTracker>,
    /// Jobs for generators, each with its model's index in the engine's list.
    pub(super) jobs: Receiver<(usize, GenerationJob)>,
    /// The generators, each with its model's index.
    pub(super) generators: Vec<(usize, GeneratorRunner)>,
    /// The cores that models compute on.
    pub(super) pool: rayon::ThreadPool,
    /// Tokens per batch, for each model.
    pub(super) budgets: Vec<usize>,
}

enum NextWork {
    Batch(TokenBatch),
    GenerationJob(usize, GenerationJob),
    /// There is no new work, but generators have work left.
    Step,
    Closed,
}

impl Device {
    /// Starts the thread that forms batches and the thread that computes them. Both end when the queue is closed.
    pub(super) fn start(mut self) -> Result<(), EngineError> {
        let no_threads = |e: &dyn std::fmt::Display| EngineError::NoThreads(e.to_string());
        // A channel without a buffer: exactly one batch is ready while another is computed.
        let (prepared, batches) = crossbeam_channel::bounded::<TokenBatch>(0);
        let (queue, activity, place, budgets) = (self.queue.clone(), self.activity.clone(), self.place, self.budgets.clone());
        let form = move || {
            while let Some(batch) = queue.take(place, &budgets) {
                if prepared.send(batch).is_err() {
                    return;
                }
                activity.batch_taken(place);
            }
        };
        thread::Builder::new().name("token-batches".into()).spawn(form).map_err(|e| no_threads(&e))?;
        let compute = move || {
            loop {
                // Kept outside the closure, so that a panic does not drop it before the reason is recorded.
                let mut next = self.next(&batches);
                let outcome = catch_unwind(AssertUnwindSafe(|| self.run_once(&mut next)));
                let reason = match outcome {
                    Ok(Ok(true)) => continue,
                    Ok(Ok(false)) => {
                        self.activity.switch_to(self.place, Activity::Ended);
                        return;
                    }
                    Ok(Err(e)) => e.to_string(),
                    Err(panic) => panic_text(&*panic),
                };
                // Recorded before the work is dropped, because its callers read the reason when their channels close.
                self.fail(&reason);
                return;
            }
        };
        thread::Builder::new().name("device".into()).spawn(compute).map_err(|e| no_threads(&e))?;
        Ok(())
    }

    /// Waits only if no generator has work.
    fn next(&self, batches: &Receiver<TokenBatch>) -> NextWork {
        if self.generators.iter().any(|(_, generator)| !generator.is_idle()) {
            return match batches.try_recv() {
                Ok(batch) => NextWork::Batch(batch),
                Err(TryRecvError::Empty) => NextWork::Step,
                Err(TryRecvError::Disconnected) => NextWork::Closed,
            };
        }
        self.activity.switch_to(self.place, Activity::Waiting);
        loop {
            select! {
                recv(batches) -> batch => return batch.map_or(NextWork::Closed, NextWork::Batch),
                recv(self.jobs) -> job => return job.map_or(NextWork::Closed, |(index, job)| NextWork::GenerationJob(index, job)),
                default(IDLE_COUNT_INTERVAL) => self.activity.count_elapsed(),
            }
        }
    }

    /// Computes at most one batch, and one step of every generator with work, so that neither kind of model delays the other.
    /// Returns false once the engine has been dropped.
    fn run_once(&mut self, next: &mut NextWork) -> Result<bool, EngineError> {
        match next {
            NextWork::Batch(batch) => {
                tidemill_base::failpoint!("device-batch");
                self.compute(batch)?;
            }
            NextWork::GenerationJob(..) => {
                if let NextWork::GenerationJob(index, job) = std::mem::replace(next, NextWork::Step) {
                    self.activity.switch_to(self.place, Activity::Answering);
                    self.submit(index, job);
                }
            }
            NextWork::Step => {}
            NextWork::Closed => return Ok(false),
        }
        while let Ok((index, job)) = self.jobs.try_recv() {
            self.submit(index, job);
        }
        for (_, generator) in self.generators.iter_mut().filter(|(_, generator)| !generator.is_idle()) {
            self.activity.switch_to(self.place, Activity::Computing);
            let counts = self.pool.install(|| generator.step())?;
            self.activity.switch_to(self.place, Activity::Answering);
            self.state.count(counts);
        }
        Ok(true)
    }

    fn submit(&mut self, index: usize, job: GenerationJob) {
        if let Some((_, generator)) = self.generators.iter_mut().find(|(place, _)| *place == index) {
            generator.submit(job);
        }
    }

    fn compute(&self, batch: &TokenBatch) -> Result<(), EngineError> {
        tidemill_base::failpoint!(
            "device-stutter",
            batch.sequences().any(|ids| ids.windows(8).any(|eight| eight.iter().all(|id| *id == eight[0]))),
            |_| std::process::abort()
        );
        let model = &self.models[batch.model];
        let ModelRuntime::Encoder(encoder_model) = &model.runtime else { unreachable!("only encoders have token batches") };
        self.activity.switch_to(self.place, Activity::Computing);
        let rows = self.pool.install(|| encoder_model.encoder.encode(batch))?;
        let busy = self.activity.switch_to(self.place, Activity::Answering);
        self.account(model, batch.tokens(), busy);
        let micros_per_token = busy.as_secs_f64() * 1e6 / batch.tokens().max(1) as f64;
        for (waiting, values) in batch.waiting.iter().zip(rows) {
            let device_micros = (micros_per_token * waiting.ids.len() as f64).round() as u64;
            let row = values.map(|values| EncoderRow { values: values.into(), device_micros });
            // A caller that has stopped waiting needs no answer.
            let _ = waiting.reply.send((waiting.index, row));
        }
        Ok(())
    }

    fn account(&self, model: &Model, tokens: usize, busy: Duration) {
        self.state.tokens.fetch_add(tokens as u64, Ordering::Relaxed);
        self.state.batches.fetch_add(1, Ordering::Relaxed);
        METRICS.tokens.with_label_values(&[&*model.info.name]).inc_by(tokens as u64);
        METRICS.padding.with_label_values(&[&*model.info.name]).inc_by(0);
        METRICS.engine_seconds.observe(busy.as_secs_f64());
    }

    /// Takes the device and with it the whole engine out of service: closing the queue ends the other devices too. All waiting
    /// callers see their channels close, and then read the reason from the device's state.
    fn fail(&self, reason: &str) {
        self.activity.switch_to(self.place, Activity::Ended);
        let reason = format!("{}: the device thread stopped: {reason}; restart the process", self.state.name);
        tracing::error!(device = self.state.name, reason, "device unavailable");
        let _ = self.state.failure.set(reason);
        self.queue.close();
    }
}
