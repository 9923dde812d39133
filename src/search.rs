//! Search as callers ask for it, over HTTP or on the command line: a text, a pipeline, a mode and filters.
//!
//! | mode | finds | needs |
//! |---|---|---|
//! | `vector` | what means the same | an `embed` task |
//! | `text` | the words, stemmed; where few documents hold them all, any of them | |
//! | `hybrid` | both lists, fused | an `embed` task; without one it is `text` |
//!
//! A document whose vectors come from another model than the pipeline has now is found by its words, in every mode, until its vectors
//! are made anew (`reembed`): vectors of two models are never compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::{Chunking, Engine, Prediction, Request, Work};
use crate::failure::{Component, Failure, Transient};
use crate::metrics::METRICS;
use crate::nearest::suggestion;
use crate::outcome::EmbeddingSet;
use crate::pipeline::definition::Definition;
use crate::store::{HitLabel, Passage, QueryVector, Ranks, SearchFilter, SearchHit, SearchQuery, Store};

/// The longest query text: far beyond a question, and short enough that no query costs more than a document.
const QUERY_BYTES: usize = 8 << 10;

/// Most hits of one answer.
pub const MAX_LIMIT: usize = 100;

/// Hits of an answer unless told.
pub const DEFAULT_LIMIT: usize = 10;

/// How documents are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By meaning.
    Vector,
    /// By words.
    Text,
    /// By both.
    #[default]
    Hybrid,
}

/// What a caller asks.
#[derive(Debug, Clone, Default)]
pub struct Question {
    /// What to look for.
    pub query: String,
    /// Where; may be left out where there is one pipeline.
    pub pipeline: Option<String>,
    /// How.
    pub mode: Mode,
    /// Most hits; 10 unless told.
    pub limit: Option<usize>,
    /// A classification task and a label, or a metadata field and a value. All must hold.
    pub filter: Vec<(String, String)>,
}

impl Question {
    /// Reads one filter, `key=value`.
    ///
    /// # Errors
    /// Where there is no `=`, or nothing before it.
    pub fn condition(line: &str) -> Result<(String, String), SearchError> {
        match line.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
            _ => Err(SearchError::Invalid(format!("the filter `{line}` is not of the form key=value"))),
        }
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Serialize)]
pub struct Findings {
    /// The pipeline that was searched.
    pub pipeline: String,
    /// How it was searched.
    pub mode: Mode,
    /// The documents, the best first.
    pub hits: Vec<Finding>,
}

/// One document.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The document.
    pub document_id: String,
    /// How well it fits; comparable within one answer only.
    pub score: f64,
    /// The passage that fits best, with its place in bytes of the document's text.
    pub chunk: Passage,
    /// The label that the pipeline's first classification task gave.
    pub label: Option<String>,
    /// What each classification task said.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, where a task made one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
    /// The place among the candidates by vector and by words, from 1.
    pub ranks: Ranks,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The question is at fault: one sentence with the mend.
    #[error("{0}")]
    Invalid(String),
    /// The database or the model is out of order for now.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// Answers questions about the documents of some pipelines. Clones share everything.
#[derive(Clone)]
pub struct Searcher {
    store: Store,
    engine: Engine,
    pipelines: Arc<BTreeMap<String, Searchable>>,
}

/// What search must know of a pipeline.
#[derive(Debug, Clone, Default)]
struct Searchable {
    /// The first embedding task and its model.
    embed: Option<(String, String)>,
    classify: Vec<String>,
    metadata: Vec<String>,
}

impl Searcher {
    /// Answers for `definitions`, whose models `engine` has loaded.
    pub fn new<'a>(store: Store, engine: Engine, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let pipelines = definitions.into_iter().map(|d| (d.name.to_string(), Searchable::of(d))).collect();
        Self { store, engine, pipelines: Arc::new(pipelines) }
    }

    /// The documents that answer the question.
    ///
    /// # Errors
    /// Where the question cannot be understood, or the database or the model is out of order.
    pub async fn search(&self, question: &Question) -> Result<Findings, SearchError> {
        let (name, pipeline) = self.pipeline(question.pipeline.as_deref())?;
        let text = checked_text(&question.query)?;
        let limit = question.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(SearchError::Invalid(format!("`limit` is {limit}; ask for 1 to {MAX_LIMIT} hits")));
        }
        let filter = pipeline.filter(name, &question.filter)?;
        let mode = match (&pipeline.embed, question.mode) {
            (None, Mode::Vector) => {
                let mend = "search with mode `text`, or add an `embed` task";
                return Err(SearchError::Invalid(format!("pipeline `{name}` makes no vectors; {mend}")));
            }
            (None, Mode::Hybrid) => Mode::Text,
            (_, mode) => mode,
        };
        let vector = match &pipeline.embed {
            Some((task, model)) if mode != Mode::Text => Some(self.encode(text, task, model).await?),
            _ => None,
        };
        let words = (mode != Mode::Vector).then(|| text.to_owned());
        let hits = self.store.search(SearchQuery { pipeline: name.to_owned(), words, vector, limit, filter }).await?;
        METRICS.searches.inc();
        let hits = hits.into_iter().map(|hit| pipeline.finding(hit)).collect();
        Ok(Findings { pipeline: name.to_owned(), mode, hits })
    }

    fn pipeline(&self, name: Option<&str>) -> Result<(&str, &Searchable), SearchError> {
        let names = || self.pipelines.keys().map(String::as_str);
        let Some(name) = name else {
            let mut all = self.pipelines.iter();
            return match (all.next(), all.next()) {
                (Some((name, only)), None) => Ok((name, only)),
                _ => Err(SearchError::Invalid(format!("`pipeline` is missing; {}", suggestion("", names())))),
            };
        };
        let unknown = || SearchError::Invalid(format!("there is no pipeline `{name}`; {}", suggestion(name, names())));
        self.pipelines.get_key_value(name).map(|(name, pipeline)| (name.as_str(), pipeline)).ok_or_else(unknown)
    }

    async fn encode(&self, text: &str, task: &str, model: &str) -> Result<QueryVector, SearchError> {
        let out_of_order = |reason: String| Transient { component: Component::Model, reason };
        let info = self.engine.model(model).ok_or_else(|| out_of_order(format!("model `{model}` is not loaded")))?;
        let set = EmbeddingSet { model: model.to_owned(), revision: info.revision.clone(), dimension: info.dimension };
        let work = Work::Encode { texts: vec![text.into()], chunking: Chunking::Truncate };
        let mut answers = self.engine.run(vec![Request { model: model.into(), work }]).await?;
        let answer = match answers.pop() {
            Some(Ok(answer)) => answer,
            Some(Err(Failure::Poison(poison))) => return Err(SearchError::Invalid(poison.reason)),
            Some(Err(Failure::Transient(transient))) => return Err(transient.into()),
            None => return Err(out_of_order("the model did not answer".into()).into()),
        };
        let vector = match answer.prediction {
            Prediction::Vectors(texts) => texts.into_iter().next().and_then(|text| text.chunks.into_iter().next()),
            _ => None,
        };
        let vector = vector.ok_or_else(|| out_of_order("the model did not answer with a vector".into()))?;
        Ok(QueryVector { set, task: task.to_owned(), vector: vector.vector.to_vec(), words: text.to_owned() })
    }
}

impl Searchable {
    fn of(definition: &Definition) -> Self {
        let of_kind = |kind| definition.tasks.iter().filter(move |task| task.spec.kind() == kind);
        let embed = of_kind("embed").find_map(|task| Some((task.name.to_string(), task.spec.model()?.to_owned())));
        let classify = of_kind("classify").map(|task| task.name.to_string()).collect();
        Self { embed, classify, metadata: definition.source.document.metadata.clone() }
    }

    fn filter(&self, pipeline: &str, conditions: &[(String, String)]) -> Result<SearchFilter, SearchError> {
        let mut filter = SearchFilter::default();
        for (key, value) in conditions {
            checked(&format!("the filter `{key}`"), value)?;
            if self.classify.contains(key) {
                filter.labels.push((key.clone(), value.clone()));
            } else if self.metadata.contains(key) {
                filter.metadata.push(alternatives(key, value));
            } else {
                let known = self.classify.iter().chain(&self.metadata).map(String::as_str);
                let mend = suggestion(key, known);
                return Err(SearchError::Invalid(format!(
                    "pipeline `{pipeline}` has nothing named `{key}` to filter by; {mend}"
                )));
            }
        }
        Ok(filter)
    }

    fn finding(&self, hit: SearchHit) -> Finding {
        let SearchHit { document_id, score, chunk, labels, summary, metadata, ranks } = hit;
        let first = self.classify.iter().find_map(|task| labels.get(task));
        let label = first.and_then(|label| label.label.clone());
        Finding { document_id, score, chunk, label, labels, summary, metadata, ranks }
    }
}

/// What metadata may say for `key=value` to hold: the text, the number or truth value it spells, or a list with one of them.
fn alternatives(key: &str, value: &str) -> Vec<Value> {
    let mut spelled = vec![json!(value)];
    if let Ok(typed @ (Value::Number(_) | Value::Bool(_))) = serde_json::from_str(value) {
        spelled.push(typed);
    }
    spelled.into_iter().flat_map(|value| [json!({ key: value }), json!({ key: [value] })]).collect()
}

fn checked_text(query: &str) -> Result<&str, SearchError> {
    let text = query.trim();
    if text.is_empty() {
        return Err(SearchError::Invalid("`query` is empty; say what to look for".into()));
    }
    checked("`query`", text)?;
    Ok(text)
}

fn checked(what: &str, text: &str) -> Result<(), SearchError> {
    if text.len() > QUERY_BYTES {
        let length = text.len();
        return Err(SearchError::Invalid(format!("{what} is {length} bytes long; {QUERY_BYTES} is the most, so shorten it")));
    }
    if text.contains('\0') {
        return Err(SearchError::Invalid(format!("{what} holds U+0000, which no stored text can; remove it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searchable() -> Searchable {
        Searchable { embed: None, classify: vec!["topic".into()], metadata: vec!["brand".into(), "price".into()] }
    }

    #[test]
    fn a_filter_is_a_label_where_a_task_has_the_name_and_metadata_otherwise() {
        let conditions = [("topic".to_owned(), "Sports".to_owned()), ("price".to_owned(), "12.5".to_owned())];
        let filter = searchable().filter("p", &conditions).unwrap();
        assert_eq!(filter.labels, [("topic".to_owned(), "Sports".to_owned())]);
        let expected = [json!({"price": "12.5"}), json!({"price": ["12.5"]}), json!({"price": 12.5}), json!({"price": [12.5]})];
        assert_eq!(filter.metadata, [expected]);
    }

    #[test]
    fn a_filter_that_names_nothing_suggests_the_nearest_name() {
        let error = searchable().filter("p", &[("brnd".into(), "x".into())]).unwrap_err().to_string();
        assert_eq!(error, "pipeline `p` has nothing named `brnd` to filter by; did you mean `brand`?");
    }

    #[test]
    fn a_query_that_no_text_can_match_is_refused_with_the_reason() {
        assert!(checked_text(" \n").unwrap_err().to_string().contains("is empty"));
        assert!(checked_text("a\0b").unwrap_err().to_string().contains("U+0000"));
        assert!(checked_text(&"x".repeat(100_000)).unwrap_err().to_string().contains("100000 bytes"));
        assert_eq!(checked_text("  '; DROP TABLE documents; -- ").unwrap(), "'; DROP TABLE documents; --");
    }
}
