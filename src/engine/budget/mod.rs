//! Tokens of a batch of each encoder: told, remembered from an earlier start, measured, or the usual.
//!
//! | `engine.batch_tokens` | a service or a measurement starts | any other command |
//! |---|---|---|
//! | a number | that number | that number |
//! | `"auto"`, or not set | what is remembered, or else measured and remembered | what is remembered, or else the usual |
//!
//! A command that encodes one query would take longer to measure than it could ever gain. What was measured holds for one model, by the
//! hash of its files, on one kind of device, with one version of this program.

mod memory;
mod sweep;

use std::collections::BTreeMap;
use std::path::PathBuf;

use self::memory::Key;
use self::sweep::{Measured, Stock, sweep};
use super::error::EngineError;
use super::model::{Host, HostedEncoder, Model};
use crate::metrics::METRICS;

/// A budget whose rate is at least this share of the best one's is as good as it: what is lacking is within what two measurements differ by.
/// The smallest such budget is taken, for whoever asks next waits for no more than one batch.
const AS_GOOD: f64 = 0.97;

/// What may be done to find out how many tokens a batch is best given.
#[derive(Debug, Clone, Default)]
pub struct Tuning {
    folder: Option<PathBuf>,
    measures: bool,
}

impl Tuning {
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
pub(super) struct Place<'a> {
    /// The device as metrics name it.
    pub(super) name: &'a str,
    /// Everything that makes devices alike: what was measured on one holds for another of this description.
    pub(super) kind: String,
    /// The budget where nothing is known.
    pub(super) usual: usize,
    /// The threads that models compute on.
    pub(super) pool: &'a rayon::ThreadPool,
}

/// Finds the budgets of an engine's encoders, on one device after the other.
pub(super) struct Tuner<'a> {
    told: Option<usize>,
    tuning: &'a Tuning,
    /// What this start has found so far: devices that are alike are measured once.
    found: BTreeMap<Key, usize>,
}

impl<'a> Tuner<'a> {
    /// A tuner that does what `tuning` allows, where nothing was told.
    pub(super) fn new(told: Option<usize>, tuning: &'a Tuning) -> Self {
        Self { told, tuning, found: BTreeMap::new() }
    }

    /// The budget of each model on the device; for what is no encoder a number that nobody asks for.
    pub(super) fn budgets(&mut self, models: &[Model], place: &Place<'_>) -> Result<Vec<usize>, EngineError> {
        let mut budgets = Vec::with_capacity(models.len());
        for model in models {
            let Host::Encoder(hosted) = &model.host else {
                budgets.push(place.usual);
                continue;
            };
            let budget = match self.told {
                Some(told) => told.max(1),
                None => self.find(model, hosted, place)?,
            };
            METRICS.engine_batch_tokens.with_label_values(&[&*model.info.name, place.name]).set(budget as i64);
            budgets.push(budget);
        }
        Ok(budgets)
    }

    fn find(&mut self, model: &Model, hosted: &HostedEncoder, place: &Place<'_>) -> Result<usize, EngineError> {
        let key = Key::new(&model.info.revision, &place.kind);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let candidates = candidates(place.usual);
        let folder = self.tuning.folder.as_deref();
        let budget = match folder.and_then(|folder| key.recall(folder, &candidates)) {
            Some(remembered) => remembered,
            None if self.tuning.measures => {
                let mut stock = Stock::new(hosted, model.info.max_tokens);
                let measured = sweep(&candidates, |tokens| stock.time(hosted, tokens, place.pool))?;
                let chosen = choose(&measured, place.usual);
                tell(model, place, &measured, chosen);
                if let Some(folder) = folder {
                    key.keep(folder, chosen);
                }
                chosen
            }
            None => place.usual,
        };
        self.found.insert(key, budget);
        Ok(budget)
    }
}

/// The budgets among which one is chosen, the smallest first: powers of two around the usual one. More would keep a search query waiting
/// behind a backlog, less would not fill the cores.
pub(super) fn candidates(usual: usize) -> Vec<usize> {
    [1, 2, 4, 8, 16].map(|eighths| (usual * eighths / 8).max(1)).to_vec()
}

/// The smallest budget that is as good as the best. The usual one where it could not be measured in time: what is smaller may well be worse
/// then, and nobody knows.
fn choose(measured: &[Measured], usual: usize) -> usize {
    if !measured.iter().any(|one| one.batch_tokens == usual) {
        return usual;
    }
    let best = measured.iter().map(|one| one.tokens_per_second).fold(0.0, f64::max);
    let good = measured.iter().filter(|one| one.tokens_per_second >= best * AS_GOOD);
    good.map(|one| one.batch_tokens).min().unwrap_or(usual)
}

fn tell(model: &Model, place: &Place<'_>, measured: &[Measured], chosen: usize) {
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
