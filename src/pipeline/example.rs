//! The `examples` of a pipeline file: records with the outcomes that they must have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::definition_error::suggestion;
use super::task_definition::TaskDefinition;
use crate::failure::FailureClass;
use crate::outcome::{Check, Output};
use crate::record::{Partition, Record, RecordLocation};

/// One example of a pipeline file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    #[serde(default)]
    pub name: Option<String>,
    /// The payload as an object, for JSON and Avro sources.
    #[serde(default)]
    pub document: Option<Map<String, Value>>,
    /// The payload as text, for text sources and for payloads that cannot be decoded.
    #[serde(default)]
    pub raw: Option<String>,
    #[serde(default)]
    pub key: Option<String>,
    pub expect: Expectation,
    /// Line and column in the file.
    #[serde(skip)]
    pub place: Option<(u64, u64)>,
}

/// The outcome that an example must have.
#[derive(Debug, Clone, PartialEq)]
pub enum Expectation {
    /// The record as a whole is a dead letter of this class.
    DeadLetter(FailureClass),
    /// The outcomes of these tasks; other tasks are not checked, except that none may fail.
    Tasks(Vec<(String, TaskExpectation)>),
}

/// The outcome that a task must have on an example.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskExpectation {
    Skipped,
    Output(Box<OutputExpectation>),
}

/// What an output must be. Absent fields are not checked.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputExpectation {
    pub label: Option<String>,
    pub min_confidence: Option<f32>,
    pub text: Option<String>,
    /// A part of the text, or of a string in an object or in an item.
    pub contains: Option<String>,
    /// Values of some fields of an object. A nested field is named by its path, such as `price.amount` or `features.0`.
    pub fields: Option<Map<String, Value>>,
    /// Whether the document contains every extracted value that can be looked for in it.
    pub grounded: Option<bool>,
    pub items: Option<usize>,
    /// The checks that a composed object fails; empty where it must pass all.
    pub reasons: Option<Vec<Check>>,
    /// The value of a score.
    pub score: Option<f64>,
    /// Values of some parts of a score.
    pub parts: BTreeMap<String, f64>,
}

impl Example {
    /// The example as a record, at offset `index` of the partition of examples.
    pub fn record(&self, index: usize) -> Record {
        let payload = match (&self.raw, &self.document) {
            (Some(raw), _) => raw.clone(),
            (None, Some(document)) => Value::Object(document.clone()).to_string(),
            (None, None) => String::new(),
        };
        let partition = Partition { topic: "examples".into(), number: 0 };
        Record {
            place: RecordLocation { partition, offset: i64::try_from(index).unwrap_or(i64::MAX) },
            timestamp_ms: Some(0),
            key: Some(self.key.clone().map_or_else(|| format!("example-{index}").into(), Bytes::from)),
            payload: Some(payload.into()),
            headers: Vec::new(),
        }
    }

    /// How messages refer to the example: by its name, or by its number from 1.
    pub fn title(&self, index: usize) -> String {
        self.name.as_ref().map_or_else(|| format!("example {}", index + 1), |name| format!("example `{name}`"))
    }

    pub(super) fn problems(&self, tasks: &[TaskDefinition]) -> Vec<String> {
        let mut problems = Vec::new();
        if self.document.is_some() == self.raw.is_some() {
            problems.push("an example has either `document` or `raw`: write exactly one of them".into());
        }
        if let Expectation::Tasks(expected) = &self.expect {
            for (name, _) in expected {
                if !tasks.iter().any(|task| *task.name == **name) {
                    let near = suggestion(name, tasks.iter().map(|task| &*task.name).chain(["dead_letter"]));
                    problems.push(format!("an example expects an outcome of `{name}`, which is not a task{near}"));
                }
            }
        }
        problems
    }
}

impl OutputExpectation {
    /// How `output` differs from the expectation.
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
            && !contains(output, part)
        {
            wrong.push(format!("expected a text with `{part}` in it, found {}", quoted(output.text())));
        }
        let view = if let Output::Interaction(_) = output { output.view() } else { Value::Null };
        for (path, expected) in self.fields.iter().flatten() {
            let found = output.object().or(view.as_object()).and_then(|fields| at(fields, path));
            if !found.is_some_and(|found| same(found, expected)) {
                let found = found.map_or_else(|| "none".into(), |found| format!("`{found}`"));
                wrong.push(format!("expected field `{path}` to be `{expected}`, found {found}"));
            }
        }
        if let Some(expected) = self.grounded {
            wrong.extend(ungrounded(output, expected));
        }
        if let Some(expected) = &self.reasons {
            wrong.extend(other_checks(output, expected));
        }
        if let Some(expected) = self.items {
            match output {
                Output::Items(items) if items.len() == expected => {}
                Output::Items(items) => wrong.push(format!("expected {expected} items, found {}", items.len())),
                _ => wrong.push(format!("expected {expected} items, found no list")),
            }
        }
        wrong.extend(self.score_mismatches(output));
        wrong
    }

    fn score_mismatches(&self, output: &Output) -> Vec<String> {
        if self.score.is_none() && self.parts.is_empty() {
            return Vec::new();
        }
        let Output::Score(found) = output else { return vec!["expected a score, found none".into()] };
        let whole = self.score.filter(|score| *score != found.value);
        let whole = whole.map(|score| format!("expected a score of {score}, found {}", found.value));
        let parts = self.parts.iter().filter_map(|(name, expected)| {
            let value = found.parts.iter().find(|part| part.name == *name).map(|part| part.value);
            let found = value.map_or_else(|| "none".to_owned(), |value| value.to_string());
            (value != Some(*expected)).then(|| format!("expected part `{name}` to be {expected}, found {found}"))
        });
        whole.into_iter().chain(parts).collect()
    }
}

fn contains(output: &Output, part: &str) -> bool {
    fn in_value(value: &Value, part: &str) -> bool {
        match value {
            Value::String(text) => text.contains(part),
            Value::Array(items) => items.iter().any(|item| in_value(item, part)),
            Value::Object(fields) => fields.values().any(|inner| in_value(inner, part)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    match output {
        Output::Items(items) => items.iter().any(|item| contains(item, part)),
        _ => {
            output.text().is_some_and(|text| text.contains(part))
                || output.object().is_some_and(|fields| fields.values().any(|value| in_value(value, part)))
        }
    }
}

/// The value at a dotted path. A number in the path may be an index of a list.
fn at<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    let (name, rest) = path.split_once('.')?;
    rest.split('.').try_fold(fields.get(name)?, |value, step| match value {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => value.get(step),
    })
}

/// Whether two values are equal, where 3 and 3.0 are.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => found == expected,
    }
}

fn ungrounded(output: &Output, expected: bool) -> Option<String> {
    let Output::Extraction(extraction) = output else { return Some("expected an extraction, found another output".into()) };
    let missing = extraction.leaves.iter().find(|value| value.grounded == Some(false));
    match (expected, missing) {
        (true, Some(value)) => Some(format!("expected every value in the document, but it does not contain `{}`", value.path)),
        (false, None) => Some("expected a value that the document does not contain, but it contains all of them".into()),
        _ => None,
    }
}

fn other_checks(output: &Output, expected: &[Check]) -> Option<String> {
    let Output::ComposedObject(composed) = output else {
        return Some("expected the checks of a composed object, found another output".into());
    };
    let words = |checks: &BTreeSet<Check>| checks.iter().map(|check| check.as_str()).collect::<Vec<_>>().join(", ");
    let found: BTreeSet<Check> = composed.reasons.iter().map(|reason| reason.check).collect();
    let expected: BTreeSet<Check> = expected.iter().copied().collect();
    let messages = composed.reasons.iter().map(|reason| reason.message.as_str()).collect::<Vec<_>>().join("; ");
    (found != expected).then(|| format!("expected reasons of [{}], found [{}]: {messages}", words(&expected), words(&found)))
}

fn quoted(text: Option<&str>) -> String {
    text.map_or_else(|| "none".into(), |text| format!("`{text}`"))
}

impl<'de> Deserialize<'de> for Expectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Expectation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from task name to what is expected, or `dead_letter: <class>`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expectation, A::Error> {
                let mut tasks = Vec::new();
                let mut dead = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "dead_letter" {
                        dead = Some(FailureClass::named(&map.next_value::<String>()?).map_err(A::Error::custom)?);
                    } else {
                        tasks.push((name, map.next_value()?));
                    }
                }
                match dead {
                    Some(_) if !tasks.is_empty() => {
                        Err(A::Error::custom("a dead letter has no outputs: expect either `dead_letter` or tasks"))
                    }
                    Some(class) => Ok(Expectation::DeadLetter(class)),
                    None if tasks.is_empty() => {
                        Err(A::Error::custom("the example expects nothing: name a task or `dead_letter`"))
                    }
                    None => Ok(Expectation::Tasks(tasks)),
                }
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for TaskExpectation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrMap;

        impl<'de> Visitor<'de> for WordOrMap {
            type Value = TaskExpectation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "`skipped`, or a map of `label`, `min_confidence`, `text`, `contains`, `fields`, `grounded`, `items`, `reasons`, `score` and `parts`",
                )
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<TaskExpectation, E> {
                match word {
                    "skipped" => Ok(TaskExpectation::Skipped),
                    _ => Err(E::custom(format!("`{word}` is not an expectation: write `skipped` or a map"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TaskExpectation, A::Error> {
                let output = OutputExpectation::deserialize(MapAccessDeserializer::new(map))?;
                Ok(TaskExpectation::Output(Box::new(output)))
            }
        }

        deserializer.deserialize_any(WordOrMap)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outcome::{Evidence, ExtractedValue, Extraction, MatchKind, Score, Span, WrittenText};

    fn expect(expected: Value) -> OutputExpectation {
        serde_json::from_value(expected).unwrap()
    }

    fn extraction(grounded: bool) -> Output {
        let evidence = Evidence { span: Span { start: 0, end: 3 }, likeness: MatchKind::Exact };
        let leaf = ExtractedValue {
            path: "/name".into(),
            confidence: None,
            grounded: Some(grounded),
            evidence: grounded.then_some(evidence),
        };
        let fields = json!({"name": "oak bowl", "price": {"amount": 3.0}, "tags": ["a", "b"], "none": null});
        Output::Extraction(Extraction { fields: fields.as_object().unwrap().clone(), leaves: vec![leaf] })
    }

    #[test]
    fn fields_evidence_and_parts_come_true() {
        let expected = json!({
            "fields": {"name": "oak bowl", "price.amount": 3, "tags.1": "b", "tags": ["a", "b"], "none": null},
            "grounded": true,
            "contains": "oak",
        });
        assert_eq!(expect(expected).mismatches(&extraction(true)), [""; 0]);
        assert_eq!(expect(json!({"grounded": false})).mismatches(&extraction(false)), [""; 0]);
    }

    #[test]
    fn what_does_not_come_true_is_named() {
        let wrong = |expected: Value, output: &Output| expect(expected).mismatches(output).join("; ");
        let output = extraction(false);
        assert_eq!(
            wrong(json!({"fields": {"price.amount": 4}}), &output),
            "expected field `price.amount` to be `4`, found `3.0`"
        );
        assert_eq!(wrong(json!({"fields": {"colour": null}}), &output), "expected field `colour` to be `null`, found none");
        assert!(wrong(json!({"grounded": true}), &output).contains("does not contain `/name`"));
        assert!(wrong(json!({"grounded": false}), &extraction(true)).contains("it contains all of them"));
        assert!(wrong(json!({"contains": "walnut"}), &output).contains("`walnut`"));
        assert!(wrong(json!({"grounded": true}), &Output::Text("x".into())).contains("expected an extraction"));
    }

    #[test]
    fn a_score_is_compared_as_a_whole_and_by_its_parts() {
        let score = Score::of([("intent".to_owned(), 40.0, "40".to_owned()), ("budget".to_owned(), 2.5, "x".to_owned())], 100.0);
        let output = Output::Score(score);
        assert_eq!(expect(json!({"score": 42.5, "parts": {"intent": 40}})).mismatches(&output), [""; 0]);
        let wrong = expect(json!({"score": 40, "parts": {"budget": 3, "timing": 1}})).mismatches(&output);
        let expected = [
            "expected a score of 40, found 42.5",
            "expected part `budget` to be 3, found 2.5",
            "expected part `timing` to be 1, found none",
        ];
        assert_eq!(wrong, expected);
        assert_eq!(expect(json!({"score": 1})).mismatches(&Output::Text("x".into())), ["expected a score, found none"]);
    }

    #[test]
    fn items_are_counted_and_looked_into() {
        let written = Output::WrittenText(WrittenText { text: "buy now".into(), ..WrittenText::default() });
        let items = Output::Items(vec![written.clone(), written]);
        assert_eq!(expect(json!({"items": 2, "contains": "now"})).mismatches(&items), [""; 0]);
        assert_eq!(expect(json!({"items": 3})).mismatches(&items), ["expected 3 items, found 2"]);
        assert_eq!(expect(json!({"items": 1})).mismatches(&extraction(true)), ["expected 1 items, found no list"]);
    }
}
