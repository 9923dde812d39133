//! The prompt of one task, ready for requests to a generator.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;

use super::prompt_file::{Parameters, PromptFile};
use super::{TemplateContext, model};
use crate::engine::{
    Engine, Generate, Message, ModelInfo, ModelKind, Prompt, Request, Role, Sampling, Schema, SpanGrammar, Work,
};
use crate::failure::Poison;
use crate::prompt::PromptVersion;
use crate::template::Template;

/// Default limit of an answer in tokens: enough for a page, and a bound for a model that does not stop.
pub(super) const DEFAULT_MAX_TOKENS: usize = 512;

/// A prompt with its model.
#[derive(Debug)]
pub(super) struct TaskPrompt {
    pub model: Arc<str>,
    pub version: PromptVersion,
    pub schema: Option<Arc<Schema>>,
    pub max_tokens: usize,
    body: Template,
    sampling: Sampling,
    stop: Vec<String>,
    group: Arc<str>,
    /// Additional template variables, the same for every document.
    constants: Vec<(&'static str, Value)>,
}

/// The model and the settings that a task combines with a prompt file.
pub(super) struct PromptSettings<'a> {
    pub task: &'a str,
    pub model: &'a ModelInfo,
    /// Most tokens of an answer, if the task sets it.
    pub max_tokens: Option<usize>,
    /// Most tokens of an answer, if neither task nor prompt sets it.
    pub default_max_tokens: usize,
    /// Further parts of the prompt version, such as labels that the prompt shows.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    pub constants: Vec<(&'static str, Value)>,
}

impl<'a> PromptSettings<'a> {
    pub(super) fn new(task: &'a str, model: &'a ModelInfo) -> Self {
        let (parameters, constants) = Default::default();
        Self { task, model, max_tokens: None, default_max_tokens: DEFAULT_MAX_TOKENS, parameters, constants }
    }
}

impl TaskPrompt {
    pub(super) fn new(file: PromptFile, settings: PromptSettings<'_>) -> anyhow::Result<Self> {
        let body = file.template().map_err(|error| anyhow::anyhow!("prompt `{}`: {error}", file.name))?;
        let PromptFile { name, system, parameters, schema, body: source } = file;
        let context = settings.model.max_tokens;
        // At least half of the context is left for the prompt.
        let default = settings.default_max_tokens.min(context / 2);
        let max_tokens = settings.max_tokens.or(parameters.max_tokens).unwrap_or(default);
        if max_tokens >= context {
            bail!(
                "answers of {max_tokens} tokens leave no space for a prompt in the context of {context} tokens of model `{}`: \
                 reduce `max_tokens`",
                settings.model.name
            );
        }
        let mut constants = settings.constants;
        if let Some(schema) = &schema {
            constants.push(("schema", Value::from(schema.text())));
        }
        let sampling = parameters.sampling();
        let version = PromptVersion {
            name,
            system,
            body: source,
            parameters: effective_parameters(&parameters, max_tokens, settings.parameters),
            schema: schema.as_ref().map(|schema| schema.value().clone()),
        };
        let group = format!("{}/{}", settings.task, version.version()).into();
        let stop = parameters.stop;
        Ok(Self { model: settings.model.name.clone(), version, schema, max_tokens, body, sampling, stop, group, constants })
    }

    /// The messages for one request. `more` are additional template variables.
    pub(super) fn render(&self, upstream: &TemplateContext, more: Vec<(&'static str, Value)>) -> Result<Prompt, Poison> {
        self.render_values(upstream.context_with(self.constants.iter().cloned().chain(more)))
    }

    fn render_values(&self, values: Value) -> Result<Prompt, Poison> {
        let rendered = self.body.render(&values)?;
        let message = |role, content: &str| Message { role, content: content.into() };
        let mut messages = Vec::with_capacity(2);
        messages.extend(self.version.system.as_deref().map(|system| message(Role::System, system)));
        messages.push(message(Role::User, rendered.trim()));
        Ok(Prompt { messages, group: self.group.clone() })
    }

    /// The prompt of a document without content: every name that the template reads has the value "N/A".
    pub(super) fn render_without_content(&self) -> Result<Prompt, Poison> {
        let mut context = serde_json::Map::new();
        for path in self.body.variables() {
            insert_placeholder(&mut context, path);
        }
        let context = context.into_iter().map(|(name, value)| (name, Value::from(Serde(value))));
        let constants = self.constants.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        self.render_values(Value::from_pairs(context.chain(constants)))
    }

    /// Checks that the engine can constrain answers to the schema.
    pub(super) fn check(&self, engine: &Engine) -> anyhow::Result<()> {
        match &self.schema {
            Some(schema) => engine.check_schema(&self.model, schema, self.max_tokens).map_err(anyhow::Error::msg),
            None => Ok(()),
        }
    }

    pub(super) fn request(&self, prompt: Prompt) -> Request {
        self.request_quoting(prompt, None)
    }

    /// A request for an answer that quotes a document under the grammar `spans`.
    pub(super) fn request_quoting(&self, prompt: Prompt, spans: Option<Arc<SpanGrammar>>) -> Request {
        let generate = Generate {
            prompt,
            max_tokens: self.max_tokens,
            sampling: self.sampling,
            stop: self.stop.clone(),
            schema: self.schema.clone(),
            spans,
        };
        Request { model: self.model.clone(), work: Work::Generate(generate) }
    }
}

/// The content-free value, as in the literature on contextual calibration.
const NO_CONTENT: &str = "N/A";

fn insert_placeholder(context: &mut serde_json::Map<String, serde_json::Value>, path: &str) {
    let (root, rest) = path.split_once('.').map_or((path, None), |(root, rest)| (root, Some(rest)));
    let slot = context.entry(root).or_insert(json!(NO_CONTENT));
    if let Some(rest) = rest {
        if !slot.is_object() {
            *slot = json!({});
        }
        if let Some(inner) = slot.as_object_mut() {
            insert_placeholder(inner, rest);
        }
    }
}

/// The parameters as stored with the version: the values in effect, with defaults filled in.
fn effective_parameters(
    parameters: &Parameters,
    max_tokens: usize,
    more: serde_json::Map<String, serde_json::Value>,
) -> serde_json::Value {
    let mut all = json!({
        "max_tokens": max_tokens,
        "temperature": parameters.temperature.unwrap_or(0.0),
        "top_p": parameters.top_p.unwrap_or(1.0),
        "top_k": parameters.top_k.unwrap_or(0),
        "seed": parameters.seed.unwrap_or(0),
        "stop": parameters.stop,
    });
    if let Some(all) = all.as_object_mut() {
        all.extend(more);
    }
    all
}

/// The names that the prompt at `path` reads, without `own`, or the problem in it.
pub(super) fn names_read(path: &Path, own: &[&str]) -> Result<Vec<String>, String> {
    let template = PromptFile::read(path)?.template()?;
    let mut names = template.variables().to_vec();
    names.retain(|name| !own.contains(&crate::template::root(name)));
    Ok(names)
}

/// The generator `name` for a task of `kind`.
pub(super) fn generator<'a>(engine: &'a Engine, name: &str, kind: &str) -> anyhow::Result<&'a ModelInfo> {
    let model = model(engine, name)?;
    if model.kind != ModelKind::Generator {
        bail!("model `{name}` is a {}, but `{kind}` needs a generator: name another model", model.kind.as_str());
    }
    Ok(model)
}
