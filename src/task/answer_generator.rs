//! Questions that a generator answers from given passages, sentence by sentence, each with the passages that say it.
//!
//! The prompt file sees `question`, `passages` (each with `number` and `text`) and `schema`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::for_each::completion;
use super::prompt_file::PromptFile;
use super::task_prompt::{PromptSettings, TaskPrompt, generator, names_read};
use super::write::refuse_nul;
use crate::engine::{Engine, Prediction, Request, Schema};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::Confidence;
use crate::prompt::PromptVersion;

/// The prompt of pipelines that name none.
const BUILT_IN: &str = include_str!("../../pipelines/prompts/answer.md");

/// Passages that a prompt may have. A sentence may name as many.
pub const MOST_PASSAGES: usize = 16;

/// Sentences of an answer, and characters of one: so that an answer ends before its tokens do.
const MOST_SENTENCES: usize = 8;
const MOST_CHARACTERS: usize = 600;

/// What the template may read.
const NAMES: [&str; 3] = ["question", "passages", "schema"];

/// A generator with the prompt that it answers by.
#[derive(Debug)]
pub struct AnswerGenerator {
    prompting: TaskPrompt,
}

/// A sentence of an answer as the model gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedSentence {
    /// The sentence.
    pub text: String,
    /// The numbers of the passages that are said to say it, from 1.
    pub passages: Vec<usize>,
}

#[derive(Deserialize)]
struct ModelAnswer {
    found: bool,
    sentences: Vec<ClaimedSentence>,
}

impl AnswerGenerator {
    /// The generator `model` with the prompt file, or with the built-in one.
    ///
    /// # Errors
    /// Where there is no such generator, or the prompt is wrong.
    pub fn new(engine: &Engine, model: &str, prompt: Option<&Path>) -> anyhow::Result<Self> {
        let model = generator(engine, model, "answers")?;
        let mut file = match prompt {
            Some(path) => PromptFile::read(path),
            None => PromptFile::parse(&PathBuf::from("pipelines/prompts/answer.md"), BUILT_IN),
        }
        .map_err(anyhow::Error::msg)?;
        anyhow::ensure!(
            file.schema.is_none(),
            "prompt `{}` has a `schema`, but answers have one of their own: leave it out",
            file.name
        );
        file.schema = Some(schema()?);
        Ok(Self { prompting: TaskPrompt::new(file, PromptSettings::new("answer", model))? })
    }

    /// What is wrong with the prompt file, if anything.
    pub fn problems(prompt: &Path) -> Vec<String> {
        match names_read(prompt, &NAMES) {
            Ok(foreign) if foreign.is_empty() => Vec::new(),
            Ok(foreign) => {
                vec![format!("the prompt reads `{}`, which answers do not have: there are {}", foreign[0], NAMES.join(", "))]
            }
            Err(fault) => vec![format!("a bad prompt: {fault}")],
        }
    }

    /// The wording.
    pub fn version(&self) -> &PromptVersion {
        &self.prompting.version
    }

    /// What the model must do. Whatever question and passages say is text to it.
    ///
    /// # Errors
    /// Where the prompt cannot be made of them.
    pub fn request(&self, question: &str, passages: &[&str]) -> Result<Request, Poison> {
        let numbered: Vec<_> =
            passages.iter().enumerate().map(|(index, text)| json!({ "number": index + 1, "text": text })).collect();
        let scope = vec![("question", Value::from(question)), ("passages", Value::from(Serde(json!(numbered))))];
        Ok(self.prompting.request(self.prompting.prompt(&super::TemplateContext::default(), scope)?))
    }

    /// The sentences of the answer, none where the model found none in the passages, and how sure it was.
    ///
    /// # Errors
    /// Where the answer is none.
    pub fn interpret(&self, prediction: Prediction) -> Result<(Vec<ClaimedSentence>, Option<Confidence>), Failure> {
        let completion = completion(prediction)?;
        let confidence = Confidence::of(completion.tokens.iter().filter_map(|token| token.log_probability));
        let Some(schema) = &self.prompting.schema else { return Ok((Vec::new(), confidence)) };
        let judged = schema.judge(&completion, self.prompting.max_tokens)?;
        let claims: ModelAnswer =
            serde_json::from_value(judged).map_err(|error| Failure::poison(FailureClass::Schema, error.to_string()))?;
        for claim in &claims.sentences {
            refuse_nul("the sentence", &claim.text)?;
        }
        Ok((if claims.found { claims.sentences } else { Vec::new() }, confidence))
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
