//! A decoder whose logits are a hash of the tokens in its blocks, and a reference that computes the expected output without a
//! scheduler.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::completion::Finish;
use crate::error::EngineError;
use crate::generation::sampler::{choose, normaliser};
use crate::generation::scheduler::{Scheduler, SchedulerLimits};
use crate::generation::sequence::{CompletionState, GenerationJob, GenerationTask, ScoringState};
use crate::generation::traits::{BLOCK_TOKENS, Decode, Guide, Logits, StepRow, TokenMask, Vocabulary, WantedLogits};
use crate::prompt::IncrementalText;
use crate::request::{Answer, Prediction, Priority, Sampling};
use tidemill_base::failure::{Failure, Poison};

/// The number of tokens. 0 ends a turn; each other token stands for one letter.
pub(super) const TOKENS: u32 = 50;

/// The content of a slot in a block: a token and its position.
type Slot = Option<(u32, usize)>;

pub(super) struct FakeDecoder {
    pub(super) slots: Vec<[Slot; BLOCK_TOKENS]>,
    /// The longest sequence that the memory suffices for.
    pub(super) longest: usize,
}

/// The logits that follow the tokens.
pub(super) fn logits_after(tokens: impl IntoIterator<Item = u32>) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new();
    for id in tokens {
        hasher.update(&id.to_le_bytes());
    }
    let mut bytes = [0; TOKENS as usize];
    hasher.finalize_xof().fill(&mut bytes);
    bytes.iter().map(|byte| f32::from(*byte) / 40.0).collect()
}

impl Decode for FakeDecoder {
    fn blocks(&self) -> usize {
        self.slots.len()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        assert_ne!(from, to, "a block is copied onto itself");
        self.slots[to as usize] = self.slots[from as usize];
    }

    fn forward(&mut self, rows: &[StepRow<'_>]) -> Result<Logits, EngineError> {
        let mut values = Vec::new();
        let mut written = std::collections::HashSet::new();
        for row in rows {
            assert!(!row.ids.is_empty(), "a row without tokens");
            for (position, id) in (row.past..).zip(row.ids) {
                let block = row.blocks[position / BLOCK_TOKENS];
                assert!(written.insert((block, position % BLOCK_TOKENS)), "two rows write into block {block} at once");
                self.slots[block as usize][position % BLOCK_TOKENS] = Some((*id, position));
            }
        }
        let mut refused = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let end = row.past + row.ids.len();
            if end > self.longest {
                refused.push(index);
                values.extend(std::iter::repeat_n(f32::NAN, row.wanted_tokens() * TOKENS as usize));
                continue;
            }
            let read = |position: usize| {
                let slot = self.slots[row.blocks[position / BLOCK_TOKENS] as usize][position % BLOCK_TOKENS];
                let (id, at) = slot.unwrap_or_else(|| panic!("position {position} was never written"));
                assert_eq!(at, position, "the slot for position {position} holds another position's token");
                id
            };
            let wanted = match row.wanted {
                WantedLogits::None => end..end,
                WantedLogits::Last => end - 1..end,
                WantedLogits::All => row.past..end,
            };
            for last in wanted {
                values.extend(logits_after((0..=last).map(read)));
            }
        }
        Ok(Logits::new(values, TOKENS as usize, refused))
    }
}

pub(super) struct LetterVocabulary;

impl Vocabulary for LetterVocabulary {
    fn piece(&self, id: u32) -> &[u8] {
        const LETTERS: &[u8; TOKENS as usize] = b"\0ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvw";
        if id == 0 { &[] } else { &LETTERS[id as usize..][..1] }
    }

    fn ends(&self, id: u32) -> bool {
        id == 0
    }

    fn size(&self) -> usize {
        TOKENS as usize
    }
}

/// A schema as a list of steps: forced tokens, or a choice.
#[derive(Debug, Clone)]
pub(super) enum SchemaStep {
    Forced(Vec<u32>),
    Choice(Vec<u32>),
}

#[derive(Clone)]
pub(super) struct FakeGuide(pub(super) std::collections::VecDeque<SchemaStep>);

impl Guide for FakeGuide {
    fn forced(&mut self) -> Result<Vec<u32>, Poison> {
        let mut forced = Vec::new();
        while let Some(SchemaStep::Forced(ids)) = self.0.front() {
            forced.extend(ids);
            self.0.pop_front();
        }
        Ok(forced)
    }

    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison> {
        match self.0.front() {
            Some(SchemaStep::Choice(ids)) => ids.iter().for_each(|id| allowed.allow_token(*id)),
            Some(SchemaStep::Forced(_)) => panic!("a mask was requested where tokens are forced"),
            None => allowed.allow_token(0),
        }
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), Poison> {
        match self.0.pop_front() {
            Some(SchemaStep::Choice(ids)) if ids.contains(&id) => Ok(()),
            other => panic!("token {id} was chosen where {other:?} was expected"),
        }
    }

    fn is_finished(&self) -> bool {
        self.0.is_empty()
    }
}

/// A job in a test.
#[derive(Debug, Clone)]
pub(super) struct TestJob {
    pub(super) group: &'static str,
    pub(super) priority: Priority,
    pub(super) prompt: Vec<u32>,
    pub(super) task: TestTask,
}

#[derive(Debug, Clone)]
pub(super) enum TestTask {
    Complete { max_tokens: usize, sampling: Sampling, schema: Option<Vec<SchemaStep>> },
    Score(Vec<Vec<u32>>),
}

pub(super) type AnswerReceiver = UnboundedReceiver<(usize, Result<Answer, Failure>)>;

/// A greedy completion for `group`.
pub(super) fn write(group: &'static str, prompt: Vec<u32>, max_tokens: usize) -> TestJob {
    let task = TestTask::Complete { max_tokens, sampling: Sampling::default(), schema: None };
    TestJob { group, priority: Priority::Live, prompt, task }
}

impl TestJob {
    pub(super) fn backfill(self) -> Self {
        Self { priority: Priority::Backfill, ..self }
    }

    /// Submits the job. Its answer arrives at the returned channel.
    pub(super) fn submit(&self, scheduler: &mut Scheduler<FakeDecoder>) -> AnswerReceiver {
        let (reply, answers) = unbounded_channel();
        let task = match self.task.clone() {
            TestTask::Complete { max_tokens, sampling, schema } => {
                let guide = schema.map(|places| Box::new(FakeGuide(places.into())) as Box<dyn Guide>);
                GenerationTask::Complete(CompletionState::new(max_tokens, sampling, &[], guide, IncrementalText::default()))
            }
            TestTask::Score(answers) => GenerationTask::Score(ScoringState::new(answers.into_iter().map(Arc::from).collect())),
        };
        let (group, priority, prompt) = (self.group.into(), self.priority, self.prompt.clone().into());
        scheduler.submit(GenerationJob { group, priority, prompt, task, index: 0, reply, permit: None });
        answers
    }

    /// The expected result, computed without the scheduler.
    pub(super) fn expected(&self) -> Prediction {
        match &self.task {
            TestTask::Complete { max_tokens, sampling, schema } => {
                let mut tokens = self.prompt.clone();
                let mut text = String::new();
                let mut likely = Vec::new();
                let mut places: std::collections::VecDeque<SchemaStep> = schema.clone().unwrap_or_default().into();
                let mut put = |tokens: &mut Vec<u32>, id: u32, log_probability: Option<f32>| {
                    tokens.push(id);
                    text.push_str(std::str::from_utf8(LetterVocabulary.piece(id)).unwrap());
                    likely.push((text.len(), log_probability));
                    likely.len() == *max_tokens
                };
                let finish = 'written: {
                    if *max_tokens == 0 && (schema.is_none() || !places.is_empty()) {
                        break 'written Finish::Length;
                    }
                    loop {
                        while let Some(SchemaStep::Forced(ids)) = places.front() {
                            let ids = ids.clone();
                            places.pop_front();
                            for (at, id) in ids.iter().enumerate() {
                                if put(&mut tokens, *id, None) && (at + 1 < ids.len() || !places.is_empty()) {
                                    break 'written Finish::Length;
                                }
                            }
                        }
                        let mask = match places.pop_front() {
                            Some(SchemaStep::Choice(ids)) => {
                                let mut mask = TokenMask::alloc(TOKENS as usize);
                                ids.iter().for_each(|id| mask.allow_token(*id));
                                Some(mask)
                            }
                            _ if schema.is_some() => break 'written Finish::Stop,
                            _ => None,
                        };
                        let position = tokens.len() - self.prompt.len();
                        let logits = logits_after(tokens.iter().copied());
                        let choice = choose(&logits, mask.as_ref(), sampling, position).unwrap();
                        if choice.id == 0 {
                            break 'written Finish::Stop;
                        }
                        let full = put(&mut tokens, choice.id, Some(choice.log_probability));
                        if full && !(schema.is_some() && places.is_empty()) {
                            break 'written Finish::Length;
                        }
                    }
                };
                let tokens =
                    likely.into_iter().map(|(end, log_probability)| crate::GeneratedToken { end, log_probability }).collect();
                Prediction::Completion(crate::Completion { text, tokens, finish })
            }
            TestTask::Score(answers) => {
                let score = |answer: &Vec<u32>| {
                    let mut tokens = self.prompt.clone();
                    let mut sum = None;
                    for id in answer {
                        let logits = logits_after(tokens.iter().copied());
                        let one = logits[*id as usize] - normaliser(&logits).unwrap();
                        sum = Some(sum.map_or(one, |sum: f32| sum + one));
                        tokens.push(*id);
                    }
                    sum.unwrap()
                };
                Prediction::Scores(answers.iter().map(score).collect())
            }
        }
    }
}

pub(super) fn scheduler(blocks: usize, rows: usize, step_tokens: usize) -> Scheduler<FakeDecoder> {
    let decoder = FakeDecoder { slots: vec![[None; BLOCK_TOKENS]; blocks], longest: usize::MAX };
    Scheduler::new(decoder, Arc::new(LetterVocabulary), SchedulerLimits { rows, step_tokens })
}

/// Runs steps until nothing is left to do, and audits the blocks after every step.
pub(super) fn run(scheduler: &mut Scheduler<FakeDecoder>) {
    let mut steps = 0;
    while !scheduler.is_idle() {
        scheduler.step().unwrap();
        audit(scheduler);
        steps += 1;
        assert!(steps < 100_000, "the scheduler does not finish");
    }
}

/// Every block has as many holders as there are sequences and prefixes with it in their tables, and a block that is written next
/// has a single holder.
pub(super) fn audit(scheduler: &Scheduler<FakeDecoder>) {
    let mut holders = vec![0; scheduler.blocks.count()];
    let running = scheduler.running.values().map(|sequence| sequence.table.as_slice());
    running.chain(scheduler.prefixes.tables()).flatten().for_each(|block| holders[*block as usize] += 1);
    for (block, holders) in holders.iter().enumerate() {
        assert_eq!(scheduler.blocks.holders(block as u32), *holders, "holders of block {block}");
    }
    assert_eq!(scheduler.blocks.free(), holders.iter().filter(|holders| **holders == 0).count(), "free blocks");
    for sequence in scheduler.running.values() {
        for block in sequence.table.iter().skip(sequence.past / BLOCK_TOKENS) {
            assert_eq!(holders[*block as usize], 1, "block {block}, which is written next, has other holders");
        }
    }
}

/// The answer that has arrived.
pub(super) fn answer(answers: &mut AnswerReceiver) -> Answer {
    answers.try_recv().expect("no answer has arrived").1.expect("the answer is a failure")
}

/// `count` tokens that depend on `seed`.
pub(super) fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| 1 + (seed.wrapping_mul(7919) ^ i.wrapping_mul(seed.wrapping_add(104_729))) % (TOKENS - 1)).collect()
}
