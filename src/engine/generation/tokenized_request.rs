//! Converts a request to what the scheduler needs: tokens, and the guide that constrains the answer to its schema.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::sequence::{AnswerSender, CompletionState, GenerationJob, GenerationTask, ScoringState};
use super::traits::{Guide, TokenMask};
use crate::model::GeneratorModel;
use crate::prompt::SchemaConstraint;
use crate::request::{Generate, Priority, Prompt, Score};
use tidemill_base::failure::{Failure, FailureClass, Poison};

/// A request in tokens.
pub(crate) struct TokenizedRequest {
    pub(crate) group: Arc<str>,
    pub(crate) prompt: Arc<[u32]>,
    pub(crate) task: GenerationTask,
}

impl Guide for SchemaConstraint {
    fn forced(&mut self) -> Result<Vec<u32>, Poison> {
        Ok(SchemaConstraint::forced(self))
    }

    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), Poison> {
        SchemaConstraint::mask(self, allowed)
    }

    fn accept(&mut self, id: u32) -> Result<(), Poison> {
        SchemaConstraint::accept(self, id)
    }

    fn is_finished(&self) -> bool {
        SchemaConstraint::is_finished(self)
    }
}

impl TokenizedRequest {
    pub(crate) fn generate(model: &GeneratorModel, context: usize, ask: &Generate) -> Result<Self, Failure> {
        let prompt = encode(model, context, &ask.prompt, ask.max_tokens)?;
        let grammars = model.tokenizer.grammar_cache();
        let constraint = match (&ask.spans, &ask.schema) {
            (Some(spans), _) => Some(grammars.quoting(spans)?),
            (None, Some(schema)) => Some(grammars.constraint(schema)?),
            (None, None) => None,
        };
        let guide = constraint.map(|constraint| Box::new(constraint) as Box<dyn Guide>);
        let text = model.tokenizer.incremental_text();
        let task = GenerationTask::Complete(CompletionState::new(ask.max_tokens, ask.sampling, &ask.stop, guide, text));
        Ok(Self { group: ask.prompt.group.clone(), prompt, task })
    }

    /// Each scored answer includes the token that ends a turn. Otherwise an answer that is a prefix of a longer one would also get
    /// the longer one's probability.
    pub(crate) fn score(model: &GeneratorModel, context: usize, ask: &Score) -> Result<Self, Failure> {
        if ask.answers.is_empty() {
            return Err(Failure::poison(FailureClass::Model, "there are no answers to score"));
        }
        let end = model.tokenizer.end_id();
        let answer = |text: &Arc<str>| -> Result<Arc<[u32]>, Poison> {
            let mut ids = model.tokenizer.encode_text(text)?;
            ids.push(end);
            Ok(ids.into())
        };
        let answers: Vec<Arc<[u32]>> = ask.answers.iter().map(answer).collect::<Result<_, _>>()?;
        let longest = answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        let prompt = encode(model, context, &ask.prompt, longest)?;
        Ok(Self { group: ask.prompt.group.clone(), prompt, task: GenerationTask::Score(ScoringState::new(answers)) })
    }

    /// The job that answers the request at `index` of a call.
    pub(crate) fn into_job(
        self,
        priority: Priority,
        index: usize,
        reply: AnswerSender,
        permit: OwnedSemaphorePermit,
    ) -> GenerationJob {
        let Self { group, prompt, task } = self;
        GenerationJob { group, priority, prompt, task, index, reply, permit: Some(permit) }
    }

    /// The capacity that it takes among waiting jobs: the largest number of tokens that it may reach.
    pub(crate) fn weight(&self) -> usize {
        self.prompt.len() + self.task.extra()
    }
}

fn encode(model: &GeneratorModel, context: usize, prompt: &Prompt, extra: usize) -> Result<Arc<[u32]>, Failure> {
    let ids = model.tokenizer.encode(&prompt.messages)?;
    if ids.len() + extra > context {
        let reason = format!(
            "the prompt has {} tokens and {extra} may follow, and the model accepts {context} in total; shorten what the prompt quotes of the document, lower max_tokens, or use a model with a longer context",
            ids.len(),
        );
        return Err(Failure::poison(FailureClass::TooLong, reason));
    }
    Ok(ids.into())
}
