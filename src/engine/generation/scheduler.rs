//! Continuous batching: each step generates one token for every generating sequence and reads prompts in pieces. A finished
//! sequence frees its blocks at once.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use super::block_allocator::BlockAllocator;
use super::prefix_cache::PrefixCache;
use super::sequence::{GenerationJob, GenerationTask, Sequence};
use super::step_part::{AnswerBranch, StepPart};
use super::traits::{BLOCK_TOKENS, Decode, Guide, Logits, StepRow, TokenMask, Vocabulary, WantedLogits};
use super::waiting::WaitingSequences;
use crate::completion::Finish;
use crate::error::{EngineError, panic_text};
use tidemill_base::failure::{FailureClass, Poison};

/// Upper bounds of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchedulerLimits {
    /// Sequences that run at once.
    pub(crate) rows: usize,
    /// Tokens of one forward pass.
    pub(crate) step_tokens: usize,
}

/// What has been done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedulerCounts {
    pub(crate) steps: u64,
    /// Tokens that went through the model.
    pub(crate) tokens: u64,
    /// Tokens of prompts and scored answers that were read, counted once per request.
    pub(crate) prompt_tokens: u64,
    /// Tokens that were generated.
    pub(crate) generated: u64,
    /// Tokens of prompts that were already in the prefix cache.
    pub(crate) prefix_tokens_saved: u64,
    /// Sequences that were preempted and read again.
    pub(crate) preemptions: u64,
}

/// Schedules the sequences of one model.
pub(crate) struct Scheduler<D> {
    pub(super) decoder: D,
    pub(super) vocabulary: Arc<dyn Vocabulary>,
    pub(super) limits: SchedulerLimits,
    pub(super) blocks: BlockAllocator,
    pub(super) prefixes: PrefixCache,
    pub(super) waiting: WaitingSequences,
    /// The running sequences, in the order of their admission.
    pub(super) running: BTreeMap<u64, Sequence>,
    pub(super) admissions: u64,
    pub(super) counts: SchedulerCounts,
}

/// The allowed next tokens of the sequences with a schema.
type Masks = BTreeMap<u64, Result<TokenMask, Poison>>;

/// A sequence with its logits in a step.
struct SequenceLogits<'a> {
    key: u64,
    sequence: &'a mut Sequence,
    part: &'a StepPart,
    /// The first row of its logits.
    first: usize,
    mask: Result<Option<TokenMask>, Poison>,
}

impl SequenceLogits<'_> {
    /// Passes the logits to the sequence. Returns its key and result if that ends it.
    fn take(self, logits: &Logits, vocabulary: &dyn Vocabulary) -> Option<(u64, Result<Finish, Poison>)> {
        let Self { key, sequence, part, first, mask } = self;
        let outcome = mask.and_then(|mask| match part {
            StepPart::Read { .. } => guarded(|| sequence.advance(logits.row_ref(first), mask.as_ref(), vocabulary)),
            StepPart::Score(branches) => sequence.score(branches.iter().map(|branch| branch.answer), logits, first),
        });
        outcome.transpose().map(|outcome| (key, outcome))
    }
}

impl<D: Decode> Scheduler<D> {
    pub(crate) fn new(decoder: D, vocabulary: Arc<dyn Vocabulary>, limits: SchedulerLimits) -> Self {
        let blocks = BlockAllocator::new(decoder.blocks());
        let limits = SchedulerLimits { rows: limits.rows.max(1), step_tokens: limits.step_tokens.max(1) };
        Self {
            decoder,
            vocabulary,
            limits,
            blocks,
            prefixes: PrefixCache::default(),
            waiting: WaitingSequences::default(),
            running: BTreeMap::new(),
            admissions: 0,
            counts: SchedulerCounts::default(),
        }
    }

    pub(crate) fn submit(&mut self, job: GenerationJob) {
        let outcome = self.check(&job);
        let prompt = job.prompt.clone();
        let mut sequence = Sequence::new(job);
        let begun = outcome.and_then(|()| guarded(|| sequence.begin(&*self.vocabulary)));
        self.counts.generated += (sequence.tokens.len() - prompt.len()) as u64;
        match begun {
            Ok(None) => {
                self.prefixes.learn(&sequence.job.group, &prompt, &mut self.blocks);
                self.waiting.push(sequence);
            }
            Ok(Some(finish)) => sequence.close(Ok(finish)),
            Err(poison) => sequence.close(Err(poison)),
        }
    }

    fn check(&self, job: &GenerationJob) -> Result<(), Poison> {
        if job.prompt.is_empty() {
            return Err(Poison { class: FailureClass::EmptyText, reason: "the prompt has no tokens".into() });
        }
        // A scored answer continues in a copy of the prompt's last block.
        let copy = usize::from(matches!(job.task, GenerationTask::Score(_)));
        let needed = Sequence::blocks_for(job.prompt.len() + job.task.extra()) + copy;
        if needed > self.blocks.count() {
            let reason = format!(
                "the prompt has {} tokens and {} more may follow, and the memory for keys and values holds {}; raise engine.kv_cache_mib or shorten the prompt",
                job.prompt.len(),
                job.task.extra(),
                (self.blocks.count() - copy) * BLOCK_TOKENS
            );
            return Err(Poison { class: FailureClass::TooLong, reason });
        }
        Ok(())
    }

    /// Whether no job is waiting or running.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.count() == 0
    }

    /// The number of running sequences.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// The number of waiting sequences.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.count()
    }

    pub(crate) fn blocks_used(&self) -> usize {
        self.blocks.count() - self.blocks.free()
    }

    /// The counts since the previous call.
    pub(crate) fn take_counts(&mut self) -> SchedulerCounts {
        std::mem::take(&mut self.counts)
    }

    /// Runs one forward pass and processes its logits, on the threads of the current pool.
    pub(crate) fn step(&mut self) -> Result<(), EngineError> {
        self.drop_abandoned();
        self.admit();
        let mut parts = self.plan();
        if parts.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let (logits, mut masks) = self.forward(&parts)?;
        let refused = refused(&parts, &logits);
        let before = self.known_tokens(&parts);
        let outcomes = self.advance(&parts, &refused, &logits, &mut masks);
        self.counts.generated += self.known_tokens(&parts) - before;
        let nanos = start.elapsed().as_nanos() as f64;
        refused.iter().for_each(|key| self.refuse(*key, parts.remove(key)));
        self.record(parts, nanos);
        for (key, outcome) in outcomes {
            if let Some(sequence) = self.leave(key) {
                sequence.close(outcome);
            }
        }
        Ok(())
    }

    /// The current number of tokens of all sequences in a step.
    fn known_tokens(&self, parts: &BTreeMap<u64, StepPart>) -> u64 {
        parts.keys().filter_map(|key| self.running.get(key)).map(|sequence| sequence.tokens.len() as u64).sum()
    }

    /// Runs the forward pass. In parallel, other threads compute the masks of allowed next tokens.
    fn forward(&mut self, parts: &BTreeMap<u64, StepPart>) -> Result<(Logits, Masks), EngineError> {
        let mut rows = Vec::new();
        let mut guides: Vec<(u64, &mut Box<dyn Guide>)> = Vec::new();
        for (key, sequence) in &mut self.running {
            let Sequence { job, tokens, table, past, .. } = sequence;
            match (parts.get(key), &mut job.task) {
                (None, _) => {}
                (Some(StepPart::Read { tokens: count, wanted }), task) => {
                    let ids = &tokens[*past..*past + count];
                    let wanted = if *wanted { WantedLogits::Last } else { WantedLogits::None };
                    rows.push(StepRow { ids, past: *past, blocks: table, wanted });
                    if let (WantedLogits::Last, GenerationTask::Complete(completion)) = (wanted, task) {
                        guides.extend(completion.guide().map(|guide| (*key, guide)));
                    }
                }
                (Some(StepPart::Score(branches)), GenerationTask::Score(scoring)) => {
                    let answers = &scoring.answers;
                    rows.extend(branches.iter().map(|branch| {
                        let answer = &answers[branch.answer];
                        let ids = &answer[..answer.len() - 1];
                        StepRow { ids, past: *past, blocks: &branch.table, wanted: WantedLogits::All }
                    }));
                }
                (Some(StepPart::Score(_)), GenerationTask::Complete(_)) => unreachable!("a completion has no answers to score"),
            }
        }
        let size = self.vocabulary.size();
        let mask = |(key, guide): (u64, &mut Box<dyn Guide>)| {
            let mut allowed = TokenMask::alloc(size);
            (key, guarded(|| guide.mask(&mut allowed)).map(|()| allowed))
        };
        let decoder = &mut self.decoder;
        let (logits, masks) =
            rayon::join(|| decoder.forward(&rows), || guides.into_par_iter().with_max_len(1).map(mask).collect::<Vec<_>>());
        Ok((logits?, masks.into_iter().collect()))
    }

    /// Passes its logits to every sequence, one thread each. Returns those that are finished.
    fn advance(
        &mut self,
        parts: &BTreeMap<u64, StepPart>,
        refused: &BTreeSet<u64>,
        logits: &Logits,
        masks: &mut Masks,
    ) -> Vec<(u64, Result<Finish, Poison>)> {
        let mut row = 0;
        let mut waiting_for_logits = Vec::new();
        for (key, sequence) in &mut self.running {
            let Some(part) = parts.get(key) else { continue };
            let first = row;
            row += match part {
                StepPart::Read { wanted, .. } => usize::from(*wanted),
                StepPart::Score(branches) => sequence.tokens_of(branches),
            };
            if row > first && !refused.contains(key) {
                waiting_for_logits.push(SequenceLogits { key: *key, sequence, part, first, mask: masks.remove(key).transpose() });
            }
        }
        debug_assert_eq!(row, logits.rows(), "rows of logits");
        let vocabulary = &*self.vocabulary;
        waiting_for_logits.into_par_iter().filter_map(|one| one.take(logits, vocabulary)).collect()
    }

    /// Ends a sequence for which the device has too little memory.
    fn refuse(&mut self, key: u64, part: Option<StepPart>) {
        if let Some(StepPart::Score(branches)) = part {
            branches.into_iter().for_each(|branch| self.release(branch));
        }
        if let Some(sequence) = self.leave(key) {
            let reason = format!(
                "the device has too little memory for a step of this request alone, which has {} tokens; lower engine.step_tokens or engine.kv_cache_mib, or shorten the prompt",
                sequence.tokens.len()
            );
            sequence.close(Err(Poison { class: FailureClass::Model, reason }));
        }
    }

    /// Records what the step has done.
    fn record(&mut self, parts: BTreeMap<u64, StepPart>, nanos: f64) {
        let share = |sequence: &Sequence, part: &StepPart| match part {
            StepPart::Read { tokens, .. } => *tokens,
            StepPart::Score(branches) => sequence.tokens_of(branches),
        };
        let total: usize = parts.iter().map(|(key, part)| share(&self.running[key], part)).sum();
        self.counts.steps += 1;
        self.counts.tokens += total as u64;
        for (key, part) in parts {
            let Some(sequence) = self.running.get_mut(&key) else { continue };
            let tokens = share(sequence, &part);
            sequence.nanos += nanos * tokens as f64 / total as f64;
            match part {
                StepPart::Read { tokens, .. } => {
                    sequence.past += tokens;
                    self.cache_prefixes(key);
                }
                StepPart::Score(branches) => {
                    sequence.read = sequence.read.map(|read| read + tokens);
                    self.counts.prompt_tokens += tokens as u64;
                    branches.into_iter().for_each(|branch| self.release(branch));
                }
            }
        }
    }

    /// Releases the blocks of a scored answer.
    fn release(&mut self, branch: AnswerBranch) {
        let own = branch.table.len() - branch.own;
        branch.table[own..].iter().for_each(|block| self.blocks.release(*block));
    }

    /// Removes a sequence from the device.
    pub(super) fn leave(&mut self, key: u64) -> Option<Sequence> {
        let mut sequence = self.running.remove(&key)?;
        self.prefixes.abandon(key);
        sequence.table.drain(..).for_each(|block| self.blocks.release(block));
        sequence.prefix = None;
        sequence.past = 0;
        Some(sequence)
    }

    fn drop_abandoned(&mut self) {
        self.waiting.drop_abandoned();
        let gone: Vec<u64> =
            self.running.iter().filter(|(_, sequence)| sequence.job.is_abandoned()).map(|(key, _)| *key).collect();
        for key in gone {
            self.leave(key);
        }
    }
}

/// The sequences with a refused row.
fn refused(parts: &BTreeMap<u64, StepPart>, logits: &Logits) -> BTreeSet<u64> {
    if logits.refused().is_empty() {
        return BTreeSet::new();
    }
    let rows = parts.iter().flat_map(|(key, part)| {
        let count = match part {
            StepPart::Read { .. } => 1,
            StepPart::Score(branches) => branches.len(),
        };
        std::iter::repeat_n(*key, count)
    });
    let owners: Vec<u64> = rows.collect();
    logits.refused().iter().map(|row| owners[*row]).collect()
}

/// Runs the grammar library: a panic inside it must not stop the device.
fn guarded<T>(work: impl FnOnce() -> Result<T, Poison>) -> Result<T, Poison> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = format!("the schema cannot be followed: {}", panic_text(&*panic));
        Err(Poison { class: FailureClass::Schema, reason })
    })
}
