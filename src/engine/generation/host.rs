//! A generator on the device: its scheduler, its cache of keys and values, and the account of what it does.

use std::sync::Arc;
use std::time::Instant;

use super::ports::{BLOCK_TOKENS, Decode, Logits, StepRow, Vocabulary};
use super::scheduler::{Counts, Limits, Scheduler};
use super::sequence::Job;
use crate::config::EngineConfig;
use crate::engine::decoder::KvCache;
use crate::engine::error::EngineError;
use crate::engine::model::{Generator, Host, Model};
use crate::metrics::METRICS;

/// Sequences of a generator on the device. Beyond this a step's products are so large that more rows gain nothing, and each takes longer.
const ROWS: usize = 64;

/// Tokens of a step. Fewer would read the weights too often for each token of a prompt; more would keep those that write waiting.
const STEP_TOKENS: usize = 512;

/// Memory for keys and values, in MiB.
const KV_CACHE_MIB: usize = 1024;

/// A generator with everything that changes while it works.
pub(in crate::engine) struct GeneratorHost {
    scheduler: Scheduler<Resident>,
    name: Arc<str>,
}

/// A decoder with its cache.
struct Resident {
    place: Place,
    cache: KvCache,
}

/// A generator among the engine's models.
#[derive(Clone)]
struct Place {
    models: Arc<[Model]>,
    index: usize,
}

impl Place {
    fn generator(&self) -> &Generator {
        match &self.models[self.index].host {
            Host::Generator(generator) => generator,
            Host::Encoder(_) | Host::Remote(_) => unreachable!("only generators are hosted here"),
        }
    }
}

impl GeneratorHost {
    /// Hosts the model at `index`; none where it is no generator in memory.
    pub(in crate::engine) fn new(
        models: &Arc<[Model]>,
        index: usize,
        config: &EngineConfig,
    ) -> Result<Option<Self>, EngineError> {
        let model = &models[index];
        let Host::Generator(generator) = &model.host else { return Ok(None) };
        let budget = config.kv_cache_mib.unwrap_or(KV_CACHE_MIB) << 20;
        let affordable = budget / generator.decoder.block_bytes().max(1);
        // One more a row, for the copy of a block that a prefix ends in.
        let usable = ROWS * (model.info.max_tokens.div_ceil(BLOCK_TOKENS) + 1);
        let cache = generator.decoder.cache(affordable.clamp(1, usable))?;
        let place = Place { models: models.clone(), index };
        let limits = Limits { rows: ROWS, step_tokens: config.step_tokens.unwrap_or(STEP_TOKENS) };
        let scheduler = Scheduler::new(Resident { place: place.clone(), cache }, Arc::new(place), limits);
        Ok(Some(Self { scheduler, name: model.info.name.clone() }))
    }

    /// Takes a job.
    pub(in crate::engine) fn submit(&mut self, job: Job) {
        self.scheduler.submit(job);
    }

    /// Whether there is nothing to do.
    pub(in crate::engine) fn is_idle(&self) -> bool {
        self.scheduler.is_idle()
    }

    /// Takes everyone a step further, on the threads of the current pool; gives what was done.
    pub(in crate::engine) fn step(&mut self) -> Result<Counts, EngineError> {
        let start = Instant::now();
        self.scheduler.step()?;
        let counts = self.scheduler.take_counts();
        let label = &[&*self.name];
        METRICS.step_seconds.with_label_values(label).observe(start.elapsed().as_secs_f64());
        METRICS.generator_rows.with_label_values(label).set(self.scheduler.running() as i64);
        METRICS.generator_waiting.with_label_values(label).set(self.scheduler.waiting() as i64);
        METRICS.kv_blocks.with_label_values(label).set(self.scheduler.blocks_used() as i64);
        METRICS.preemptions.with_label_values(label).inc_by(counts.preemptions);
        METRICS.prefix_tokens_saved.with_label_values(label).inc_by(counts.prefix_tokens_saved);
        METRICS.prompt_tokens.with_label_values(label).inc_by(counts.prompt_tokens);
        METRICS.generated_tokens.with_label_values(label).inc_by(counts.generated);
        METRICS.tokens.with_label_values(label).inc_by(counts.tokens);
        Ok(counts)
    }
}

impl Decode for Resident {
    fn blocks(&self) -> usize {
        self.cache.blocks()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        self.place.generator().decoder.forward(&mut self.cache, rows)
    }
}

impl Vocabulary for Place {
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
