//! `compose`: an object that a template puts together under a schema, gone over by checks. It needs no model.
//!
//! A check that speaks makes no dead letter: the object is kept with the reasons, for people to decide. The checks are not part of
//! the tasks that ask a model, for they read all fields of the source: whenever a price changed, a model would be asked again for the
//! same words.
//!
//! | the object | becomes |
//! |---|---|
//! | is no JSON, or no object | a dead letter: the template is at fault |
//! | breaks the schema, or does not pass a check | an output with reasons |
//! | else | an output |

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checks::{CheckedFields, Checks};
use super::prompt_file::SchemaSource;
use super::write::object;
use super::{Task, TaskStep, TemplateContext};
use crate::document::Document;
use crate::engine::{Engine, Prediction, Schema};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Check, CheckFailure, ComposedObject, Output};
use crate::template::{PrintMode, Template, TemplateError};

/// The longest object that a template may make of one document, in bytes.
const MAX_OUTPUT: usize = 1 << 20;

/// Part of every fingerprint: another number wherever the same object comes to mean something else.
const ALGORITHM: u32 = 1;

/// The same of tasks that look facts up, which once knew no numbers in words.
const LOOKED_UP: u32 = 2;

/// Parameters of `compose`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComposeSpec {
    /// The schema of the object: a path from the pipeline file, or the schema itself.
    pub schema: SchemaSource,
    /// The template of the object, which is JSON; it reads `document` and other tasks by name.
    pub object: String,
    /// Tasks that the template reads and that may have no output for a document: it asks `… is defined`.
    #[serde(default)]
    pub optional: Vec<String>,
    /// What is looked at.
    #[serde(default)]
    pub checks: Checks,
}

/// Goes over objects, whoever wrote them: the template, or a person.
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
        let looks_up = [&self.checks.quoted, &self.checks.grounded].iter().any(|places| **places != CheckedFields::default());
        let algorithm = if looks_up { LOOKED_UP } else { ALGORITHM };
        let signature = serde_json::to_vec(&("compose", algorithm, self, &composer.schema))?;
        Ok(Arc::new(Compose { signature, template, composer }))
    }

    /// Goes over objects as this task does. Paths are relative to `base_dir`.
    ///
    /// # Errors
    /// One sentence where the schema cannot be read.
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
    /// The schema of the objects.
    pub fn schema(&self) -> &Value {
        self.schema.value()
    }

    /// The object, gone over.
    ///
    /// # Errors
    /// A poison failure where it cannot be stored.
    pub fn compose(&self, document: &Document, fields: Value) -> Result<ComposedObject, Failure> {
        let fields = object(fields)?;
        let text = written_out(&fields);
        let mut reasons: Vec<CheckFailure> = self.schema.faults(&Value::Object(fields.clone())).into_iter().map(broken).collect();
        let (more, traces) = self.checks.run(document, &fields, self.schema.value());
        reasons.extend(more);
        Ok(ComposedObject { text, fields, reasons, traces })
    }
}

fn broken((path, rule): (String, String)) -> CheckFailure {
    let place = if path.is_empty() { "the object itself".to_owned() } else { format!("`{}`", &path[1..]) };
    let message = format!("{place} breaks the schema: {rule}");
    CheckFailure { check: Check::Schema, path, says: rule, message }
}

/// An object as JSON. Keys and values of JSON can always be written.
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
            let reason = format!("the template makes no JSON of this document: {error}; let every value go through `tojson`");
            Failure::poison(FailureClass::Template, reason)
        })?;
        Ok(TaskStep::Ready(Output::ComposedObject(self.composer.compose(document, fields)?)))
    }

    fn interpret(
        &self,
        _document: &Document,
        _upstream: &TemplateContext,
        _predictions: Vec<Prediction>,
    ) -> Result<TaskStep, Failure> {
        Err(Failure::poison(FailureClass::Model, "a model answered a task that asks none"))
    }
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
            other => panic!("an object was to come of it, not {other:?}"),
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
        assert_eq!(long.reasons[0].message, "`title` breaks the schema: /properties/title/maxLength");
        let missing = composed("{}", "x").await.unwrap();
        assert_eq!(missing.reasons[0].message, "the object itself breaks the schema: /required");
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

    #[tokio::test]
    async fn an_object_is_stored_and_restored_as_it_was() {
        let output = Output::ComposedObject(composed(TITLE, "The best 40 x").await.unwrap());
        let stored = serde_json::from_str(&output.fields().to_string()).unwrap();
        let restored = Output::restore(output.kind(), output.text().map(str::to_owned), stored, Vec::new());
        assert_eq!(restored, Some(output.clone()));
        assert_eq!((&output.view()["title"], &output.view()["passed"]), (&json!("The best 40 x"), &json!(false)));
    }
}
