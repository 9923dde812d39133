//! Chooses the tokens per batch of each encoder: configured, saved by an earlier start, measured, or the default.
//!
//! | `engine.batch_tokens` | a service or a benchmark starts | any other command |
//! |---|---|---|
//! | a number | that number | that number |
//! | `"auto"`, or not set | the saved budget, otherwise a measured one, which is saved | the saved budget, otherwise the default |
//!
//! A command that encodes one query would spend more time measuring than it could ever gain. A saved budget is valid for one model,
//! identified by the hash of its files, on one kind of device, with one version of this program.

mod measurement;
mod saved_budgets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::measurement::{BudgetRate, SequenceSupply, compare, sweep};
use self::saved_budgets::BudgetKey;
use super::error::EngineError;
use super::model::{EncoderModel, Model, ModelRuntime};
use tidemill_base::metrics::METRICS;

/// A budget whose rate is at least this share of the best rate may in truth be as good: a sweep has few batches of each budget.
const NEAR_BEST: f64 = 0.9;

/// A smaller budget is as good as a larger one if it reaches at least this share of the larger one's rate in three of four pairs.
/// Then it is chosen, because a new request waits for at most one batch. Otherwise the larger one is chosen, which costs nothing
/// but a longer wait.
const AS_GOOD: f64 = 0.98;

/// How an engine finds the best number of tokens per batch.
#[derive(Debug, Clone, Default)]
pub struct BatchTuning {
    folder: Option<PathBuf>,
    measures: bool,
}

impl BatchTuning {
    /// Use budgets saved in `folder`, and never measure. For short commands.
    pub fn remembered(folder: Option<PathBuf>) -> Self {
        Self { folder, measures: false }
    }

    /// Use budgets saved in `folder`; measure the missing ones and save them there. For long-running processes.
    pub fn measured(folder: Option<PathBuf>) -> Self {
        Self { folder, measures: true }
    }
}

/// The properties of a device that budgets depend on.
pub(super) struct DeviceProfile<'a> {
    /// The device's name in metrics.
    pub(super) name: &'a str,
    /// A description of the hardware. Devices with equal descriptions share budgets.
    pub(super) kind: String,
    /// The budget of a model that was not measured.
    pub(super) default_budget: usize,
    /// The threads that models compute on.
    pub(super) pool: &'a rayon::ThreadPool,
}

/// Finds the budgets of an engine's encoders, one device after the other.
pub(super) struct BatchTuner<'a> {
    configured: Option<usize>,
    tuning: &'a BatchTuning,
    /// Budgets found during this start: equal devices are measured once.
    found: BTreeMap<BudgetKey, usize>,
}

impl<'a> BatchTuner<'a> {
    /// A tuner that does what `tuning` allows, unless a budget is configured.
    pub(super) fn new(configured: Option<usize>, tuning: &'a BatchTuning) -> Self {
        Self { configured, tuning, found: BTreeMap::new() }
    }

    /// The budget of each model on the device. For models that are not encoders it is the default, which nobody uses.
    pub(super) fn budgets(&mut self, models: &[Model], device: &DeviceProfile<'_>) -> Result<Vec<usize>, EngineError> {
        let mut budgets = Vec::with_capacity(models.len());
        for model in models {
            let ModelRuntime::Encoder(encoder_model) = &model.runtime else {
                budgets.push(device.default_budget);
                continue;
            };
            let budget = match self.configured {
                Some(configured) => configured.max(1),
                None => self.find(model, encoder_model, device)?,
            };
            METRICS.engine_batch_tokens.with_label_values(&[&*model.info.name, device.name]).set(budget as i64);
            budgets.push(budget);
        }
        Ok(budgets)
    }

    fn find(&mut self, model: &Model, encoder_model: &EncoderModel, device: &DeviceProfile<'_>) -> Result<usize, EngineError> {
        let key = BudgetKey::new(&model.info.revision, &device.kind);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let candidates = candidates(device.default_budget);
        let folder = self.tuning.folder.as_deref();
        let budget = match folder.and_then(|folder| key.load(folder, &candidates)) {
            Some(remembered) => remembered,
            None if self.tuning.measures => {
                let mut supply = SequenceSupply::new(encoder_model, model.info.max_tokens);
                let mut encode = |tokens| supply.time(encoder_model, tokens, device.pool);
                let measured = sweep(&candidates, &mut encode)?;
                let chosen = choose(&measured, device.default_budget, |smaller, larger| compare(smaller, larger, &mut encode))?;
                log_measurement(model, device, &measured, chosen);
                if let Some(folder) = folder {
                    key.save(folder, chosen);
                }
                chosen
            }
            None => device.default_budget,
        };
        self.found.insert(key, budget);
        Ok(budget)
    }
}

/// The budgets to choose from, in ascending order: powers of two around the default. A larger one would make a search query wait
/// behind a backlog; a smaller one would not keep the cores busy.
pub(super) fn candidates(default_budget: usize) -> Vec<usize> {
    [1, 2, 4, 8, 16].map(|eighths| (default_budget * eighths / 8).max(1)).to_vec()
}

/// Chooses a budget from the measured rates.
///
/// The smallest budget near the best one wins if `compare`, which returns the smaller one's share of the larger one's rate, finds
/// it as good; otherwise the larger one wins. If the best budget is itself the smallest, it is compared with the largest budget
/// near it. The default wins if there was no time to measure it: smaller budgets may then be far worse, and no rate shows it.
fn choose<E>(
    measured: &[BudgetRate],
    default_budget: usize,
    compare: impl FnOnce(usize, usize) -> Result<Option<f64>, E>,
) -> Result<usize, E> {
    let best = measured.iter().max_by(|a, b| a.tokens_per_second.total_cmp(&b.tokens_per_second));
    let Some(best) = best.filter(|_| measured.iter().any(|one| one.batch_tokens == default_budget)) else {
        return Ok(default_budget);
    };
    let near =
        measured.iter().filter(|one| one.tokens_per_second >= best.tokens_per_second * NEAR_BEST).map(|one| one.batch_tokens);
    let best = best.batch_tokens;
    let (smallest, largest) = near.fold((best, best), |(smallest, largest), one| (smallest.min(one), largest.max(one)));
    let larger = if best > smallest { best } else { largest };
    if larger == smallest {
        return Ok(best);
    }
    Ok(match compare(smallest, larger)? {
        Some(share) if share >= AS_GOOD => smallest,
        Some(_) => larger,
        None => best,
    })
}

fn log_measurement(model: &Model, device: &DeviceProfile<'_>, measured: &[BudgetRate], chosen: usize) {
    let rates: Vec<String> = measured.iter().map(|one| format!("{}: {:.0}", one.batch_tokens, one.tokens_per_second)).collect();
    tracing::info!(
        model = &*model.info.name,
        device = device.name,
        batch_tokens = chosen,
        tokens_per_second = rates.join(", "),
        "token budget measured"
    );
}

#[cfg(test)]
mod tests;
