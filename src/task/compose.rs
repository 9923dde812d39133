//! `compose`: creates an object from a template, validates it against a schema and runs checks on it. It needs no model.
//!
//! A failed check does not create a dead letter. The object is stored with the reasons, and people decide. The checks are separate
//! from tasks that use a model because they read all fields of the source: otherwise every change of a price would call the model
//! again for the same text.
//!
//! | the object | the result |
//! |---|---|
//! | is not a JSON object | a dead letter: the template is wrong |
//! | violates the schema or fails a check | an output with reasons |
//! | quotes a text with unsupported claims, which a model wrote | the same: such copy is never published without a person |
//! | otherwise | an output |

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer_object::object;
use super::checks::{CheckedFields, Checks};
use super::folded_text::folded;
use super::json_spans::escaped_key;
use super::prompt_file::SchemaSource;
use super::{Task, TaskStep, TemplateContext, words};
use crate::document::Document;
use crate::engine::{Engine, Schema};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Check, CheckFailure, ComposedObject, Output};
use crate::template::{PrintMode, Template, TemplateError, root};

/// The largest object that a template can create for one document, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// Part of every fingerprint. Increase it when the same parameters lead to another output.
const ALGORITHM: u32 = 2;

/// The version of tasks with checks that look facts up. Earlier versions did not convert units.
const LOOKED_UP: u32 = 3;

/// Parameters of `compose`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// JSON Schema of the object: a path relative to the pipeline file, or the schema itself.
    pub schema: SchemaSource,
    /// A template that renders the object as JSON. It can read `document` and other tasks by name.
    pub object: String,
    /// Tasks that the template reads but that may have no output for a document. The template must test them with `… is defined`.
    #[serde(default)]
    pub optional: Vec<String>,
    #[serde(default)]
    pub checks: Checks,
}

/// Validates and checks objects, whether a template or a person wrote them.
#[derive(Debug, Clone)]
pub struct Composer {
    schema: Arc<Schema>,
    checks: Checks,
}

struct Compose {
    signature: Vec<u8>,
    template: Template,
    composer: Composer,
}

impl ComposeSpec {
    pub(super) fn model(&self) -> Option<&str> {
        None
    }

    pub(super) fn problems(&self, base_dir: &Path) -> Vec<String> {
        let mut problems: Vec<String> =
            self.compile().err().map(|error| format!("has a bad template: {error}")).into_iter().collect();
        match self.schema(base_dir) {
            Ok(schema) => {
                let fields = schema.value().get("properties").and_then(Value::as_object);
                let fields: Vec<String> = fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect();
                problems.extend(self.checks.problems(&fields));
            }
            Err(problem) => problems.push(problem),
        }
        problems
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        self.compile().map(|template| template.variables().to_vec()).unwrap_or_default()
    }

    pub(super) async fn build(&self, name: &str, _engine: &Engine, base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let template = self.compile().map_err(|error| anyhow::anyhow!("task `{name}` has a bad template: {error}"))?;
        let composer = self.composer(base_dir).map_err(anyhow::Error::msg)?;
        let checked = [&self.checks.quoted, &self.checks.grounded, &self.checks.supported];
        let looks_up = !checked.into_iter().all(CheckedFields::is_none);
        let algorithm = if looks_up { LOOKED_UP } else { ALGORITHM };
        let signature = serde_json::to_vec(&("compose", algorithm, self, &composer.schema))?;
        Ok(Arc::new(Compose { signature, template, composer }))
    }

    /// A composer with the schema and checks of this task. Paths are relative to `base_dir`.
    ///
    /// # Errors
    /// A message if the schema cannot be read.
    pub fn composer(&self, base_dir: &Path) -> Result<Composer, String> {
        Ok(Composer { schema: self.schema(base_dir)?, checks: self.checks.clone() })
    }

    pub(super) fn schema(&self, base_dir: &Path) -> Result<Arc<Schema>, String> {
        self.schema.load(base_dir).map_err(|fault| format!("has a bad schema: {fault}"))
    }

    fn compile(&self) -> Result<Template, TemplateError> {
        Template::new(&self.object, PrintMode::Scalars, MAX_OUTPUT)
    }
}

impl Composer {
    /// The JSON Schema of the objects.
    pub fn schema(&self) -> &Value {
        self.schema.value()
    }

    /// Validates and checks the object.
    ///
    /// # Errors
    /// A poison failure if the object cannot be stored.
    pub fn compose(&self, document: &Document, fields: Value) -> Result<ComposedObject, Failure> {
        let fields = object(fields)?;
        let text = written_out(&fields);
        let mut reasons: Vec<CheckFailure> = self
            .schema
            .faults(&Value::Object(fields.clone()))
            .into_iter()
            .map(|(path, rule)| schema_failure(path, rule))
            .collect();
        let (more, traces) = self.checks.run(document, &fields, self.schema.value());
        reasons.extend(more);
        Ok(ComposedObject { text, fields, reasons, traces })
    }
}

fn schema_failure(path: String, rule: String) -> CheckFailure {
    let place = if path.is_empty() { "the object itself".to_owned() } else { format!("`{}`", &path[1..]) };
    let message = format!("{place} violates the schema: {rule}");
    CheckFailure { check: Check::Schema, path, says: rule, message }
}

/// An object as JSON text. Serializing JSON values cannot fail.
fn written_out(fields: &Map<String, Value>) -> String {
    serde_json::to_string(fields).unwrap_or_default()
}

impl Task for Compose {
    fn kind(&self) -> &'static str {
        "compose"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let text = self.template.render(&upstream.context())?;
        let fields: Value = serde_json::from_str(&text).map_err(|error| {
            let reason = format!(
                "the template did not create valid JSON for this document: {error}; use the filter `tojson` for every value"
            );
            Failure::poison(FailureClass::Template, reason)
        })?;
        let mut composed = self.composer.compose(document, fields)?;
        composed.reasons.extend(self.quoted_claims(upstream, &composed.fields));
        composed.reasons.sort_by_key(|failure| failure.check);
        Ok(TaskStep::Ready(Output::ComposedObject(composed)))
    }
}

impl Compose {
    /// The unsupported claims of texts that the template reads and the object quotes.
    fn quoted_claims(&self, upstream: &TemplateContext, fields: &Map<String, Value>) -> Vec<CheckFailure> {
        let mut tasks: Vec<&str> = self.template.variables().iter().map(|path| root(path)).collect();
        tasks.sort_unstable();
        tasks.dedup();
        let mut found: Vec<CheckFailure> = Vec::new();
        for (task, statements) in tasks.into_iter().filter_map(|task| Some((task, upstream.statements(task)?))) {
            for claim in &statements.unsupported {
                for path in places(fields, &claim.says) {
                    let message = format!("`{}` quotes task `{task}`, but {}", &path[1..], claim.message);
                    let failure = CheckFailure { check: Check::Supported, path, says: claim.says.clone(), message };
                    if !found.contains(&failure) {
                        found.push(failure);
                    }
                }
            }
        }
        found
    }
}

/// Paths of the strings that contain the words.
fn places(fields: &Map<String, Value>, says: &str) -> Vec<String> {
    fn walk(path: &str, value: &Value, says: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, inner)| walk(&format!("{path}/{}", escaped_key(name)), inner, says, found));
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(index, inner)| walk(&format!("{path}/{index}"), inner, says, found));
            }
            Value::String(text) if words::find(&plain(text), says).is_some() => found.push(path.to_owned()),
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }
    let mut found = Vec::new();
    let says = plain(says);
    fields.iter().for_each(|(name, value)| walk(&format!("/{}", escaped_key(name)), value, says.trim(), &mut found));
    found
}

/// The folded text with spaces for hyphens, so that a text is found in a slug made of it.
fn plain(text: &str) -> String {
    folded(text).replace('-', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn composed(object: &str, text: &str) -> Result<ComposedObject, Failure> {
        let schema =
            json!({"type": "object", "properties": {"title": {"type": "string", "maxLength": 12}}, "required": ["title"]});
        let checks = serde_json::from_value(json!({"banned": ["best"], "grounded": "all"})).unwrap();
        let spec = ComposeSpec { schema: SchemaSource::Inline(schema), object: object.into(), optional: Vec::new(), checks };
        assert_eq!(spec.problems(Path::new("")), [""; 0]);
        let engine = Engine::start(&crate::config::EngineConfig::default(), &std::collections::BTreeMap::new()).unwrap();
        let task = spec.build("page", &engine, Path::new("")).await.unwrap();
        let document = Document { id: "d1".into(), version: 1, text: text.into(), metadata: Map::new(), fields: Map::new() };
        match task.prepare(&document, &TemplateContext::of(&document, None))? {
            TaskStep::Ready(Output::ComposedObject(composed)) => Ok(composed),
            other => panic!("expected an object, got {other:?}"),
        }
    }

    const TITLE: &str = "{\"title\": {{ document.text | tojson }}}";

    #[tokio::test]
    async fn what_does_not_pass_is_an_output_with_reasons() {
        let good = composed(TITLE, "Oak \"board\"").await.unwrap();
        assert_eq!((good.text.as_str(), good.reasons.len()), ("{\"title\":\"Oak \\\"board\\\"\"}", 0));
        let long = composed(TITLE, "The best board there is").await.unwrap();
        let checks: Vec<Check> = long.reasons.iter().map(|reason| reason.check).collect();
        assert_eq!(checks, [Check::Schema, Check::Banned]);
        assert_eq!(long.reasons[0].message, "`title` violates the schema: /properties/title/maxLength");
        let missing = composed("{}", "x").await.unwrap();
        assert_eq!(missing.reasons[0].message, "the object itself violates the schema: /required");
    }

    #[tokio::test]
    async fn a_template_that_makes_no_object_is_at_fault() {
        for (object, class) in [
            ("{\"title\": {{ document.text }}}", FailureClass::Template),
            ("{\"title\": \"{{ document.text }}", FailureClass::Template),
            ("[1]", FailureClass::Schema),
            ("{\"title\": {{ document.fields.nothing | tojson }}}", FailureClass::MissingField),
        ] {
            match composed(object, "Oak").await {
                Err(Failure::Poison(poison)) => assert_eq!(poison.class, class, "{object}: {poison}"),
                other => panic!("{object} made {other:?}"),
            }
        }
    }

    /// The checks that an object fails whose template reads a text that a model wrote.
    async fn reasons(object: &str, says: &[&str], written: &str) -> Vec<String> {
        let schema = SchemaSource::Inline(json!({"type": "object"}));
        let (optional, checks) = (vec!["words".to_owned()], Checks::default());
        let spec = ComposeSpec { schema, object: object.into(), optional, checks };
        let engine = Engine::start(&crate::config::EngineConfig::default(), &std::collections::BTreeMap::new()).unwrap();
        let task = spec.build("page", &engine, Path::new("")).await.unwrap();
        let document =
            Document { id: "d1".into(), version: 1, text: "An oak bowl.".into(), metadata: Map::new(), fields: Map::new() };
        let mut context = TemplateContext::of(&document, None);
        let claim = |says: &&str| crate::outcome::UnsupportedClaim {
            kind: crate::outcome::ClaimKind::Number,
            path: String::new(),
            says: (*says).to_owned(),
            sentence: crate::outcome::Span { start: 0, end: 1 },
            message: format!("{says} is wrong"),
        };
        let unsupported = says.iter().map(claim).collect();
        let words = crate::outcome::WrittenText { text: written.into(), unsupported, ..Default::default() };
        context.insert(&"words".into(), &Output::WrittenText(words));
        match task.prepare(&document, &context).unwrap() {
            TaskStep::Ready(Output::ComposedObject(composed)) => {
                composed.reasons.iter().map(|reason| format!("{} {} {}", reason.check, reason.path, reason.message)).collect()
            }
            other => panic!("expected an object, got {other:?}"),
        }
    }

    #[tokio::test]
    async fn an_object_that_quotes_a_text_without_support_fails_a_check() {
        let whole = r#"{"title": {{ words.text | tojson }}, "more": [{"slug": {{ words.text | slug | tojson }}}]}"#;
        let failed = reasons(whole, &["45 cm"], "A bowl of 45 CM").await;
        let expected = [
            "supported /title `title` quotes task `words`, but 45 cm is wrong",
            "supported /more/0/slug `more/0/slug` quotes task `words`, but 45 cm is wrong",
        ];
        assert_eq!(failed, expected);
        assert_eq!(reasons(whole, &[], "A bowl of 45 cm").await, [""; 0]);
        let first = r#"{"title": {{ words.text | within(6) | tojson }}}"#;
        assert_eq!(reasons(first, &["45 cm"], "A bowl of 45 cm").await, [""; 0], "the claim is not part of what is shown");
        assert_eq!(reasons(r#"{"title": "45 cm"}"#, &["45 cm"], "A bowl of 45 cm").await, [""; 0], "the template says it");
    }

    #[tokio::test]
    async fn an_object_is_stored_and_restored_as_it_was() {
        let output = Output::ComposedObject(composed(TITLE, "The best 40 x").await.unwrap());
        let stored = serde_json::from_str(&output.fields().to_string()).unwrap();
        let restored = Output::restore(output.kind(), output.text().map(str::to_owned), stored, Vec::new());
        assert_eq!(restored, Some(output.clone()));
        assert_eq!((&output.view()["title"], &output.view()["passed"]), (&json!("The best 40 x"), &json!(false)));
    }
}
