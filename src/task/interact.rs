//! `interact`: records what a user did with a document of another pipeline, for recommendations. It needs no model.
//!
//! | template | must render | otherwise |
//! |---|---|---|
//! | `user`, `document` | an id | a dead letter |
//! | `kind` | one of `kinds`, if `kinds` is set | a dead letter |
//! | `value` | a number, or nothing | a dead letter |
//! | `at` | a date or time in ISO 8601, Unix milliseconds, or nothing (then the record's timestamp is used) | a dead letter |

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Task, TaskStep, TemplateContext};
use crate::did_you_mean::suggestion;
use crate::document::{Document, MAX_ID_BYTES, microseconds};
use crate::engine::Engine;
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Interaction, Output};
use crate::template::{PrintMode, Template, TemplateError};

/// The longest kind, in bytes.
const MAX_KIND_BYTES: usize = 63;

/// Parameters of `interact`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InteractSpec {
    /// The pipeline whose documents the events concern.
    pub with: String,
    /// A template of the user's id.
    pub user: String,
    /// A template of the document's id.
    pub document: String,
    /// A template of the kind of interaction.
    pub kind: String,
    /// A template of a number, such as a rating.
    #[serde(default)]
    pub value: Option<String>,
    /// A template of the time. Without it, the record's timestamp is used.
    #[serde(default)]
    pub at: Option<String>,
    /// The allowed kinds. An empty list allows any kind.
    #[serde(default)]
    pub kinds: Vec<String>,
}

struct Interact {
    signature: Vec<u8>,
    with: String,
    kinds: Vec<String>,
    templates: Templates,
}

struct Templates {
    user: Template,
    document: Template,
    kind: Template,
    value: Option<Template>,
    at: Option<Template>,
}

impl InteractSpec {
    pub(super) fn model(&self) -> Option<&str> {
        None
    }

    pub(super) fn problems(&self, _base_dir: &Path) -> Vec<String> {
        let mut problems: Vec<String> = self.compile().err().into_iter().collect();
        if self.with.trim().is_empty() {
            problems.push("does not name the pipeline whose documents the events concern: set `with`".into());
        }
        let unfit = self.kinds.iter().find(|kind| kind.trim().is_empty() || kind.len() > MAX_KIND_BYTES);
        problems
            .extend(unfit.map(|kind| format!("has the kind `{kind}` in `kinds`: write a word of 1 to {MAX_KIND_BYTES} bytes")));
        problems
    }

    pub(super) fn reads(&self, _base_dir: &Path) -> Vec<String> {
        let Ok(templates) = self.compile() else { return Vec::new() };
        let Templates { user, document, kind, value, at } = &templates;
        let mut names: Vec<String> = Vec::new();
        for template in [Some(user), Some(document), Some(kind), value.as_ref(), at.as_ref()].into_iter().flatten() {
            names.extend(template.variables().iter().cloned());
        }
        names
    }

    pub(super) async fn build(&self, name: &str, _engine: &Engine, _base_dir: &Path) -> anyhow::Result<Arc<dyn Task>> {
        let templates = self.compile().map_err(|problem| anyhow::anyhow!("task `{name}` {problem}"))?;
        let signature = serde_json::to_vec(&("interact", self))?;
        Ok(Arc::new(Interact { signature, with: self.with.clone(), kinds: self.kinds.clone(), templates }))
    }

    fn compile(&self) -> Result<Templates, String> {
        let template = |key: &str, source: &str| {
            Template::new(source, PrintMode::Scalars, MAX_ID_BYTES)
                .map_err(|error: TemplateError| format!("has a bad template `{key}`: {error}"))
        };
        let optional = |key: &str, source: &Option<String>| source.as_deref().map(|source| template(key, source)).transpose();
        Ok(Templates {
            user: template("user", &self.user)?,
            document: template("document", &self.document)?,
            kind: template("kind", &self.kind)?,
            value: optional("value", &self.value)?,
            at: optional("at", &self.at)?,
        })
    }
}

impl Task for Interact {
    fn kind(&self) -> &'static str {
        "interact"
    }

    fn signature(&self) -> &[u8] {
        &self.signature
    }

    fn prepare(&self, _document: &Document, upstream: &TemplateContext) -> Result<TaskStep, Failure> {
        let context = upstream.context();
        let Templates { user, document, kind, value, at } = &self.templates;
        let optional = |template: &Option<Template>| match template {
            Some(template) => template.render(&context).map(|text| Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            None => Ok(None),
        };
        Ok(TaskStep::Ready(Output::Interaction(Interaction {
            with: self.with.clone(),
            user: id("user", user.render(&context)?)?,
            document: id("document", document.render(&context)?)?,
            kind: self.known(id("kind", kind.render(&context)?)?)?,
            value: optional(value)?.as_deref().map(number).transpose()?,
            at_ms: optional(at)?.as_deref().map(moment).transpose()?,
        })))
    }
}

impl Interact {
    fn known(&self, kind: String) -> Result<String, Failure> {
        if kind.len() > MAX_KIND_BYTES {
            let reason = format!("`kind` has {} bytes, but at most {MAX_KIND_BYTES} are allowed", kind.len());
            return Err(Failure::poison(FailureClass::TooLarge, reason));
        }
        if !self.kinds.is_empty() && !self.kinds.contains(&kind) {
            let fix = suggestion(&kind, self.kinds.iter().map(String::as_str));
            return Err(Failure::poison(FailureClass::WrongType, format!("`kind` is `{kind}`, which is not in `kinds`; {fix}")));
        }
        Ok(kind)
    }
}

fn id(key: &str, text: String) -> Result<String, Failure> {
    if text.trim().is_empty() {
        return Err(Failure::poison(FailureClass::MissingField, format!("`{key}` is empty, but an interaction needs one")));
    }
    if text.contains('\0') {
        return Err(Failure::poison(FailureClass::NulCharacter, format!("`{key}` contains U+0000")));
    }
    Ok(text)
}

fn number(text: &str) -> Result<f64, Failure> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| Failure::poison(FailureClass::WrongType, format!("`value` is `{text}`, which is not a number")))
}

fn moment(text: &str) -> Result<i64, Failure> {
    let milliseconds = text.parse().ok().or_else(|| Some(microseconds(text)?.div_euclid(1_000)));
    milliseconds.filter(|at| Interaction::TIMES.contains(at)).ok_or_else(|| {
        let reason = format!("`at` is `{text}`, but must be a date or time in ISO 8601 or Unix milliseconds, from 1970 to 9999");
        Failure::poison(FailureClass::WrongType, reason)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> InteractSpec {
        InteractSpec {
            with: "products".into(),
            user: "{{ document.fields.user }}".into(),
            document: "{{ document.fields.sku }}".into(),
            kind: "{{ document.fields.kind }}".into(),
            value: Some("{{ document.fields.stars | default('') }}".into()),
            at: Some("{{ document.fields.at | default('') }}".into()),
            kinds: vec!["view".into(), "rating".into()],
        }
    }

    fn prepared(fields: serde_json::Value) -> Result<Interaction, FailureClass> {
        let spec = spec();
        let (kinds, templates) = (spec.kinds.clone(), spec.compile().unwrap());
        let task = Interact { signature: Vec::new(), with: spec.with, kinds, templates };
        let fields = fields.as_object().unwrap().clone();
        let document = Document { fields, ..crate::task::tests::document("an event") };
        match task.prepare(&document, &TemplateContext::of(&document, None)) {
            Ok(TaskStep::Ready(Output::Interaction(interaction))) => Ok(interaction),
            Err(Failure::Poison(poison)) => Err(poison.class),
            other => panic!("neither an interaction nor a dead letter: {other:?}"),
        }
    }

    #[test]
    fn an_event_says_who_did_what_when_and_how_much() {
        let found = prepared(json!({"user": 7, "sku": "A-1", "kind": "rating", "stars": 4.5, "at": "2026-02-03T00:00:00Z"}));
        let expected = Interaction {
            with: "products".into(),
            user: "7".into(),
            document: "A-1".into(),
            kind: "rating".into(),
            value: Some(4.5),
            at_ms: Some(1_770_076_800_000),
        };
        assert_eq!(found, Ok(expected));
        let bare = prepared(json!({"user": "u", "sku": "A-1", "kind": "view", "at": 1_770_076_800_001_i64})).unwrap();
        assert_eq!((bare.value, bare.at_ms), (None, Some(1_770_076_800_001)));
        assert_eq!(
            prepared(json!({"user": "u", "sku": "A-1", "kind": "view"})).unwrap().at_ms,
            None,
            "the record's timestamp is used"
        );
    }

    #[test]
    fn what_is_no_event_is_a_dead_letter_of_its_class() {
        let cases = [
            (json!({"sku": "A", "kind": "view"}), FailureClass::MissingField),
            (json!({"user": " ", "sku": "A", "kind": "view"}), FailureClass::MissingField),
            (json!({"user": "a\u{0}", "sku": "A", "kind": "view"}), FailureClass::NulCharacter),
            (json!({"user": "x".repeat(1025), "sku": "A", "kind": "view"}), FailureClass::TooLarge),
            (json!({"user": "u", "sku": "A", "kind": "veiw"}), FailureClass::WrongType),
            (json!({"user": "u", "sku": "A", "kind": "rating", "stars": "many"}), FailureClass::WrongType),
            (json!({"user": "u", "sku": "A", "kind": "rating", "stars": "inf"}), FailureClass::WrongType),
            (json!({"user": "u", "sku": "A", "kind": "view", "at": "yesterday"}), FailureClass::WrongType),
            (json!({"user": "u", "sku": "A", "kind": "view", "at": "-5000-01-01"}), FailureClass::WrongType),
            (json!({"user": "u", "sku": "A", "kind": "view", "at": i64::MAX}), FailureClass::WrongType),
            (json!({"user": ["u"], "sku": "A", "kind": "view"}), FailureClass::WrongType),
        ];
        for (fields, class) in cases {
            assert_eq!(prepared(fields.clone()), Err(class), "{fields}");
        }
    }

    #[test]
    fn a_bad_template_and_a_missing_pipeline_are_named() {
        let bad = InteractSpec { user: "{{ document.".into(), with: " ".into(), ..spec() };
        let problems = bad.problems(Path::new(""));
        assert!(problems[0].starts_with("has a bad template `user`: "), "{problems:?}");
        assert!(problems[1].contains("set `with`"), "{problems:?}");
        let reads = ["user", "sku", "kind", "stars", "at"].map(|field| format!("document.fields.{field}"));
        assert_eq!(spec().reads(Path::new("")), reads);
    }
}
