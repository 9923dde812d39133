//! Starts an engine: opens the devices, loads the models onto each, finds the token budgets and starts the threads.
//!
//! | devices | weights | caches of generators | threads |
//! |---|---|---|---|
//! | one | once | once | all |
//! | `cpu`, several times | once, in shared memory | one each | divided evenly |
//! | several GPUs | on each | on each | divided evenly |

use std::collections::BTreeMap;
use std::sync::Arc;

use super::budget::{BatchTuner, BatchTuning, DeviceProfile};
use super::device::{Device, DeviceState};
use super::dispatch::Dispatcher;
use super::error::EngineError;
use super::generation::GeneratorRunner;

use super::activity::ActivityTracker;
use super::capacity::{FairQueue, TokenCapacity};
use super::gpu::Accelerator;
use super::model::Model;
use super::queue::BatchQueue;
use super::request::Priority;
use super::{Engine, EngineInner};
use tidemill_base::config::{EngineConfig, ModelConfig};

/// Tokens of a batch for each core: several parts of the size that a core takes at once, and less than a second of work, so that a
/// search query never waits long behind a backlog.
const BATCH_TOKENS_PER_CORE: usize = 2048;

/// Tokens of a batch for a GPU: enough for large matrix products, and about a tenth of a second of work.
const BATCH_TOKENS_OF_GPU: usize = 32 << 10;

/// Batches that may wait for each device: enough to keep it busy, few enough that nobody waits long.
const QUEUED_BATCHES: usize = 4;

/// Tokens of prompts and answers that may wait for generators or be in progress: several times what a device processes at once, and
/// a few megabytes of memory.
const GENERATOR_TOKENS: usize = 1 << 18;

/// What a device is created from.
struct DeviceSetup<'a> {
    name: String,
    /// None for cores of this machine.
    accelerator: Option<&'a Accelerator>,
    threads: usize,
}

/// A device with its models, before its threads start.
struct LoadedDevice {
    name: String,
    models: Arc<[Model]>,
    generators: Vec<(usize, GeneratorRunner)>,
    pool: rayon::ThreadPool,
    /// Tokens per batch, for each model.
    budgets: Vec<usize>,
    /// Tokens per batch of a model that was neither configured nor measured.
    default_budget: usize,
}

impl Engine {
    /// Loads every model and starts the threads. Large models are gigabytes to read, so call it where blocking is fine.
    pub fn start(config: &EngineConfig, models: &BTreeMap<String, ModelConfig>) -> Result<Self, EngineError> {
        Self::start_with(config, models, &BatchTuning::default())
    }

    /// Like [`Engine::start`], with token budgets that are loaded from earlier measurements or measured, as `tuning` says.
    pub fn start_with(
        config: &EngineConfig,
        models: &BTreeMap<String, ModelConfig>,
        tuning: &BatchTuning,
    ) -> Result<Self, EngineError> {
        let accelerators = config.device.iter().map(Accelerator::open).collect::<Result<_, _>>()?;
        Self::start_on(accelerators, config, models, tuning)
    }

    /// Starts the models on devices. None stands for cores of this machine.
    pub(super) fn start_on(
        accelerators: Vec<Option<Accelerator>>,
        config: &EngineConfig,
        models: &BTreeMap<String, ModelConfig>,
        tuning: &BatchTuning,
    ) -> Result<Self, EngineError> {
        tidemill_kernels::check_processor().map_err(EngineError::Processor)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = config.threads.unwrap_or(cores).max(1);
        let mut tuner = BatchTuner::new(config.batch_tokens, tuning);
        let mut devices_loaded: Vec<LoadedDevice> = Vec::with_capacity(accelerators.len());
        for (place, (accelerator, name)) in accelerators.iter().zip(names(&accelerators)).enumerate() {
            let models = match (accelerator, devices_loaded.first()) {
                (None, Some(first)) => first.models.clone(),
                _ => load(models, accelerator.as_ref())?,
            };
            let setup =
                DeviceSetup { name, accelerator: accelerator.as_ref(), threads: share(threads, accelerators.len(), place) };
            devices_loaded.push(LoadedDevice::new(setup, models, config, &mut tuner)?);
        }
        Self::run_on(devices_loaded)
    }

    fn run_on(devices_loaded: Vec<LoadedDevice>) -> Result<Self, EngineError> {
        let activity = ActivityTracker::new(devices_loaded.iter().map(|loaded| &*loaded.name));
        let queue = Arc::new(BatchQueue::new(activity.clone()));
        let models = devices_loaded.first().map(|loaded| loaded.models.clone()).unwrap_or_default();
        // A caller queues as much as fills the largest batch; a device with a smaller budget takes part of it.
        let budget = |model: usize| devices_loaded.iter().map(|loaded| loaded.budgets[model]).max().unwrap_or(1);
        let budgets = (0..models.len()).map(budget).collect();
        let waiting: usize =
            devices_loaded.iter().map(|loaded| loaded.budgets.iter().copied().max().unwrap_or(loaded.default_budget)).sum();
        let default_budget = devices_loaded.iter().map(|loaded| loaded.default_budget).max().unwrap_or(1);
        let encoder_capacity = TokenCapacity::new(QUEUED_BATCHES * waiting);
        let generator_capacity = TokenCapacity::new(GENERATOR_TOKENS * devices_loaded.len());
        let encoder_turns = FairQueue::new(models.len());
        let (mut devices, mut lines) = (Vec::new(), Vec::new());
        for (place, loaded) in devices_loaded.into_iter().enumerate() {
            let (jobs, received) = crossbeam_channel::unbounded();
            let state = Arc::new(DeviceState::new(loaded.name));
            lines.push(jobs);
            devices.push(state.clone());
            let device = Device {
                place,
                models: loaded.models,
                state,
                queue: queue.clone(),
                activity: activity.clone(),
                jobs: received,
                generators: loaded.generators,
                pool: loaded.pool,
                budgets: loaded.budgets,
            };
            // If one cannot start, closing the queue stops those started before.
            device.start().inspect_err(|_| queue.close())?;
        }
        let dispatch = Dispatcher::new(lines);
        let inner = EngineInner {
            models,
            queue,
            activity,
            devices,
            dispatch,
            encoder_capacity,
            encoder_turns,
            generator_capacity,
            budgets,
            default_budget,
        };
        Ok(Self { inner: Arc::new(inner), priority: Priority::Live })
    }
}

impl LoadedDevice {
    fn new(
        setup: DeviceSetup<'_>,
        models: Arc<[Model]>,
        config: &EngineConfig,
        tuner: &mut BatchTuner<'_>,
    ) -> Result<Self, EngineError> {
        let DeviceSetup { name, accelerator, threads } = setup;
        let mut generators = Vec::new();
        for index in 0..models.len() {
            generators.extend(GeneratorRunner::new(&models, index, config, accelerator)?.map(|host| (index, host)));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("device-{i}"))
            .build()
            .map_err(|e| EngineError::NoThreads(e.to_string()))?;
        let (kind, default_budget) = match accelerator {
            Some(accelerator) => (accelerator.kind(), BATCH_TOKENS_OF_GPU),
            None => (format!("{threads} threads of {}", tidemill_kernels::processor_name()), threads * BATCH_TOKENS_PER_CORE),
        };
        // Last, so that it is measured with the memory that is left.
        let budgets = tuner.budgets(&models, &DeviceProfile { name: &name, kind, default_budget, pool: &pool })?;
        Ok(Self { name, models, generators, pool, budgets, default_budget })
    }
}

fn load(models: &BTreeMap<String, ModelConfig>, accelerator: Option<&Accelerator>) -> Result<Arc<[Model]>, EngineError> {
    models.iter().map(|(name, config)| Model::load(name, config, accelerator)).collect()
}

/// The devices' names in metrics and messages. Devices of the same name are numbered.
fn names(accelerators: &[Option<Accelerator>]) -> Vec<String> {
    let name = |place: usize| accelerators[place].as_ref().map_or("cpu", Accelerator::name);
    let alike = |place: usize, others: std::ops::Range<usize>| others.filter(|other| name(*other) == name(place)).count();
    let named = |place: usize| match alike(place, 0..accelerators.len()) {
        1 => name(place).to_owned(),
        _ => format!("{}:{}", name(place), alike(place, 0..place)),
    };
    (0..accelerators.len()).map(named).collect()
}

/// The number of threads of the device at `place`; at least one.
fn share(threads: usize, devices: usize, place: usize) -> usize {
    (threads / devices + usize::from(place < threads % devices)).max(1)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn devices_of_one_name_are_numbered() {
        assert_eq!(names(&[None]), ["cpu"]);
        assert_eq!(names(&[None, None]), ["cpu:0", "cpu:1"]);
        let tensors = || Some(Accelerator::on_cpu(DType::F32));
        assert_eq!(names(&[tensors(), None, tensors()]), ["candle:0", "cpu", "candle:1"]);
    }

    #[test]
    fn threads_are_shared_out_evenly() {
        let shares =
            |threads: usize, devices: usize| (0..devices).map(|place| share(threads, devices, place)).collect::<Vec<_>>();
        assert_eq!(shares(8, 1), [8]);
        assert_eq!(shares(7, 3), [3, 2, 2]);
        assert_eq!(shares(1, 2), [1, 1], "every device has a thread");
    }
}
