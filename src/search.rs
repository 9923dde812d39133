//! Search as callers ask for it, over HTTP or on the command line: a text, a pipeline, a mode and filters.
//!
//! | mode | finds | needs |
//! |---|---|---|
//! | `vector` | what means the same | an `embed` task |
//! | `text` | the words: English ones by their stems, Korean, Chinese and Japanese ones by pairs of characters; where few documents hold them all, any of them | |
//! | `hybrid` | both lists, fused by scores, or by reciprocal ranks where that is asked for | an `embed` task; without one it is `text` |
//!
//! A document whose vectors come from another model than the pipeline has now is found by its words, in every mode, until its vectors
//! are made anew (`reembed`): vectors of two models are never compared.

mod answer;
mod cursor;
mod filter;
mod known_values;
mod snippet;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::access::Tenant;
use crate::did_you_mean::{self, suggestion};
use crate::engine::Engine;
use crate::failure::{Component, Transient};
use crate::metrics::METRICS;
use crate::outcome::Span;
use crate::pipeline::definition::{AnswerSettings, Definition, TaskDefinition};
use crate::pipeline::query::{Query, vectors};
use crate::store::{
    Explanation, Facet, FacetCounts, Fusion, HitLabel, Passage, QueryVector, Reader, SearchFilter, SearchHit, SearchQuery, Store,
};

pub use answer::{AnswerRequest, AnswerResponse, CitedPassage, ModelChoice};
pub use filter::{ClauseTest, FilterClause};
pub use snippet::Snippet;

/// The longest query text: far beyond a question, and short enough that no query costs more than a document.
const QUERY_BYTES: usize = 8 << 10;

/// Facets of one answer.
const MOST_FACETS: usize = 16;

/// Most hits of one answer.
pub const MAX_LIMIT: usize = 100;

/// Hits of an answer unless told.
pub const DEFAULT_LIMIT: usize = 10;

/// How documents are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, ToSchema)]
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
pub struct SearchRequest {
    /// What to look for.
    pub query: String,
    /// Where; may be left out where there is one pipeline.
    pub pipeline: Option<String>,
    /// How.
    pub mode: Mode,
    /// How both lists become one, where the mode is `hybrid`.
    pub fusion: Fusion,
    /// Most hits; 10 unless told.
    pub limit: Option<usize>,
    /// What every hit must fulfil.
    pub filter: Vec<FilterClause>,
    /// Classification tasks and metadata fields to count the whole match by.
    pub facets: Vec<String>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
}

/// What a caller gets.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SearchResponse {
    /// The pipeline that was searched.
    pub pipeline: String,
    /// How it was searched.
    pub mode: Mode,
    /// The documents, the best first.
    pub hits: Vec<SearchResult>,
    /// Asks for the next page, where there is one. Pages over documents that do not change never repeat or skip one; documents that
    /// change in between may move from one page to another.
    pub next: Option<String>,
    /// Documents of the whole match by label or value, as far as it was asked for: all that pass the filter and, where words count,
    /// hold any of them.
    pub facets: BTreeMap<String, FacetCounts>,
}

/// One document.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SearchResult {
    /// The document.
    pub document_id: String,
    /// How well it fits; comparable within one answer only.
    pub score: f64,
    /// The passage that fits best, with its place in bytes of the document's text.
    pub chunk: Passage,
    /// The part of it that shows best why.
    pub snippet: Snippet,
    /// The words of the query inside the passage, in bytes of the document's text.
    pub highlights: Vec<Span>,
    /// The label that the pipeline's first classification task gave.
    pub label: Option<String>,
    /// What each classification task said.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, where a task made one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
    /// How the score came about, list by list.
    pub explanation: Explanation,
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
    store: Reader,
    engine: Engine,
    pipelines: Arc<BTreeMap<String, SearchConfig>>,
}

/// What search must know of a pipeline.
#[derive(Debug, Clone, Default)]
struct SearchConfig {
    tenant: String,
    /// The first embedding task and its model.
    embed: Option<(String, String)>,
    /// The classification tasks, in the file's order.
    classify: Vec<String>,
    tasks: BTreeMap<String, FilterableTask>,
    metadata: Vec<String>,
    /// How questions are answered, where the pipeline says it.
    answers: Option<AnswerSettings>,
    /// The models that the pipeline names.
    models: Vec<String>,
    /// The folder that its paths start from.
    base_dir: PathBuf,
}

/// What a filter must know of a task.
#[derive(Debug, Clone)]
struct FilterableTask {
    kind: &'static str,
    /// The fields of its objects, where a schema names them.
    fields: Vec<String>,
    /// The values that there are, where the pipeline says them.
    choices: known_values::KnownValues,
}

impl Searcher {
    /// Answers for `definitions`, whose models `engine` has loaded.
    pub fn new<'a>(store: Store, engine: Engine, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let pipelines = definitions.into_iter().map(|d| (d.name.to_string(), SearchConfig::of(d))).collect();
        Self { store: store.reader(None), engine, pipelines: Arc::new(pipelines) }
    }

    /// The same for who sees one tenant's pipelines and no others; for who sees all, where there is none.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let theirs = self.pipelines.iter().filter(|(name, pipeline)| tenant.owns(name, &pipeline.tenant));
        let pipelines = theirs.map(|(name, pipeline)| (name.clone(), pipeline.clone())).collect();
        Self { store: self.store.of(tenant.name.clone()), engine: self.engine.clone(), pipelines: Arc::new(pipelines) }
    }

    /// The documents that answer the question.
    ///
    /// # Errors
    /// Where the question cannot be understood, or the database or the model is out of order.
    pub async fn search(&self, question: &SearchRequest) -> Result<SearchResponse, SearchError> {
        let (name, pipeline) = self.pipeline(question.pipeline.as_deref())?;
        let text = checked_text(&question.query)?;
        let limit = question.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(SearchError::Invalid(format!("`limit` is {limit}; ask for 1 to {MAX_LIMIT} hits")));
        }
        let filter = self.checked_filter((name, pipeline), &question.filter).await?;
        let facets = pipeline.facets(name, &question.facets)?;
        let mode = match (&pipeline.embed, question.mode) {
            (None, Mode::Vector) => {
                let mend = "search with mode `text`, or add an `embed` task";
                return Err(SearchError::Invalid(format!("pipeline `{name}` makes no vectors; {mend}")));
            }
            (None, Mode::Hybrid) => Mode::Text,
            (_, mode) => mode,
        };
        let vector = match &pipeline.embed {
            Some((task, model)) if mode != Mode::Text => Some(self.encode(Query { text, task, model }).await?),
            _ => None,
        };
        let space = vector.as_ref().map(|vector| (&vector.set.model, &vector.set.revision));
        let identity = json!([name, mode, question.fusion, text, question.filter, space]).to_string();
        let offset = match &question.cursor {
            Some(cursor) => cursor::read(cursor, identity.as_bytes())?,
            None => 0,
        };
        let words = (mode != Mode::Vector).then(|| text.to_owned());
        let query =
            SearchQuery { pipeline: name.to_owned(), words, vector, fusion: question.fusion, offset, limit, filter, facets };
        let page = self.store.search(query).await?;
        METRICS.searches.inc();
        let next = page.more.then(|| cursor::write(offset + limit, identity.as_bytes()));
        let hits = page.hits.into_iter().map(|hit| pipeline.finding(hit)).collect();
        let facets = question.facets.iter().cloned().zip(page.facets).collect();
        Ok(SearchResponse { pipeline: name.to_owned(), mode, hits, next, facets })
    }

    /// The filter that the conditions are over what the pipeline makes, for whoever else chooses among its documents.
    ///
    /// # Errors
    /// Where there is no such pipeline, a condition cannot be understood, or names a value that no document can have; where the
    /// database is out of order.
    pub async fn filter(&self, pipeline: Option<&str>, conditions: &[FilterClause]) -> Result<SearchFilter, SearchError> {
        let (name, pipeline) = self.pipeline(pipeline)?;
        self.checked_filter((name, pipeline), conditions).await
    }

    fn pipeline(&self, name: Option<&str>) -> Result<(&str, &SearchConfig), SearchError> {
        did_you_mean::pipeline(&self.pipelines, name, "").map_err(SearchError::Invalid)
    }

    fn silent(&self) -> Transient {
        Transient::new(Component::Model, "the model did not answer")
    }

    async fn encode(&self, query: Query<'_>) -> Result<QueryVector, SearchError> {
        let encoded = vectors(&self.engine, &[query]).await?.pop().ok_or_else(|| self.silent())?;
        encoded.map(|(vector, _)| vector).map_err(|poison| SearchError::Invalid(poison.reason))
    }
}

impl SearchConfig {
    fn of(definition: &Definition) -> Self {
        let of_kind = |kind| definition.tasks.iter().filter(move |task| task.spec.kind() == kind);
        let embed = of_kind("embed").find_map(|task| Some((task.name.to_string(), task.spec.model()?.to_owned())));
        let classify = of_kind("classify").map(|task| task.name.to_string()).collect();
        let known = |task: &TaskDefinition| FilterableTask {
            kind: task.spec.kind(),
            fields: task.spec.fields(definition.base_dir()),
            choices: task.spec.choices(definition.base_dir()).into_iter().collect(),
        };
        let tasks = definition.tasks.iter().map(|task| (task.name.to_string(), known(task))).collect();
        let metadata = definition.source.document.metadata.clone();
        let (answers, base_dir) = (definition.answers.clone(), definition.base_dir().to_owned());
        let tenant = definition.tenant.to_string();
        let models = definition.models().into_iter().map(str::to_owned).collect();
        Self { tenant, embed, classify, tasks, metadata, answers, models, base_dir }
    }

    fn facets(&self, pipeline: &str, names: &[String]) -> Result<Vec<Facet>, SearchError> {
        if names.len() > MOST_FACETS {
            let message = format!("`facets` names {}; {MOST_FACETS} are the most of one answer", names.len());
            return Err(SearchError::Invalid(message));
        }
        let facet = |name: &String| {
            if self.classify.contains(name) {
                return Ok(Facet::Label(name.clone()));
            }
            if self.metadata.contains(name) {
                return Ok(Facet::Metadata(name.clone()));
            }
            let mend = suggestion(name, self.classify.iter().chain(&self.metadata).map(String::as_str));
            Err(SearchError::Invalid(format!("pipeline `{pipeline}` has nothing named `{name}` to count by; {mend}")))
        };
        names.iter().map(facet).collect()
    }

    fn finding(&self, hit: SearchHit) -> SearchResult {
        let SearchHit { document_id, score, chunk, labels, summary, metadata, highlights, explanation } = hit;
        let first = self.classify.iter().find_map(|task| labels.get(task));
        let label = first.and_then(|label| label.label.clone());
        let snippet = Snippet::of(&chunk, &highlights);
        SearchResult { document_id, score, chunk, snippet, highlights, label, labels, summary, metadata, explanation }
    }
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

    #[test]
    fn a_facet_that_names_nothing_suggests_the_nearest_name() {
        let pipeline = SearchConfig { classify: vec!["topic".into()], metadata: vec!["brand".into()], ..SearchConfig::default() };
        let facets = pipeline.facets("p", &["topic".into(), "brand".into()]).unwrap();
        assert_eq!(facets, [Facet::Label("topic".into()), Facet::Metadata("brand".into())]);
        let error = pipeline.facets("p", &["brnd".into()]).unwrap_err().to_string();
        assert_eq!(error, "pipeline `p` has nothing named `brnd` to count by; did you mean `brand`?");
    }

    #[test]
    fn a_query_that_no_text_can_match_is_refused_with_the_reason() {
        assert!(checked_text(" \n").unwrap_err().to_string().contains("is empty"));
        assert!(checked_text("a\0b").unwrap_err().to_string().contains("U+0000"));
        assert!(checked_text(&"x".repeat(100_000)).unwrap_err().to_string().contains("100000 bytes"));
        assert_eq!(checked_text("  '; DROP TABLE documents; -- ").unwrap(), "'; DROP TABLE documents; --");
    }
}
