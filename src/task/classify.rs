//! `classify`: assigns one label or several, each with a probability.
//!
//! | the pipeline has | score of a label | temperature |
//! |---|---|---|
//! | `labels` with descriptions, and an encoder | similarity of the text and the descriptions of the label | `temperature`, or 0.04 |
//! | `head`, and the encoder it was trained on | linear layer of the head over the vector of the text | fitted during training |
//! | a sequence-classification model | score of the checkpoint | `temperature`, or 1 |
//! | `labels`, and a generator | how much the document raises the probability of the label as an answer (`label_scorer.rs`) | `temperature`, or 1 |
//!
//! A softmax converts the scores into probabilities. With `multi: true`, a sigmoid converts each score.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::calibration::{LinkFunction, highest};
use super::descriptions::DescriptionVectors;
use super::label_scorer::LabelScorer;
use super::labels::Labels;
use super::linear_head::LinearHead;
use super::{Task, TaskStep, TemplateContext, model, only};
use crate::document::Document;
use crate::engine::{Chunking, Engine, ModelInfo, ModelKind, Prediction, Request, TextKind, Work};
use crate::failure::{Failure, FailureClass, Transient};
use crate::outcome::{Classification, LabelScore, Output};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same parameters lead to another output.
const ALGORITHM: u32 = 1;

/// Default of `threshold` in a multi-label task.
const EVEN_ODDS: f32 = 0.5;

/// Parameters of `classify`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifySpec {
    /// Name of the model in the configuration.
    pub model: String,
    /// Labels with their descriptions. For a sequence-classification model, its classes with new names.
    #[serde(default)]
    pub labels: Option<Labels>,
    /// Whether a document may have several labels, or none.
    #[serde(default)]
    pub multi: bool,
    /// A higher value makes the probabilities more even. A head has its own temperature.
    #[serde(default)]
    pub temperature: Option<f32>,
    /// Minimum probability of an assigned label. By default, a single label is always assigned, and in a multi-label task those
    /// with a probability of at least 0.5.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// A trained head, relative to the pipeline file.
    #[serde(default)]
    pub head: Option<PathBuf>,
    /// A prompt file for a generator, relative to the pipeline file, instead of the built-in prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<PathBuf>,
}

/// How predictions become scores.
#[derive(Debug)]
enum Scorer {
    DescriptionVectors(DescriptionVectors),
    LinearHead(LinearHead),
    Checkpoint,
    Generator(Box<LabelScorer>),
}

#[derive(Debug)]
struct Classify {
    signature: Vec<u8>,
    model: Arc<str>,
    labels: Vec<String>,
    scorer: Scorer,
    link: LinkFunction,
    temperature: f32,
    threshold: Option<f32>,
}

impl ClassifySpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.prompt.as_ref().and_then(|prompt| LabelScorer::problem(&base_dir.join(prompt))));
        match self.labels.as_ref().map(|labels| labels.0.as_slice()) {
            Some([]) => problems.push("has no labels: write at least two, each with a description".into()),
            Some([(only, _)]) => {
                problems.push(format!("has one label, `{only}`, which every document would get: write at least two"))
            }
            Some(labels) => {
                let empty = |descriptions: &[String]| descriptions.iter().all(|d| d.trim().is_empty());
                let bare = labels.iter().find(|(label, descriptions)| label.trim().is_empty() || empty(descriptions));
                problems
                    .extend(bare.map(|(label, _)| format!("has label `{label}` without a description: describe what it means")));
            }
            None => {}
        }
        if self.temperature.is_some_and(|t| !(t.is_finite() && t > 0.0)) {
            problems.push("has a `temperature` that is not a positive number".into());
        }
        if self.temperature.is_some() && self.head.is_some() {
            problems.push("has both `temperature` and `head`: a head has its own temperature, so remove `temperature`".into());
        }
        if self.threshold.is_some_and(|t| !(0.0..=1.0).contains(&t)) {
            problems.push("has a `threshold` that is not a probability: write a number from 0 to 1".into());
        }
        problems
    }

    pub(super) fn reads(&self, base_dir: &Path) -> Vec<String> {
        self.prompt.as_ref().map(|prompt| LabelScorer::reads(&base_dir.join(prompt))).unwrap_or_default()
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let model = model(engine, &self.model)?;
        ensure!(
            self.prompt.is_none() || model.kind == ModelKind::Generator,
            "`{name}` has a `prompt`, but model `{}` is a {}, which uses no prompt: remove it or name a generator",
            self.model,
            model.kind.as_str()
        );
        let classify = match (model.kind, &self.head) {
            (ModelKind::Encoder, Some(head)) => {
                let (head, version) = LinearHead::load(&base_dir.join(head))?;
                self.with_head(model, head, &version)?
            }
            (ModelKind::Encoder, None) => {
                let Some(labels) = self.labels.as_ref().filter(|labels| !labels.0.is_empty()) else {
                    bail!(
                        "`{name}` has no labels, and model `{}` is an encoder, which defines none: set `labels` with descriptions, or a \
                         `head`",
                        self.model
                    );
                };
                let descriptions = DescriptionVectors::encode(engine, &model.name, labels).await?;
                self.with_descriptions(model, labels, descriptions)?
            }
            (ModelKind::Classifier, Some(_)) => {
                bail!("`{name}` has a `head`, but model `{}` is a classifier with its own labels: remove `head`", self.model)
            }
            (ModelKind::Classifier, None) => self.with_checkpoint(model)?,
            (ModelKind::Generator, Some(_)) => {
                bail!(
                    "`{name}` has a `head`, but model `{}` is a generator, which computes no vectors: remove `head`",
                    self.model
                )
            }
            (ModelKind::Generator, None) => {
                ensure!(
                    !self.multi,
                    "`{name}` has `multi: true`, but a generator chooses one label: remove it, or use an encoder"
                );
                let Some(labels) = self.labels.as_ref().filter(|labels| !labels.0.is_empty()) else {
                    bail!("`{name}` has no labels, and model `{}` is a generator, which defines none: set `labels`", self.model);
                };
                let prompt = self.prompt.as_ref().map(|prompt| base_dir.join(prompt));
                let label_scorer = LabelScorer::prepare(engine, name, model, labels, prompt.as_deref()).await?;
                self.with_generator(model, labels, label_scorer)?
            }
        };
        Ok(Arc::new(classify))
    }

    fn with_descriptions(
        &self,
        model: &ModelInfo,
        labels: &Labels,
        descriptions: DescriptionVectors,
    ) -> anyhow::Result<Classify> {
        let names = labels.0.iter().map(|(label, _)| label.clone()).collect();
        let temperature = self.temperature.unwrap_or(DescriptionVectors::TEMPERATURE);
        let scorer = Scorer::DescriptionVectors(descriptions.centred(self.multi, temperature));
        self.assemble(model, Scoring { labels: names, scorer, temperature, version: "" })
    }

    fn with_generator(&self, model: &ModelInfo, labels: &Labels, label_scorer: LabelScorer) -> anyhow::Result<Classify> {
        let names = labels.0.iter().map(|(label, _)| label.clone()).collect();
        let temperature = self.temperature.unwrap_or(1.0);
        let version = label_scorer.prompt().version();
        let scorer = Scorer::Generator(Box::new(label_scorer));
        self.assemble(model, Scoring { labels: names, scorer, temperature, version: &version })
    }

    fn with_head(&self, model: &ModelInfo, head: LinearHead, version: &str) -> anyhow::Result<Classify> {
        head.check(model)?;
        ensure!(
            head.multi == self.multi,
            "the head was trained with `multi: {}`, but the task says `multi: {}`: train it again",
            head.multi,
            self.multi
        );
        if let Some(labels) = &self.labels {
            let mut wanted: Vec<&str> = labels.0.iter().map(|(label, _)| label.as_str()).collect();
            let mut trained: Vec<&str> = head.labels.iter().map(String::as_str).collect();
            wanted.sort_unstable();
            trained.sort_unstable();
            ensure!(
                wanted == trained,
                "the task has labels {}, but the head was trained on {}: train it again, or remove `labels`",
                wanted.join(", "),
                trained.join(", ")
            );
        }
        let (labels, temperature) = (head.labels.clone(), head.temperature);
        self.assemble(model, Scoring { labels, scorer: Scorer::LinearHead(head), temperature, version })
    }

    fn with_checkpoint(&self, model: &ModelInfo) -> anyhow::Result<Classify> {
        let mut names = model.labels.clone();
        if let Some(labels) = &self.labels {
            let classes = model.labels.join(", ");
            for (class, new) in &labels.0 {
                let at = model.labels.iter().position(|known| known == class);
                let at =
                    at.with_context(|| format!("model `{}` has no class `{class}`; its classes are {classes}", model.name))?;
                let [new] = new.as_slice() else {
                    bail!("class `{class}` of model `{}` has {} names: write one", model.name, new.len());
                };
                names[at].clone_from(new);
            }
            ensure!(
                labels.0.len() == names.len(),
                "`labels` names only some classes of model `{}`: name all of {classes}",
                model.name
            );
        }
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        ensure!(
            distinct.len() == names.len(),
            "two classes of model `{}` have the same name: choose different names",
            model.name
        );
        ensure!(
            self.multi || !model.several_labels,
            "model `{}` was trained to assign any number of classes (`problem_type: multi_label_classification` in its \
             config.json): set `multi: true`",
            model.name
        );
        ensure!(names.len() >= 2, "model `{}` has fewer than two classes", model.name);
        let temperature = self.temperature.unwrap_or(1.0);
        self.assemble(model, Scoring { labels: names, scorer: Scorer::Checkpoint, temperature, version: "" })
    }

    fn assemble(&self, model: &ModelInfo, scoring: Scoring<'_>) -> anyhow::Result<Classify> {
        let Scoring { labels, scorer, temperature, version } = scoring;
        // The fingerprint depends on the content of the files, not on their paths.
        let spec = Self { head: None, prompt: None, ..self.clone() };
        Ok(Classify {
            signature: serde_json::to_vec(&("classify", ALGORITHM, spec, temperature, version))?,
            model: model.name.clone(),
            labels,
            scorer,
            link: LinkFunction::of(self.multi),
            temperature,
            threshold: self.threshold,
        })
    }
}

/// The parts in which the kinds of scoring differ.
struct Scoring<'a> {
    labels: Vec<String>,
    scorer: Scorer,
    temperature: f32,
    /// Version of the head or prompt file that determines the scores.
    version: &'a str,
}

impl Classify {
    fn scores(&self, prediction: Prediction) -> Result<Vec<f32>, Failure> {
        let wrong = |reason: &str| Err(Failure::poison(FailureClass::Model, reason));
        let scores = match (&self.scorer, prediction) {
            (Scorer::Checkpoint, Prediction::Logits(logits)) => logits,
            (Scorer::Checkpoint, _) => return wrong("the model did not answer with class scores"),
            (Scorer::Generator(label_scorer), Prediction::Scores(scores)) if scores.len() == self.labels.len() => {
                label_scorer.corrected(&scores)?
            }
            (Scorer::Generator(_), _) => return wrong("the model did not answer with one score per label"),
            (scorer, Prediction::Vectors(texts)) => {
                let [text] = texts.as_slice() else { return wrong("the model did not answer with the vector of one text") };
                let [chunk] = text.chunks.as_slice() else { return wrong("the model split a text that must stay whole") };
                match scorer {
                    Scorer::DescriptionVectors(descriptions) if chunk.vector.len() == descriptions.dimension() => {
                        descriptions.scores(&chunk.vector, self.temperature)
                    }
                    Scorer::LinearHead(head) if chunk.vector.len() == head.dimension => head.scores(&chunk.vector),
                    _ => return wrong("the model gave a vector of another length than its dimension"),
                }
            }
            _ => return wrong("the model did not answer with vectors"),
        };
        if scores.len() != self.labels.len() {
            return wrong("the model did not give one score per label");
        }
        if !scores.iter().all(|score| score.is_finite()) {
            return wrong("the model gave a score that is not a finite number");
        }
        Ok(scores)
    }
}

impl Task for Classify {
    fn kind(&self) -> &'static str {
        "classify"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prompt(&self) -> Option<&PromptVersion> {
        match &self.scorer {
            Scorer::Generator(label_scorer) => Some(label_scorer.prompt()),
            Scorer::DescriptionVectors(_) | Scorer::LinearHead(_) | Scorer::Checkpoint => None,
        }
    }

    fn initialize<'a>(&'a self, engine: &'a Engine) -> BoxFuture<'a, Result<(), Transient>> {
        match &self.scorer {
            Scorer::Generator(label_scorer) => Box::pin(label_scorer.initialize(engine)),
            Scorer::DescriptionVectors(_) | Scorer::LinearHead(_) | Scorer::Checkpoint => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let text = document.text.clone();
        let work = match &self.scorer {
            Scorer::Checkpoint => Work::Classify { text },
            Scorer::DescriptionVectors(_) | Scorer::LinearHead(_) => {
                Work::Encode { texts: vec![text], chunking: Chunking::Truncate, kind: TextKind::Plain }
            }
            Scorer::Generator(label_scorer) => label_scorer.work(&text, upstream)?,
        };
        Ok(TaskStep::Ask(vec![Request { model: self.model.clone(), work }]))
    }

    fn interpret(
        &self,
        _document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let probabilities = self.link.probabilities(&self.scores(only(predictions)?)?, self.temperature);
        let mut given: Vec<usize> = match self.link {
            LinkFunction::Softmax => highest(&probabilities).into_iter().collect(),
            LinkFunction::Sigmoid => (0..probabilities.len()).collect(),
        };
        let threshold = match self.link {
            LinkFunction::Softmax => self.threshold.unwrap_or(0.0),
            LinkFunction::Sigmoid => self.threshold.unwrap_or(EVEN_ODDS),
        };
        given.retain(|&label| probabilities[label] >= threshold);
        given.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]));
        let labels = given.into_iter().map(|label| self.labels[label].clone()).collect();
        let pairs = self.labels.iter().cloned().zip(probabilities);
        let scores = pairs.map(|(label, probability)| LabelScore { label, probability }).collect();
        Ok(TaskStep::Ready(Output::Classification(Classification { labels, scores })))
    }
}

#[cfg(test)]
mod tests;
