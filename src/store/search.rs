//! Search in one pipeline's documents: by vectors, by words, or both.
//!
//! | query | candidates | score of a hit |
//! |---|---|---|
//! | vector | documents, ranked by the nearest of their chunks | cosine similarity, -1 to 1 |
//! | words | documents with all the words; if they are few, also those with any | BM25 (`ranking.rs`), 0 or more |
//! | both | the union of both lists | the fused scores or the fused reciprocal ranks (`fusion.rs`) |
//!
//! A vector is compared only with vectors of its own embedding set. While a pipeline moves to another embedding model, some
//! documents still have vectors of the old set and cannot be found by the query's vector. They are found by words instead:
//!
//! | query | documents with vectors of another set |
//! |---|---|
//! | vector | the words of the query find them, and their list is fused with the list by vectors |
//! | both | their rank in the list by words also counts as their rank in the list by vectors |

mod any_match;
mod facets;
mod filter;
mod fusion;
mod highlight;
mod hits;
mod normalize;
mod query_terms;
mod ranking;
mod text_query;
mod vectors;

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

use super::{Reader, SLOW, Store, unavailable};
use fusion::{FusionInput, unfused};
use text_query::TextQuery;
use tidemill_base::failure::Transient;
use tidemill_base::outcome::{EmbeddingSet, Span};
use vectors::{VectorSpace, of_other_spaces};

pub(super) use vectors::{EXACT_UP_TO, LargeVectorSets};

pub use facets::{Facet, FacetCounts, FacetValue};
pub use filter::{Comparison, FilterCondition, FilterPlace, FilterTest, SearchFilter, ValueKind};
pub use fusion::Fusion;

/// What to search for, and in which pipeline.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The pipeline whose documents are searched.
    pub pipeline: String,
    /// The words, for a search by words or by both.
    pub words: Option<String>,
    /// The vector, for a search by vectors or by both.
    pub vector: Option<QueryVector>,
    /// How the two lists are fused in a search by both.
    pub fusion: Fusion,
    /// How many of the best hits to leave out, because earlier pages had them.
    pub offset: usize,
    /// How many hits to return at most.
    pub limit: usize,
    /// Conditions that every hit must meet.
    pub filter: SearchFilter,
    /// Values to count over all matching documents.
    pub facets: Vec<Facet>,
}

/// One page of the result.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPage {
    /// The hits, the best first.
    pub hits: Vec<SearchHit>,
    /// Whether there are further hits.
    pub more: bool,
    /// The counts, in the order of the query's facets.
    pub facets: Vec<FacetCounts>,
}

/// The vector of a query, and the task whose vectors it is compared with.
#[derive(Debug, Clone)]
pub struct QueryVector {
    pub set: EmbeddingSet,
    pub task: String,
    pub vector: Vec<f32>,
    /// The text that was embedded, to find documents with vectors of another embedding set.
    pub words: String,
}

/// One document of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    pub document_id: String,
    /// Scores are comparable within one result only.
    pub score: f64,
    /// The passage that matches best.
    pub chunk: Passage,
    /// The labels of each classification task.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, if a task made one.
    pub summary: Option<String>,
    pub metadata: Value,
    /// Where the query's words are in the passage, in bytes of the document's text.
    pub highlights: Vec<Span>,
    /// How the score was computed.
    pub explanation: Explanation,
}

/// A part of a document's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passage {
    /// The passage.
    pub text: String,
    /// Its first byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// The labels that a classification task gave to a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HitLabel {
    /// The most probable label; a multi-label task may give none.
    pub label: Option<String>,
    /// Its probability.
    pub confidence: Option<f32>,
    /// All labels that were given.
    pub labels: Vec<String>,
}

/// How a hit's score was computed: it is the sum of what each list adds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The document's rank in the list by vectors, if it is in the list.
    pub vector: Option<ListRank>,
    /// The document's rank in the list by words, if it is in the list.
    pub text: Option<ListRank>,
}

/// The rank of a hit in one list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListRank {
    /// The rank, from 1.
    pub rank: usize,
    /// The list's own score: the cosine similarity, or BM25.
    pub score: f64,
    /// What the list adds to the hit's score. If two lists are fused by scores: the score, scaled to 0 to 1, times 0.6 for vectors
    /// or 0.4 for words. If they are fused by ranks: 1 / (60 + rank), and a quarter of it for a document with only some of the
    /// words. A document with vectors of another embedding set gets from the list by words what both lists would give. For a single
    /// list: its own score.
    pub adds: f64,
    /// In the list by words: whether the document holds all of them.
    pub all_words: Option<bool>,
}

/// How many candidates each list gets: 100 first, and 1,000 if the page is not full then. So only requests for late pages pay for
/// more.
const DEPTHS: [usize; 2] = [100, 1_000];

/// Settings of the transaction: one snapshot for all statements, and index scans that continue until enough rows pass the filters.
pub(super) const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
     SET LOCAL statement_timeout = '15s';
     SET LOCAL TimeZone = 'UTC';
     SET LOCAL jit = off;
     SET LOCAL hnsw.ef_search = 200;
     SET LOCAL hnsw.iterative_scan = relaxed_order;
     SET LOCAL hnsw.max_scan_tuples = 100000;
     SET LOCAL hnsw.scan_mem_multiplier = 4";

struct Candidate {
    id: String,
    score: f64,
    all_words: bool,
    /// The nearest chunk, for a candidate by vectors.
    chunk: Option<Span>,
}

/// A document in the order of the result.
struct RankedDocument {
    id: String,
    score: f64,
    explanation: Explanation,
    chunk: Option<Span>,
}

impl Store {
    /// [`Reader::search`] for the service itself.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchPage, Transient> {
        self.reader(None).search(query).await
    }
}

impl Reader {
    /// The documents that match best, the best first.
    ///
    /// The order does not depend on `offset` and `limit`, and documents with equal scores are in the order of ids. So the pages of
    /// one query never repeat or skip a document, unless documents change in between.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchPage, Transient> {
        let mut connection = self.request_connection().await.map_err(unavailable)?;
        let begun = Instant::now();
        let page = self.page(&query, connection.get()).await;
        if begun.elapsed() >= SLOW {
            tracing::warn!(query.pipeline, seconds = begun.elapsed().as_secs_f32(), "a search was slow");
        }
        let page = page.map_err(unavailable)?;
        connection.give_back();
        Ok(page)
    }

    async fn page(&self, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<SearchPage> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SNAPSHOT).execute(&mut *transaction).await?;
        // Documents with vectors of another space can be found only by words.
        let (space, has_other_spaces) = match &query.vector {
            Some(vector) => VectorSpace::find(vector, &mut transaction).await?,
            None => (None, false),
        };
        let words_of_vector = query.vector.as_ref().filter(|_| has_other_spaces).map(|vector| &vector.words);
        let text_query = match query.words.as_ref().or(words_of_vector) {
            Some(words) => Some(TextQuery::parse(&query.pipeline, words, &mut transaction).await?),
            None => None,
        };
        let both = query.vector.is_some() && query.words.is_some();
        let wanted = query.offset + query.limit;
        let mut order: Vec<RankedDocument> = Vec::new();
        for depth in DEPTHS {
            let by_vector = match &space {
                Some(space) => space.candidates(query, depth, &self.store.large_vector_sets, &mut transaction).await?,
                None => Vec::new(),
            };
            let mut by_words = match &text_query {
                Some(text_query) => text_query.candidates(query, depth, &mut transaction).await?,
                None => Vec::new(),
            };
            let exhausted = by_vector.len() < depth && by_words.len() < depth;
            let mut elsewhere = HashSet::new();
            if let Some(vector) = query.vector.as_ref().filter(|_| has_other_spaces) {
                let ids: Vec<&str> = by_words.iter().map(|candidate| candidate.id.as_str()).collect();
                elsewhere = of_other_spaces(&query.pipeline, vector, space.as_ref(), &ids, &mut transaction).await?;
                if !both {
                    by_words.retain(|candidate| elsewhere.contains(&candidate.id));
                }
            }
            let is_fused = both || (space.is_some() && !by_words.is_empty());
            // Documents of the first, shorter list keep their order, so that early pages do not depend on how many pages are read.
            let known: HashSet<String> = order.iter().map(|ranked| ranked.id.clone()).collect();
            let ranked = match is_fused {
                true => FusionInput { fusion: query.fusion, both, elsewhere: &elsewhere }.fuse(by_vector, by_words),
                false => unfused(by_vector, by_words),
            };
            order.extend(ranked.into_iter().filter(|ranked| !known.contains(&ranked.id)));
            if order.len() > wanted || exhausted {
                break;
            }
        }
        let more = order.len() > wanted;
        let page: Vec<RankedDocument> = order.into_iter().skip(query.offset).take(query.limit).collect();
        let mut facets = Vec::with_capacity(query.facets.len());
        for facet in &query.facets {
            // Every document has some similarity to a vector, so only a search by words alone restricts which documents match.
            let words = text_query.as_ref().filter(|_| query.words.is_some() && query.vector.is_none());
            facets.push(facets::count(query, words, facet, &mut transaction).await?);
        }
        // Candidates and counts are read with the service's rights, of this pipeline only. Under row-level security Postgres would
        // not use their indexes, because the operators of full-text search may not see a row before the policy has passed it. The
        // content of the hits is read with the caller's rights.
        self.restrict(&mut transaction).await?;
        let hits = hits::load(query, space.as_ref(), text_query.as_ref(), page, &mut transaction).await?;
        transaction.commit().await?;
        Ok(SearchPage { hits, more, facets })
    }
}
