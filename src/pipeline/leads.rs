//! The `leads` section of a pipeline file: which outputs make a document a lead, with its score, company, person, stage and intent.
//!
//! | the document | its lead |
//! |---|---|
//! | has a score | is written with the batch and replaces the earlier one |
//! | has none, because the task failed or was skipped | is removed |
//! | is deleted | is removed |
//!
//! Extracted values that the document does not contain are ignored: a company that a model made up must not collect documents.

pub mod company;

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::definition_error::suggestion;
use super::task_definition::TaskDefinition;
use crate::document::{Document, look_up};
use crate::outcome::{Outcome, Output, ReusedOutput};
use crate::store::{AccountTopic, LeadRow, LeadSubmission};
use crate::task::TaskSpec;
use crate::template::root;

/// Characters of a name that are stored; the rest is cut off.
const NAME_CHARACTERS: usize = 200;

/// The most characters of documents in one account event: a few hundred kilobytes, below the message limit of a broker.
const EVENT_CHARACTERS: usize = 100_000;

/// How documents become leads.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeadSettings {
    pub score: String,
    /// Where the company is named, such as `facts.company` or `document.metadata.company`. Of several paths, the first one with a
    /// value counts.
    #[serde(default)]
    pub company: FieldPaths,
    #[serde(default)]
    pub person: FieldPaths,
    #[serde(default)]
    pub stage: FieldPaths,
    #[serde(default)]
    pub intent: FieldPaths,
    /// Tasks whose texts are drafts of answers.
    #[serde(default)]
    pub drafts: Vec<String>,
    /// Leads with this score or more are sent to the webhook.
    pub threshold: f64,
    /// The name of a configured webhook.
    #[serde(default)]
    pub webhook: Option<String>,
    #[serde(default)]
    pub accounts: Option<AccountSettings>,
}

/// A topic of accounts: one event for each company, with its newest documents, for another pipeline to read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSettings {
    pub topic: String,
    /// How many of the newest documents an event contains.
    #[serde(default = "AccountSettings::default_newest")]
    pub newest: usize,
    /// How many characters of each document.
    #[serde(default = "AccountSettings::default_characters")]
    pub characters: usize,
}

impl AccountSettings {
    fn default_newest() -> usize {
        20
    }

    fn default_characters() -> usize {
        1_500
    }
}

/// One dotted path or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct FieldPaths(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for FieldPaths {
    fn from(written: OneOrMany) -> Self {
        match written {
            OneOrMany::One(path) => Self(vec![path]),
            OneOrMany::Many(paths) => Self(paths),
        }
    }
}

impl LeadSettings {
    /// What is wrong with the section, one sentence each. Paths of prompts and schemas are relative to `base_dir`.
    pub(super) fn problems(&self, tasks: &[TaskDefinition], base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let named = |name: &str| tasks.iter().find(|task| *task.name == *name);
        let near = |name: &str| suggestion(name, tasks.iter().map(|task| &*task.name));
        match named(&self.score).map(|task| &task.spec) {
            Some(TaskSpec::Score(spec)) if !(self.threshold > 0.0 && self.threshold <= spec.maximum) => problems.push(format!(
                "`leads.threshold` is {}: write a number above 0 and up to {}, the maximum of `{}`",
                self.threshold, spec.maximum, self.score
            )),
            Some(TaskSpec::Score(_)) => {}
            Some(other) => {
                problems.push(format!("`leads.score` names `{}`, which is not a score but `{}`", self.score, other.kind()))
            }
            None => problems.push(format!("`leads.score` names `{}`, which is not a task{}", self.score, near(&self.score))),
        }
        for (key, paths) in self.paths() {
            for path in &paths.0 {
                let found = problem(path, &named, &near, base_dir);
                problems.extend(found.map(|problem| format!("`leads.{key}` reads `{path}`, {problem}")));
            }
        }
        for draft in &self.drafts {
            if named(draft).is_none() {
                problems.push(format!("`leads.drafts` names `{draft}`, which is not a task{}", near(draft)));
            }
        }
        if let Some(accounts) = &self.accounts {
            if accounts.topic.is_empty() {
                problems.push("`leads.accounts.topic` is empty: name the topic to write to".into());
            }
            if self.company.0.is_empty() {
                problems.push("`leads.accounts` groups documents by company, but `leads.company` has no path: write one".into());
            }
            let whole = accounts.newest.saturating_mul(accounts.characters);
            if whole == 0 || whole > EVENT_CHARACTERS {
                problems.push(format!(
                    "`leads.accounts` takes {} characters of each of {} documents: both must be 1 or more, and at most \
                     {EVENT_CHARACTERS} characters in all are allowed",
                    accounts.characters, accounts.newest
                ));
            }
        }
        problems
    }

    fn paths(&self) -> [(&'static str, &FieldPaths); 4] {
        [("company", &self.company), ("person", &self.person), ("stage", &self.stage), ("intent", &self.intent)]
    }

    /// Whether a lead reads the task's output.
    pub fn reads(&self, task: &str) -> bool {
        self.score == task || self.paths().iter().any(|(_, paths)| paths.0.iter().any(|path| root(path) == task))
    }

    /// A submission without leads.
    pub(super) fn submission(&self) -> LeadSubmission {
        let accounts = self.accounts.as_ref().map(|accounts| AccountTopic {
            topic: accounts.topic.clone(),
            newest: accounts.newest as i64,
            characters: accounts.characters as i32,
        });
        LeadSubmission { rows: Vec::new(), gone: Vec::new(), threshold: self.threshold, webhook: self.webhook.clone(), accounts }
    }

    /// Adds the lead of a document, or its removal. `outcomes` has one entry for each of `tasks`.
    pub(super) fn add(&self, document: &Document, tasks: &[Arc<str>], outcomes: &[Outcome], submission: &mut LeadSubmission) {
        let outputs = DocumentOutputs { document, tasks, outcomes };
        let Some(Output::Score(score)) = outputs.of(&self.score) else {
            submission.gone.push(document.id.to_string());
            return;
        };
        let company = outputs.first(&self.company);
        submission.rows.push(LeadRow {
            document_id: document.id.to_string(),
            version: document.version,
            content: blake3::hash(document.text.as_bytes()).as_bytes()[..8].to_vec(),
            score: score.value,
            maximum: score.maximum,
            parts: json!(score.parts).to_string(),
            account: company.as_deref().and_then(company::key),
            company,
            person: outputs.first(&self.person),
            stage: outputs.first(&self.stage),
            intent: outputs.first(&self.intent),
        });
    }
}

/// Why the path can never have a value.
fn problem<'a>(
    path: &str,
    named: &dyn Fn(&str) -> Option<&'a TaskDefinition>,
    near: &dyn Fn(&str) -> String,
    base_dir: &Path,
) -> Option<String> {
    let Some((head, rest)) = path.split_once('.') else {
        return Some("which is not a path to a value: write a path such as `facts.company`".into());
    };
    if head == "document" {
        let known = ["metadata.", "fields."];
        return (!known.iter().any(|kind| rest.starts_with(kind)))
            .then(|| "but of a document only `document.metadata.…` and `document.fields.…` can be read".into());
    }
    let Some(task) = named(head) else { return Some(format!("but `{head}` is not a task{}", near(head))) };
    let fields = task.spec.fields(base_dir);
    let field = rest.strip_prefix("fields.").unwrap_or(rest);
    let first = root(field);
    (!fields.is_empty() && !fields.iter().any(|known| known == first))
        .then(|| format!("but the schema of `{head}` has no `{first}`{}", suggestion(first, fields.iter().map(String::as_str))))
}

/// A document with the outcomes of its tasks.
struct DocumentOutputs<'a> {
    document: &'a Document,
    tasks: &'a [Arc<str>],
    outcomes: &'a [Outcome],
}

impl DocumentOutputs<'_> {
    fn of(&self, task: &str) -> Option<&Output> {
        let at = self.tasks.iter().position(|name| **name == *task)?;
        match self.outcomes.get(at)? {
            Outcome::Computed(computed) | Outcome::Reused(ReusedOutput::Copied(computed)) => Some(&computed.output),
            Outcome::Reused(ReusedOutput::Unchanged { output, .. }) => output.as_ref(),
            Outcome::Skipped(_) | Outcome::Dead(_) => None,
        }
    }

    /// The first value at one of the paths.
    fn first(&self, paths: &FieldPaths) -> Option<String> {
        paths.0.iter().find_map(|path| self.value(path))
    }

    fn value(&self, path: &str) -> Option<String> {
        let (head, rest) = path.split_once('.')?;
        if head == "document" {
            let (kind, path) = rest.split_once('.')?;
            let fields = if kind == "metadata" { &self.document.metadata } else { &self.document.fields };
            return text(look_up(fields, path)?);
        }
        let output = self.of(head)?;
        if let Output::Extraction(extraction) = output {
            let path = rest.strip_prefix("fields.").unwrap_or(rest);
            let pointer = format!("/{}", path.replace('.', "/"));
            if extraction.leaves.iter().any(|value| value.path == pointer && value.grounded == Some(false)) {
                return None;
            }
        }
        let view: Map<String, Value> = output.view().as_object().cloned()?;
        text(look_up(&view, rest)?)
    }
}

/// A string or number as text that can be stored; nothing for other values and for empty text.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let kept: String = text.chars().filter(|c| *c != '\0').take(NAME_CHARACTERS).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests;
