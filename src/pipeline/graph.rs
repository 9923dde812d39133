//! Runs the tasks of a pipeline on documents, and returns one outcome for each document and task.
//!
//! Tasks run level by level. Within a level, conditions, reusable results and equal requests are sorted out first; all remaining
//! requests go to the model host in one call, so that a text that several tasks need encoded is encoded once.

mod model_rounds;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::definition::Definition;
use super::definition_error::DefinitionProblem;
use super::passages::{FoundPassages, NoPassages, PassageSearch};
use super::task_definition::TaskDefinition;
use super::task_order::reads_tokens;
use crate::document::Document;
use crate::engine::{Answer, Engine, Prediction, Request};
use crate::failure::{Component, Failure, FailureClass, Poison, Transient};
use crate::outcome::{ComputedOutput, Cost, Fingerprint, Lineage, Outcome, Output, ReusedOutput, SkipReason};
use crate::prompt::PromptVersion;
use crate::task::{self, PassageQuery, Task, TaskStep, TemplateContext};
use crate::template::{Condition, ConditionError};

/// A pipeline's tasks, ready for documents.
pub struct Graph {
    engine: Engine,
    passage_search: Arc<dyn PassageSearch>,
    nodes: Vec<Node>,
    levels: Vec<Vec<usize>>,
    /// The model that counts `document.tokens`: the first one that the pipeline names. Absent where nothing reads
    /// `document.tokens`.
    counter: Option<Arc<str>>,
}

struct Node {
    name: Arc<str>,
    task: Arc<dyn Task>,
    lineage: Lineage,
    condition: Option<Condition>,
    needs: Vec<usize>,
    watches: Vec<usize>,
    /// Whether it reads `document.tokens`.
    reads_tokens: bool,
    /// Whether a later task, the copy or the leads read the output.
    is_read: bool,
    /// Whether its condition or a template reads anything.
    reads_context: bool,
}

/// Finds results that were computed before.
pub trait KnownResults: Send + Sync {
    /// One answer for each of `wanted`, in order; `None` where there is no such result.
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>>;
}

/// A result that is computed unless it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedResult {
    pub document_id: Arc<str>,
    pub task: Arc<str>,
    /// The hash of everything that the result depends on.
    pub fingerprint: Fingerprint,
    /// Whether a later task reads the output, so that the answer must contain it.
    pub output: bool,
    /// Whether the output was made without a model already. Then only an unchanged row saves any work.
    pub made: bool,
}

/// Has no results, so that everything is computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKnownResults;

impl KnownResults for NoKnownResults {
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>> {
        Box::pin(std::future::ready(Ok(vec![None; wanted.len()])))
    }
}

/// One document while it is evaluated.
struct DocumentState {
    context: TemplateContext,
    /// Why its tokens could not be counted.
    uncountable: Option<Poison>,
    outcomes: Vec<Option<Outcome>>,
}

/// One task on one document, by their indices.
#[derive(Clone, Copy)]
struct TaskRecord {
    document: usize,
    node: usize,
}

/// A task record that waits for answers of the model host.
struct ModelCalls {
    at: TaskRecord,
    fingerprint: Fingerprint,
    requests: Vec<Request>,
    cost: Cost,
    /// The predictions of the rounds before, the first round first.
    earlier: Vec<Vec<Prediction>>,
}

/// A task record whose condition holds.
struct PreparedTask {
    at: TaskRecord,
    step: TaskStep,
    /// What it has cost so far.
    cost: Cost,
}

/// A prepared task with the hash of everything that its output depends on.
struct FingerprintedTask {
    fingerprint: Fingerprint,
    task: PreparedTask,
}

impl Graph {
    /// Builds every task of `definition`, which encodes the descriptions of labels. An error is a [`DefinitionProblem`].
    pub async fn build(definition: &Definition, engine: &Engine) -> anyhow::Result<Self> {
        let mut nodes = Vec::with_capacity(definition.tasks.len());
        for task in &definition.tasks {
            let node = Node::build(task, definition, engine).await.map_err(|error| {
                DefinitionProblem::new(&definition.path, Some(task.place), format!("task `{}`: {error:#}", task.name))
            });
            nodes.push(node?);
        }
        let depth = definition.tasks.iter().map(|task| task.level + 1).max().unwrap_or(0);
        let mut levels = vec![Vec::new(); depth];
        for (index, task) in definition.tasks.iter().enumerate() {
            levels[task.level].push(index);
        }
        let counter =
            nodes.iter().any(|node| node.reads_tokens).then(|| definition.models().first().copied().map(Arc::from)).flatten();
        Ok(Self { engine: engine.clone(), passage_search: Arc::new(NoPassages), nodes, levels, counter })
    }

    /// Searches passages with `passage_search`. By default no passages are found.
    pub fn with_passage_search(self, passage_search: Arc<dyn PassageSearch>) -> Self {
        Self { passage_search, ..self }
    }

    /// The names of the tasks, in the order of [`evaluate`](Self::evaluate)'s outcomes.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().map(|node| &node.name)
    }

    /// Model and prompt of each task's outputs, in the same order.
    pub fn lineages(&self) -> Vec<Lineage> {
        self.nodes.iter().map(|node| node.lineage.clone()).collect()
    }

    /// The prompts of the tasks.
    pub fn prompts(&self) -> impl Iterator<Item = &PromptVersion> {
        self.nodes.iter().filter_map(|node| node.task.prompt())
    }

    /// For each of `documents`, one outcome for each task in the definition's order.
    ///
    /// # Errors
    /// Where a component is unavailable. The whole call is then to be retried.
    pub async fn evaluate(&self, documents: &[Document], known: &dyn KnownResults) -> Result<Vec<Vec<Outcome>>, Transient> {
        let mut states = self.initial_states(documents).await?;
        for level in &self.levels {
            self.run_level(level, documents, &mut states, known).await?;
        }
        let finished = states.into_iter().map(|state| state.outcomes.into_iter().collect::<Option<Vec<_>>>());
        finished.collect::<Option<_>>().ok_or_else(|| broken("a task of a document was left without an outcome"))
    }

    async fn initial_states(&self, documents: &[Document]) -> Result<Vec<DocumentState>, Transient> {
        let needs_context = self.nodes.iter().any(|node| node.reads_context);
        let counts = match &self.counter {
            Some(model) => self.count(model, documents).await?,
            None => Vec::new(),
        };
        let mut counts = counts.into_iter();
        let state = |document: &Document| {
            let (tokens, uncountable) = match counts.next() {
                Some(Ok(tokens)) => (Some(tokens), None),
                Some(Err(poison)) => (None, Some(poison)),
                None => (None, None),
            };
            let context = if needs_context { TemplateContext::of(document, tokens) } else { TemplateContext::default() };
            DocumentState { context, uncountable, outcomes: vec![None; self.nodes.len()] }
        };
        Ok(documents.iter().map(state).collect())
    }

    async fn count(&self, model: &str, documents: &[Document]) -> Result<Vec<Result<usize, Poison>>, Transient> {
        let texts = documents.iter().map(|document| document.text.clone()).collect();
        match self.engine.count_tokens(model, texts).await {
            Ok(counts) if counts.len() == documents.len() => return Ok(counts.into_iter().map(Ok).collect()),
            Ok(_) => {
                return Err(broken("the model host was given some texts, but counted the tokens of another number of texts"));
            }
            Err(Failure::Transient(transient)) => return Err(transient),
            Err(Failure::Poison(_)) => {}
        }
        // One of the texts cannot be counted. Counting one by one finds which, so that the others are counted.
        let mut all = Vec::with_capacity(documents.len());
        for document in documents {
            all.push(match self.engine.count_tokens(model, vec![document.text.clone()]).await {
                Ok(counts) => Ok(counts.first().copied().ok_or_else(|| broken("the model host counted no text"))?),
                Err(Failure::Poison(poison)) => Err(poison),
                Err(Failure::Transient(transient)) => return Err(transient),
            });
        }
        Ok(all)
    }

    async fn run_level(
        &self,
        level: &[usize],
        documents: &[Document],
        states: &mut [DocumentState],
        known: &dyn KnownResults,
    ) -> Result<(), Transient> {
        let mut prepared = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            for &node in level {
                match self.prepare(node, document, &states[index])? {
                    Ok(step) => {
                        let at = TaskRecord { document: index, node };
                        prepared.push(PreparedTask { at, step, cost: Cost::default() });
                    }
                    Err(outcome) => states[index].outcomes[node] = Some(outcome),
                }
            }
        }
        let prepared = self.find_passages(prepared, states).await?;
        let fingerprinted = |task: PreparedTask| {
            let TaskRecord { document, node } = task.at;
            let fingerprint = self.nodes[node].fingerprint(&documents[document], &states[document].context, &task.step);
            FingerprintedTask { fingerprint, task }
        };
        let tasks: Vec<FingerprintedTask> = prepared.into_iter().map(fingerprinted).collect();
        let reuses = self.look_up(&tasks, documents, known).await?;
        let mut firsts: HashMap<Fingerprint, TaskRecord> = HashMap::new();
        let mut calls = Vec::new();
        let mut copies = Vec::new();
        for (FingerprintedTask { fingerprint, task }, reuse) in tasks.into_iter().zip(reuses) {
            let PreparedTask { at, step, cost } = task;
            if let Some(reuse) = reuse {
                self.finish(at, Outcome::Reused(reuse), states);
                continue;
            }
            if let Some(&first) = firsts.get(&fingerprint) {
                copies.push((at, first));
                continue;
            }
            firsts.insert(fingerprint, at);
            match step {
                TaskStep::Ask(requests) => calls.push(ModelCalls { at, fingerprint, requests, cost, earlier: Vec::new() }),
                TaskStep::Ready(output) => {
                    self.finish(at, Outcome::Computed(ComputedOutput { output, fingerprint, cost }), states);
                }
                TaskStep::Find(_) => return Err(broken("a task still waits for passages after they were searched")),
            }
        }
        self.answer(calls, documents, states).await?;
        for (at, first) in copies {
            let outcome = match &states[first.document].outcomes[first.node] {
                Some(Outcome::Computed(computed)) => {
                    Outcome::Reused(ReusedOutput::Copied(ComputedOutput { cost: Cost::default(), ..computed.clone() }))
                }
                Some(other) => other.clone(),
                None => return Err(broken("a computed result went missing")),
            };
            self.finish(at, outcome, states);
        }
        Ok(())
    }

    /// The task's first step on the document, or its outcome where it does not run.
    fn prepare(&self, node: usize, document: &Document, state: &DocumentState) -> Result<Result<TaskStep, Outcome>, Transient> {
        let node = &self.nodes[node];
        let has_output = |index: &usize| matches!(state.outcomes[*index], Some(Outcome::Computed(_) | Outcome::Reused(_)));
        if !node.needs.iter().all(has_output) {
            return Ok(Err(Outcome::Skipped(SkipReason::Upstream)));
        }
        if let Some(poison) = &state.uncountable
            && node.reads_tokens
        {
            return Ok(Err(Outcome::Dead(poison.clone())));
        }
        if let Some(condition) = &node.condition {
            match condition.holds(&state.context.context()) {
                Ok(true) => {}
                Ok(false) => return Ok(Err(Outcome::Skipped(SkipReason::Condition))),
                Err(ConditionError::Absent(_)) if !node.watches.iter().all(has_output) => {
                    return Ok(Err(Outcome::Skipped(SkipReason::Upstream)));
                }
                Err(ConditionError::Absent(reason)) => {
                    return Ok(Err(Outcome::Dead(Poison { class: FailureClass::MissingField, reason })));
                }
                Err(ConditionError::Poison(poison)) => return Ok(Err(Outcome::Dead(poison))),
            }
        }
        match node.task.prepare(document, &state.context) {
            Ok(prepared) => Ok(Ok(prepared)),
            Err(Failure::Poison(poison)) => Ok(Err(Outcome::Dead(poison))),
            Err(Failure::Transient(transient)) => Err(transient),
        }
    }

    async fn look_up(
        &self,
        tasks: &[FingerprintedTask],
        documents: &[Document],
        known: &dyn KnownResults,
    ) -> Result<Vec<Option<ReusedOutput>>, Transient> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<WantedResult> = tasks
            .iter()
            .map(|FingerprintedTask { fingerprint, task }| WantedResult {
                document_id: documents[task.at.document].id.clone(),
                task: self.nodes[task.at.node].name.clone(),
                fingerprint: *fingerprint,
                output: self.nodes[task.at.node].is_read,
                made: matches!(task.step, TaskStep::Ready(_)),
            })
            .collect();
        let mut reuses = known.look_up(&wanted).await?;
        if reuses.len() != wanted.len() {
            let reason = format!("{} results were looked up, but {} answers came back", wanted.len(), reuses.len());
            return Err(Transient::new(Component::Database, reason));
        }
        for ((reuse, wanted), FingerprintedTask { task, .. }) in reuses.iter_mut().zip(&wanted).zip(tasks) {
            match (&mut *reuse, &task.step) {
                (Some(ReusedOutput::Unchanged { output, .. }), TaskStep::Ready(made)) if wanted.output => {
                    *output = Some(made.clone())
                }
                // Without its output, a later task would treat this one as skipped. So it is computed again.
                (Some(known), _) if wanted.output && known.output().is_none() => *reuse = None,
                _ => {}
            }
        }
        Ok(reuses)
    }

    fn finish(&self, at: TaskRecord, outcome: Outcome, states: &mut [DocumentState]) {
        let output = match &outcome {
            Outcome::Computed(computed) => Some(&computed.output),
            Outcome::Reused(reuse) => reuse.output(),
            Outcome::Skipped(_) | Outcome::Dead(_) => None,
        };
        let TaskRecord { document, node } = at;
        if let Some(output) = output
            && self.nodes[node].is_read
        {
            states[document].context.insert(&self.nodes[node].name, output);
        }
        states[document].outcomes[node] = Some(outcome);
    }
}

impl Node {
    async fn build(task: &TaskDefinition, definition: &Definition, engine: &Engine) -> anyhow::Result<Self> {
        let condition = task.when.as_deref().map(Condition::new).transpose()?;
        let model = task.spec.model().and_then(|name| engine.model(name));
        let position = |name: &Arc<str>| definition.tasks.iter().position(|task| task.name == *name);
        let built = task::build(&task.name, &task.spec, engine, definition.base_dir()).await?;
        let reads = task.spec.reads(definition.base_dir());
        let mut paths = condition.iter().flat_map(|condition| condition.variables()).chain(&reads);
        Ok(Self {
            name: task.name.clone(),
            lineage: Lineage {
                model: model.map(|model| model.name.clone()),
                revision: model.map(|model| model.revision.as_str().into()),
                prompt: built.prompt().map(|prompt| prompt.version().into()),
            },
            reads_context: condition.is_some() || !reads.is_empty() || built.prompt().is_some() || model.is_none(),
            task: built,
            reads_tokens: paths.any(|path| reads_tokens(path)),
            condition,
            needs: task.needs.iter().filter_map(position).collect(),
            watches: task.watches.iter().filter_map(position).collect(),
            is_read: definition.is_read(&task.name),
        })
    }

    /// The hash of everything that the output depends on. The whole text is part of it, even where a request holds only parts of
    /// the text, because outputs contain positions in the text.
    fn fingerprint(&self, document: &Document, context: &TemplateContext, step: &TaskStep) -> Fingerprint {
        let mut parts: Vec<&[u8]> = vec![self.task.signature()];
        for part in [&self.lineage.model, &self.lineage.revision].into_iter().flatten() {
            parts.push(part.as_bytes());
        }
        let content = match step {
            TaskStep::Ask(requests) => {
                let work: Vec<_> = requests.iter().map(|request| &request.work).collect();
                serde_json::to_vec(&work)
            }
            // The output depends on the passages found, not on the query.
            TaskStep::Find(_) => Ok(Vec::new()),
            TaskStep::Ready(output) => serde_json::to_vec(&(output.kind(), output.text(), output.fields())),
        };
        // Writing cannot fail: requests and outputs consist of texts and numbers.
        let content = content.unwrap_or_default();
        parts.push(&content);
        parts.push(document.text.as_bytes());
        let further = self.task.further_inputs(document, context);
        if !further.is_empty() {
            parts.push(&further);
        }
        Fingerprint::of(parts)
    }
}

fn broken(reason: &str) -> Transient {
    Transient::new(Component::Model, reason.to_owned())
}

#[cfg(test)]
mod generator_tests;
#[cfg(test)]
mod tests;
