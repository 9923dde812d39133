//! What a task's templates see: the document, and the outputs of earlier tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::json;

use crate::document::Document;
use crate::outcome::Output;

/// The values that conditions and templates read, by name: `document`, and each earlier task that has an output.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    values: BTreeMap<Arc<str>, Value>,
}

impl Upstream {
    /// A view of `document`: `id`, `text`, `version`, `characters`, `metadata`, `fields`, and `tokens` where they were counted.
    pub fn of(document: &Document, tokens: Option<usize>) -> Self {
        let mut view = json!({
            "id": document.id,
            "text": document.text,
            "version": document.version,
            "characters": document.text.chars().count(),
            "metadata": document.metadata,
            "fields": document.fields,
        });
        if let Some(tokens) = tokens {
            view["tokens"] = tokens.into();
        }
        Self { values: BTreeMap::from([("document".into(), Value::from(Serde(&view)))]) }
    }

    /// Adds the output of task `name`, as [`Output::view`] shows it.
    pub fn insert(&mut self, name: &Arc<str>, output: &Output) {
        self.values.insert(name.clone(), Value::from(Serde(output.view())));
    }

    /// Whether `name` has a value.
    pub fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The values as templates take them.
    pub fn context(&self) -> Value {
        Value::from_pairs(self.values.iter().map(|(name, value)| (name.to_string(), value.clone())))
    }
}
