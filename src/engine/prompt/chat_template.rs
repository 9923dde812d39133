//! Chat templates: render a conversation as the text that the model was trained on.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::python_compat;

/// The maximum number of steps of a template: thousands per message, even for the longest sensible conversations.
const MAX_TEMPLATE_STEPS: u64 = 1_000_000;

const NAME: &str = "chat_template";

/// A model's chat template.
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and so on.
    specials: Value,
}

/// A message as the template sees it.
#[derive(Clone, Copy)]
pub(super) struct TemplateMessage<'a> {
    pub(super) role: &'a str,
    pub(super) content: &'a str,
}

impl ChatTemplate {
    /// Compiles `source` with the settings of Hugging Face: block tags leave no white space, and Python's string methods work.
    ///
    /// # Errors
    /// One sentence without its subject.
    pub(super) fn new(source: &str, specials: BTreeMap<String, String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| format!("cannot be compiled: {}", sentence(&e)))?);
        environment.set_fuel(Some(MAX_TEMPLATE_STEPS));
        python_compat::install(&mut environment);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment
            .add_template_owned(NAME, without_marks_of_answers(source))
            .map_err(|e| format!("cannot be compiled: {}", sentence(&e)))?;
        Ok(Self { environment, specials: Value::from_pairs(specials) })
    }

    /// Renders the conversation. With `open` the text ends where the model's next turn starts. `thinking` sets `enable_thinking`,
    /// which templates of reasoning models read; none leaves it undefined.
    ///
    /// # Errors
    /// The template's own message.
    pub(super) fn render(&self, turns: &[TemplateMessage<'_>], open: bool, thinking: Option<bool>) -> Result<String, String> {
        let messages: Vec<Value> = turns.iter().map(|turn| context! { role => turn.role, content => turn.content }).collect();
        let conversation = context! {
            messages => messages,
            add_generation_prompt => open,
            tools => Value::from(()),
            documents => Value::from(()),
            enable_thinking => thinking.map_or(Value::UNDEFINED, Value::from),
            ..self.specials.clone()
        };
        let template = self.environment.get_template(NAME).map_err(|e| sentence(&e))?;
        template.render(conversation).map_err(|e| sentence(&e))
    }
}

/// Replaces the `generation` tags, which trainers use to mark the model's turns. They print nothing, and the template engine does
/// not know them.
fn without_marks_of_answers(source: &str) -> String {
    let mut rest = source;
    let mut output = String::with_capacity(source.len());
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        output.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |at| at + 2);
        let (tag, after) = tag.split_at(end);
        match tag.trim_start_matches("{%").trim_end_matches("%}").trim_matches(['-', '+']).trim() {
            // The replacement keeps the tag's white space control.
            "generation" => output.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => output.push_str(&tag.replace("endgeneration", "endif")),
            _ => output.push_str(tag),
        }
        rest = after;
    }
    output.push_str(rest);
    output
}

/// An error in one line. A message that the template raised itself stays as it is.
fn sentence(error: &Error) -> String {
    let text = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "it does not come to an end".to_owned(),
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    format!("{}{line}", text.trim_end_matches('.'))
}
