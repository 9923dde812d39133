//! The values that templates of a task can read: the document and the outputs of earlier tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::Serde;

use super::statements::Statements;
use crate::document::Document;
use crate::outcome::Output;

/// The values that conditions and templates can read, by name: `document`, and each earlier task that has an output.
#[derive(Debug, Clone, Default)]
pub struct TemplateContext {
    values: BTreeMap<Arc<str>, Value>,
    /// What the outputs of earlier tasks state.
    statements: BTreeMap<Arc<str>, Arc<Statements>>,
}

impl TemplateContext {
    /// The values of `document`: `id`, `text`, `version`, `characters`, `metadata`, `fields`, and `tokens` if they were counted.
    pub fn of(document: &Document, tokens: Option<usize>) -> Self {
        let view = [
            ("id", Value::from(document.id.clone())),
            ("text", Value::from(document.text.clone())),
            ("version", Value::from(document.version)),
            ("characters", Value::from(document.text.chars().count())),
            ("metadata", Value::from(Serde(&document.metadata))),
            ("fields", Value::from(Serde(&document.fields))),
        ];
        let tokens = tokens.map(|tokens| ("tokens", Value::from(tokens)));
        let values = BTreeMap::from([("document".into(), Value::from_pairs(view.into_iter().chain(tokens)))]);
        Self { values, statements: BTreeMap::new() }
    }

    /// Adds the output of task `name` in the form of [`Output::view`].
    pub fn insert(&mut self, name: &Arc<str>, output: &Output) {
        self.values.insert(name.clone(), Value::from(Serde(output.view())));
        self.statements.insert(name.clone(), Arc::new(Statements::of(output)));
    }

    /// What the output of task `name` states.
    pub(super) fn statements(&self, name: &str) -> Option<&Statements> {
        self.statements.get(name).map(Arc::as_ref)
    }

    /// Whether there is a value with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value with this name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The values as a template argument.
    pub fn context(&self) -> Value {
        self.context_with([])
    }

    /// The values as a template argument, with `more`. Names in `more` take precedence over tasks.
    pub fn context_with(&self, more: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
        let values = self.values.iter().map(|(name, value)| (name.to_string(), value.clone()));
        Value::from_pairs(values.chain(more.into_iter().map(|(name, value)| (name.to_owned(), value))))
    }

    /// A copy with another document text.
    pub fn with_text(&self, text: &str) -> Self {
        let mut values = self.values.clone();
        if let Some(document) = values.get_mut("document") {
            let fields = document.try_iter().into_iter().flatten().filter_map(|key| {
                let value = document.get_item(&key).ok()?;
                Some((key.to_string(), value))
            });
            let fields: BTreeMap<String, Value> = fields.chain([("text".to_owned(), Value::from(text))]).collect();
            *document = Value::from_pairs(fields);
        }
        Self { values, statements: self.statements.clone() }
    }
}
