//! Documents as leads: which of a pipeline's outputs say how promising a document is, whose it is, and who hears of it.
//!
//! | a document | its lead |
//! |---|---|
//! | has a score | is written with the batch, and replaces the one before |
//! | has none, because the task failed or was skipped | leaves |
//! | is deleted | leaves |
//!
//! A value of an extraction that the document does not say names nobody: a company that a model made up must not gather documents.

pub mod company;

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::definition::TaskDefinition;
use super::definition_error::suggestion;
use crate::document::{Document, look_up};
use crate::outcome::{Outcome, Output, ReusedOutput};
use crate::store::{AccountTopic, LeadRow, LeadSubmission};
use crate::task::TaskSpec;
use crate::template::root;

/// Characters of a name that are kept.
const NAME: usize = 200;

/// The most characters of documents that one event may carry, all together: a few hundred kilobytes, below what a broker takes.
const EVENT: usize = 100_000;

/// How documents become leads, as the pipeline file says it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeadSettings {
    /// The `score` task.
    pub score: String,
    /// Where the company is named, as `facts.company` or `document.metadata.company`; of several places the first that says one.
    #[serde(default)]
    pub company: FieldPaths,
    /// Where the person is named.
    #[serde(default)]
    pub person: FieldPaths,
    /// Where the stage is said.
    #[serde(default)]
    pub stage: FieldPaths,
    /// Where the intent is said.
    #[serde(default)]
    pub intent: FieldPaths,
    /// Tasks whose texts are drafts of answers.
    #[serde(default)]
    pub drafts: Vec<String>,
    /// The score from which on a lead is told of.
    pub threshold: f64,
    /// Who is told, by name: a webhook of the configuration.
    #[serde(default)]
    pub webhook: Option<String>,
    /// Where each company's documents are told together.
    #[serde(default)]
    pub accounts: Option<AccountSettings>,
}

/// Where each company's documents are told together, for another pipeline to read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSettings {
    /// The topic.
    pub topic: String,
    /// How many documents, the newest ones.
    #[serde(default = "AccountSettings::usual_newest")]
    pub newest: usize,
    /// Characters of each.
    #[serde(default = "AccountSettings::usual_characters")]
    pub characters: usize,
}

impl AccountSettings {
    fn usual_newest() -> usize {
        20
    }

    fn usual_characters() -> usize {
        1_500
    }
}

/// One place or a list of them, each a dotted path.
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
            OneOrMany::One(place) => Self(vec![place]),
            OneOrMany::Many(places) => Self(places),
        }
    }
}

impl LeadSettings {
    /// What is wrong with them, a sentence each. Paths of prompts and schemas are relative to `base_dir`.
    pub(super) fn problems(&self, tasks: &[TaskDefinition], base_dir: &Path) -> Vec<String> {
        let mut problems = Vec::new();
        let named = |name: &str| tasks.iter().find(|task| *task.name == *name);
        let near = |name: &str| suggestion(name, tasks.iter().map(|task| &*task.name));
        match named(&self.score).map(|task| &task.spec) {
            Some(TaskSpec::Score(spec)) if !(self.threshold > 0.0 && self.threshold <= spec.maximum) => problems.push(format!(
                "`leads.threshold` is {}: write a number above 0 and up to {}, the most that `{}` can be",
                self.threshold, spec.maximum, self.score
            )),
            Some(TaskSpec::Score(_)) => {}
            Some(other) => {
                problems.push(format!("`leads.score` names `{}`, which is no score but `{}`", self.score, other.kind()))
            }
            None => problems.push(format!("`leads.score` names `{}`, which is no task{}", self.score, near(&self.score))),
        }
        for (key, places) in self.places() {
            for place in &places.0 {
                problems
                    .extend(fault(place, &named, &near, base_dir).map(|fault| format!("`leads.{key}` reads `{place}`, {fault}")));
            }
        }
        for draft in &self.drafts {
            if named(draft).is_none() {
                problems.push(format!("`leads.drafts` names `{draft}`, which is no task{}", near(draft)));
            }
        }
        if let Some(accounts) = &self.accounts {
            if accounts.topic.is_empty() {
                problems.push("`leads.accounts.topic` is empty: name the topic to write to".into());
            }
            if self.company.0.is_empty() {
                problems.push("`leads.accounts` gathers by company, but `leads.company` says no place: write one".into());
            }
            let whole = accounts.newest.saturating_mul(accounts.characters);
            if whole == 0 || whole > EVENT {
                problems.push(format!(
                    "`leads.accounts` takes {} characters of each of {} documents: both must be 1 or more, and {EVENT} characters in all \
                     are the most",
                    accounts.characters, accounts.newest
                ));
            }
        }
        problems
    }

    fn places(&self) -> [(&'static str, &FieldPaths); 4] {
        [("company", &self.company), ("person", &self.person), ("stage", &self.stage), ("intent", &self.intent)]
    }

    /// Whether a lead is made of the task's output.
    pub fn reads(&self, task: &str) -> bool {
        self.score == task || self.places().iter().any(|(_, places)| places.0.iter().any(|place| root(place) == task))
    }

    /// Leads of no document yet.
    pub(super) fn submission(&self) -> LeadSubmission {
        let accounts = self.accounts.as_ref().map(|accounts| AccountTopic {
            topic: accounts.topic.clone(),
            newest: accounts.newest as i64,
            characters: accounts.characters as i32,
        });
        LeadSubmission { rows: Vec::new(), gone: Vec::new(), threshold: self.threshold, webhook: self.webhook.clone(), accounts }
    }

    /// Adds what the document's outcomes, one for each of `tasks`, make of its lead.
    pub(super) fn add(&self, document: &Document, outcomes: (&[Arc<str>], &[Outcome]), submission: &mut LeadSubmission) {
        let outputs = DocumentOutputs { document, outcomes };
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

/// Why nothing can ever stand at the place.
fn fault<'a>(
    place: &str,
    named: &dyn Fn(&str) -> Option<&'a TaskDefinition>,
    near: &dyn Fn(&str) -> String,
    base_dir: &Path,
) -> Option<String> {
    let Some((head, rest)) = place.split_once('.') else {
        return Some("which names no value: write a path such as `facts.company`".into());
    };
    if head == "document" {
        let known = ["metadata.", "fields."];
        return (!known.iter().any(|kind| rest.starts_with(kind)))
            .then(|| "but only `document.metadata.…` and `document.fields.…` name anything of a document".into());
    }
    let Some(task) = named(head) else { return Some(format!("but `{head}` is no task{}", near(head))) };
    let fields = task.spec.fields(base_dir);
    let field = rest.strip_prefix("fields.").unwrap_or(rest);
    let first = root(field);
    (!fields.is_empty() && !fields.iter().any(|known| known == first))
        .then(|| format!("but the schema of `{head}` has no `{first}`{}", suggestion(first, fields.iter().map(String::as_str))))
}

/// What is known of one document.
struct DocumentOutputs<'a> {
    document: &'a Document,
    outcomes: (&'a [Arc<str>], &'a [Outcome]),
}

impl DocumentOutputs<'_> {
    fn of(&self, task: &str) -> Option<&Output> {
        let at = self.outcomes.0.iter().position(|name| **name == *task)?;
        match self.outcomes.1.get(at)? {
            Outcome::Computed(product) | Outcome::Reused(ReusedOutput::Copied(product)) => Some(&product.output),
            Outcome::Reused(ReusedOutput::Unchanged { output, .. }) => output.as_ref(),
            Outcome::Skipped(_) | Outcome::Dead(_) => None,
        }
    }

    /// The first name that one of the places says.
    fn first(&self, places: &FieldPaths) -> Option<String> {
        places.0.iter().find_map(|place| self.name(place))
    }

    fn name(&self, place: &str) -> Option<String> {
        let (head, rest) = place.split_once('.')?;
        if head == "document" {
            let (kind, path) = rest.split_once('.')?;
            let fields = if kind == "metadata" { &self.document.metadata } else { &self.document.fields };
            return text(look_up(fields, path)?);
        }
        let output = self.of(head)?;
        if let Output::Extraction(extraction) = output {
            let path = rest.strip_prefix("fields.").unwrap_or(rest);
            let pointer = format!("/{}", path.replace('.', "/"));
            if extraction.leaves.iter().any(|leaf| leaf.path == pointer && leaf.grounded == Some(false)) {
                return None;
            }
        }
        let view: Map<String, Value> = output.view().as_object().cloned()?;
        text(look_up(&view, rest)?)
    }
}

/// A value as a name; nothing where it names nothing, or cannot be stored.
fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let kept: String = text.chars().filter(|c| *c != '\0').take(NAME).collect();
    (!kept.is_empty()).then_some(kept)
}

#[cfg(test)]
mod tests;
