//! `extract`: extracts typed fields. Each value comes with the confidence of the model and its evidence in the document.
//!
//! | `strict` | a string or number of the answer |
//! |---|---|
//! | `true` | is a span, number, date or quantity of the document; nothing else can be written |
//! | `false` | is the model's own; its evidence is looked for afterwards |

mod abstention;
mod chunks;
mod leaf;
mod quotable;
mod strict;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use self::abstention::MinConfidence;
use self::strict::StrictEvidence;
pub(super) use self::strict::StrictRules;
use super::answer_object::object;
use super::evidence::{EvidenceFinder, is_choice};
use super::for_each::{ItemPrompt, ItemPromptSpec};
use super::json_spans::{unescaped_key, value_spans};
use super::prompt_file::{PromptFile, SchemaSource};
use super::task_prompt::generator;
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Completion, Engine, GeneratedToken, Prediction, Schema};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Confidence, Evidence, ExtractedValue, Extraction, Output};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same answer leads to another output.
const ALGORITHM: u32 = 1;

/// The version of strict tasks. Version 2 checked answers after they were written.
const STRICT_ALGORITHM: u32 = 3;

const SYSTEM: &str = "You take facts out of documents and answer with one JSON object and nothing else. \
Every value is taken from the document, in the document's own words and language. \
Where the document does not say something, the value is null. Never guess, never translate, never add anything.";

const BODY: &str = "Answer with an object that is valid under this JSON Schema:
{{ schema }}

The document:
{{ document.text }}";

/// Most characters of a value quoted in an error.
const QUOTED: usize = 60;

/// Parameters of `extract`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Whether strings, numbers and dates can only be those of the document.
    #[serde(default = "yes")]
    pub strict: bool,
    /// The confidence below which a value becomes null: for all fields, or for each by its name.
    #[serde(default)]
    pub min_confidence: Option<MinConfidence>,
    /// Most tokens of an answer; overrides the limit in the prompt file.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// An expression for a list. The task then runs once for each `item` of the list.
    #[serde(default)]
    pub for_each: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug)]
struct Extract {
    signature: Vec<u8>,
    prompt: ItemPrompt,
    schema: Arc<Schema>,
    /// The rules of a strict task.
    strict: Option<StrictRules>,
    min_confidence: Option<MinConfidence>,
}

impl ExtractSpec {
    pub(super) fn model(&self) -> Option<&str> {
        Some(&self.model)
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let schema = match self.read(base_dir) {
            Ok((_, schema)) => self.schema_problems(&schema),
            Err(problem) => vec![problem],
        };
        schema.into_iter().chain(self.item_prompt().problems()).collect()
    }

    fn schema_problems(&self, schema: &Schema) -> Vec<String> {
        let strict = self.strict.then(|| StrictRules::new(schema).err()).flatten();
        let confidence = self.min_confidence.as_ref().and_then(|least| least.problem(schema.value()));
        strict.into_iter().chain(confidence).collect()
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
        let version = prompt.version().version();
        let signature = match &self.min_confidence {
            None => serde_json::to_vec(&("extract", algorithm, version, self.strict, &self.for_each))?,
            Some(least) => serde_json::to_vec(&("extract", algorithm, version, self.strict, &self.for_each, least))?,
        };
        let strict = self.strict.then(|| StrictRules::new(&schema)).transpose().map_err(anyhow::Error::msg)?;
        Ok(Extract { signature, prompt, schema, strict, min_confidence: self.min_confidence.clone() })
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

    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let spans = self.strict.as_ref().map(|rules| rules.grammar(&self.schema, &document.text)).transpose()?;
        self.prompt.prepare(upstream, spans.as_ref())
    }

    fn interpret(
        &self,
        document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        let evidence = match self.strict {
            Some(_) => EvidenceSource::Strict(StrictEvidence::new(&document.text)),
            None => EvidenceSource::Search(EvidenceFinder::new(&document.text)),
        };
        self.prompt.interpret(predictions, |prediction| Ok(Output::Extraction(self.extraction(&evidence, prediction)?)))
    }
}

/// How evidence is found.
enum EvidenceSource<'a> {
    Strict(StrictEvidence<'a>),
    Search(EvidenceFinder<'a>),
}

impl EvidenceSource<'_> {
    fn string(&self, schema: &Value, path: &str, text: &str) -> Option<Evidence> {
        match self {
            Self::Strict(evidence) => evidence.string(schema, path, text),
            Self::Search(finder) => finder.string(text),
        }
    }

    fn number(&self, schema: &Value, path: &str, number: &Number) -> Option<Evidence> {
        match self {
            Self::Strict(evidence) => evidence.number(schema, path, number),
            Self::Search(finder) => finder.number(number),
        }
    }
}

impl Extract {
    fn extraction(&self, evidence: &EvidenceSource<'_>, prediction: Prediction) -> Result<Extraction, Failure> {
        let completion = completion(prediction)?;
        let fields = object(self.schema.judge(&completion, self.prompt.prompt.max_tokens)?)?;
        let leaves = self.values(evidence, &fields, &completion);
        let mut extraction = Extraction { fields, leaves };
        if self.strict.is_some() {
            let ungrounded = |value: &ExtractedValue, _: &Value| value.grounded == Some(false);
            let left = abstention::abstain(&mut extraction, &self.schema, ungrounded);
            if let Some((path, value)) = left.and_then(|path| Some((path.clone(), pointer(&extraction.fields, &path)?))) {
                return Err(refused(&path, value));
            }
        }
        if let Some(least) = &self.min_confidence {
            let doubtful = |leaf: &ExtractedValue, value: &Value| {
                !value.is_null() && leaf.confidence.is_some_and(|confidence| confidence.minimum < least.of(&leaf.path))
            };
            // Where the schema allows neither null nor absence, the value stays, and its confidence tells.
            abstention::abstain(&mut extraction, &self.schema, doubtful);
        }
        Ok(extraction)
    }

    fn values(&self, evidence: &EvidenceSource<'_>, fields: &Map<String, Value>, completion: &Completion) -> Vec<ExtractedValue> {
        let schema = self.schema.value();
        let found = value_spans(&completion.text);
        // If a key occurs twice, the last value counts and everything below the earlier one is dropped.
        let last: HashMap<&str, usize> = found.iter().enumerate().map(|(index, (path, _))| (path.as_str(), index)).collect();
        let mut all = Vec::with_capacity(found.len());
        for (index, (path, place)) in found.iter().enumerate() {
            if last[path.as_str()] != index {
                continue;
            }
            let Some(value) = pointer(fields, path).filter(|value| !value.is_object() && !value.is_array()) else { continue };
            let choice = is_choice(schema, path, value);
            let (expected, evidence) = match value {
                Value::String(text) if !choice && !text.trim().is_empty() => (true, evidence.string(schema, path, text)),
                Value::Number(number) if !choice => (true, evidence.number(schema, path, number)),
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

/// The failure of a strict answer with a value that the document does not state.
fn refused(path: &str, value: &Value) -> Failure {
    let says = match value {
        Value::String(text) => {
            let quoted: String = text.chars().take(QUOTED).collect();
            format!("\"{quoted}{}\"", if quoted.len() < text.len() { "…" } else { "" })
        }
        other => other.to_string(),
    };
    let reason = format!(
        "field `{path}` of the answer is {says}, which the document does not contain, and the schema allows no `null` there"
    );
    Failure::poison(FailureClass::Ungrounded, reason)
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

#[cfg(test)]
mod tests;
