//! Measures the rate of an encoder with batches of several sizes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::batch::TokenBatch;
use crate::error::EngineError;
use crate::model::EncoderModel;
use crate::queued_sequence::QueuedSequence;
use crate::request::Chunking;

/// Time for the sweep over an encoder's budgets, and again for the comparison of two of them. Short enough for a start, and long
/// enough to measure a sentence encoder on two cores.
const TIME: Duration = Duration::from_secs(2);

/// The maximum number of batches of one size, or of pairs of two sizes. Fast models need no more, and stop before the time is over.
const SAMPLES: usize = 32;

/// The lengths of the sequences, in rotation: titles, sentences, paragraphs, and chunks of 256 tokens.
const LENGTHS: [usize; 8] = [256, 24, 128, 40, 16, 192, 64, 96];

/// The text of the sequences. Its words hardly influence the time.
const TEXT: &str =
    "The tide turns the wheel, the wheel turns the stone, and the stone grinds what the boats bring: rye, wheat and corn.";

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct BudgetRate {
    pub(super) batch_tokens: usize,
    pub(super) tokens_per_second: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct TimedBatch {
    pub(super) tokens: usize,
    pub(super) time: Duration,
}

impl TimedBatch {
    fn rate(self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64().max(1e-9)
    }
}

/// The batches of one budget so far.
struct BudgetRun {
    batch_tokens: usize,
    spent: Duration,
    rates: Vec<f64>,
}

/// Measures the budgets in rotation, for about [`TIME`] in total. All get the same time, so that other load on the machine affects
/// all alike. A budget is left out if its batch would take longer than the remaining time.
pub(super) fn sweep<E>(
    candidates: &[usize],
    mut encode: impl FnMut(usize) -> Result<TimedBatch, E>,
) -> Result<Vec<BudgetRate>, E> {
    let Some(smallest) = candidates.iter().copied().min() else { return Ok(Vec::new()) };
    // One-time costs such as allocating memory are not part of the rates.
    let mut last = encode(smallest)?;
    let mut runs: Vec<BudgetRun> =
        candidates.iter().map(|tokens| BudgetRun { batch_tokens: *tokens, spent: Duration::ZERO, rates: Vec::new() }).collect();
    let mut left = TIME.saturating_sub(last.time);
    loop {
        let pace = last.time.as_secs_f64() / last.tokens.max(1) as f64;
        let fits = |run: &&mut BudgetRun| run.rates.len() < SAMPLES && run.batch_tokens as f64 * pace <= left.as_secs_f64();
        let Some(run) = runs.iter_mut().filter(fits).min_by_key(|run| run.spent) else { break };
        last = encode(run.batch_tokens)?;
        run.rates.push(last.rate());
        run.spent += last.time;
        left = left.saturating_sub(last.time);
    }
    let measured =
        |run: BudgetRun| Some(BudgetRate { batch_tokens: run.batch_tokens, tokens_per_second: at_share(run.rates, 0.5)? });
    Ok(runs.into_iter().filter_map(measured).collect())
}

/// The rate with the budget `smaller` divided by the rate with `larger`: the share that is reached in at least three of four pairs,
/// measured for about [`TIME`]. Both halves of a pair have the same number of tokens and run directly after each other, so that
/// other load on the machine affects both alike. None if one pair takes so long that there would be too few of them.
pub(super) fn compare<E>(
    smaller: usize,
    larger: usize,
    mut encode: impl FnMut(usize) -> Result<TimedBatch, E>,
) -> Result<Option<f64>, E> {
    let mut half = |budget: usize| {
        let mut sum = TimedBatch { tokens: 0, time: Duration::ZERO };
        for _ in 0..larger.div_ceil(budget.max(1)) {
            let TimedBatch { tokens, time } = encode(budget)?;
            sum = TimedBatch { tokens: sum.tokens + tokens, time: sum.time + time };
        }
        Ok(sum)
    };
    let (mut spent, mut shares) = (Duration::ZERO, Vec::new());
    while spent < TIME && shares.len() < SAMPLES {
        // The order alternates from pair to pair.
        let (small, large) = if shares.len() % 2 == 0 {
            let small = half(smaller)?;
            (small, half(larger)?)
        } else {
            let large = half(larger)?;
            (half(smaller)?, large)
        };
        spent += small.time + large.time;
        if shares.is_empty() && spent > TIME / 2 {
            return Ok(None);
        }
        shares.push(small.rate() / large.rate());
    }
    Ok(at_share(shares, 0.25))
}

/// The quantile of the figures at `share`.
fn at_share(mut figures: Vec<f64>, share: f64) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get((figures.len() as f64 * share) as usize).copied()
}

/// An endless supply of sequences to measure with.
pub(super) struct SequenceSupply {
    ids: Arc<[u32]>,
    longest: usize,
    taken: usize,
    permit: Arc<OwnedSemaphorePermit>,
}

impl SequenceSupply {
    /// Sequences of the model's own tokens.
    pub(super) fn new(encoder_model: &EncoderModel, longest: usize) -> Self {
        let chunks = encoder_model.tokenizer.chunks(TEXT, Chunking::Truncate).unwrap_or_default();
        // Every model has a first word vector, so id 0 is valid even if the tokenizer returns nothing for the text.
        let ids = chunks.into_iter().next().map(|chunk| chunk.ids).filter(|ids| !ids.is_empty()).unwrap_or_else(|| [0].into());
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("a semaphore with one permit grants one");
        Self { ids, longest: longest.max(1), taken: 0, permit: Arc::new(permit) }
    }

    /// Computes one batch of at most `tokens` tokens and measures the time.
    pub(super) fn time(
        &mut self,
        encoder_model: &EncoderModel,
        tokens: usize,
        pool: &rayon::ThreadPool,
    ) -> Result<TimedBatch, EngineError> {
        let batch = self.batch(tokens);
        let started = Instant::now();
        pool.install(|| encoder_model.encoder.encode(&batch))?;
        Ok(TimedBatch { tokens: batch.tokens(), time: started.elapsed() })
    }

    /// The next sequences: as many as fit, and at least one.
    fn batch(&mut self, tokens: usize) -> TokenBatch {
        // Nobody receives these results.
        let (reply, _) = unbounded_channel();
        let (mut waiting, mut sum) = (Vec::new(), 0);
        loop {
            let length = LENGTHS[self.taken % LENGTHS.len()].min(self.longest);
            if sum + length > tokens && !waiting.is_empty() {
                return TokenBatch::pack(0, waiting);
            }
            let ids = (0..length).map(|place| self.ids[(place + self.taken) % self.ids.len()]).collect();
            waiting.push(QueuedSequence { ids, index: waiting.len(), reply: reply.clone(), permit: self.permit.clone() });
            sum += length;
            self.taken += 1;
        }
    }
}
