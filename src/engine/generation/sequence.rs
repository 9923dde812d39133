//! One request on its way: its tokens, its blocks, and what has come of it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

use super::completion_text::CompletionText;
use super::sampler::{choose, normaliser};
use super::step_part::AnswerBranch;
use super::traits::{BLOCK_TOKENS, Guide, Logits, TokenMask, Vocabulary};
use crate::completion::{Completion, Finish};
use crate::prompt::IncrementalText;
use crate::request::{Answer, Prediction, Priority, Sampling};
use tidemill_base::failure::{Failure, Poison};

/// The answer to the request at an index of its call.
pub(crate) type AnswerSender = UnboundedSender<(usize, Result<Answer, Failure>)>;

/// What is asked, in tokens.
pub(crate) struct GenerationJob {
    /// Who asks.
    pub(crate) group: Arc<str>,
    /// Whether it goes first.
    pub(crate) priority: Priority,
    /// The prompt, special tokens included.
    pub(crate) prompt: Arc<[u32]>,
    /// What to do with it.
    pub(crate) task: GenerationTask,
    /// Its place in its call.
    pub(crate) index: usize,
    /// Where the answer goes.
    pub(crate) reply: AnswerSender,
    /// Room among the jobs, given back when this one is done.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// What to do with a prompt.
pub(crate) enum GenerationTask {
    /// Complete it.
    Complete(CompletionState),
    /// Weigh answers to it.
    Score(ScoringState),
}

/// A completion and how it is to be made.
pub(crate) struct CompletionState {
    max_tokens: usize,
    sampling: Sampling,
    stops: Vec<Box<str>>,
    guide: Option<Box<dyn Guide>>,
    text: CompletionText,
    written: usize,
}

/// Answers, each with the token that ends a turn, and their scores so far.
pub(crate) struct ScoringState {
    pub(super) answers: Vec<Arc<[u32]>>,
    /// One an answer, once the prompt has been read: the sum over the tokens scored so far.
    pub(super) scores: Vec<f32>,
    /// The first answer of which only the first token is scored.
    pub(super) next: usize,
}

/// A job with its place on the device.
pub(super) struct Sequence {
    pub(super) job: GenerationJob,
    /// The prompt and what was written.
    pub(super) tokens: Vec<u32>,
    /// Tokens whose keys and values are in the blocks.
    pub(super) past: usize,
    /// Tokens that were known on admission, for which there are blocks.
    pub(super) target: usize,
    /// The blocks, in order. The leading ones may have other holders.
    pub(super) table: Vec<u32>,
    /// The kept prefix it began with.
    pub(super) prefix: Option<u64>,
    /// Tokens of the prompt that were read for it, once they are; those read again after a preemption are not counted.
    pub(super) read: Option<usize>,
    pub(super) nanos: f64,
}

impl CompletionState {
    /// A completion of at most `max_tokens` tokens that ends where one of `stop` comes up; `text` is empty.
    pub(crate) fn new(
        max_tokens: usize,
        sampling: Sampling,
        stop: &[String],
        guide: Option<Box<dyn Guide>>,
        text: IncrementalText,
    ) -> Self {
        let stops = stop.iter().map(|stop| stop.as_str().into()).collect();
        Self { max_tokens, sampling, stops, guide, text: CompletionText::new(text), written: 0 }
    }

    /// Lends the guide out, for masks to be made while the device computes.
    pub(super) fn guide(&mut self) -> Option<&mut Box<dyn Guide>> {
        self.guide.as_mut()
    }

    /// Takes what the schema forces, after which the completion may be finished.
    fn follow(&mut self, tokens: &mut Vec<u32>, vocabulary: &dyn Vocabulary) -> Result<Option<Finish>, Poison> {
        if self.guide.as_ref().is_some_and(|guide| guide.is_finished()) {
            return Ok(Some(Finish::Stop));
        }
        let forced = self.guide.as_mut().map(|guide| guide.forced()).transpose()?.unwrap_or_default();
        for id in forced {
            if self.written == self.max_tokens {
                return Ok(Some(Finish::Length));
            }
            if self.append(tokens, id, None, vocabulary) {
                return Ok(Some(Finish::Stop));
            }
        }
        if self.guide.as_ref().is_some_and(|guide| guide.is_finished()) {
            return Ok(Some(Finish::Stop));
        }
        Ok((self.written == self.max_tokens).then_some(Finish::Length))
    }

    /// Adds a token and says whether it completes a stop text.
    fn append(&mut self, tokens: &mut Vec<u32>, id: u32, log_probability: Option<f32>, vocabulary: &dyn Vocabulary) -> bool {
        tokens.push(id);
        self.written += 1;
        self.text.push(vocabulary.piece(id), log_probability);
        self.text.stopped(&self.stops)
    }

    /// Chooses the next token.
    fn advance(
        &mut self,
        tokens: &mut Vec<u32>,
        logits: &[f32],
        mask: Option<&TokenMask>,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Option<Finish>, Poison> {
        let choice = choose(logits, mask, &self.sampling, self.written)?;
        if vocabulary.ends(choice.id) {
            return Ok(Some(Finish::Stop));
        }
        if let Some(guide) = &mut self.guide {
            guide.accept(choice.id)?;
        }
        if self.append(tokens, choice.id, Some(choice.log_probability), vocabulary) {
            return Ok(Some(Finish::Stop));
        }
        self.follow(tokens, vocabulary)
    }
}

impl ScoringState {
    /// Answers to weigh: the tokens of each, with the one that ends a turn.
    pub(crate) fn new(answers: Vec<Arc<[u32]>>) -> Self {
        Self { answers, scores: Vec::new(), next: 0 }
    }

    /// The next answer that more than its first token is left of.
    pub(super) fn next_answer(&mut self) -> Option<usize> {
        self.next += self.answers[self.next..].iter().take_while(|answer| answer.len() < 2).count();
        (self.next < self.answers.len()).then_some(self.next)
    }

    /// Scores the first token of every answer by what follows the prompt.
    fn begin(&mut self, logits: &[f32]) -> Result<(), Poison> {
        if self.scores.is_empty() {
            let normaliser = normaliser(logits)?;
            self.scores = self.answers.iter().map(|answer| logits[answer[0] as usize] - normaliser).collect();
        }
        Ok(())
    }

    /// Adds what the logits after token `place` of an answer say about the next one.
    pub(super) fn add(&mut self, answer: usize, place: usize, logits: &[f32]) -> Result<(), Poison> {
        let next = self.answers[answer][place + 1];
        self.scores[answer] += logits[next as usize] - normaliser(logits)?;
        Ok(())
    }
}

impl GenerationTask {
    /// Tokens beyond the prompt that have to have permit.
    pub(super) fn extra(&self) -> usize {
        match self {
            Self::Complete(completion) => completion.max_tokens,
            Self::Score(scoring) => scoring.answers.iter().map(|answer| answer.len()).max().unwrap_or(0),
        }
    }
}

impl GenerationJob {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Sequence {
    pub(super) fn new(job: GenerationJob) -> Self {
        let tokens = job.prompt.to_vec();
        Self { job, tokens, past: 0, target: 0, table: Vec::new(), prefix: None, read: None, nanos: 0.0 }
    }

    /// Takes what is certain before anything is read.
    pub(super) fn begin(&mut self, vocabulary: &dyn Vocabulary) -> Result<Option<Finish>, Poison> {
        match &mut self.job.task {
            GenerationTask::Complete(completion) => completion.follow(&mut self.tokens, vocabulary),
            GenerationTask::Score(scoring) => Ok(scoring.answers.is_empty().then_some(Finish::Stop)),
        }
    }

    /// Takes the logits after the last token that is known.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        mask: Option<&TokenMask>,
        vocabulary: &dyn Vocabulary,
    ) -> Result<Option<Finish>, Poison> {
        match &mut self.job.task {
            GenerationTask::Complete(completion) => completion.advance(&mut self.tokens, logits, mask, vocabulary),
            GenerationTask::Score(scoring) => {
                scoring.begin(logits)?;
                Ok(scoring.next_answer().is_none().then_some(Finish::Stop))
            }
        }
    }

    /// Takes the logits of answers, from row `first` on: one after each token but the last.
    pub(super) fn score(
        &mut self,
        answers: impl Iterator<Item = usize>,
        logits: &Logits,
        first: usize,
    ) -> Result<Option<Finish>, Poison> {
        let GenerationTask::Score(scoring) = &mut self.job.task else { return Ok(None) };
        let mut row = first;
        for answer in answers {
            for place in 0..scoring.answers[answer].len() - 1 {
                scoring.add(answer, place, logits.row_ref(row))?;
                row += 1;
            }
        }
        Ok(scoring.next_answer().is_none().then_some(Finish::Stop))
    }

    /// Tokens that are read of answers: all but the last of each.
    pub(super) fn tokens_of(&self, branches: &[AnswerBranch]) -> usize {
        let GenerationTask::Score(scoring) = &self.job.task else { return 0 };
        branches.iter().map(|branch| scoring.answers[branch.answer].len() - 1).sum()
    }

    /// Answers whoever waits.
    pub(super) fn close(self, outcome: Result<Finish, Poison>) {
        let generated = (self.tokens.len() - self.job.prompt.len()) as u32;
        let tokens = self.read.unwrap_or(0) as u32;
        let device_micros = (self.nanos / 1e3).round() as u64;
        let prediction = outcome.map(|finish| match self.job.task {
            GenerationTask::Complete(completion) => {
                let (text, tokens) = completion.text.finish();
                Prediction::Completion(Completion { text, tokens, finish })
            }
            GenerationTask::Score(scoring) => Prediction::Scores(scoring.scores),
        });
        let answer = prediction.map(|prediction| Answer { prediction, tokens, generated, device_micros }).map_err(Failure::from);
        // A caller that has gone away needs no answer.
        let _ = self.job.reply.send((self.job.index, answer));
    }

    /// Tokens that are known and not yet read.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.past
    }

    /// Whether it still reads what was known on admission.
    pub(super) fn is_reading(&self) -> bool {
        self.past < self.target
    }

    /// Blocks that so many tokens need.
    pub(super) fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }
}
