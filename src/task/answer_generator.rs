//! Answers questions from given passages with a generator. The answer is a list of sentences, each with the passages that support
//! it.
//!
//! The prompt template can read `question`, `passages` (each with `number` and `text`) and `schema`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer_object::refuse_nul;
use super::completion;
use super::prompt_file::PromptFile;
use super::task_prompt::{PromptSettings, TaskPrompt, generator, names_read};
use crate::engine::{Engine, Prediction, Request, Schema};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::Confidence;
use crate::prompt::PromptVersion;

/// The prompt of pipelines without a prompt file.
const BUILT_IN: &str = include_str!("../../pipelines/prompts/answer.md");

/// Most passages in a prompt.
pub const MOST_PASSAGES: usize = 16;

/// Most sentences of an answer, and most characters of a sentence, so that an answer ends before it reaches its token limit.
const MOST_SENTENCES: usize = 8;
const MOST_CHARACTERS: usize = 600;

/// The names that the template may read.
const NAMES: [&str; 3] = ["question", "passages", "schema"];

/// A generator with its answer prompt.
#[derive(Debug)]
pub struct AnswerGenerator {
    prompt: TaskPrompt,
}

/// A sentence of an answer as the model wrote it, not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedSentence {
    pub text: String,
    /// Numbers, from 1, of the passages that the model cites.
    pub passages: Vec<usize>,
}

#[derive(Deserialize)]
struct ModelAnswer {
    found: bool,
    sentences: Vec<ClaimedSentence>,
}

impl AnswerGenerator {
    /// The generator `model` with the prompt file, or with the built-in prompt.
    ///
    /// # Errors
    /// If there is no such generator, or the prompt is invalid.
    pub fn new(engine: &Engine, model: &str, prompt: Option<&Path>) -> anyhow::Result<Self> {
        let model = generator(engine, model, "answers")?;
        let mut file = match prompt {
            Some(path) => PromptFile::read(path),
            None => PromptFile::parse(&PathBuf::from("pipelines/prompts/answer.md"), BUILT_IN),
        }
        .map_err(anyhow::Error::msg)?;
        anyhow::ensure!(
            file.schema.is_none(),
            "prompt `{}` has a `schema`, but answers have a fixed schema: remove it",
            file.name
        );
        file.schema = Some(schema()?);
        Ok(Self { prompt: TaskPrompt::new(file, PromptSettings::new("answer", model))? })
    }

    /// Problems in the prompt file.
    pub fn problems(prompt: &Path) -> Vec<String> {
        match names_read(prompt, &NAMES) {
            Ok(foreign) if foreign.is_empty() => Vec::new(),
            Ok(foreign) => {
                vec![format!(
                    "the prompt reads `{}`, which is not available in answer prompts: use {}",
                    foreign[0],
                    NAMES.join(", ")
                )]
            }
            Err(fault) => vec![format!("a bad prompt: {fault}")],
        }
    }

    /// The version of the prompt.
    pub fn version(&self) -> &PromptVersion {
        &self.prompt.version
    }

    /// The request for one question. Question and passages are inserted as plain text and never read as a template.
    ///
    /// # Errors
    /// If the prompt cannot be rendered with them.
    pub fn request(&self, question: &str, passages: &[&str]) -> Result<Request, Poison> {
        let numbered: Vec<_> =
            passages.iter().enumerate().map(|(index, text)| json!({ "number": index + 1, "text": text })).collect();
        let scope = vec![("question", Value::from(question)), ("passages", Value::from(Serde(json!(numbered))))];
        Ok(self.prompt.request(self.prompt.render(&super::TemplateContext::default(), scope)?))
    }

    /// The sentences of the answer and the confidence of the model. There are no sentences if the model found no answer in the
    /// passages.
    ///
    /// # Errors
    /// If the prediction is not an answer of the expected form.
    pub fn interpret(&self, prediction: Prediction) -> Result<(Vec<ClaimedSentence>, Option<Confidence>), Failure> {
        let completion = completion(prediction)?;
        let confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
        let Some(schema) = &self.prompt.schema else { return Ok((Vec::new(), confidence)) };
        let value = schema.judge(&completion, self.prompt.max_tokens)?;
        let answer: ModelAnswer =
            serde_json::from_value(value).map_err(|error| Failure::poison(FailureClass::Schema, error.to_string()))?;
        for sentence in &answer.sentences {
            refuse_nul("the sentence", &sentence.text)?;
        }
        Ok((if answer.found { answer.sentences } else { Vec::new() }, confidence))
    }
}

fn schema() -> anyhow::Result<Arc<Schema>> {
    let sentence = json!({
        "type": "object",
        "properties": {
            "text": { "type": "string", "maxLength": MOST_CHARACTERS },
            "passages": { "type": "array", "maxItems": 4, "items": { "type": "integer", "minimum": 1, "maximum": MOST_PASSAGES } },
        },
        "required": ["text", "passages"],
        "additionalProperties": false,
    });
    let schema = json!({
        "type": "object",
        "properties": {
            "found": { "type": "boolean" },
            "sentences": { "type": "array", "maxItems": MOST_SENTENCES, "items": sentence },
        },
        "required": ["found", "sentences"],
        "additionalProperties": false,
    });
    Schema::new(schema).map(Arc::new).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_prompt_reads_what_there_is() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/prompts/answer.md");
        assert_eq!(AnswerGenerator::problems(&path), [""; 0]);
        assert!(schema().is_ok());
    }
}
