//! Search in one pipeline's documents: by vectors, by words, or both.
//!
//! | asked by | candidates | score of a hit |
//! |---|---|---|
//! | vector | documents by the nearest of their chunks | cosine similarity, -1 to 1 |
//! | words | documents with all the words; where they are few, with any | BM25 (`ranking.rs`), 0 or more |
//! | both | the union | what the two lists say of it, on one scale or by reciprocal ranks (`fusion.rs`) |
//!
//! A vector is compared with those of its own space only. While documents move from one space to another, those that have not yet are
//! found by words: where only vectors were asked for, too, and then the two lists are fused; where both were, their place among the
//! words stands for the one that they cannot have among the vectors, too.

mod any_match;
mod describe;
mod facets;
mod filter;
mod fusion;
mod highlight;
mod normalize;
mod ranking;
mod terms;
mod vectors;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use utoipa::ToSchema;

use super::{Reader, SLOW, Store, unavailable};
use fusion::{Lists, alone};
use tidemill_base::failure::Transient;
use tidemill_base::outcome::{EmbeddingSet, Span};
use vectors::{Space, of_other_spaces};

pub(super) use vectors::{Crowds, EXACT_UP_TO};
use words::Wording;

pub use facets::{Facet, FacetCounts, FacetValue};
pub use filter::{Comparison, FilterCondition, FilterPlace, FilterTest, SearchFilter, ValueKind};
pub use fusion::Fusion;

/// What to look for.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The pipeline whose documents are searched.
    pub pipeline: String,
    /// The words, where words count.
    pub words: Option<String>,
    /// The vector, where meaning counts.
    pub vector: Option<QueryVector>,
    /// How the two become one.
    pub fusion: Fusion,
    /// Hits to pass over, which earlier pages had.
    pub offset: usize,
    /// Most hits to return.
    pub limit: usize,
    /// What every hit must fulfil.
    pub filter: SearchFilter,
    /// What to count the whole match by.
    pub facets: Vec<Facet>,
}

/// A part of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchPage {
    /// The hits, the best first.
    pub hits: Vec<SearchHit>,
    /// Whether there are further ones.
    pub more: bool,
    /// The counts, in the order in which they were asked for.
    pub facets: Vec<FacetCounts>,
}

/// A point in a vector space, and the task whose vectors are compared with it.
#[derive(Debug, Clone)]
pub struct QueryVector {
    /// The vector space.
    pub set: EmbeddingSet,
    /// The embedding task.
    pub task: String,
    /// The components.
    pub vector: Vec<f32>,
    /// What it means in words, for documents whose vectors are of another space.
    pub words: String,
}

/// One document found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The document.
    pub document_id: String,
    /// How well it fits; comparable within one answer only.
    pub score: f64,
    /// The passage that fits best.
    pub chunk: Passage,
    /// What each classification task said.
    pub labels: BTreeMap<String, HitLabel>,
    /// The summary, where a task made one.
    pub summary: Option<String>,
    /// The document's metadata.
    pub metadata: Value,
    /// The words of the query inside the passage, in bytes of the document's text.
    pub highlights: Vec<Span>,
    /// How the score came about.
    pub explanation: Explanation,
}

/// A part of a document's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passage {
    /// The words.
    pub text: String,
    /// Its first byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// The labels that a task gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HitLabel {
    /// The likeliest; a multi-label task may give none.
    pub label: Option<String>,
    /// Its probability.
    pub confidence: Option<f32>,
    /// All that were given.
    pub labels: Vec<String>,
}

/// How a hit's score came about: the sum of what each list gave it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The list by meaning, where it has the document.
    pub vector: Option<ListRank>,
    /// The list by words, where it has the document.
    pub text: Option<ListRank>,
}

/// Where a hit stood in one list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ListRank {
    /// Its place, from 1.
    pub rank: usize,
    /// What decided the place: the cosine similarity, or the weight of the words (BM25).
    pub score: f64,
    /// What the list adds to the hit's score. Where two lists are fused by scores: the score from 0 to 1, by weight, 0.6 for vectors
    /// and 0.4 for words; by ranks: 1 / (60 + rank), a quarter of it where a document holds only some of the words. A document whose
    /// vectors are of another space has from the words what both lists give. Otherwise the list's own score.
    pub adds: f64,
    /// In the list by words, whether the document holds all of them.
    pub all_words: Option<bool>,
}

/// Candidates of each list: the first pages come from the best of them, and only whoever turns many pages pays for more.
const DEPTHS: [usize; 2] = [100, 1_000];

/// One snapshot for all statements; an index scan that goes on until the filters let enough through.
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
    /// The chunk that is nearest, where it stands among the vectors.
    chunk: Option<Span>,
}

/// A document in the order of the answer.
struct Ranked {
    id: String,
    score: f64,
    explanation: Explanation,
    chunk: Option<Span>,
}

impl Store {
    /// [`Reader::search`] for the service.
    ///
    /// # Errors
    /// Where the database is unavailable or takes too long.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchPage, Transient> {
        self.reader(None).search(query).await
    }
}

impl Reader {
    /// The documents that fit best, the best first.
    ///
    /// The order does not depend on `offset` and `limit`: pages of one question over documents that do not change never repeat or
    /// skip one, and of equals the smaller id comes first. Documents that change in between may move from one page to another.
    ///
    /// # Errors
    /// Where the database is unavailable or takes too long.
    pub async fn search(&self, query: SearchQuery) -> Result<SearchPage, Transient> {
        let mut lease = self.lease().await.map_err(unavailable)?;
        let begun = Instant::now();
        let page = self.page(&query, lease.connection()).await;
        if begun.elapsed() >= SLOW {
            tracing::warn!(query.pipeline, seconds = begun.elapsed().as_secs_f32(), "a search took long");
        }
        let page = page.map_err(unavailable)?;
        lease.give_back();
        Ok(page)
    }

    async fn page(&self, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<SearchPage> {
        let mut transaction = connection.begin().await?;
        sqlx::raw_sql(SNAPSHOT).execute(&mut *transaction).await?;
        // Documents whose vectors are of another space have nothing but their words to be found by.
        let (space, moves) = match &query.vector {
            Some(vector) => Space::find(vector, &mut transaction).await?,
            None => (None, false),
        };
        let unspoken = query.vector.as_ref().filter(|_| moves).map(|vector| &vector.words);
        let wording = match query.words.as_ref().or(unspoken) {
            Some(words) => Some(Wording::parse(&query.pipeline, words, &mut transaction).await?),
            None => None,
        };
        let both = query.vector.is_some() && query.words.is_some();
        let wanted = query.offset + query.limit;
        let mut order: Vec<Ranked> = Vec::new();
        for depth in DEPTHS {
            let by_vector = match &space {
                Some(space) => space.candidates(query, (depth, &self.store.crowds), &mut transaction).await?,
                None => Vec::new(),
            };
            let mut by_words = match &wording {
                Some(wording) => wording.candidates(query, depth, &mut transaction).await?,
                None => Vec::new(),
            };
            let exhausted = by_vector.len() < depth && by_words.len() < depth;
            let mut elsewhere = HashSet::new();
            if let Some(vector) = query.vector.as_ref().filter(|_| moves) {
                let ids: Vec<&str> = by_words.iter().map(|candidate| candidate.id.as_str()).collect();
                elsewhere = of_other_spaces(&query.pipeline, (vector, space.as_ref()), &ids, &mut transaction).await?;
                if !both {
                    by_words.retain(|candidate| elsewhere.contains(&candidate.id));
                }
            }
            let is_fused = both || (space.is_some() && !by_words.is_empty());
            // What came from fewer candidates keeps its place, so that no page depends on how far others went.
            let known: HashSet<String> = order.iter().map(|ranked| ranked.id.clone()).collect();
            let ranked = match is_fused {
                true => Lists { fusion: query.fusion, both, elsewhere: &elsewhere }.fused(by_vector, by_words),
                false => alone(by_vector, by_words),
            };
            order.extend(ranked.into_iter().filter(|ranked| !known.contains(&ranked.id)));
            if order.len() > wanted || exhausted {
                break;
            }
        }
        let more = order.len() > wanted;
        let page: Vec<Ranked> = order.into_iter().skip(query.offset).take(query.limit).collect();
        let mut facets = Vec::with_capacity(query.facets.len());
        for facet in &query.facets {
            // Among the vectors each document has a place: only where words alone are asked for do they decide what is part of the match.
            let asked = wording.as_ref().filter(|_| query.words.is_some() && query.vector.is_none());
            facets.push(facets::count(query, asked, facet, &mut transaction).await?);
        }
        // Candidates and counts are of the one pipeline that was asked for. Under a policy their indexes would be of no use, for no
        // operator of full text may look at a row before the policy has. What leaves the database is read under it.
        self.confine(&mut transaction).await?;
        let hits = describe::describe(query, (space.as_ref(), wording.as_ref()), page, &mut transaction).await?;
        transaction.commit().await?;
        Ok(SearchPage { hits, more, facets })
    }
}
