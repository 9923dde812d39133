//! The task graph at work: documents in, one outcome a document and task out.
//!
//! Tasks run level by level. Within a level, all that is left to ask after conditions, earlier results and equal requests goes
//! to the model host in one call, so that a text that several tasks want encoded is encoded once.

mod model_rounds;

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::definition::{Definition, TaskDefinition};
use super::definition_error::DefinitionProblem;
use super::passages::{FoundPassages, NoPassages, PassageSearch};
use super::task_order::reads_tokens;
use crate::document::Document;
use crate::engine::{Answer, Engine, Request};
use crate::failure::{Component, Failure, FailureClass, Poison, Transient};
use crate::outcome::{ComputedOutput, Cost, Fingerprint, Lineage, Outcome, Output, ReusedOutput, SkipReason};
use crate::prompt::PromptVersion;
use crate::task::{self, PassageQuery, Task, TaskStep, TemplateContext};
use crate::template::{Condition, ConditionError};

/// A pipeline's tasks, ready for documents.
pub struct Graph {
    engine: Engine,
    library: Arc<dyn PassageSearch>,
    nodes: Vec<Node>,
    levels: Vec<Vec<usize>>,
    /// The model whose tokens `document.tokens` counts: the first that the pipeline names. Absent where nobody reads it.
    counter: Option<Arc<str>>,
}

struct Node {
    name: Arc<str>,
    task: Arc<dyn Task>,
    lineage: Lineage,
    condition: Option<Condition>,
    needs: Vec<usize>,
    watches: Vec<usize>,
    counts: bool,
    /// Whether a later task, copy or a lead reads the output.
    read: bool,
    /// Whether a condition or a template of the node reads anything.
    looks: bool,
}

/// Finds results that were computed before.
pub trait KnownResults: Send + Sync {
    /// One answer for each of `wanted`, in order; `None` where nothing is known.
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>>;
}

/// A result that need not be computed if it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedResult {
    /// The document.
    pub document_id: Arc<str>,
    /// The task.
    pub task: Arc<str>,
    /// What the result must be of.
    pub fingerprint: Fingerprint,
    /// Whether a later task reads the output, so that the answer must carry it.
    pub output: bool,
    /// Whether the output is at hand, made without a model: only a row that holds it already saves anything then.
    pub made: bool,
}

/// Knows nothing: everything is computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoKnownResults;

impl KnownResults for NoKnownResults {
    fn look_up<'a>(&'a self, wanted: &'a [WantedResult]) -> BoxFuture<'a, Result<Vec<Option<ReusedOutput>>, Transient>> {
        Box::pin(std::future::ready(Ok(vec![None; wanted.len()])))
    }
}

/// What is known of one document while it is evaluated.
struct DocumentState {
    upstream: TemplateContext,
    uncountable: Option<Poison>,
    outcomes: Vec<Option<Outcome>>,
}

/// One document and task that waits for answers.
struct ModelCalls {
    at: (usize, usize),
    fingerprint: Fingerprint,
    requests: Vec<Request>,
    cost: Cost,
}

/// One document and task of a level, past its condition.
struct PreparedTask {
    document: usize,
    node: usize,
    prepared: TaskStep,
    /// What it has cost so far.
    cost: Cost,
}

/// The same, with all that decides its output.
struct FingerprintedTask {
    fingerprint: Fingerprint,
    waiting: PreparedTask,
}

impl Graph {
    /// Makes every task of `definition` ready, which encodes the descriptions of labels. An error is a [`DefinitionProblem`].
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
        let counter = nodes.iter().any(|node| node.counts).then(|| definition.models().first().copied().map(Arc::from)).flatten();
        Ok(Self { engine: engine.clone(), library: Arc::new(NoPassages), nodes, levels, counter })
    }

    /// With documents to find passages in; without, none are found.
    pub fn with_passage_search(self, library: Arc<dyn PassageSearch>) -> Self {
        Self { library, ..self }
    }

    /// The names of the tasks, in the order of [`evaluate`](Self::evaluate)'s outcomes.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.iter().map(|node| &node.name)
    }

    /// Where the outputs of each task come from, in the same order.
    pub fn lineages(&self) -> Vec<Lineage> {
        self.nodes.iter().map(|node| node.lineage.clone()).collect()
    }

    /// The prompts that outputs come from.
    pub fn prompts(&self) -> impl Iterator<Item = &PromptVersion> {
        self.nodes.iter().filter_map(|node| node.task.prompt())
    }

    /// For each of `documents`, one outcome a task in the definition's order.
    ///
    /// An error means that nothing came of it and the whole call is to be tried again.
    pub async fn evaluate(&self, documents: &[Document], known: &dyn KnownResults) -> Result<Vec<Vec<Outcome>>, Transient> {
        let mut sheets = self.open(documents).await?;
        for level in &self.levels {
            self.run_level(level, documents, &mut sheets, known).await?;
        }
        let finished = sheets.into_iter().map(|sheet| sheet.outcomes.into_iter().collect::<Option<Vec<_>>>());
        finished.collect::<Option<_>>().ok_or_else(|| broken("a unit of work was left without an outcome"))
    }

    async fn open(&self, documents: &[Document]) -> Result<Vec<DocumentState>, Transient> {
        let looked_at = self.nodes.iter().any(|node| node.looks);
        let counts = match &self.counter {
            Some(model) => self.count(model, documents).await?,
            None => Vec::new(),
        };
        let mut counts = counts.into_iter();
        let sheet = |document: &Document| {
            let (tokens, uncountable) = match counts.next() {
                Some(Ok(tokens)) => (Some(tokens), None),
                Some(Err(poison)) => (None, Some(poison)),
                None => (None, None),
            };
            let upstream = if looked_at { TemplateContext::of(document, tokens) } else { TemplateContext::default() };
            DocumentState { upstream, uncountable, outcomes: vec![None; self.nodes.len()] }
        };
        Ok(documents.iter().map(sheet).collect())
    }

    async fn count(&self, model: &str, documents: &[Document]) -> Result<Vec<Result<usize, Poison>>, Transient> {
        let texts = documents.iter().map(|document| document.text.clone()).collect();
        match self.engine.count_tokens(model, texts).await {
            Ok(counts) if counts.len() == documents.len() => return Ok(counts.into_iter().map(Ok).collect()),
            Ok(_) => return Err(broken("the model host counted another number of texts than it was given")),
            Err(Failure::Transient(transient)) => return Err(transient),
            Err(Failure::Poison(_)) => {}
        }
        // One of the texts is at fault; the others must not suffer for it.
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
        sheets: &mut [DocumentState],
        known: &dyn KnownResults,
    ) -> Result<(), Transient> {
        let mut waiting = Vec::new();
        for (index, document) in documents.iter().enumerate() {
            for &node in level {
                match self.prepare(node, document, &sheets[index])? {
                    Ok(prepared) => waiting.push(PreparedTask { document: index, node, prepared, cost: Cost::default() }),
                    Err(outcome) => sheets[index].outcomes[node] = Some(outcome),
                }
            }
        }
        let whole = |waiting: PreparedTask| {
            let fingerprint = self.nodes[waiting.node].fingerprint(&documents[waiting.document], &waiting.prepared);
            FingerprintedTask { fingerprint, waiting }
        };
        let units: Vec<FingerprintedTask> = self.find(waiting, sheets).await?.into_iter().map(whole).collect();
        let reuses = self.look_up(&units, documents, known).await?;
        let mut firsts: HashMap<Fingerprint, (usize, usize)> = HashMap::new();
        let mut asks = Vec::new();
        let mut copies = Vec::new();
        for (FingerprintedTask { fingerprint, waiting }, reuse) in units.into_iter().zip(reuses) {
            let PreparedTask { document, node, prepared, cost } = waiting;
            let at = (document, node);
            if let Some(reuse) = reuse {
                self.finish(at, Outcome::Reused(reuse), sheets);
                continue;
            }
            if let Some(&first) = firsts.get(&fingerprint) {
                copies.push((at, first));
                continue;
            }
            firsts.insert(fingerprint, at);
            match prepared {
                TaskStep::Ask(requests) => asks.push(ModelCalls { at, fingerprint, requests, cost }),
                TaskStep::Ready(output) => {
                    self.finish(at, Outcome::Computed(ComputedOutput { output, fingerprint, cost }), sheets);
                }
                TaskStep::Find(_) => return Err(broken("a task waits for passages that were looked for")),
            }
        }
        self.answer(asks, documents, sheets).await?;
        for (at, first) in copies {
            let outcome = match &sheets[first.0].outcomes[first.1] {
                Some(Outcome::Computed(product)) => {
                    Outcome::Reused(ReusedOutput::Copied(ComputedOutput { cost: Cost::default(), ..product.clone() }))
                }
                Some(other) => other.clone(),
                None => return Err(broken("a computed result went missing")),
            };
            self.finish(at, outcome, sheets);
        }
        Ok(())
    }

    fn prepare(&self, node: usize, document: &Document, sheet: &DocumentState) -> Result<Result<TaskStep, Outcome>, Transient> {
        let node = &self.nodes[node];
        let has_output = |index: &usize| matches!(sheet.outcomes[*index], Some(Outcome::Computed(_) | Outcome::Reused(_)));
        if !node.needs.iter().all(has_output) {
            return Ok(Err(Outcome::Skipped(SkipReason::Upstream)));
        }
        if let Some(poison) = &sheet.uncountable
            && node.counts
        {
            return Ok(Err(Outcome::Dead(poison.clone())));
        }
        if let Some(condition) = &node.condition {
            match condition.holds(&sheet.upstream.context()) {
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
        match node.task.prepare(document, &sheet.upstream) {
            Ok(prepared) => Ok(Ok(prepared)),
            Err(Failure::Poison(poison)) => Ok(Err(Outcome::Dead(poison))),
            Err(Failure::Transient(transient)) => Err(transient),
        }
    }

    async fn look_up(
        &self,
        units: &[FingerprintedTask],
        documents: &[Document],
        known: &dyn KnownResults,
    ) -> Result<Vec<Option<ReusedOutput>>, Transient> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: Vec<WantedResult> = units
            .iter()
            .map(|unit| WantedResult {
                document_id: documents[unit.waiting.document].id.clone(),
                task: self.nodes[unit.waiting.node].name.clone(),
                fingerprint: unit.fingerprint,
                output: self.nodes[unit.waiting.node].read,
                made: matches!(unit.waiting.prepared, TaskStep::Ready(_)),
            })
            .collect();
        let mut reuses = known.look_up(&wanted).await?;
        if reuses.len() != wanted.len() {
            let reason = format!("{} results were looked up, but {} answers came back", wanted.len(), reuses.len());
            return Err(Transient::new(Component::Database, reason));
        }
        for ((reuse, wanted), unit) in reuses.iter_mut().zip(&wanted).zip(units) {
            match (&mut *reuse, &unit.waiting.prepared) {
                (Some(ReusedOutput::Unchanged { output, .. }), TaskStep::Ready(made)) if wanted.output => {
                    *output = Some(made.clone())
                }
                // A task downstream would take the missing output for a skipped task.
                (Some(known), _) if wanted.output && known.output().is_none() => *reuse = None,
                _ => {}
            }
        }
        Ok(reuses)
    }

    fn finish(&self, at: (usize, usize), outcome: Outcome, sheets: &mut [DocumentState]) {
        let output = match &outcome {
            Outcome::Computed(product) => Some(&product.output),
            Outcome::Reused(reuse) => reuse.output(),
            Outcome::Skipped(_) | Outcome::Dead(_) => None,
        };
        let (document, node) = at;
        if let Some(output) = output
            && self.nodes[node].read
        {
            sheets[document].upstream.insert(&self.nodes[node].name, output);
        }
        sheets[document].outcomes[node] = Some(outcome);
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
            looks: condition.is_some() || !reads.is_empty() || built.prompt().is_some() || model.is_none(),
            task: built,
            counts: paths.any(|path| reads_tokens(path)),
            condition,
            needs: task.needs.iter().filter_map(position).collect(),
            watches: task.watches.iter().filter_map(position).collect(),
            read: definition.is_read(&task.name),
        })
    }

    /// Everything that decides the output. The text is part of it even where the request holds only pieces of it, because
    /// outputs carry places in the text.
    fn fingerprint(&self, document: &Document, prepared: &TaskStep) -> Fingerprint {
        let mut parts: Vec<&[u8]> = vec![self.task.signature()];
        for part in [&self.lineage.model, &self.lineage.revision].into_iter().flatten() {
            parts.push(part.as_bytes());
        }
        let content = match prepared {
            TaskStep::Ask(requests) => {
                let works: Vec<_> = requests.iter().map(|request| &request.work).collect();
                serde_json::to_vec(&works)
            }
            // What is found decides, not what is looked for.
            TaskStep::Find(_) => Ok(Vec::new()),
            TaskStep::Ready(output) => serde_json::to_vec(&(output.kind(), output.text(), output.fields())),
        };
        // A request is made of texts and numbers only, which can always be written.
        let content = content.unwrap_or_default();
        parts.push(&content);
        parts.push(document.text.as_bytes());
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
