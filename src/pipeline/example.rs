//! Examples in a pipeline file: a record, and what must become of it.

use std::fmt;

use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::definition::TaskDefinition;
use super::problem::suggestion;
use crate::failure::FailureClass;
use crate::outcome::Output;
use crate::record::{Partition, Place, Record};

/// One example.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// What it shows.
    #[serde(default)]
    pub name: Option<String>,
    /// The payload as an object, for JSON sources.
    #[serde(default)]
    pub document: Option<Map<String, Value>>,
    /// The payload as it stands, for text sources and for broken ones.
    #[serde(default)]
    pub raw: Option<String>,
    /// The record's key.
    #[serde(default)]
    pub key: Option<String>,
    /// What must become of it.
    pub expect: Expect,
    /// Line and column in the file.
    #[serde(skip)]
    pub place: Option<(u64, u64)>,
}

/// What must become of an example.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// The record as a whole is a dead letter of this class.
    DeadLetter(FailureClass),
    /// These tasks end like this; others as they like.
    Tasks(Vec<(String, ExpectTask)>),
}

/// How a task must end on an example.
#[derive(Debug, Clone, PartialEq)]
pub enum ExpectTask {
    /// Skipped.
    Skipped,
    /// With such an output.
    Output(ExpectOutput),
}

/// What an output must be like; what is not said is free.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectOutput {
    /// The first label.
    pub label: Option<String>,
    /// The least confidence.
    pub min_confidence: Option<f32>,
    /// The whole text.
    pub text: Option<String>,
    /// A part of the text.
    pub contains: Option<String>,
}

impl Example {
    /// The record that the example stands for, the `index`-th of a partition of its own.
    pub fn record(&self, index: usize) -> Record {
        let payload = match (&self.raw, &self.document) {
            (Some(raw), _) => raw.clone(),
            (None, Some(document)) => Value::Object(document.clone()).to_string(),
            (None, None) => String::new(),
        };
        let partition = Partition { topic: "examples".into(), number: 0 };
        Record {
            place: Place { partition, offset: i64::try_from(index).unwrap_or(i64::MAX) },
            timestamp_ms: Some(0),
            key: Some(self.key.clone().map_or_else(|| format!("example-{index}").into(), Bytes::from)),
            payload: Some(payload.into()),
            headers: Vec::new(),
        }
    }

    /// The example as messages call it: its name, or its number from 1.
    pub fn title(&self, index: usize) -> String {
        self.name.as_ref().map_or_else(|| format!("example {}", index + 1), |name| format!("example `{name}`"))
    }

    pub(super) fn problems(&self, tasks: &[TaskDefinition]) -> Vec<String> {
        let mut problems = Vec::new();
        if self.document.is_some() == self.raw.is_some() {
            problems.push("an example has either `document` or `raw`: write one of them".into());
        }
        if let Expect::Tasks(expected) = &self.expect {
            for (name, _) in expected {
                if !tasks.iter().any(|task| *task.name == **name) {
                    let near = suggestion(name, tasks.iter().map(|task| &*task.name).chain(["dead_letter"]));
                    problems.push(format!("an example expects something of `{name}`, which is no task{near}"));
                }
            }
        }
        problems
    }
}

impl ExpectOutput {
    /// What about `output` is not as expected.
    pub fn mismatches(&self, output: &Output) -> Vec<String> {
        let mut wrong = Vec::new();
        if let Some(label) = &self.label
            && output.label() != Some(label)
        {
            let confidence = output.confidence().map(|c| format!(" at {c:.2}")).unwrap_or_default();
            wrong.push(format!("expected label `{label}`, found {}{confidence}", quoted(output.label())));
        }
        if let Some(least) = self.min_confidence
            && output.confidence().is_none_or(|confidence| confidence < least)
        {
            let found = output.confidence().map_or_else(|| "none".into(), |c| format!("{c:.3}"));
            wrong.push(format!("expected a confidence of at least {least}, found {found}"));
        }
        if let Some(text) = &self.text
            && output.text() != Some(text)
        {
            wrong.push(format!("expected the text `{text}`, found {}", quoted(output.text())));
        }
        if let Some(part) = &self.contains
            && !output.text().is_some_and(|text| text.contains(part))
        {
            wrong.push(format!("expected a text with `{part}` in it, found {}", quoted(output.text())));
        }
        wrong
    }
}

fn quoted(text: Option<&str>) -> String {
    text.map_or_else(|| "none".into(), |text| format!("`{text}`"))
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Expect;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from task name to what is expected, or `dead_letter: <class>`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expect, A::Error> {
                let mut tasks = Vec::new();
                let mut dead = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "dead_letter" {
                        dead = Some(class(&map.next_value::<String>()?).map_err(A::Error::custom)?);
                    } else {
                        tasks.push((name, map.next_value()?));
                    }
                }
                match dead {
                    Some(_) if !tasks.is_empty() => {
                        Err(A::Error::custom("a dead letter has no outputs: expect one or the other"))
                    }
                    Some(class) => Ok(Expect::DeadLetter(class)),
                    None if tasks.is_empty() => {
                        Err(A::Error::custom("the example expects nothing: name a task or `dead_letter`"))
                    }
                    None => Ok(Expect::Tasks(tasks)),
                }
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

fn class(name: &str) -> Result<FailureClass, String> {
    let found = FailureClass::ALL.iter().find(|class| class.as_str() == name);
    let near = || suggestion(name, FailureClass::ALL.iter().map(|class| class.as_str()));
    found.copied().ok_or_else(|| format!("unknown class of dead letters `{name}`{}", near()))
}

impl<'de> Deserialize<'de> for ExpectTask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = ExpectTask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`skipped`, or a map of `label`, `min_confidence`, `text` and `contains`")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<ExpectTask, E> {
                match word {
                    "skipped" => Ok(ExpectTask::Skipped),
                    _ => Err(E::custom(format!("`{word}` is no expectation: write `skipped` or a map"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ExpectTask, A::Error> {
                ExpectOutput::deserialize(MapAccessDeserializer::new(map)).map(ExpectTask::Output)
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}
