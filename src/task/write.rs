//! `write`: text that a model writes from a prompt file, the document and the outputs of other tasks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::for_each::{ItemPrompt, ItemPromptSpec};
use super::prompt_file::{PromptFile, SchemaSource};
use super::task_prompt::generator;
use super::{Task, TaskStep, TemplateContext, completion};
use crate::document::Document;
use crate::engine::{Engine, Finish, Prediction};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::{Confidence, Output, WrittenText};
use crate::prompt::PromptVersion;

/// Part of every fingerprint. Increase it when the same answer leads to another output.
const ALGORITHM: u32 = 1;

/// Parameters of `write`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteSpec {
    /// Name of the generator in the configuration.
    pub model: String,
    /// The prompt file, relative to the pipeline file.
    pub prompt: PathBuf,
    /// JSON Schema of the answer, for a prompt file without one: a path relative to the pipeline file, or the schema itself.
    #[serde(default)]
    pub schema: Option<SchemaSource>,
    /// Most tokens of an answer; overrides the limit in the prompt file.
    #[serde(default)]
    pub max_tokens: Option<usize>,
    /// An expression for a list. The task then runs once for each `item` of the list.
    #[serde(default)]
    pub for_each: Option<String>,
}

#[derive(Debug)]
struct Write {
    signature: Vec<u8>,
    prompt: ItemPrompt,
}

impl WriteSpec {
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
        let model = generator(engine, &self.model, "write")?;
        let file = self.read(base_dir).map_err(anyhow::Error::msg)?;
        Ok(Arc::new(self.assemble(self.item_prompt().build(name, engine, model, file)?)?))
    }

    fn assemble(&self, prompt: ItemPrompt) -> anyhow::Result<Write> {
        let signature = serde_json::to_vec(&("write", ALGORITHM, prompt.version().version(), &self.for_each))?;
        Ok(Write { signature, prompt })
    }

    fn item_prompt(&self) -> ItemPromptSpec<'_> {
        ItemPromptSpec { prompt: Some(&self.prompt), max_tokens: self.max_tokens, for_each: self.for_each.as_deref() }
    }

    pub(super) fn read(&self, base_dir: &Path) -> Result<PromptFile, String> {
        let file = PromptFile::read(&base_dir.join(&self.prompt)).map_err(|fault| format!("has a bad prompt: {fault}"))?;
        file.with_schema(self.schema.as_ref(), base_dir)
    }
}

impl Task for Write {
    fn kind(&self) -> &'static str {
        "write"
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
        _document: &Document,
        _upstream: &TemplateContext,
        predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        self.prompt.interpret(predictions, |prediction| Ok(Output::WrittenText(self.written(prediction)?)))
    }
}

impl Write {
    fn written(&self, prediction: Prediction) -> Result<WrittenText, Failure> {
        let completion = completion(prediction)?;
        let confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
        let Some(schema) = &self.prompt.prompt.schema else {
            let text = completion.text.trim();
            if text.is_empty() {
                return Err(Failure::poison(FailureClass::Model, "the model wrote nothing"));
            }
            refuse_nul("the text", text)?;
            let truncated = completion.finish == Finish::Length;
            return Ok(WrittenText { text: text.to_owned(), fields: None, confidence, truncated });
        };
        let fields = object(schema.judge(&completion, self.prompt.prompt.max_tokens)?)?;
        let text = serde_json::to_string(&fields).map_err(|e| Failure::poison(FailureClass::Schema, e.to_string()))?;
        Ok(WrittenText { text, fields: Some(fields), confidence, truncated: false })
    }
}

/// The object of a validated answer. Refuses characters that cannot be stored.
pub(super) fn object(value: Value) -> Result<Map<String, Value>, Failure> {
    if let Some(path) = nul_in(&value, &mut String::new()) {
        return Err(Failure::poison(FailureClass::NulCharacter, format!("the answer contains U+0000 at `{path}`")));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Failure::poison(FailureClass::Schema, "the answer is not an object")),
    }
}

/// Refuses a text that Postgres cannot store.
pub(super) fn refuse_nul(what: &str, text: &str) -> Result<(), Poison> {
    match text.find('\0') {
        Some(at) => Err(Poison {
            class: FailureClass::NulCharacter,
            reason: format!("{what} that the model wrote contains U+0000 at byte {at}"),
        }),
        None => Ok(()),
    }
}

fn nul_in(value: &Value, path: &mut String) -> Option<String> {
    let length = path.len();
    let inside = |path: &mut String, step: &str, inner: &Value| {
        path.push('/');
        path.push_str(&step.replace('\0', "\u{fffd}"));
        let found = if step.contains('\0') { Some(path.clone()) } else { nul_in(inner, path) };
        path.truncate(length);
        found
    };
    match value {
        Value::String(text) => text.contains('\0').then(|| path.clone()),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| inside(path, &index.to_string(), item)),
        Value::Object(fields) => fields.iter().find_map(|(name, inner)| inside(path, name, inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests;
