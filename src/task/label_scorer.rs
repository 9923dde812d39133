//! Classification with a generator: scores how likely each label is as the complete answer to a prompt, without generating text.
//!
//! A model prefers some answers regardless of the question: common words, and the first or last item of a list. The task therefore
//! asks once how the model scores each label for a document without content, and subtracts these scores. What remains is the
//! influence of the document (contextual calibration). A model in memory is asked when the task is built. A server is asked before
//! the first document, because it may be down when the task is built. A server reports scores of some labels only; if the scores of
//! the empty document are incomplete, nothing is subtracted.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::{Map, json};
use tokio::sync::OnceCell;

use super::TemplateContext;
use super::context_budget::ContextBudget;
use super::labels::Labels;
use super::prompt_file::PromptFile;
use super::task_prompt::{PromptSettings, TaskPrompt, names_read};
use crate::engine::{Engine, LEAST_SCORE, ModelInfo, Prediction, Prompt, Request, Score, Work};
use crate::failure::{Component, Failure, Transient};
use crate::prompt::PromptVersion;

/// Most tokens of a label. They must fit into the context after the prompt.
const LABEL_TOKENS: usize = 32;

/// The name of the labels in prompt templates; each has `label` and `description`.
const LABELS: &str = "labels";

const SYSTEM: &str = "You label documents. Answer with exactly one of the labels and nothing else.";

const BODY: &str = "The labels and what they mean:
{% for option in labels %}- {{ option.label }}: {{ option.description }}
{% endfor %}
The document:
{{ document.text }}

Which of the labels is the document's?";

/// Scores labels as answers to a prompt.
#[derive(Debug)]
pub(super) struct LabelScorer {
    task_prompt: TaskPrompt,
    answers: Arc<[Arc<str>]>,
    /// Log probability of each answer for a document without content. Empty until the server has reported it.
    prior: OnceCell<Vec<f32>>,
    /// The request that asks a server for the prior. `None` for a model in memory.
    pending_prior: Option<PendingPrior>,
    budget: ContextBudget,
}

/// The request for a document without content, not yet answered.
#[derive(Debug)]
struct PendingPrior {
    task: Arc<str>,
    request: Request,
}

impl LabelScorer {
    /// The problem in the prompt at `path`, if there is one.
    pub(super) fn problem(path: &Path) -> Option<String> {
        match read(Some(path)) {
            Err(fault) => Some(fault),
            Ok(_) if !Self::reads(path).iter().any(|name| name == "document.text" || name == "document") => {
                Some("has a prompt that does not read `document.text`".into())
            }
            Ok(_) => None,
        }
    }

    /// The names that the prompt at `path` reads.
    pub(super) fn reads(path: &Path) -> Vec<String> {
        names_read(path, &[LABELS]).unwrap_or_default()
    }

    /// Reads the prompt. Asks a model in memory for its prior.
    pub(super) async fn prepare(
        engine: &Engine,
        task: &str,
        model: &ModelInfo,
        labels: &Labels,
        prompt: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let task_prompt = task_prompt(task, model, labels, prompt)?;
        let answers: Arc<[Arc<str>]> = labels.0.iter().map(|(label, _)| label.as_str().into()).collect();
        let without_content = task_prompt.render_without_content().map_err(|poison| {
            anyhow::anyhow!(
                "prompt `{}` cannot be rendered for a document without content, which is needed to measure what the model prefers \
                 by itself: {}",
                task_prompt.version.name,
                poison.reason
            )
        })?;
        let request = Request { model: model.name.clone(), work: score(without_content, &answers) };
        let budget = ContextBudget::of(engine, model)?;
        if engine.is_remote(&model.name) {
            return Ok(Self {
                task_prompt,
                answers,
                prior: OnceCell::new(),
                pending_prior: Some(PendingPrior { task: task.into(), request }),
                budget,
            });
        }
        let failed = "the labels cannot be scored for a document without content";
        let answer = engine.run(vec![request]).await.context(failed)?.pop().context("the engine gave no answer")?;
        let Prediction::Scores(prior) = answer.context(failed)?.prediction else {
            bail!("model `{}` did not answer with scores of the labels", model.name);
        };
        Self::new(task_prompt, answers, prior, budget)
    }

    pub(super) fn new(
        task_prompt: TaskPrompt,
        answers: Arc<[Arc<str>]>,
        prior: Vec<f32>,
        budget: ContextBudget,
    ) -> anyhow::Result<Self> {
        ensure!(prior.len() == answers.len(), "the model scored {} of {} labels", prior.len(), answers.len());
        let impossible = prior.iter().position(|score| !score.is_finite());
        if let Some(index) = impossible {
            bail!("the model cannot give the answer `{}` at all: choose another name for the label", answers[index]);
        }
        Ok(Self { task_prompt, answers, prior: OnceCell::new_with(Some(prior)), pending_prior: None, budget })
    }

    /// Asks a server for the prior, once.
    ///
    /// # Errors
    /// If the server cannot answer. The failure is transient, because no document causes it.
    pub(super) async fn initialize(&self, engine: &Engine) -> Result<(), Transient> {
        let Some(PendingPrior { task, request }) = &self.pending_prior else { return Ok(()) };
        let failed = |reason: &str| {
            let reason = format!("task `{task}`: the labels cannot be scored for a document without content: {reason}");
            Transient::new(Component::Model, reason)
        };
        let ask = async || {
            let answer = engine.run(vec![request.clone()]).await?.pop().ok_or_else(|| failed("the engine gave no answer"))?;
            match answer.map(|answer| answer.prediction) {
                Ok(Prediction::Scores(prior)) if prior.len() == self.answers.len() => Ok(prior),
                Ok(_) => Err(failed("the model did not answer with scores of the labels")),
                Err(failure) => Err(failed(&failure.to_string())),
            }
        };
        self.prior.get_or_try_init(ask).await.map(|_| ())
    }

    pub(super) fn prompt(&self) -> &PromptVersion {
        &self.task_prompt.version
    }

    /// The request that scores the labels for as much of `text` as fits into the context of the model.
    pub(super) fn work(&self, text: &str, upstream: &TemplateContext) -> Result<Work, Failure> {
        let available = self.budget.tokens(&self.task_prompt, upstream)?;
        // If nothing fits, the engine reports that the whole prompt is too long.
        if available == 0 || self.budget.fits(text, available)? {
            return Ok(score(self.task_prompt.render(upstream, Vec::new())?, &self.answers));
        }
        let pieces = self.budget.split(text, available, 0)?;
        let first = pieces.first().and_then(|piece| text.get(piece.start..piece.end)).unwrap_or(text);
        let prompt = self.task_prompt.render(&upstream.with_text(first), Vec::new())?;
        Ok(score(prompt, &self.answers))
    }

    /// What the document adds to the log probability of each label.
    ///
    /// # Errors
    /// If the server has not reported its prior yet.
    pub(super) fn corrected(&self, scores: &[f32]) -> Result<Vec<f32>, Transient> {
        let unknown =
            || Transient::new(Component::Model, "the scores of the labels for a document without content are not known yet");
        let prior = self.prior.get().ok_or_else(unknown)?;
        let is_reported = |score: &f32| self.pending_prior.is_none() || *score > LEAST_SCORE;
        if !prior.iter().all(is_reported) {
            return Ok(scores.to_vec());
        }
        // A label without a reported score must not win because its prior is low.
        Ok(scores.iter().zip(prior).map(|(score, prior)| if is_reported(score) { score - prior } else { *score }).collect())
    }
}

fn score(prompt: Prompt, answers: &Arc<[Arc<str>]>) -> Work {
    Work::Score(Score { prompt, answers: answers.clone() })
}

pub(super) fn task_prompt(task: &str, model: &ModelInfo, labels: &Labels, prompt: Option<&Path>) -> anyhow::Result<TaskPrompt> {
    let file = read(prompt).map_err(anyhow::Error::msg)?;
    let option = |(label, descriptions): &(String, Vec<String>)| json!({"label": label, "description": descriptions.join("; ")});
    let options: serde_json::Value = labels.0.iter().map(option).collect();
    let settings = PromptSettings {
        default_max_tokens: LABEL_TOKENS,
        parameters: Map::from_iter([(LABELS.to_owned(), options.clone())]),
        constants: vec![(LABELS, Value::from(Serde(options)))],
        ..PromptSettings::new(task, model)
    };
    TaskPrompt::new(file, settings)
}

fn read(prompt: Option<&Path>) -> Result<PromptFile, String> {
    let Some(path) = prompt else {
        return Ok(PromptFile::built_in("built-in/classify", SYSTEM, BODY));
    };
    let file = PromptFile::read(path).map_err(|fault| format!("has a bad prompt: {fault}"))?;
    match file.schema {
        Some(_) => Err(format!("has a prompt with a schema, `{}`, but labels are plain answers: leave it out", file.name)),
        None => Ok(file),
    }
}

#[cfg(test)]
pub(super) mod tests;
