//! Prompts for the document or for each item of a list (`for_each`): one request per item, and one output for all items.

use std::path::Path;
use std::sync::Arc;

use minijinja::Value;

use super::prompt_file::PromptFile;
use super::task_prompt::{PromptSettings, TaskPrompt, names_read};
use super::{TaskStep, TemplateContext, only};
use crate::engine::{Engine, ModelInfo, Prediction, SpanGrammar};
use crate::failure::{Failure, FailureClass, Poison};
use crate::outcome::Output;
use crate::prompt::PromptVersion;
use crate::template::ListExpression;

/// Most items of one document. Each item is a separate request, so a wrong list could block the stream without a limit.
const MOST_ITEMS: usize = 100;

/// The names of an item and of its index (from 0) in templates.
pub(super) const ITEM_NAMES: [&str; 2] = ["item", "index"];

/// The parameters that all kinds with `for_each` have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ItemPromptSpec<'a> {
    /// `None` is the built-in prompt, which reads the text of the document.
    pub prompt: Option<&'a Path>,
    pub max_tokens: Option<usize>,
    pub for_each: Option<&'a str>,
}

impl ItemPromptSpec<'_> {
    pub(super) fn problems(self) -> Vec<String> {
        let mut problems: Vec<String> = ForEach::new(self.for_each).err().into_iter().collect();
        if self.for_each.is_some() && self.prompt.is_none() {
            problems.push("has `for_each`, but no `prompt` that uses `item`".into());
        }
        if self.max_tokens == Some(0) {
            problems.push("has `max_tokens: 0`, which allows answers of 0 tokens: write a positive number".into());
        }
        problems
    }

    /// The names that the prompt and the list expression read.
    pub(super) fn reads(self, base_dir: &Path) -> Vec<String> {
        let own: &[&str] = if self.for_each.is_some() { &["schema", ITEM_NAMES[0], ITEM_NAMES[1]] } else { &["schema"] };
        let mut names = match self.prompt {
            Some(prompt) => names_read(&base_dir.join(prompt), own).unwrap_or_default(),
            None => vec!["document.text".into()],
        };
        if let Ok(for_each) = ForEach::new(self.for_each) {
            names.extend_from_slice(for_each.reads());
        }
        names
    }

    /// Builds the prompt of task `name`.
    pub(super) fn build(self, name: &str, engine: &Engine, model: &ModelInfo, file: PromptFile) -> anyhow::Result<ItemPrompt> {
        let settings = PromptSettings { max_tokens: self.max_tokens, ..PromptSettings::new(name, model) };
        let prompt = TaskPrompt::new(file, settings)?;
        prompt.check(engine)?;
        ItemPrompt::new(prompt, self.for_each)
    }
}

/// A prompt that is sent for the document, or for each item of a list.
#[derive(Debug)]
pub(super) struct ItemPrompt {
    pub prompt: TaskPrompt,
    for_each: ForEach,
}

impl ItemPrompt {
    pub(super) fn new(prompt: TaskPrompt, for_each: Option<&str>) -> anyhow::Result<Self> {
        Ok(Self { prompt, for_each: ForEach::new(for_each).map_err(anyhow::Error::msg)? })
    }

    pub(super) fn version(&self) -> &PromptVersion {
        &self.prompt.version
    }

    /// One request for the document or for each item. With `spans`, the answers quote a document under this grammar.
    pub(super) fn prepare(&self, upstream: &TemplateContext, spans: Option<&Arc<SpanGrammar>>) -> Result<TaskStep, Failure> {
        let scopes = self.scopes(upstream)?;
        if scopes.is_empty() {
            return Ok(TaskStep::Ready(Output::Items(Vec::new())));
        }
        let ask = |scope| Ok(self.prompt.request_quoting(self.prompt.render(upstream, scope)?, spans.cloned()));
        Ok(TaskStep::Ask(scopes.into_iter().map(ask).collect::<Result<_, Failure>>()?))
    }

    /// The output, in which `one` converts each prediction.
    pub(super) fn interpret(
        &self,
        predictions: Vec<Prediction>,
        one: impl Fn(Prediction) -> Result<Output, Failure>,
    ) -> Result<TaskStep, Failure> {
        Ok(TaskStep::Ready(self.output(self.each(predictions, one)?)?))
    }

    /// What `one` makes of each prediction, in the order of the items.
    pub(super) fn each<T>(
        &self,
        predictions: Vec<Prediction>,
        one: impl Fn(Prediction) -> Result<T, Failure>,
    ) -> Result<Vec<T>, Failure> {
        if self.for_each.0.is_none() {
            return Ok(vec![one(only(predictions)?)?]);
        }
        let numbered = predictions.into_iter().enumerate();
        numbered.map(|(index, prediction)| one(prediction).map_err(|failure| about(index, failure))).collect()
    }

    /// The output of the document, or of all its items.
    pub(super) fn output(&self, mut outputs: Vec<Output>) -> Result<Output, Failure> {
        if self.for_each.0.is_some() {
            return Ok(Output::Items(outputs));
        }
        let nothing = || Failure::poison(FailureClass::Model, "the model gave no answer");
        outputs.pop().ok_or_else(nothing)
    }

    /// The template variables of each request.
    pub(super) fn scopes(&self, upstream: &TemplateContext) -> Result<Vec<ItemScope>, Failure> {
        self.for_each.scopes(upstream)
    }
}

/// What a task runs for: the document, or each item of a list.
#[derive(Debug)]
struct ForEach(Option<ListExpression>);

/// Template variables of one request in addition to the document and earlier tasks.
pub(super) type ItemScope = Vec<(&'static str, Value)>;

impl ForEach {
    fn new(for_each: Option<&str>) -> Result<Self, String> {
        let list = for_each.map(ListExpression::new).transpose().map_err(|error| format!("has a bad `for_each`: {error}"))?;
        Ok(Self(list))
    }

    /// The names that the list expression reads.
    fn reads(&self) -> &[String] {
        self.0.as_ref().map_or(&[], ListExpression::variables)
    }

    /// The template variables of each request. There are none for a list without items.
    fn scopes(&self, upstream: &TemplateContext) -> Result<Vec<ItemScope>, Failure> {
        let Some(list) = &self.0 else { return Ok(vec![ItemScope::new()]) };
        let items = list.items(&upstream.context(), MOST_ITEMS)?;
        let [item_name, index_name] = ITEM_NAMES;
        let scope = |(index, item)| vec![(item_name, item), (index_name, Value::from(index))];
        Ok(items.into_iter().enumerate().map(scope).collect())
    }
}

fn about(index: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Poison(Poison { class, reason }) => Failure::poison(class, format!("item {index}: {reason}")),
        transient @ Failure::Transient(_) => transient,
    }
}
