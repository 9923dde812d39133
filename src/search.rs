//! Search for documents of a pipeline, over HTTP and on the command line, with filters and facets.
//!
//! | mode | finds | needs |
//! |---|---|---|
//! | `vector` | documents with a similar meaning | an `embed` task |
//! | `text` | documents with all words, or with any of them if few have all | |
//! | `hybrid` | both lists, fused by scores or by reciprocal ranks | an `embed` task; without one it is the same as `text` |
//!
//! English words are compared by their stems; Korean, Chinese and Japanese words by pairs of characters.
//!
//! Vectors of two models are never compared. A document whose vectors come from another model than the pipeline's current one is
//! found by its words, in every mode, until a `reembed` job replaces its vectors.

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

/// The maximum length of a query in bytes: far more than a question needs, and short enough that no query costs more than a
/// document.
const MAX_QUERY_BYTES: usize = 8 << 10;

/// The maximum number of facets in a request.
const MAX_FACETS: usize = 16;

/// The maximum number of hits in a response.
pub const MAX_LIMIT: usize = 100;

/// How many hits a response has if the caller sets no limit.
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

/// What to search for.
#[derive(Debug, Clone, Default)]
pub struct SearchRequest {
    pub query: String,
    /// The pipeline; may be omitted if there is only one.
    pub pipeline: Option<String>,
    /// By meaning, by words or by both.
    pub mode: Mode,
    /// How mode `hybrid` joins its two lists.
    pub fusion: Fusion,
    /// The maximum number of hits; the default is 10.
    pub limit: Option<usize>,
    /// The conditions that every hit must meet.
    pub filter: Vec<FilterClause>,
    /// Classification tasks and metadata fields by which the whole match is counted.
    pub facets: Vec<String>,
    /// The `next` of the previous page.
    pub cursor: Option<String>,
}

/// The documents that match a query.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Findings)]
pub struct SearchResponse {
    /// The pipeline that was searched.
    pub pipeline: String,
    /// The mode of the search, which is `text` if the pipeline makes no vectors.
    pub mode: Mode,
    /// The documents, the best first.
    pub hits: Vec<SearchResult>,
    /// The cursor of the next page, if there is one. While no document changes, pages neither repeat nor skip one; a document that
    /// changes may move from one page to another.
    pub next: Option<String>,
    /// For each requested facet, the number of documents of the whole match by label or value. The whole match is every document
    /// that meets the filter and, in modes `text` and `hybrid`, has any of the words.
    pub facets: BTreeMap<String, FacetCounts>,
}

/// A document that matches a query.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Finding)]
pub struct SearchResult {
    pub document_id: String,
    /// How well the document fits. Scores are comparable within one response only.
    pub score: f64,
    /// The passage that fits best, with its position in bytes of the document's text.
    pub chunk: Passage,
    /// The part of the passage with the most words of the query.
    pub snippet: Snippet,
    /// The words of the query in the passage, as positions in bytes of the document's text.
    pub highlights: Vec<Span>,
    /// The label of the pipeline's first classification task.
    pub label: Option<String>,
    /// The result of each classification task.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, if a task wrote one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
    /// The ranks and scores in each of the two lists.
    pub explanation: Explanation,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The request is not valid: a sentence that says how to fix it.
    #[error("{0}")]
    Invalid(String),
    /// The database or a model is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Transient),
}

/// Searches the documents of some pipelines. Clones share everything.
#[derive(Clone)]
pub struct Searcher {
    store: Reader,
    engine: Engine,
    pipelines: Arc<BTreeMap<String, SearchConfig>>,
}

/// What search needs of a pipeline.
#[derive(Debug, Clone, Default)]
struct SearchConfig {
    name: String,
    tenant: String,
    /// The first embedding task and its model.
    embed: Option<(String, String)>,
    /// The classification tasks, in the file's order.
    classify: Vec<String>,
    tasks: BTreeMap<String, FilterableTask>,
    metadata: Vec<String>,
    /// How questions are answered, if the pipeline's file says so.
    answers: Option<AnswerSettings>,
    /// The models that the pipeline names.
    models: Vec<String>,
    /// The folder to which paths in the pipeline's file are relative.
    base_dir: PathBuf,
}

/// What a filter needs of a task.
#[derive(Debug, Clone)]
struct FilterableTask {
    kind: &'static str,
    /// The fields of its output, if a schema names them.
    fields: Vec<String>,
    /// The possible values, if the pipeline's file gives them.
    choices: known_values::KnownValues,
}

impl Searcher {
    /// Searches the documents of these pipelines, whose models `engine` has loaded.
    pub fn new<'a>(store: Store, engine: Engine, definitions: impl IntoIterator<Item = &'a Definition>) -> Self {
        let pipelines = definitions.into_iter().map(|d| (d.name.to_string(), SearchConfig::of(d))).collect();
        Self { store: store.reader(None), engine, pipelines: Arc::new(pipelines) }
    }

    /// The same searcher with only the pipelines of the tenant, or with all pipelines if there is no tenant.
    pub fn visible_to(&self, tenant: Option<&Tenant>) -> Self {
        let Some(tenant) = tenant else { return self.clone() };
        let pipelines = Arc::new(tenant.select(&self.pipelines, |pipeline| &pipeline.tenant));
        Self { store: self.store.of(tenant.name.clone()), engine: self.engine.clone(), pipelines }
    }

    /// The documents that match the request.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchResponse, SearchError> {
        let pipeline = self.pipeline(request.pipeline.as_deref())?;
        let name = &pipeline.name;
        let text = checked_query(&request.query)?;
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(SearchError::Invalid(format!("`limit` is {limit}; give a number from 1 to {MAX_LIMIT}")));
        }
        let filter = self.checked_filter(pipeline, &request.filter).await?;
        let facets = pipeline.facets(&request.facets)?;
        let mode = match (&pipeline.embed, request.mode) {
            (None, Mode::Vector) => {
                let fix = "use mode `text`, or add an `embed` task";
                return Err(SearchError::Invalid(format!("pipeline `{name}` makes no vectors; {fix}")));
            }
            (None, Mode::Hybrid) => Mode::Text,
            (_, mode) => mode,
        };
        let vector = match &pipeline.embed {
            Some((task, model)) if mode != Mode::Text => Some(self.encode(Query { text, task, model }).await?),
            _ => None,
        };
        let space = vector.as_ref().map(|vector| (&vector.set.model, &vector.set.revision));
        let identity = json!([name, mode, request.fusion, text, request.filter, space]).to_string();
        let offset = match &request.cursor {
            Some(cursor) => cursor::read(cursor, identity.as_bytes())?,
            None => 0,
        };
        let words = (mode != Mode::Vector).then(|| text.to_owned());
        let query = SearchQuery { pipeline: name.clone(), words, vector, fusion: request.fusion, offset, limit, filter, facets };
        let page = self.store.search(query).await?;
        METRICS.searches.inc();
        let next = page.more.then(|| cursor::write(offset + limit, identity.as_bytes()));
        let hits = page.hits.into_iter().map(|hit| pipeline.result(hit)).collect();
        let facets = request.facets.iter().cloned().zip(page.facets).collect();
        Ok(SearchResponse { pipeline: name.clone(), mode, hits, next, facets })
    }

    /// Resolves and checks conditions on documents of a pipeline. Recommendations use them, too.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn filter(&self, pipeline: Option<&str>, clauses: &[FilterClause]) -> Result<SearchFilter, SearchError> {
        self.checked_filter(self.pipeline(pipeline)?, clauses).await
    }

    fn pipeline(&self, name: Option<&str>) -> Result<&SearchConfig, SearchError> {
        let found = did_you_mean::pipeline(&self.pipelines, name, "").map_err(SearchError::Invalid)?;
        Ok(found.1)
    }

    fn no_response(&self) -> Transient {
        Transient::new(Component::Model, "the model returned no result")
    }

    async fn encode(&self, query: Query<'_>) -> Result<QueryVector, SearchError> {
        let encoded = vectors(&self.engine, &[query]).await?.pop().ok_or_else(|| self.no_response())?;
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
        let name = definition.name.to_string();
        Self { name, tenant, embed, classify, tasks, metadata, answers, models, base_dir }
    }

    fn facets(&self, names: &[String]) -> Result<Vec<Facet>, SearchError> {
        if names.len() > MAX_FACETS {
            let message = format!("`facets` has {} names; the maximum is {MAX_FACETS}", names.len());
            return Err(SearchError::Invalid(message));
        }
        let facet = |name: &String| {
            if self.classify.contains(name) {
                return Ok(Facet::Label(name.clone()));
            }
            if self.metadata.contains(name) {
                return Ok(Facet::Metadata(name.clone()));
            }
            let near = suggestion(name, self.classify.iter().chain(&self.metadata).map(String::as_str));
            let pipeline = &self.name;
            Err(SearchError::Invalid(format!("pipeline `{pipeline}` has no facet `{name}`; {near}")))
        };
        names.iter().map(facet).collect()
    }

    fn result(&self, hit: SearchHit) -> SearchResult {
        let SearchHit { document_id, score, chunk, labels, summary, metadata, highlights, explanation } = hit;
        let first = self.classify.iter().find_map(|task| labels.get(task));
        let label = first.and_then(|label| label.label.clone());
        let snippet = Snippet::of(&chunk, &highlights);
        SearchResult { document_id, score, chunk, snippet, highlights, label, labels, summary, metadata, explanation }
    }
}

fn checked_query(query: &str) -> Result<&str, SearchError> {
    let text = query.trim();
    if text.is_empty() {
        return Err(SearchError::Invalid("`query` is empty; give the text to search for".into()));
    }
    check_text("`query`", text)?;
    Ok(text)
}

fn check_text(what: &str, text: &str) -> Result<(), SearchError> {
    if text.len() > MAX_QUERY_BYTES {
        let length = text.len();
        return Err(SearchError::Invalid(format!("{what} is {length} bytes long; shorten it to {MAX_QUERY_BYTES}")));
    }
    if text.contains('\0') {
        return Err(SearchError::Invalid(format!("{what} contains U+0000, which no stored text can; remove it")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_facet_that_names_nothing_suggests_the_nearest_name() {
        let pipeline = SearchConfig {
            name: "p".into(),
            classify: vec!["topic".into()],
            metadata: vec!["brand".into()],
            ..SearchConfig::default()
        };
        let facets = pipeline.facets(&["topic".into(), "brand".into()]).unwrap();
        assert_eq!(facets, [Facet::Label("topic".into()), Facet::Metadata("brand".into())]);
        let error = pipeline.facets(&["brnd".into()]).unwrap_err().to_string();
        assert_eq!(error, "pipeline `p` has no facet `brnd`; did you mean `brand`?");
    }

    #[test]
    fn a_query_that_no_text_can_match_is_refused_with_the_reason() {
        assert!(checked_query(" \n").unwrap_err().to_string().contains("is empty"));
        assert!(checked_query("a\0b").unwrap_err().to_string().contains("U+0000"));
        assert!(checked_query(&"x".repeat(100_000)).unwrap_err().to_string().contains("100000 bytes"));
        assert_eq!(checked_query("  '; DROP TABLE documents; -- ").unwrap(), "'; DROP TABLE documents; --");
    }
}
