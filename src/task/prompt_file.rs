//! Prompt files: prompts for generators, stored beside the pipeline file and versioned by their content.
//!
//! ```text
//! ---
//! name: product-facts
//! system: You read product descriptions.        # optional
//! model: { max_tokens: 96, temperature: 0 }     # optional; also top_p, top_k, seed, stop
//! schema: ../schemas/product.json               # optional; a path from this file, or the schema itself
//! ---
//! facts: {{ document.text }}
//! ```
//!
//! The part between the two lines of dashes is YAML; unknown keys are errors. The rest is the template of the user message.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::engine::{Sampling, Schema};
use crate::template::{PrintMode, Template};
use crate::yaml;

/// The longest message that a template can render, in bytes: a document of the usual size limit and as much again. The token limit
/// of the model is checked later.
const MAX_MESSAGE: usize = 4 << 20;

/// The line that opens and closes the front matter.
const FENCE: &str = "---";

/// Most stop texts of a prompt; the usual limit of servers.
const MOST_STOPS: usize = 16;

/// A prompt as written in its file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PromptFile {
    pub name: Arc<str>,
    pub system: Option<String>,
    pub parameters: Parameters,
    pub schema: Option<Arc<Schema>>,
    /// The template, without surrounding white space.
    pub body: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Parameters {
    pub max_tokens: Option<usize>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
}

/// A JSON Schema, given directly or as a file.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaSource {
    Inline(Value),
    /// Path of a JSON file.
    File(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FrontMatter {
    name: String,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    model: Option<Spanned<Parameters>>,
    #[serde(default)]
    schema: Option<Spanned<SchemaSource>>,
}

impl PromptFile {
    /// A prompt that is part of the program.
    pub(super) fn built_in(name: &str, system: &str, body: &str) -> Self {
        Self {
            name: name.into(),
            system: Some(system.into()),
            parameters: Parameters::default(),
            schema: None,
            body: body.into(),
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A message with file and line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let fault = |line: u64, message: &str| format!("{}:{line}: {message}", path.display());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = text.split_inclusive('\n');
        if lines.next().is_none_or(|line| line.trim_end() != FENCE) {
            return Err(fault(
                1,
                "a prompt file begins with a line `---`, front matter with at least `name`, and another line `---`",
            ));
        }
        let mut front = String::new();
        let mut closed = false;
        for line in lines.by_ref() {
            if line.trim_end() == FENCE {
                closed = true;
                break;
            }
            front.push_str(line);
        }
        if !closed {
            return Err(fault(1, "the front matter has no end: close it with a line `---`"));
        }
        let rest: String = lines.collect();
        let body = rest.trim();
        // The front matter starts in line 2 of the file.
        let below = front.lines().count() as u64 + 3 + rest[..rest.len() - rest.trim_start().len()].matches('\n').count() as u64;
        let FrontMatter { name, system, model, schema } = yaml::read(&front).map_err(|yaml| match yaml.place {
            Some((line, column)) => format!("{}:{}:{column}: {}", path.display(), line + 1, yaml.message),
            None => fault(1, &yaml.message),
        })?;
        if name.trim().is_empty() {
            return Err(fault(2, "the prompt's `name` is empty: set a name that all its versions share"));
        }
        if let Some(model) = &model
            && let Some(problem) = model.value.problem()
        {
            return Err(fault(model.referenced.line() + 1, &problem));
        }
        if name.contains('\0') || system.as_ref().is_some_and(|system| system.contains('\0')) || body.contains('\0') {
            return Err(fault(1, "the prompt contains U+0000, which cannot be stored: remove it"));
        }
        if body.is_empty() {
            return Err(fault(below, "the prompt has no message: write it below the front matter"));
        }
        Template::new(body, PrintMode::Scalars, MAX_MESSAGE).map_err(|error| {
            let line = below + error.line.unwrap_or(1).saturating_sub(1) as u64;
            fault(line, &format!("the template is invalid: {}", error.message))
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let load = |schema: Spanned<SchemaSource>| {
            schema.value.load(folder).map_err(|message| fault(schema.referenced.line() + 1, &message))
        };
        let schema = schema.map(load).transpose()?;
        let parameters = model.map(|model| model.value).unwrap_or_default();
        Ok(Self { name: name.into(), system, parameters, schema, body: body.to_owned() })
    }

    /// Adds `schema` to a prompt without one. It is an error if both are set.
    pub(super) fn with_schema(mut self, schema: Option<&SchemaSource>, folder: &Path) -> Result<Self, String> {
        let Some(schema) = schema else { return Ok(self) };
        if self.schema.is_some() {
            return Err(format!("has a `schema`, and so has its prompt `{}`: remove one of them", self.name));
        }
        self.schema = Some(schema.load(folder).map_err(|fault| format!("has a bad schema: {fault}"))?);
        Ok(self)
    }

    pub(super) fn template(&self) -> Result<Template, String> {
        Template::new(&self.body, PrintMode::Scalars, MAX_MESSAGE).map_err(|error| error.to_string())
    }
}

impl Parameters {
    /// The problem in the parameters, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        if self.max_tokens == Some(0) {
            return Some("`max_tokens` is 0, which allows no answer: write a positive number".into());
        }
        if self.temperature.is_some_and(|t| !(0.0..=10.0).contains(&t)) {
            return Some("`temperature` is out of range: write 0 for the most likely token, or a number up to 10".into());
        }
        if self.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return Some("`top_p` is out of range: write a number above 0 and up to 1".into());
        }
        if self.stop.len() > MOST_STOPS || self.stop.iter().any(String::is_empty) {
            return Some(format!("`stop` has an empty text or more than {MOST_STOPS} texts: list the texts that end an answer"));
        }
        None
    }

    pub(super) fn sampling(&self) -> Sampling {
        let greedy = Sampling::default();
        Sampling {
            temperature: self.temperature.map_or(greedy.temperature, |t| t as f32),
            top_p: self.top_p.map_or(greedy.top_p, |p| p as f32),
            top_k: self.top_k.unwrap_or(greedy.top_k),
            seed: self.seed.unwrap_or(greedy.seed),
        }
    }
}

impl SchemaSource {
    /// The parsed schema. A path is relative to `folder`.
    ///
    /// # Errors
    /// A message with the file, and with the line if the file is not JSON.
    pub(super) fn load(&self, folder: &Path) -> Result<Arc<Schema>, String> {
        match self {
            Self::Inline(value) => Schema::new(value.clone()).map(Arc::new),
            Self::File(path) => {
                let path = folder.join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
                let value = serde_json::from_str(&text).map_err(|error| {
                    let message = error.to_string();
                    let message = message.split(" at line ").next().unwrap_or_default();
                    format!("{}:{}:{}: the schema is not valid JSON: {message}", path.display(), error.line(), error.column())
                })?;
                Schema::new(value).map(Arc::new).map_err(|message| format!("{}: {message}", path.display()))
            }
        }
    }
}

impl Serialize for SchemaSource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inline(value) => value.serialize(serializer),
            Self::File(path) => path.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SchemaSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrSchema;

        impl<'de> Visitor<'de> for PathOrSchema {
            type Value = SchemaSource;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the path of a JSON Schema or the schema itself")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<SchemaSource, E> {
                Ok(SchemaSource::File(path.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SchemaSource, A::Error> {
                Value::deserialize(MapAccessDeserializer::new(map)).map(SchemaSource::Inline)
            }
        }

        deserializer.deserialize_any(PathOrSchema)
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    let reason = match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::InvalidData => "the file is not UTF-8".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    format!("{}: {reason}", path.display())
}

#[cfg(test)]
mod tests;
