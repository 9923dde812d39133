//! `answer`: answers a question from the passages of a `retrieve` task and from nothing else. It does for each document of a stream
//! what `POST /v1/answer` does for one question.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{AnswerGenerator, GroundedAnswer, Task, TaskStep, TemplateContext, only};
use crate::document::Document;
use crate::engine::{Engine, Prediction};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Confidence, Output, RetrievedPassage, WrittenText};
use crate::prompt::PromptVersion;
use crate::template::{PrintMode, Template, TemplateError};

/// Part of every fingerprint. Increase it when the same answer leads to another output.
const ALGORITHM: u32 = 3;

/// The longest question, in bytes.
const MAX_QUESTION: usize = 8 << 10;

/// Parameters of `answer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSpec {
    /// Name of the generator in the configuration.
    pub model: String,
    /// The question, a template that can read `document` and other tasks by name.
    pub question: String,
    /// The `retrieve` task that provides the passages.
    pub from: String,
    /// The prompt file, relative to the pipeline file. Default: the built-in prompt.
    #[serde(default)]
    pub prompt: Option<PathBuf>,
}

struct Answer {
    signature: Vec<u8>,
    generator: AnswerGenerator,
    question: Template,
    from: String,
}

impl AnswerSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let question = self.compile().err().map(|error| format!("has a bad `question`: {error}"));
        let prompt = self.prompt.iter().flat_map(|prompt| AnswerGenerator::problems(&base_dir.join(prompt)));
        question.into_iter().chain(prompt.map(|problem| format!("has {problem}"))).collect()
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        let mut names = self.compile().map(|template| template.variables().to_vec()).unwrap_or_default();
        names.push(self.from.clone());
        names
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let prompt = self.prompt.as_ref().map(|prompt| base_dir.join(prompt));
        let generator = AnswerGenerator::new(engine, &self.model, prompt.as_deref())?;
        let question = self.compile().map_err(|error| anyhow::anyhow!("task `{name}` has a bad `question`: {error}"))?;
        let signature = serde_json::to_vec(&("answer", ALGORITHM, generator.version().version()))?;
        Ok(Arc::new(Answer { signature, generator, question, from: self.from.clone() }))
    }

    fn compile(&self) -> Result<Template, TemplateError> {
        Template::new(&self.question, PrintMode::Scalars, MAX_QUESTION)
    }
}

impl Task for Answer {
    fn kind(&self) -> &'static str {
        "answer"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prompt(&self) -> Option<&PromptVersion> {
        Some(self.generator.version())
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let question = self.question.render(&upstream.context())?;
        let passages = self.passages(upstream)?;
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        if texts.is_empty() {
            let nothing = Some("not found in the documents: no passage is similar enough to the question");
            return Ok(TaskStep::Ready(output(GroundedAnswer::default(), &passages, nothing, None)));
        }
        Ok(TaskStep::Ask(vec![self.generator.request(question.trim(), &texts)?]))
    }

    fn interpret(
        &self,
        _document: &Document,
        upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let passages = self.passages(upstream)?;
        let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
        let (claims, confidence) = self.generator.interpret(only(predictions)?)?;
        let answer = GroundedAnswer::of(claims, &texts);
        let emptiness = answer.empty_reason();
        Ok(TaskStep::Ready(output(answer, &passages, emptiness, confidence)))
    }
}

impl Answer {
    fn passages(&self, upstream: &TemplateContext) -> Result<Vec<RetrievedPassage>, Failure> {
        let passages = upstream.get(&self.from).and_then(|found| found.get_attr("passages").ok());
        let passages = passages.and_then(|passages| serde_json::to_value(passages).ok());
        let unfit = || {
            let reason = format!("task `{}` has no passages: name a `retrieve` task in `from`", self.from);
            Failure::poison(FailureClass::WrongType, reason)
        };
        passages.and_then(|passages| serde_json::from_value(passages).ok()).ok_or_else(unfit)
    }
}

/// The answer as an object: `found`, `sentences` with their citations, the `dropped` sentences, and the `reason` if it is empty.
fn output(answer: GroundedAnswer, passages: &[RetrievedPassage], reason: Option<&str>, confidence: Option<Confidence>) -> Output {
    let cited = |number: &usize| {
        let passage = number.checked_sub(1).and_then(|index| passages.get(index))?;
        Some(json!({ "document_id": passage.document_id, "start": passage.span.start, "end": passage.span.end }))
    };
    let sentence = |sentence: &super::Sentence| {
        let citations: Vec<Value> = sentence.citations.iter().filter_map(cited).collect();
        json!({ "text": sentence.text, "citations": citations })
    };
    let sentences: Vec<Value> = answer.sentences.iter().map(sentence).collect();
    let fields: Map<String, Value> = [
        ("found", json!(!sentences.is_empty())),
        ("sentences", json!(sentences)),
        ("dropped", json!(answer.dropped)),
        ("reason", json!(reason)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect();
    let text = Value::Object(fields.clone()).to_string();
    Output::WrittenText(WrittenText { text, fields: Some(fields), confidence, ..WrittenText::default() })
}
