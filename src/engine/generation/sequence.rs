//! One request in progress: its tokens, its blocks and its result.

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

/// Receives the answer to the request at an index of its call.
pub(crate) type AnswerSender = UnboundedSender<(usize, Result<Answer, Failure>)>;

/// A tokenized request with its reply channel.
pub(crate) struct GenerationJob {
    /// Prompts of one group start alike and share prefixes.
    pub(crate) group: Arc<str>,
    pub(crate) priority: Priority,
    /// The prompt, including special tokens.
    pub(crate) prompt: Arc<[u32]>,
    pub(crate) task: GenerationTask,
    /// The request's index in its call.
    pub(crate) index: usize,
    pub(crate) reply: AnswerSender,
    /// Capacity for the job's tokens, released when the job is done.
    #[expect(dead_code, reason = "dropping it releases the capacity")]
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// What to do with a prompt.
pub(crate) enum GenerationTask {
    Complete(CompletionState),
    /// Score answers to it.
    Score(ScoringState),
}

/// A completion in progress, with its parameters.
pub(crate) struct CompletionState {
    max_tokens: usize,
    sampling: Sampling,
    stops: Vec<Box<str>>,
    guide: Option<Box<dyn Guide>>,
    text: CompletionText,
    written: usize,
}

/// Answers, each including the token that ends a turn, and their scores so far.
pub(crate) struct ScoringState {
    pub(super) answers: Vec<Arc<[u32]>>,
    /// One per answer, after the prompt has been read: the sum over the tokens scored so far.
    pub(super) scores: Vec<f32>,
    /// The first answer of which no more than the first token has been scored.
    pub(super) next: usize,
}

/// A job in progress.
pub(super) struct Sequence {
    pub(super) job: GenerationJob,
    /// The prompt and the generated tokens.
    pub(super) tokens: Vec<u32>,
    /// Tokens whose keys and values are in the blocks.
    pub(super) past: usize,
    /// The number of tokens at admission. There are blocks for them.
    pub(super) target: usize,
    /// The blocks, in order. The first ones may be shared.
    pub(super) table: Vec<u32>,
    /// The cached prefix that it started with.
    pub(super) prefix: Option<u64>,
    /// Tokens of the prompt that were read for it, set on the first admission. Tokens read again after a preemption are not
    /// counted.
    pub(super) read: Option<usize>,
    pub(super) nanos: f64,
}

impl CompletionState {
    /// A completion of at most `max_tokens` tokens that ends at any of the `stop` texts. `text` must be empty.
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

    /// Lends the guide, so that masks can be computed during the forward pass.
    pub(super) fn guide(&mut self) -> Option<&mut Box<dyn Guide>> {
        self.guide.as_mut()
    }

    /// Appends the tokens that the schema forces. Returns the reason if that finishes the completion.
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

    /// Appends a token. Returns whether it completes a stop text.
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
    /// Each answer is given by its tokens, including the one that ends a turn.
    pub(crate) fn new(answers: Vec<Arc<[u32]>>) -> Self {
        Self { answers, scores: Vec::new(), next: 0 }
    }

    /// The next answer that has more than its first token left to score.
    pub(super) fn next_answer(&mut self) -> Option<usize> {
        self.next += self.answers[self.next..].iter().take_while(|answer| answer.len() < 2).count();
        (self.next < self.answers.len()).then_some(self.next)
    }

    /// Scores the first token of every answer with the logits that follow the prompt.
    fn begin(&mut self, logits: &[f32]) -> Result<(), Poison> {
        if self.scores.is_empty() {
            let normaliser = normaliser(logits)?;
            self.scores = self.answers.iter().map(|answer| logits[answer[0] as usize] - normaliser).collect();
        }
        Ok(())
    }

    /// Adds the score of the token after `place`, from the logits at `place`.
    pub(super) fn add(&mut self, answer: usize, place: usize, logits: &[f32]) -> Result<(), Poison> {
        let next = self.answers[answer][place + 1];
        self.scores[answer] += logits[next as usize] - normaliser(logits)?;
        Ok(())
    }
}

impl GenerationTask {
    /// Tokens beyond the prompt that need blocks.
    pub(super) fn extra(&self) -> usize {
        match self {
            Self::Complete(completion) => completion.max_tokens,
            Self::Score(scoring) => scoring.answers.iter().map(|answer| answer.len()).max().unwrap_or(0),
        }
    }
}

impl GenerationJob {
    /// Whether the caller has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

impl Sequence {
    pub(super) fn new(job: GenerationJob) -> Self {
        let tokens = job.prompt.to_vec();
        Self { job, tokens, past: 0, target: 0, table: Vec::new(), prefix: None, read: None, nanos: 0.0 }
    }

    /// Does what is possible before the prompt is read. Returns the reason if that finishes the job.
    pub(super) fn begin(&mut self, vocabulary: &dyn Vocabulary) -> Result<Option<Finish>, Poison> {
        match &mut self.job.task {
            GenerationTask::Complete(completion) => completion.follow(&mut self.tokens, vocabulary),
            GenerationTask::Score(scoring) => Ok(scoring.answers.is_empty().then_some(Finish::Stop)),
        }
    }

    /// Processes the logits after the last known token.
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

    /// Processes the logits of answers, from row `first` on: one row after each token except the last.
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

    /// Tokens of these answers that are read: all except the last of each.
    pub(super) fn tokens_of(&self, branches: &[AnswerBranch]) -> usize {
        let GenerationTask::Score(scoring) = &self.job.task else { return 0 };
        branches.iter().map(|branch| scoring.answers[branch.answer].len() - 1).sum()
    }

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
        // A caller that has stopped waiting needs no answer.
        let _ = self.job.reply.send((self.job.index, answer));
    }

    /// Known tokens that have not been read.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.past
    }

    /// Whether it is still reading tokens that were known on admission.
    pub(super) fn is_reading(&self) -> bool {
        self.past < self.target
    }

    /// Blocks for this many tokens.
    pub(super) fn blocks_for(tokens: usize) -> usize {
        tokens.div_ceil(BLOCK_TOKENS)
    }
}
