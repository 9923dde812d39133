//! `extract`: extracts typed fields. Each value comes with the confidence of the model and its evidence in the document.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::evidence::{EvidenceFinder, is_choice};
use super::for_each::{ItemPrompt, ItemPromptSpec};
use super::json_spans::{unescaped_key, value_spans};
use super::prompt_file::{PromptFile, SchemaSource};
use super::task_prompt::generator;
use super::write::object;
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Completion, Engine, GeneratedToken, Prediction, Schema};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Confidence, ExtractedValue, Extraction, Output};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same answer leads to another output.
const ALGORITHM: u32 = 1;

const SYSTEM: &str = "You take facts out of documents and answer with one JSON object and nothing else. \
Every value is taken from the document, in the document's own words and language. \
Where the document does not say something, the value is null. Never guess, never translate, never add anything.";

const BODY: &str = "Answer with an object that is valid under this JSON Schema:
{{ schema }}

The document:
{{ document.text }}";

/// The version of strict tasks. Version 1 did not check numbers.
const STRICT_ALGORITHM: u32 = 2;

/// Most characters of a value quoted in an error.
const QUOTED: usize = 60;

/// Parameters of `extract`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtractSpec {
    /// Name of the generator in the configuration.
    pub model: String,
    /// JSON Schema of the object, for a prompt without one: a path relative to the pipeline file, or the schema itself.
    #[serde(default)]
    pub schema: Option<SchemaSource>,
    /// A prompt file, relative to the pipeline file, instead of the built-in prompt.
    #[serde(default)]
    pub prompt: Option<PathBuf>,
    /// Whether a string or number without evidence in the document makes the result a dead letter.
    #[serde(default)]
    pub strict: bool,
    /// Most tokens of an answer; overrides the limit in the prompt file.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// An expression for a list. The task then runs once for each `item` of the list.
    #[serde(default)]
    pub for_each: Option<String>,
}

#[derive(Debug)]
struct Extract {
    signature: Vec<u8>,
    prompt: ItemPrompt,
    schema: Arc<Schema>,
    strict: bool,
}

impl ExtractSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        self.read(base_dir).err().into_iter().chain(self.item_prompt().problems()).collect()
    }

    pub(super) fn reads(&self, base_dir: &Path) -> Vec<String> {
        self.item_prompt().reads(base_dir)
    }

    pub(super) async fn build(&self, name: &str, engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let model = generator(engine, &self.model, "extract")?;
        let (file, schema) = self.read(base_dir).map_err(anyhow::Error::msg)?;
        let prompt = self.item_prompt().build(name, engine, model, file)?;
        Ok(Arc::new(self.assemble(prompt, schema)?))
    }

    fn assemble(&self, prompt: ItemPrompt, schema: Arc<Schema>) -> anyhow::Result<Extract> {
        let algorithm = if self.strict { STRICT_ALGORITHM } else { ALGORITHM };
        let signature = serde_json::to_vec(&("extract", algorithm, prompt.version().version(), self.strict, &self.for_each))?;
        Ok(Extract { signature, prompt, schema, strict: self.strict })
    }

    fn item_prompt(&self) -> ItemPromptSpec<'_> {
        let (prompt, for_each) = (self.prompt.as_deref(), self.for_each.as_deref());
        ItemPromptSpec { prompt, max_tokens: self.max_tokens, for_each }
    }

    pub(super) fn read(&self, base_dir: &Path) -> Result<(PromptFile, Arc<Schema>), String> {
        let file = match &self.prompt {
            Some(prompt) => PromptFile::read(&base_dir.join(prompt)).map_err(|fault| format!("has a bad prompt: {fault}"))?,
            None => PromptFile::built_in("built-in/extract", SYSTEM, BODY),
        };
        let file = file.with_schema(self.schema.as_ref(), base_dir)?;
        let schema = file.schema.clone();
        let schema = schema.ok_or("has no `schema` with the fields to extract: write a path or the schema itself")?;
        Ok((file, schema))
    }
}

impl Task for Extract {
    fn kind(&self) -> &'static str {
        "extract"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prompt(&self) -> Option<&PromptVersion> {
        Some(self.prompt.version())
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        self.prompt.prepare(upstream)
    }

    fn interpret(
        &self,
        document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let searcher = EvidenceFinder::new(&document.text);
        self.prompt.interpret(predictions, |prediction| Ok(Output::Extraction(self.extraction(&searcher, prediction)?)))
    }
}

impl Extract {
    fn extraction(&self, searcher: &EvidenceFinder<'_>, prediction: Prediction) -> Result<Extraction, Failure> {
        let completion = completion(prediction)?;
        let fields = object(self.schema.judge(&completion, self.prompt.prompt.max_tokens)?)?;
        let values = self.values(searcher, &fields, &completion);
        if self.strict
            && let Some((path, value)) = ungrounded(&fields, &values)
        {
            let says = match value {
                Value::String(text) => {
                    let quoted: String = text.chars().take(QUOTED).collect();
                    format!("\"{quoted}{}\"", if quoted.len() < text.len() { "…" } else { "" })
                }
                other => other.to_string(),
            };
            let reason = format!("field `{path}` of the answer is {says}, which the document does not contain");
            return Err(Failure::poison(FailureClass::Ungrounded, reason));
        }
        Ok(Extraction { fields, leaves: values })
    }

    fn values(&self, searcher: &EvidenceFinder<'_>, fields: &Map<String, Value>, completion: &Completion) -> Vec<ExtractedValue> {
        let found = value_spans(&completion.text);
        // If a key occurs twice, the last value counts and everything below the earlier one is dropped.
        let last: HashMap<&str, usize> = found.iter().enumerate().map(|(index, (path, _))| (path.as_str(), index)).collect();
        let mut all = Vec::with_capacity(found.len());
        for (index, (path, place)) in found.iter().enumerate() {
            if last[path.as_str()] != index {
                continue;
            }
            let Some(value) = pointer(fields, path).filter(|value| !value.is_object() && !value.is_array()) else { continue };
            let choice = is_choice(self.schema.value(), path, value);
            let (expected, evidence) = match value {
                Value::String(text) if !choice && !text.trim().is_empty() => (true, searcher.string(text)),
                Value::Number(number) if !choice => (true, searcher.number(number)),
                _ => (false, None),
            };
            all.push(ExtractedValue {
                path: path.clone(),
                confidence: confidence(&completion.tokens, place),
                grounded: expected.then_some(evidence.is_some()),
                evidence,
            });
        }
        all
    }
}

/// The confidence of the model, computed from the tokens that overlap `place`.
fn confidence(tokens: &[GeneratedToken], place: &Range<usize>) -> Option<Confidence> {
    let first = tokens.partition_point(|token| token.end <= place.start);
    let mut start = first.checked_sub(1).map_or(0, |before| tokens[before].end);
    let mut writing = Vec::new();
    for token in &tokens[first..] {
        if start >= place.end {
            break;
        }
        writing.extend(token.log_probability);
        start = token.end;
    }
    Confidence::of(writing)
}

fn pointer<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let (name, rest) = path[1..].split_once('/').map_or((&path[1..], ""), |(name, _)| (name, &path[name.len() + 1..]));
    fields.get(&unescaped_key(name))?.pointer(rest)
}

fn ungrounded<'a>(fields: &'a Map<String, Value>, values: &'a [ExtractedValue]) -> Option<(&'a str, &'a Value)> {
    let value = values.iter().find(|value| value.grounded == Some(false))?;
    Some((value.path.as_str(), pointer(fields, &value.path)?))
}

#[cfg(test)]
mod tests;
