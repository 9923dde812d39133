//! The `copy` section of a pipeline file: which task writes the copy of pages, and how it is published.
//!
//! ```yaml
//! copy:
//!   task: page                                        # a `compose` task
//!   url: "https://shop.example/p/{{ copy.slug }}"     # reads `document`, and `copy`, the object that the task makes
//!   unique: [title]                                   # fields that no two pages may share; addresses are always unique
//!   publish: review                                   # or `automatic`: copy that passes every check is published at once
//!   sitemap: "https://shop.example/sitemap-{{ page }}.xml"   # the addresses of sitemaps, for more than 20,000 pages
//! ```
//!
//! By default a person must approve all copy, because search engines keep what a shop once published.

use std::path::Path;
use std::sync::Arc;

use minijinja::Value as Shown;
use minijinja::value::Serde;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::definition_error::suggestion;
use super::task_definition::TaskDefinition;
use super::task_order::unknown_field;
use crate::document::Document;
use crate::outcome::{Check, CheckFailure, ComposedObject};
use crate::store::{CopyDraft, CopyRow};
use crate::task::{Composer, TaskSpec, TemplateContext, folded};
use crate::template::{PrintMode, Template, root};

/// The longest address, in bytes, that a sitemap may hold.
const MAX_URL: usize = 2_048;

/// The name of the address among the values that must be unique.
const URL: &str = "url";

/// The keys of the section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopySection {
    task: String,
    url: String,
    #[serde(default)]
    publish: PublishMode,
    #[serde(default)]
    unique: Vec<String>,
    sitemap: Option<String>,
}

/// When a version of the copy is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// When a person has approved it.
    #[default]
    Review,
    /// At once, where it passes every check and no person has decided on the page before.
    Automatic,
}

/// How a pipeline makes and publishes copy.
#[derive(Debug, Clone)]
pub struct CopySettings {
    pub task: Arc<str>,
    pub publish: PublishMode,
    /// Checks what the task or a person wrote.
    pub composer: Composer,
    url: Arc<Template>,
    unique: Vec<String>,
    sitemap: Option<Arc<Template>>,
}

impl CopySection {
    /// The settings, or what is wrong with the section, one sentence each. Paths are relative to `base_dir`.
    pub(super) fn resolve(&self, tasks: &[TaskDefinition], base_dir: &Path) -> Result<CopySettings, Vec<String>> {
        let mut problems = Vec::new();
        let Some(task) = tasks.iter().find(|task| *task.name == *self.task) else {
            let near = suggestion(&self.task, tasks.iter().map(|task| &*task.name));
            return Err(vec![format!("`copy.task` is `{}`, which is not a task{near}", self.task)]);
        };
        let TaskSpec::Compose(spec) = &task.spec else {
            let kind = task.spec.kind();
            return Err(vec![format!(
                "`copy.task` is `{}`, which is a `{kind}` task: name a `compose` task, whose schema and checks also apply to edits",
                self.task
            )]);
        };
        let fields = task.spec.fields(base_dir);
        for field in self.unique.iter().filter(|field| !fields.contains(field)) {
            let near = suggestion(field, fields.iter().map(String::as_str));
            problems.push(format!("`copy.unique` has `{field}`, which is not a field of task `{}`{near}", self.task));
        }
        let mut template = |key: &str, source: &str, names: &[&str]| match Template::new(source, PrintMode::Scalars, MAX_URL) {
            Ok(template) => {
                for path in template.variables() {
                    let copy_field = path.strip_prefix("copy.").and_then(|rest| rest.split('.').next());
                    if !names.contains(&root(path)) {
                        let near = suggestion(root(path), names.iter().copied());
                        problems.push(format!("`copy.{key}` reads `{path}`, which does not exist here{near}"));
                    } else if let Some(field) = copy_field.filter(|field| !fields.iter().any(|known| known == field)) {
                        let near = suggestion(field, fields.iter().map(String::as_str));
                        problems
                            .push(format!("`copy.{key}` reads `{path}`, a field that task `{}` does not have{near}", self.task));
                    } else if let Some(unknown) = unknown_field(path) {
                        problems.push(format!("`copy.{key}` reads {unknown}"));
                    }
                }
                Some(Arc::new(template))
            }
            Err(error) => {
                problems.push(format!("`copy.{key}` is not a template: {error}"));
                None
            }
        };
        let url = template("url", &self.url, &["document", "copy"]);
        let sitemap = self.sitemap.as_deref().map(|sitemap| template("sitemap", sitemap, &["page"]));
        let composer = match spec.composer(base_dir) {
            Ok(composer) => Some(composer),
            Err(problem) => {
                problems.push(format!("`copy.task` {problem}"));
                None
            }
        };
        match (url, composer) {
            (Some(url), Some(composer)) if problems.is_empty() => Ok(CopySettings {
                task: task.name.clone(),
                publish: self.publish,
                composer,
                url,
                unique: self.unique.clone(),
                sitemap: sitemap.flatten(),
            }),
            _ => Err(problems),
        }
    }
}

impl CopySettings {
    /// The copy as the ledger stores it: with the page's address, and the hashes of the values that must be unique.
    pub fn draft(&self, document: &Document, composed: &ComposedObject) -> CopyDraft {
        let mut reasons = composed.reasons.clone();
        let url = match self.address(document, &composed.fields) {
            Ok(url) => Some(url),
            Err(message) => {
                reasons.push(CheckFailure { check: Check::Url, path: String::new(), says: String::new(), message });
                None
            }
        };
        let hash = |field: &str, value: &str| (field.to_owned(), *blake3::hash(folded(value).as_bytes()).as_bytes());
        let mut keys: Vec<_> = self
            .unique
            .iter()
            .filter_map(|field| match composed.fields.get(field) {
                Some(Value::String(value)) if !value.trim().is_empty() => Some(hash(field, value)),
                Some(Value::Null | Value::String(_)) | None => None,
                Some(other) => Some(hash(field, &other.to_string())),
            })
            .collect();
        if let Some(url) = url.as_ref().filter(|_| !self.unique.iter().any(|field| field == URL)) {
            keys.push((URL.to_owned(), *blake3::hash(url.as_bytes()).as_bytes()));
        }
        CopyDraft { content: composed.text.clone(), url, reasons, traces: composed.traces.clone(), keys }
    }

    /// The same, as a row of a batch.
    pub(super) fn row(&self, document: &Document, composed: &ComposedObject) -> CopyRow {
        let (document_id, document_version) = (document.id.to_string(), document.version);
        CopyRow { document_id, document_version, draft: self.draft(document, composed) }
    }

    /// The address of sitemap number `page`, from 1.
    ///
    /// # Errors
    /// One sentence where the file has no `sitemap`, or it does not render to an address.
    pub fn sitemap(&self, page: i64) -> Result<String, String> {
        let Some(sitemap) = &self.sitemap else {
            return Err("one sitemap cannot hold this many pages: write the addresses of the files under `copy.sitemap`".into());
        };
        let text = sitemap.render(&Shown::from_pairs([("page", page)])).map_err(|poison| poison.reason)?;
        web_address(&text).map_err(|problem| format!("`copy.sitemap` renders to {problem}"))
    }

    fn address(&self, document: &Document, copy: &Map<String, Value>) -> Result<String, String> {
        let context = TemplateContext::of(document, None).context_with([("copy", Shown::from(Serde(copy)))]);
        let text = self.url.render(&context).map_err(|poison| format!("the page has no address: {}", poison.reason))?;
        web_address(&text).map_err(|problem| format!("the page has no address: `copy.url` renders to {problem}"))
    }
}

/// The address in ASCII, as sitemaps require it.
fn web_address(text: &str) -> Result<String, String> {
    let quoted = || format!("`{}`", text.chars().take(120).collect::<String>());
    let url = reqwest::Url::parse(text.trim()).map_err(|error| format!("{}, which is not an address: {error}", quoted()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("{}, which is not an http or https address", quoted()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address that contains a user name".into());
    }
    let written = url.to_string();
    if written.len() > MAX_URL {
        return Err(format!("an address of {} bytes; at most {MAX_URL} are allowed", written.len()));
    }
    Ok(written)
}
