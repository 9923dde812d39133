//! Runs a generator on a device: its scheduler, its key-value cache and its metrics.

use std::sync::Arc;
use std::time::Instant;

use super::scheduler::{Scheduler, SchedulerCounts, SchedulerLimits};
use super::sequence::GenerationJob;
use super::traits::{BLOCK_TOKENS, Decode, DecoderWeights, Logits, StepRow, Vocabulary};
use crate::decoder::{Decoder, DecoderShape, KvCache};
use crate::error::EngineError;
use crate::gpu::Accelerator;
use crate::model::{GeneratorModel, Model, ModelRuntime};
use tidemill_base::config::EngineConfig;
use tidemill_base::metrics::METRICS;

/// Sequences that a generator runs at once. With more, the matrix products of a step are so large that further rows gain no
/// throughput and only make each step longer.
const ROWS: usize = 64;

/// The same for a GPU, which reads all weights in each step however few rows there are: up to this number, reading takes the most
/// time.
const ROWS_OF_GPU: usize = 128;

/// Tokens of a step. With fewer, the weights would be read too often per prompt token; with more, sequences that generate would
/// wait too long.
const STEP_TOKENS: usize = 512;

/// The same for a GPU.
const STEP_TOKENS_OF_GPU: usize = 2048;

/// Memory for keys and values, in MiB, on a device that does not report its free memory.
const KV_CACHE_MIB: usize = 1024;

/// A generator with all its changing state.
pub(crate) struct GeneratorRunner {
    scheduler: Scheduler<Box<dyn Decode>>,
    name: Arc<str>,
    /// This device's contribution to the gauges of rows, waiting sequences and blocks.
    reported: [i64; 3],
}

/// A decoder on the cores of this machine, with its cache.
struct CachedDecoder {
    decoder: Arc<Decoder>,
    cache: KvCache,
}

/// The vocabulary of the generator at an index of the engine's models.
#[derive(Clone)]
struct GeneratorVocabulary {
    models: Arc<[Model]>,
    index: usize,
}

impl GeneratorVocabulary {
    fn generator(&self) -> &GeneratorModel {
        match &self.models[self.index].runtime {
            ModelRuntime::Generator(generator) => generator,
            ModelRuntime::Encoder(_) | ModelRuntime::Remote(_) => unreachable!("only generators are run here"),
        }
    }
}

impl GeneratorRunner {
    /// Runs the model at `index`; none if it is not a generator in memory.
    pub(crate) fn new(
        models: &Arc<[Model]>,
        index: usize,
        config: &EngineConfig,
        accelerator: Option<&Accelerator>,
    ) -> Result<Option<Self>, EngineError> {
        let model = &models[index];
        let ModelRuntime::Generator(generator) = &model.runtime else { return Ok(None) };
        let (rows, step_tokens) = match accelerator {
            Some(_) => (ROWS_OF_GPU, STEP_TOKENS_OF_GPU),
            None => (ROWS, STEP_TOKENS),
        };
        // The other half is for the buffers of a step, and for further generators.
        let default_budget = accelerator.and_then(Accelerator::free_bytes).map_or(KV_CACHE_MIB << 20, |free| free / 2);
        let budget = config.kv_cache_mib.map_or(default_budget, |mib| mib << 20);
        let affordable = budget / generator.decoder.block_bytes().max(1);
        // One more per row, for the copy of the block in which a prefix ends.
        let usable = rows * (model.info.max_tokens.div_ceil(BLOCK_TOKENS) + 1);
        let blocks = affordable.clamp(1, usable);
        let decoder = generator.decoder.clone().open(blocks)?;
        tracing::info!(
            model = &*model.info.name,
            weight_bytes = generator.decoder.bytes(),
            kv_cache_bytes = blocks * generator.decoder.block_bytes(),
            "generator loaded"
        );
        let vocabulary = GeneratorVocabulary { models: models.clone(), index };
        let limits = SchedulerLimits { rows, step_tokens: config.step_tokens.unwrap_or(step_tokens) };
        let scheduler = Scheduler::new(decoder, Arc::new(vocabulary), limits);
        Ok(Some(Self { scheduler, name: model.info.name.clone(), reported: [0; 3] }))
    }

    pub(crate) fn submit(&mut self, job: GenerationJob) {
        self.scheduler.submit(job);
    }

    /// Whether no job is waiting or running.
    pub(crate) fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Runs one step of all sequences on the threads of the current pool. Returns the counts of the step.
    pub(crate) fn step(&mut self) -> Result<SchedulerCounts, EngineError> {
        let start = Instant::now();
        self.scheduler.step()?;
        let counts = self.scheduler.take_counts();
        let label = &[&*self.name];
        METRICS.step_seconds.with_label_values(label).observe(start.elapsed().as_secs_f64());
        // The same model on other devices adds its own contribution.
        let gauges = [&METRICS.generator_rows, &METRICS.generator_waiting, &METRICS.kv_blocks];
        let now = [self.scheduler.running(), self.scheduler.waiting(), self.scheduler.blocks_used()].map(|count| count as i64);
        for ((gauge, reported), now) in gauges.into_iter().zip(&mut self.reported).zip(now) {
            gauge.with_label_values(label).add(now - *reported);
            *reported = now;
        }
        METRICS.preemptions.with_label_values(label).inc_by(counts.preemptions);
        METRICS.prefix_tokens_saved.with_label_values(label).inc_by(counts.prefix_tokens_saved);
        METRICS.prompt_tokens.with_label_values(label).inc_by(counts.prompt_tokens);
        METRICS.generated_tokens.with_label_values(label).inc_by(counts.generated);
        METRICS.tokens.with_label_values(label).inc_by(counts.tokens);
        Ok(counts)
    }
}

impl Decode for CachedDecoder {
    fn blocks(&self) -> usize {
        self.cache.blocks()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        self.decoder.forward(&mut self.cache, rows)
    }
}

impl DecoderWeights for Decoder {
    fn shape(&self) -> &DecoderShape {
        self.shape()
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn block_bytes(&self) -> usize {
        self.block_bytes()
    }

    fn open(self: Arc<Self>, blocks: usize) -> Result<Box<dyn Decode>, EngineError> {
        let cache = self.cache(blocks)?;
        Ok(Box::new(CachedDecoder { decoder: self, cache }))
    }
}

impl Vocabulary for GeneratorVocabulary {
    fn piece(&self, id: u32) -> &[u8] {
        self.generator().tokenizer.piece(id)
    }

    fn ends(&self, id: u32) -> bool {
        self.generator().tokenizer.end_ids().contains(&id)
    }

    fn size(&self) -> usize {
        self.generator().decoder.shape().vocabulary
    }
}
