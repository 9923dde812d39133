//! Measures decoding.
//!
//! | figure | measured on |
//! |---|---|
//! | `shared_prefix_ratio` | time for prompts with the same beginning as one group, divided by the time for the same prompts in separate groups |
//! | `constrained_overhead` | time for 32 rows under a schema, divided by the time for as many chosen tokens without one, minus 1 |
//! | `quoting_overhead` | time per token of 32 rows that quote a document each, grammars included, divided by that under the schema alone, minus 1 |
//! | `batch_speedup_32` | tokens written per second with 32 rows, divided by those with one |
//! | `prefill_tokens_per_second` | long prompts with an answer of one token |
//! | `decode_tokens_per_second` | 32 rows that write |
//! | `decode_tokens_per_second_prefix` | the same behind a shared prefix of `--prefix` tokens |
//! | `read_bandwidth_bytes_per_second` | all threads reading memory and doing nothing else |
//! | `decode_bandwidth_share` | bytes of the weights times steps per second of one row, divided by that bandwidth |
//!
//! The share counts the table of embeddings as read in each step, which is right if it is the output layer as well. The share is
//! valid for release builds only: with assertions, reading is slower than memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::memory::{read_bandwidth, weights_bytes};
use super::random_model::{HALF_BILLION, ModelShape, SMALL};
use crate::config::{EngineConfig, ModelConfig};
use crate::engine::{
    Answer, Engine, Generate, LeafType, LeafValues, Message, Prediction, Prompt, Request, Role, Sampling, Schema, SpanGrammar,
    Work,
};
use crate::metrics::peak_resident_bytes;

/// The model under test.
const MODEL: &str = "bench";
/// Measurements of each figure; the median counts.
const ROUNDS: usize = 3;
/// Measurements of the overhead of a schema. It is a small difference of two large times, so it needs more.
const OVERHEAD_ROUNDS: usize = 5;
/// Rows of a batch.
const ROWS: usize = 32;
/// Tokens that each row writes.
const WRITTEN_TOKENS: usize = 32;
/// Letters that each row writes under a schema.
const SCHEMA_LETTERS: usize = 128;
/// Tokens of a document that is quoted.
const QUOTED_TOKENS: usize = 200;
/// Documents that share a prefix.
const DOCUMENTS: usize = 256;
/// Tokens of the shared prefix.
const PREFIX_TOKENS: usize = 600;

/// What to measure on.
pub(super) struct GeneratorOptions<'a> {
    /// The folder for models with random weights.
    pub(super) temporary: &'a Path,
    /// Use the small model for every figure.
    pub(super) small: bool,
    /// A model folder or GGUF file instead of random weights, for every figure but the shared prefix.
    pub(super) given: Option<&'a Path>,
    /// Tokens of the prefix for one more figure.
    pub(super) prefix: Option<usize>,
}

pub(super) async fn measure(config: &EngineConfig, models: GeneratorOptions<'_>) -> Result<Value> {
    let bandwidth = tokio::task::spawn_blocking(read_bandwidth).await?;
    let bench = GeneratorBench::with_shape(config, SMALL, models.temporary).await?;
    let shared = bench.shared_prefix(if models.small { 12 } else { DOCUMENTS }).await?;
    let (bench, name, path) = match models.given {
        Some(path) => (GeneratorBench::open(config, path).await?, path.display().to_string(), path.to_owned()),
        None if models.small => (bench, SMALL.name.to_owned(), models.temporary.join(SMALL.name)),
        None => {
            let bench = GeneratorBench::with_shape(config, HALF_BILLION, models.temporary).await?;
            (bench, HALF_BILLION.name.to_owned(), models.temporary.join(HALF_BILLION.name))
        }
    };
    let weights = weights_bytes(&path)?;
    let prefill = bench.prefill().await?;
    let alone = bench.decode(1, "").await?;
    let free = bench.decode(ROWS, "").await?;
    let behind = match models.prefix {
        Some(tokens) => Some(bench.decode(ROWS, &bench.text(tokens, 0).await?).await?),
        None => None,
    };
    Ok(json!({
        "shared_prefix_ratio": shared,
        "constrained_overhead": bench.constrained().await?,
        "quoting_overhead": bench.quoting().await?,
        "batch_speedup_32": free / alone,
        "prefill_tokens_per_second": prefill,
        "decode_tokens_per_second": free,
        "decode_tokens_per_second_one_row": alone,
        "decode_tokens_per_second_prefix": behind,
        "read_bandwidth_bytes_per_second": bandwidth,
        "decode_bandwidth_share": weights as f64 * alone / bandwidth,
        "shapes": { "shared_prefix_ratio": SMALL.name, "others": name },
        "peak_rss_bytes": peak_resident_bytes(),
    }))
}

/// An engine with one generator.
struct GeneratorBench {
    engine: Engine,
}

impl GeneratorBench {
    async fn with_shape(config: &EngineConfig, shape: ModelShape, temporary: &Path) -> Result<Self> {
        let folder = temporary.join(shape.name);
        let written = folder.clone();
        tokio::task::spawn_blocking(move || shape.write(&written, 1)).await??;
        Self::open(config, &folder).await
    }

    async fn open(config: &EngineConfig, path: &Path) -> Result<Self> {
        let (config, models) = (config.clone(), [(MODEL.to_owned(), ModelConfig::local(path))].into());
        Ok(Self { engine: tokio::task::spawn_blocking(move || Engine::start(&config, &models)).await?? })
    }

    /// Runs the prompts at once. Returns the seconds and the answers.
    async fn run(&self, prompts: &[BenchPrompt], schema: Option<&Arc<Schema>>) -> Result<(f64, Vec<Answer>)> {
        self.run_quoting(prompts, schema, &[]).await
    }

    /// Like [`run`](Self::run). If there are `documents`, each answer quotes one of them.
    async fn run_quoting(
        &self,
        prompts: &[BenchPrompt],
        schema: Option<&Arc<Schema>>,
        documents: &[String],
    ) -> Result<(f64, Vec<Answer>)> {
        let started = Instant::now();
        let spans = |index: usize| match (schema, documents.get(index)) {
            (Some(schema), Some(document)) => quoting(schema, document).map(Some),
            _ => Ok(None),
        };
        let request = |(index, ask): (usize, &BenchPrompt)| {
            let message = Message { role: Role::User, content: ask.text.as_str().into() };
            let prompt = Prompt { messages: vec![message], group: ask.group.as_str().into() };
            let (max_tokens, sampling) = (ask.max_tokens, Sampling::default());
            let (schema, spans) = (schema.cloned(), spans(index)?);
            let work = Work::Generate(Generate { prompt, max_tokens, sampling, stop: Vec::new(), schema, spans });
            Ok(Request { model: MODEL.into(), work })
        };
        let requests = prompts.iter().enumerate().map(request).collect::<Result<_>>()?;
        let answers = self.engine.run(requests).await?;
        let seconds = started.elapsed().as_secs_f64();
        Ok((seconds, answers.into_iter().collect::<Result<_, _>>()?))
    }

    /// A text of about `tokens` tokens, different for each `seed`.
    async fn text(&self, tokens: usize, seed: usize) -> Result<String> {
        let mut text = String::new();
        let mut count = 0;
        while count < tokens {
            // A word has a few tokens at most, so add far fewer words than tokens are missing.
            for word in 0..(tokens - count).div_ceil(4) {
                text.push_str(WORDS[(seed * 31 + count * 7 + word * word + word * seed) % WORDS.len()]);
                text.push(' ');
            }
            let counted = self.engine.count_tokens(MODEL, vec![text.as_str().into()]).await?;
            count = *counted.first().context("no text was counted")?;
        }
        Ok(text)
    }

    async fn shared_prefix(&self, documents: usize) -> Result<f64> {
        let prefix = self.text(PREFIX_TOKENS, 0).await?;
        let mut texts = Vec::with_capacity(documents);
        for index in 0..documents {
            texts.push(format!("{prefix}{}", self.text(100 + index * 37 % 301, index + 1).await?));
        }
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let groups = |shared: bool| {
                let name = |index: usize| if shared { format!("{round}") } else { format!("{round}-{index}") };
                let ask = |(index, text): (usize, &String)| BenchPrompt { group: name(index), text: text.clone(), max_tokens: 8 };
                texts.iter().enumerate().map(ask).collect::<Vec<_>>()
            };
            let (with, shared) = self.run(&groups(true), None).await?;
            let (without, alone) = self.run(&groups(false), None).await?;
            let same = shared.iter().zip(&alone).all(|(a, b)| text(a) == text(b));
            ensure!(same, "a shared prefix changes what the model writes");
            ratios.push(with / without);
        }
        Ok(median(ratios))
    }

    async fn prefill(&self) -> Result<f64> {
        let mut prompts = Vec::new();
        for index in 0..4 {
            prompts.push(BenchPrompt { group: format!("prefill-{index}"), text: self.text(256, index).await?, max_tokens: 1 });
        }
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let (seconds, answers) = self.run(&prompts, None).await?;
            rates.push(answers.iter().map(|a| f64::from(a.tokens)).sum::<f64>() / seconds);
        }
        Ok(median(rates))
    }

    /// Short prompts behind `prefix`; without one, each is a group of its own.
    async fn short(&self, rows: usize, max_tokens: usize, prefix: &str) -> Result<Vec<BenchPrompt>> {
        let mut prompts = Vec::new();
        for index in 0..rows {
            // Equal prompts would be computed once.
            let text = format!("{prefix}{index} {}", self.text(8, index).await?);
            let group = if prefix.is_empty() { format!("short-{index}") } else { "behind a prefix".to_owned() };
            prompts.push(BenchPrompt { group, text, max_tokens });
        }
        Ok(prompts)
    }

    /// Tokens per second that `rows` rows write behind `prefix`.
    async fn decode(&self, rows: usize, prefix: &str) -> Result<f64> {
        let (first, all) = (self.short(rows, 1, prefix).await?, self.short(rows, WRITTEN_TOKENS, prefix).await?);
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            // The time for reading the prompt and for the first token is subtracted.
            let (start, begun) = self.run(&first, None).await?;
            let (seconds, ended) = self.run(&all, None).await?;
            rates.push((generated(&ended) - generated(&begun)) / (seconds - start));
        }
        Ok(median(rates))
    }

    async fn quoting(&self) -> Result<f64> {
        let (schema, prompts) = (letters()?, self.short(ROWS, SCHEMA_LETTERS + 32, "").await?);
        let mut documents = Vec::new();
        for index in 0..ROWS {
            documents.push(self.text(QUOTED_TOKENS, index).await?);
        }
        let seconds_per_token = async |documents: &[String]| {
            let (seconds, written) = self.run_quoting(&prompts, Some(&schema), documents).await?;
            anyhow::Ok(seconds / generated(&written))
        };
        let (mut before, mut overheads) = (seconds_per_token(&[]).await?, Vec::new());
        for _ in 0..OVERHEAD_ROUNDS {
            let quoting = seconds_per_token(&documents).await?;
            let after = seconds_per_token(&[]).await?;
            overheads.push(quoting / ((before + after) / 2.0) - 1.0);
            before = after;
        }
        Ok(median(overheads))
    }

    async fn constrained(&self) -> Result<f64> {
        let (schema, prompts) = (letters()?, self.short(ROWS, SCHEMA_LETTERS + 32, "").await?);
        let (_, answers) = self.run(&prompts, Some(&schema)).await?;
        let mut free = prompts.clone();
        for (ask, answer) in free.iter_mut().zip(&answers) {
            // Tokens that the schema forces take no step of their own, but are read. The free prompt contains them, so that both
            // read them.
            ask.text.push_str(FORCED);
            ask.max_tokens = chosen(answer).max(1);
        }
        let wanted: usize = free.iter().map(|ask| ask.max_tokens).sum();
        // A free row may end early, so the time per token is compared.
        let seconds_per_free_token = async || {
            let (seconds, written) = self.run(&free, None).await?;
            anyhow::Ok(seconds / generated(&written))
        };
        let (mut before, mut overheads) = (seconds_per_free_token().await?, Vec::new());
        for _ in 0..OVERHEAD_ROUNDS {
            let (seconds, _) = self.run(&prompts, Some(&schema)).await?;
            let after = seconds_per_free_token().await?;
            // Compare with the mean of the measurements before and after, so that slow drifts cancel out.
            overheads.push(seconds / wanted as f64 / ((before + after) / 2.0) - 1.0);
            before = after;
        }
        Ok(median(overheads))
    }
}

/// The grammar of answers that quote `document` word by word.
fn quoting(schema: &Schema, document: &str) -> Result<Arc<SpanGrammar>> {
    let chunks: Vec<&str> = document.split_inclusive(' ').flat_map(|word| [word.trim_end(), " "]).collect();
    let spans = |_: &Map<String, Value>, _: LeafType| LeafValues::Spans { most: None };
    Ok(Arc::new(SpanGrammar::new(schema.value(), &chunks, &spans)?))
}

#[derive(Clone)]
struct BenchPrompt {
    group: String,
    text: String,
    max_tokens: usize,
}

fn text(answer: &Answer) -> Option<&str> {
    match &answer.prediction {
        Prediction::Completion(completion) => Some(&completion.text),
        _ => None,
    }
}

/// The number of tokens that the model chose; the schema forced the others.
fn chosen(answer: &Answer) -> usize {
    match &answer.prediction {
        Prediction::Completion(completion) => completion.tokens.iter().filter(|token| token.log_probability.is_some()).count(),
        _ => 0,
    }
}

fn generated(answers: &[Answer]) -> f64 {
    answers.iter().map(|answer| f64::from(answer.generated)).sum()
}

/// The beginning of every answer under [`letters`].
const FORCED: &str = "{\"text\":\"";

/// A schema under which the model chooses nearly every token, and every answer ends.
fn letters() -> Result<Arc<Schema>> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["text"],
        "properties": { "text": { "type": "string", "pattern": format!("^[a-z ]{{{SCHEMA_LETTERS}}}$") } },
    });
    Schema::new(schema).map(Arc::new).map_err(anyhow::Error::msg)
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The words of generated texts.
pub(super) const WORDS: &[&str] = &[
    "the", "river", "mill", "grinds", "what", "tide", "brings", "and", "seven", "wheels", "turn", "under", "oak", "beams",
    "while", "flour", "settles", "on", "every", "ledge", "of", "that", "old", "stone", "house",
];
