//! Tokens of a batch of each encoder: told, remembered from an earlier start, measured, or the usual.
//!
//! | `engine.batch_tokens` | a service or a measurement starts | any other command |
//! |---|---|---|
//! | a number | that number | that number |
//! | `"auto"`, or not set | what is remembered, or else measured and remembered | what is remembered, or else the default_budget |
//!
//! A command that encodes one query would take longer to measure than it could ever gain. What was measured holds for one model, by the
//! hash of its files, on one kind of device, with one version of this program.

mod measurement;
mod saved_budgets;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::measurement::{BudgetRate, SequenceSupply, compare, sweep};
use self::saved_budgets::BudgetKey;
use super::error::EngineError;
use super::model::{EncoderModel, Model, ModelRuntime};
use tidemill_base::metrics::METRICS;

/// A budget whose rate is at least this share of the best one's may be as good as it in truth: a sweep has few batches of each.
const NEAR_BEST: f64 = 0.9;

/// A smaller budget that reaches at least this share of a larger one's rate in three pairs of four is as good as it. It is taken then, for
/// whoever asks next waits for no more than one batch; in doubt it is the larger one, which costs nobody more than that wait.
const AS_GOOD: f64 = 0.98;

/// What may be done to find out how many tokens a batch is best given.
#[derive(Debug, Clone, Default)]
pub struct BatchTuning {
    folder: Option<PathBuf>,
    measures: bool,
}

impl BatchTuning {
    /// What was measured before and is kept in `folder`; for commands that are over soon.
    pub fn remembered(folder: Option<PathBuf>) -> Self {
        Self { folder, measures: false }
    }

    /// The same, and what is not known yet is measured and kept there; for processes that stay.
    pub fn measured(folder: Option<PathBuf>) -> Self {
        Self { folder, measures: true }
    }
}

/// A device as far as budgets depend on it.
pub(super) struct DeviceProfile<'a> {
    /// The device as metrics name it.
    pub(super) name: &'a str,
    /// Everything that makes devices alike: what was measured on one holds for another of this description.
    pub(super) kind: String,
    /// The budget where nothing is known.
    pub(super) default_budget: usize,
    /// The threads that models compute on.
    pub(super) pool: &'a rayon::ThreadPool,
}

/// Finds the budgets of an engine's encoders, on one device after the other.
pub(super) struct BatchTuner<'a> {
    configured: Option<usize>,
    tuning: &'a BatchTuning,
    /// What this start has found so far: devices that are alike are measured once.
    found: BTreeMap<BudgetKey, usize>,
}

impl<'a> BatchTuner<'a> {
    /// A tuner that does what `tuning` allows, where nothing was told.
    pub(super) fn new(configured: Option<usize>, tuning: &'a BatchTuning) -> Self {
        Self { configured, tuning, found: BTreeMap::new() }
    }

    /// The budget of each model on the device; for what is no encoder a number that nobody asks for.
    pub(super) fn budgets(&mut self, models: &[Model], place: &DeviceProfile<'_>) -> Result<Vec<usize>, EngineError> {
        let mut budgets = Vec::with_capacity(models.len());
        for model in models {
            let ModelRuntime::Encoder(hosted) = &model.runtime else {
                budgets.push(place.default_budget);
                continue;
            };
            let budget = match self.configured {
                Some(configured) => configured.max(1),
                None => self.find(model, hosted, place)?,
            };
            METRICS.engine_batch_tokens.with_label_values(&[&*model.info.name, place.name]).set(budget as i64);
            budgets.push(budget);
        }
        Ok(budgets)
    }

    fn find(&mut self, model: &Model, hosted: &EncoderModel, place: &DeviceProfile<'_>) -> Result<usize, EngineError> {
        let key = BudgetKey::new(&model.info.revision, &place.kind);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let candidates = candidates(place.default_budget);
        let folder = self.tuning.folder.as_deref();
        let budget = match folder.and_then(|folder| key.load(folder, &candidates)) {
            Some(remembered) => remembered,
            None if self.tuning.measures => {
                let mut stock = SequenceSupply::new(hosted, model.info.max_tokens);
                let mut encode = |tokens| stock.time(hosted, tokens, place.pool);
                let measured = sweep(&candidates, &mut encode)?;
                let chosen = choose(&measured, place.default_budget, |smaller, larger| compare(smaller, larger, &mut encode))?;
                log_measurement(model, place, &measured, chosen);
                if let Some(folder) = folder {
                    key.save(folder, chosen);
                }
                chosen
            }
            None => place.default_budget,
        };
        self.found.insert(key, budget);
        Ok(budget)
    }
}

/// The budgets among which one is chosen, the smallest first: powers of two around the usual one. More would keep a search query waiting
/// behind a backlog, less would not fill the cores.
pub(super) fn candidates(default_budget: usize) -> Vec<usize> {
    [1, 2, 4, 8, 16].map(|eighths| (default_budget * eighths / 8).max(1)).to_vec()
}

/// The smallest budget that is near the best, if `compare`, which gives the smaller one's share of the larger one's rate, finds that it is as
/// good; else the best. Where the best itself is the smallest, it has to stand its ground against the largest that is near. The usual one
/// where that could not be measured in time: what is smaller may well be worse then, and nobody knows.
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

fn log_measurement(model: &Model, place: &DeviceProfile<'_>, measured: &[BudgetRate], chosen: usize) {
    let rates: Vec<String> = measured.iter().map(|one| format!("{}: {:.0}", one.batch_tokens, one.tokens_per_second)).collect();
    tracing::info!(
        model = &*model.info.name,
        device = place.name,
        batch_tokens = chosen,
        tokens_per_second = rates.join(", "),
        "token budget measured"
    );
}

#[cfg(test)]
mod tests;
