//! `summarize`: selects the sentences that represent the text best, in text order.
//!
//! The parts say how: `selection.rs` by closeness to the centroid of the text, position and length, without repetition;
//! `coherence.rs` which sentences need the one before. Quotations that are cut come last. Of very long texts only the first
//! [`CONSIDERED`] sentences are used.
//!
//! This is the extractive mode. The abstractive mode, in which a generator writes the summary, is in `abstractive.rs`.

mod coherence;
mod selection;
mod traits;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::traits::traits;
use super::abstractive::AbstractiveSpec;
use super::claim_judge::{self, Grounding};
use super::sentences::sentences;
use super::{Task, TaskStep, TemplateContext, encoder, only};
use crate::document::Document;
use crate::engine::{Chunking, Engine, Prediction, Request, TextKind, Work};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Output, Span, Summary, SummaryMode};

/// Part of every fingerprint. Increase it when the same text gets another summary.
const ALGORITHM: u32 = 2;

/// Most sentences that are considered, about ten pages. Later pages rarely change the summary, and the limit bounds the model time
/// of one document.
const CONSIDERED: usize = 256;

/// Default of `diversity`.
const DIVERSITY: f32 = 0.3;

/// Parameters of `summarize`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SummarizeSpec {
    /// Name of the model in the configuration: an encoder, or a generator for an abstractive summary.
    pub model: String,
    /// Extractive (sentences of the text) or abstractive (written by a generator).
    #[serde(default)]
    pub mode: SummaryMode,
    /// Number of sentences. For an abstractive summary it is a maximum, used only by the built-in prompt.
    #[serde(default = "two")]
    pub sentences: usize,
    /// 0 takes the most representative sentences even if they repeat each other; 1 only avoids repetition. Extractive only.
    #[serde(default)]
    pub diversity: Option<f32>,
    /// Most tokens of an abstractive summary.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// A prompt file for an abstractive summary, relative to the pipeline file.
    #[serde(default)]
    pub prompt: Option<PathBuf>,
    /// Whether and how the claims of an abstractive summary are judged.
    #[serde(default)]
    pub grounding: Option<Grounding>,
}

/// The parameters that determine an extractive summary.
#[derive(Serialize)]
struct SignatureFields<'a> {
    model: &'a str,
    sentences: usize,
    diversity: f32,
}

fn two() -> usize {
    2
}

#[derive(Debug)]
struct Summarize {
    signature: Vec<u8>,
    model: Arc<str>,
    sentences: usize,
    diversity: f32,
}

impl SummarizeSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        if self.sentences == 0 || self.sentences > CONSIDERED {
            problems.push(format!("has `sentences: {}`: write a number from 1 to {CONSIDERED}", self.sentences));
        }
        match (self.mode, self.diversity) {
            (SummaryMode::Extractive, Some(diversity)) if !(0.0..=1.0).contains(&diversity) => {
                problems.push(format!("has `diversity: {diversity}`: write a number from 0 to 1"));
            }
            (SummaryMode::Abstractive, Some(_)) => {
                problems.push(
                    "has a `diversity`, which applies to the extractive mode only: remove it or `mode: abstractive`".into(),
                );
            }
            _ => {}
        }
        match self.mode {
            SummaryMode::Abstractive => problems.extend(self.abstractive().problems(base_dir)),
            SummaryMode::Extractive if self.prompt.is_some() || self.max_tokens.is_some() || self.grounding.is_some() => {
                problems.push(
                    "has `prompt`, `max_tokens` or `grounding`, which apply to a generator only: add `mode: abstractive`".into(),
                );
            }
            SummaryMode::Extractive => {}
        }
        problems
    }

    pub(super) fn reads(&self, base_dir: &Path) -> Vec<String> {
        match self.mode {
            SummaryMode::Extractive => Vec::new(),
            SummaryMode::Abstractive => self.abstractive().reads(base_dir),
        }
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        if self.mode == SummaryMode::Abstractive {
            return Ok(Arc::new(self.abstractive().build(name, engine, base_dir)?));
        }
        let model = encoder(engine, &self.model, "summarize")?.name.clone();
        let (sentences, diversity) = (self.sentences, self.diversity.unwrap_or(DIVERSITY));
        let signature =
            serde_json::to_vec(&("summarize", ALGORITHM, SignatureFields { model: &self.model, sentences, diversity }))?;
        Ok(Arc::new(Summarize { signature, model, sentences, diversity }))
    }

    fn abstractive(&self) -> AbstractiveSpec<'_> {
        let (max_tokens, prompt) = (self.max_tokens, self.prompt.as_ref());
        let grounding = self.grounding.as_ref().unwrap_or(&claim_judge::DEFAULT);
        AbstractiveSpec { model: &self.model, sentences: self.sentences, max_tokens, prompt, grounding }
    }
}

impl Task for Summarize {
    fn kind(&self) -> &'static str {
        "summarize"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, document: &Document, _upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let spans = sentences(&document.text, CONSIDERED);
        if spans.len() <= self.sentences {
            return Ok(TaskStep::Ready(summary(&document.text, spans)));
        }
        let texts = spans.iter().map(|span| document.text[span.start..span.end].into()).collect();
        let work = Work::Encode { texts, chunking: Chunking::Truncate, kind: TextKind::Plain };
        Ok(TaskStep::Ask(vec![Request { model: self.model.clone(), work }]))
    }

    fn interpret(
        &self,
        document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let wrong = |reason: String| Err(Failure::poison(FailureClass::Model, reason));
        let Prediction::Vectors(texts) = only(predictions)? else {
            return wrong("the model did not answer with vectors".into());
        };
        let spans = sentences(&document.text, CONSIDERED);
        if texts.len() != spans.len() {
            return wrong(format!("the model got {} sentences, but answered {}", spans.len(), texts.len()));
        }
        let mut vectors: Vec<Arc<[f32]>> = Vec::with_capacity(texts.len());
        for text in texts {
            let Ok([chunk]) = <[_; 1]>::try_from(text.chunks) else {
                return wrong("the model split a sentence that must stay whole".into());
            };
            vectors.push(chunk.vector);
        }
        let dimension = vectors.first().map_or(0, |vector| vector.len());
        if !vectors.iter().all(|vector| vector.len() == dimension && vector.iter().all(|x| x.is_finite())) {
            return wrong("the model gave vectors of different lengths, or with components that are not finite numbers".into());
        }
        let chosen = selection::choose(&vectors, &traits(&document.text, &spans), self.sentences, self.diversity);
        Ok(TaskStep::Ready(summary(&document.text, chosen.into_iter().map(|index| spans[index]).collect())))
    }
}

fn summary(text: &str, spans: Vec<Span>) -> Output {
    let sentences: Vec<&str> = spans.iter().map(|span| &text[span.start..span.end]).collect();
    Output::Summary(Summary { text: sentences.join(" "), spans, ..Summary::default() })
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::engine::{EncodedChunk, EncodedText};

    fn task(sentences: usize) -> Summarize {
        Summarize { signature: Vec::new(), model: "m".into(), sentences, diversity: 0.3 }
    }

    fn document(text: &str) -> Document {
        Document { id: "1".into(), version: 1, text: text.into(), metadata: Map::new(), fields: Map::new() }
    }

    fn prediction(vectors: &[[f32; 2]]) -> Prediction {
        let text = |vector: &[f32; 2]| {
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            let vector = vector.iter().map(|x| x / length).collect();
            EncodedText { chunks: vec![EncodedChunk { span: Span { start: 0, end: 0 }, tokens: 3, vector }] }
        };
        Prediction::Vectors(vectors.iter().map(text).collect())
    }

    const FOUR: &str = "The mill turns slowly. The wheel goes round slowly.\nA dog barks somewhere. The water drives the mill.";

    #[test]
    fn sentences_are_asked_for_one_by_one() {
        let Ok(TaskStep::Ask(requests)) = task(2).prepare(&document(FOUR), &TemplateContext::default()) else {
            panic!("a long text was summarized without a model");
        };
        let Work::Encode { texts, chunking: Chunking::Truncate, .. } = &requests[0].work else {
            panic!("the sentences are not encoded whole")
        };
        assert_eq!(texts.len(), 4);
        assert_eq!(&*texts[2], "A dog barks somewhere.");
    }

    #[test]
    fn a_summary_keeps_order_and_places_and_does_not_repeat_itself() {
        let vectors = [[1.0, 0.05], [1.0, 0.06], [-1.0, 0.6], [0.8, 0.9]];
        let varied = Summarize { diversity: 0.5, ..task(2) };
        let Ok(TaskStep::Ready(Output::Summary(summary))) =
            varied.interpret(&document(FOUR), &TemplateContext::default(), vec![prediction(&vectors)])
        else {
            panic!("no summary was made");
        };
        assert_eq!(summary.text, "The mill turns slowly. The water drives the mill.");
        let cut: Vec<&str> = summary.spans.iter().map(|span| &FOUR[span.start..span.end]).collect();
        assert_eq!(cut.join(" "), summary.text);
    }

    #[test]
    fn a_text_of_few_sentences_is_its_own_summary() {
        let short = "  Only one sentence here.\n";
        assert_eq!(
            task(2).prepare(&document(short), &TemplateContext::default()).unwrap(),
            TaskStep::Ready(Output::Summary(Summary {
                text: short.trim().into(),
                spans: vec![Span { start: 2, end: 25 }],
                ..Summary::default()
            }))
        );
    }

    #[test]
    fn answers_that_do_not_fit_are_dead_letters() {
        for bad in [prediction(&[[1.0, 0.0]; 3]), prediction(&[[f32::NAN, 0.0]; 4]), Prediction::Logits(vec![1.0; 4])] {
            let failure = task(2).interpret(&document(FOUR), &TemplateContext::default(), vec![bad]).unwrap_err();
            assert!(matches!(&failure, Failure::Poison(poison) if poison.class == FailureClass::Model), "{failure}");
        }
    }

    #[test]
    fn a_summary_holds_whole_quotations_and_no_orphaned_pronoun() {
        let text = "Hans went to Gretel. 'Good day, Gretel. Have you a knife?' She gave him one. Gretel laughed a lot.";
        let vectors = [[1.0, 0.1], [0.9, 0.3], [1.0, 0.1], [0.9, 0.5]];
        let Ok(TaskStep::Ready(Output::Summary(summary))) =
            task(2).interpret(&document(text), &TemplateContext::default(), vec![prediction(&vectors)])
        else {
            panic!("no summary was made");
        };
        assert_eq!(summary.text, "Hans went to Gretel. Gretel laughed a lot.");
    }
}
