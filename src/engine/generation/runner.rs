//! A generator on the device: its scheduler, its cache of keys and values, and the account of what it does.

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

/// Sequences of a generator on the device. Beyond this a step's products are so large that more rows gain nothing, and each takes longer.
const ROWS: usize = 64;

/// On a GPU, which reads all weights for a step however few its rows are: until products and not reading take the time.
const ROWS_OF_GPU: usize = 128;

/// Tokens of a step. Fewer would read the weights too often for each token of a prompt; more would keep those that write waiting.
const STEP_TOKENS: usize = 512;

/// On a GPU, for the same reasons.
const STEP_TOKENS_OF_GPU: usize = 2048;

/// Memory for keys and values, in MiB, where the device does not say what it has.
const KV_CACHE_MIB: usize = 1024;

/// A generator with everything that changes while it works.
pub(crate) struct GeneratorRunner {
    scheduler: Scheduler<Box<dyn Decode>>,
    name: Arc<str>,
    /// Rows, waiting sequences and blocks as the metrics have them of this device.
    shown: [i64; 3],
}

/// A decoder on the cores of this machine, with its cache.
struct CachedDecoder {
    decoder: Arc<Decoder>,
    cache: KvCache,
}

/// A generator among the engine's models.
#[derive(Clone)]
struct GeneratorVocabulary {
    models: Arc<[Model]>,
    index: usize,
}

impl GeneratorVocabulary {
    fn generator(&self) -> &GeneratorModel {
        match &self.models[self.index].runtime {
            ModelRuntime::Generator(generator) => generator,
            ModelRuntime::Encoder(_) | ModelRuntime::Remote(_) => unreachable!("only generators are hosted here"),
        }
    }
}

impl GeneratorRunner {
    /// Hosts the model at `index`; none where it is no generator in memory.
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
        // The other half is for what a step computes, and for the next generator.
        let usual = accelerator.and_then(Accelerator::free_bytes).map_or(KV_CACHE_MIB << 20, |free| free / 2);
        let budget = config.kv_cache_mib.map_or(usual, |mib| mib << 20);
        let affordable = budget / generator.decoder.block_bytes().max(1);
        // One more a row, for the copy of a block that a prefix ends in.
        let usable = rows * (model.info.max_tokens.div_ceil(BLOCK_TOKENS) + 1);
        let blocks = affordable.clamp(1, usable);
        let decoder = generator.decoder.clone().open(blocks)?;
        tracing::info!(
            model = &*model.info.name,
            weight_bytes = generator.decoder.bytes(),
            kv_cache_bytes = blocks * generator.decoder.block_bytes(),
            "generator loaded"
        );
        let place = GeneratorVocabulary { models: models.clone(), index };
        let limits = SchedulerLimits { rows, step_tokens: config.step_tokens.unwrap_or(step_tokens) };
        let scheduler = Scheduler::new(decoder, Arc::new(place), limits);
        Ok(Some(Self { scheduler, name: model.info.name.clone(), shown: [0; 3] }))
    }

    /// Takes a job.
    pub(crate) fn submit(&mut self, job: GenerationJob) {
        self.scheduler.submit(job);
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Takes everyone a step further, on the threads of the current pool; gives what was done.
    pub(crate) fn step(&mut self) -> Result<SchedulerCounts, EngineError> {
        let start = Instant::now();
        self.scheduler.step()?;
        let counts = self.scheduler.take_counts();
        let label = &[&*self.name];
        METRICS.step_seconds.with_label_values(label).observe(start.elapsed().as_secs_f64());
        // The same model on other devices adds its own.
        let gauges = [&METRICS.generator_rows, &METRICS.generator_waiting, &METRICS.kv_blocks];
        let now = [self.scheduler.running(), self.scheduler.waiting(), self.scheduler.blocks_used()].map(|count| count as i64);
        for ((gauge, shown), now) in gauges.into_iter().zip(&mut self.shown).zip(now) {
            gauge.with_label_values(label).add(now - *shown);
            *shown = now;
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
