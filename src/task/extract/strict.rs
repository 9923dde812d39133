//! Strict extraction: an answer can only quote its document.
//!
//! A model that runs here is held to the document while it writes, by a grammar of the document's spans, numbers, dates and
//! quantities. The answer of a server is checked against the same rules afterwards.

use std::cell::RefCell;
use std::sync::Arc;

use serde_json::{Map, Number, Value};

use super::leaf::{LeafRules, units_of};
use super::quotable::QuotableDocument;
use crate::engine::{LeafType, LeafValues, Schema, SpanGrammar, SpanGrammarError};
use crate::failure::{Failure, FailureClass};
use crate::outcome::{Evidence, MatchKind};
use crate::task::evidence::{EvidenceFinder, schemas_at};

/// The rules of one schema, the same for every document.
#[derive(Debug)]
pub(in crate::task) struct StrictRules {
    rules: LeafRules,
}

impl StrictRules {
    /// The rules of `schema`.
    ///
    /// # Errors
    /// A message that names the part of the schema that strict extraction does not support.
    pub(in crate::task) fn new(schema: &Schema) -> Result<Self, String> {
        let rules = RefCell::new(LeafRules::default());
        let problem = RefCell::new(None);
        // Which values there are does not matter here: the walk visits every string and number of the schema.
        let visit = |leaf: &Map<String, Value>, of: LeafType| {
            if let Err(reason) = rules.borrow_mut().add(leaf, of) {
                problem.borrow_mut().get_or_insert(reason);
            }
            LeafValues::Listed(vec![Value::from(0)])
        };
        let grammar = SpanGrammar::new(schema.value(), &["x"], &visit);
        match (grammar, problem.into_inner()) {
            (_, Some(reason)) => Err(reason),
            (Err(error), None) => Err(format!("cannot extract strictly: {error}; rewrite the schema, or write `strict: false`")),
            (Ok(_), None) => Ok(Self { rules: rules.into_inner() }),
        }
    }

    /// The grammar of the answers about a document.
    ///
    /// # Errors
    /// A poison failure if the document lacks a value that the schema requires.
    pub(in crate::task) fn grammar(&self, schema: &Schema, text: &str) -> Result<Arc<SpanGrammar>, Failure> {
        let document = QuotableDocument::new(text);
        let leaf = |leaf: &Map<String, Value>, of: LeafType| match self.rules.get(leaf, of) {
            Some(rule) => document.values(rule, of),
            None => LeafValues::Listed(Vec::new()),
        };
        let grammar = SpanGrammar::new(schema.value(), document.chunks(), &leaf);
        grammar.map(Arc::new).map_err(|error| match error {
            SpanGrammarError::NoValue(path) => {
                let reason = format!(
                    "the document has no value for `{path}`, which the schema requires: allow `null` there, or remove it from `required`"
                );
                Failure::poison(FailureClass::Ungrounded, reason)
            }
            SpanGrammarError::Unsupported(reason) => Failure::poison(FailureClass::Schema, reason),
        })
    }
}

/// Finds where a document states the values of an answer.
pub(super) struct StrictEvidence<'a> {
    finder: EvidenceFinder<'a>,
    document: QuotableDocument<'a>,
}

impl<'a> StrictEvidence<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { finder: EvidenceFinder::new(text), document: QuotableDocument::new(text) }
    }

    /// Where the document states `text`, the value at `path` of an answer under `schema`.
    pub(super) fn string(&self, schema: &Value, path: &str, text: &str) -> Option<Evidence> {
        let is_date = schemas_at(schema, path).iter().any(|leaf| leaf.get("format").is_some_and(|format| format == "date"));
        if is_date {
            return self.converted(&text.into(), schema, path);
        }
        self.finder.string(text).filter(|evidence| evidence.likeness != MatchKind::Fuzzy)
    }

    /// Where the document states `number`, the value at `path` of an answer under `schema`.
    pub(super) fn number(&self, schema: &Value, path: &str, number: &Number) -> Option<Evidence> {
        let has_unit = schemas_at(schema, path).iter().any(|leaf| leaf.get("unit").is_some());
        if has_unit {
            return self.converted(&Value::Number(number.clone()), schema, path);
        }
        self.finder.number(number)
    }

    fn converted(&self, value: &Value, schema: &Value, path: &str) -> Option<Evidence> {
        let leaves = schemas_at(schema, path);
        let units: Vec<_> = leaves.iter().filter_map(|leaf| units_of(leaf.as_object()?).ok()).flatten().collect();
        let span = self.document.place_of(value, &units)?;
        Some(Evidence { span, likeness: MatchKind::Normalized })
    }
}
