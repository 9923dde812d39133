//! Measures whether the token budget that a start chooses is as good as the best fixed one. The same texts go through the model
//! host with each budget in turn.
//!
//! | figure | what it is |
//! |---|---|
//! | `tuned` | the budget that a start chooses on this machine, measured anew |
//! | `best` | the fixed budget with the most tokens per second |
//! | `ratio` | tokens per second with `tuned`, divided by those with `best`: the median of further measurements in pairs |
//! | `tokens_per_second` | the median of the rounds, for each budget |
//!
//! The largest of several noisy figures is too large on average, so `best` is measured again, in pairs with `tuned`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::generator::{WORDS, median};
use crate::config::{Config, ConfigError, EngineConfig, ModelConfig};
use crate::did_you_mean::suggestion;
use crate::engine::{BatchTuning, Chunking, Engine, ModelKind, Request, TextKind, Work};

/// How long each budget is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repetitions {
    rounds: usize,
    /// Seconds of one round.
    seconds: f64,
}

/// Enough to tell budgets apart that differ by a few percent.
pub(super) const THOROUGH: Repetitions = Repetitions { rounds: 5, seconds: 1.5 };

/// Calls at the same time, like the batches of a few partitions.
const CALLS: usize = 8;
/// Words of the texts, in turn.
const LENGTHS: [usize; 8] = [180, 18, 90, 30, 11, 140, 45, 70];

/// Measures the model that the configuration calls `name`.
pub(super) async fn measure(config: &Config, name: &str, repetitions: Repetitions) -> Result<Value> {
    let Some(model) = config.models.get(name) else {
        let hint = suggestion(name, config.models.keys().map(String::as_str));
        return Err(ConfigError(format!("there is no model {name:?}; {hint}")).into());
    };
    let bench = BudgetBench { config: config.engine.clone(), name: name.to_owned(), model: model.clone() };
    let engine = bench.start(None).await?;
    let kind = engine.model(name).map(|info| info.kind);
    ensure!(kind == Some(ModelKind::Encoder), "model {name:?} is not an encoder; only encoders have a token budget");
    let (tuned, mut budgets) = (engine.batch_tokens(name).unwrap_or_default(), engine.batch_tokens_measured());
    // One more than a start considers, to see whether a larger one would be better.
    budgets.extend(budgets.last().map(|largest| largest * 2));
    let pace = bench.rate(&engine, 64).await?;
    drop(engine);
    let texts = (pace.texts * repetitions.seconds).ceil().max(CALLS as f64) as usize;
    let mut rates: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for round in 0..repetitions.rounds {
        // Alternate the order, so that slow drifts cancel out.
        if round > 0 {
            budgets.reverse();
        }
        for budget in &budgets {
            let engine = bench.start(Some(*budget)).await?;
            bench.rate(&engine, CALLS).await?;
            rates.entry(*budget).or_default().push(bench.rate(&engine, texts).await?.tokens);
        }
    }
    let rates: BTreeMap<usize, f64> = rates.into_iter().map(|(budget, rates)| (budget, median(rates))).collect();
    let best = rates.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or(tuned, |(budget, _)| *budget);
    let ratio = if best == tuned { 1.0 } else { bench.compare([tuned, best], texts, repetitions.rounds).await? };
    Ok(json!({ "model": name, "tuned": tuned, "best": best, "ratio": ratio, "texts": texts, "tokens_per_second": rates }))
}

struct BudgetBench {
    config: EngineConfig,
    name: String,
    model: ModelConfig,
}

struct EncodingRate {
    texts: f64,
    tokens: f64,
}

impl BudgetBench {
    /// Starts an engine with a fixed budget, or with one that it chooses.
    async fn start(&self, batch_tokens: Option<usize>) -> Result<Engine> {
        let config = EngineConfig { batch_tokens, ..self.config.clone() };
        let models = BTreeMap::from([(self.name.clone(), self.model.clone())]);
        let start = move || Engine::start_with(&config, &models, &BatchTuning::measured(None));
        Ok(tokio::task::spawn_blocking(start).await??)
    }

    /// Tokens per second with the first budget, divided by those with the second. Each is measured twice in a round, in the order
    /// 0, 1, 1, 0.
    async fn compare(&self, budgets: [usize; 2], texts: usize, rounds: usize) -> Result<f64> {
        let engines = [self.start(Some(budgets[0])).await?, self.start(Some(budgets[1])).await?];
        let mut ratios = Vec::new();
        for _ in 0..rounds {
            let mut tokens = [0.0; 2];
            for index in [0, 1, 1, 0] {
                tokens[index] += self.rate(&engines[index], texts).await?.tokens;
            }
            ratios.push(tokens[0] / tokens[1]);
        }
        Ok(median(ratios))
    }

    /// Encodes `texts` texts in a few calls at once.
    async fn rate(&self, engine: &Engine, texts: usize) -> Result<EncodingRate> {
        let mut calls: Vec<Vec<Request>> = (0..CALLS).map(|_| Vec::new()).collect();
        for index in 0..texts {
            let work = Work::Encode { texts: vec![text(index)], chunking: Chunking::Truncate, kind: TextKind::Plain };
            calls[index % CALLS].push(Request { model: self.name.as_str().into(), work });
        }
        let before = engine.stats().tokens;
        let started = Instant::now();
        let answers = try_join_all(calls.into_iter().map(|call| engine.run(call))).await?;
        let seconds = started.elapsed().as_secs_f64();
        for answer in answers.into_iter().flatten() {
            answer?;
        }
        Ok(EncodingRate { texts: texts as f64 / seconds, tokens: (engine.stats().tokens - before) as f64 / seconds })
    }
}

/// A text that differs from all others, because equal texts would be computed once.
fn text(index: usize) -> Arc<str> {
    let words = LENGTHS[index / CALLS % LENGTHS.len()];
    let word = |place: usize| WORDS[(index * 31 + place * 7 + place * place) % WORDS.len()];
    let text: Vec<&str> = (0..words).map(word).collect();
    format!("{index}: {}.", text.join(" ")).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn tiny() -> Config {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-xlm-roberta");
        let writer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/generators/qwen2");
        let models = [("tiny", folder), ("writer", writer)];
        Config {
            models: models.map(|(name, path)| (name.to_owned(), ModelConfig::local(path))).into(),
            engine: EngineConfig { threads: Some(1), ..EngineConfig::default() },
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn the_tuned_budget_is_told_beside_the_best_one() {
        let report = measure(&tiny(), "tiny", Repetitions { rounds: 1, seconds: 0.01 }).await.unwrap();
        let rates = report["tokens_per_second"].as_object().unwrap();
        assert_eq!(rates.len(), 6, "five that a start measures and one more: {report}");
        let rate = |figure: &str| rates[&report[figure].to_string()].as_f64().unwrap();
        assert!(rates.values().all(|other| other.as_f64().unwrap() <= rate("best")), "{report}");
        let ratio = report["ratio"].as_f64().unwrap();
        assert!(if report["tuned"] == report["best"] { ratio == 1.0 } else { ratio > 0.0 }, "{report}");
        assert!(rate("tuned") > 0.0, "{report}");
    }

    #[tokio::test]
    async fn what_has_no_budget_is_refused() {
        let error = async |name: &str| measure(&tiny(), name, THOROUGH).await.unwrap_err().to_string();
        assert!(error("writer").await.contains("not an encoder"));
        assert!(error("tini").await.contains("did you mean"), "the nearest model is named");
    }

    #[tokio::test]
    async fn two_budgets_are_measured_against_each_other() {
        let config = tiny();
        let bench = BudgetBench { model: config.models["tiny"].clone(), config: config.engine, name: "tiny".into() };
        let (one, other) = (bench.compare([64, 512], 16, 3).await.unwrap(), bench.compare([64, 64], 16, 3).await.unwrap());
        assert!(one.is_finite() && one > 0.0 && other.is_finite() && other > 0.0, "{one} and {other}");
    }

    #[test]
    fn texts_are_of_many_lengths_and_no_two_alike() {
        let texts: Vec<Arc<str>> = (0..500).map(text).collect();
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), 500);
        let lengths: HashSet<usize> = texts.iter().map(|text| text.split(' ').count() - 1).collect();
        assert_eq!(lengths, LENGTHS.into(), "each of the lengths occurs");
    }
}
