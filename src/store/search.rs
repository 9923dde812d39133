//! Search in one pipeline's documents: by vectors, by words, or both.
//!
//! | asked by | candidates | score of a hit |
//! |---|---|---|
//! | vector | documents by the nearest of their chunks | cosine similarity, -1 to 1 |
//! | words | documents with all the words, then with any | `ts_rank`, below 1; plus 1 where all the words are there |
//! | both | the union | reciprocal rank fusion: the sum of 1 / (60 + rank); a quarter of it by words where not all are there |
//!
//! A vector is compared with those of its own space only. While documents move from one space to another, those that have not yet are
//! found by words: where only vectors were asked for, too, and then the two lists are fused; where both were, their place among the
//! words stands for the one that they cannot have among the vectors, too.

mod describe;
mod facets;
mod filter;
mod marks;
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
use tidemill_base::failure::Transient;
use tidemill_base::outcome::{EmbeddingSet, Span};
use vectors::{Space, of_other_spaces};

pub(super) use vectors::{Crowds, EXACT_UP_TO};
use words::Wording;

pub use facets::{Facet, FacetCounts, FacetValue};
pub use filter::{Comparison, FilterCondition, FilterPlace, FilterTest, SearchFilter};

/// What to look for.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The pipeline whose documents are searched.
    pub pipeline: String,
    /// The words, where words count.
    pub words: Option<String>,
    /// The vector, where meaning counts.
    pub vector: Option<QueryVector>,
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
    pub vector: Option<Standing>,
    /// The list by words, where it has the document.
    pub text: Option<Standing>,
}

/// Where a hit stood in one list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// Its place, from 1.
    pub rank: usize,
    /// What decided the place: the cosine similarity, or the weight of the words.
    pub score: f64,
    /// What the list adds to the hit's score: 1 / (60 + rank) where two lists are fused, a quarter of it where a document holds only
    /// some of the words, and once more where its vectors are of another space; the list's own score otherwise.
    pub adds: f64,
    /// In the list by words, whether the document holds all of them.
    pub all_words: Option<bool>,
}

/// Candidates of each list: the first pages come from the best of them, and only whoever turns many pages pays for more.
const DEPTHS: [usize; 2] = [100, 1_000];

/// The usual constant of reciprocal rank fusion: dampens the first ranks enough that both lists have a say.
const FUSION: f64 = 60.0;

/// What a document with only some of the words counts by words. Such a list is long and mostly wrong: counted in full, it finds fewer
/// news articles by their titles than the vectors alone, a quarter finds a few more, and documents with all words are where vectors fail.
const SOME_WORDS: f64 = 0.25;

/// One snapshot for all statements; an index scan that goes on until the filters let enough through.
pub(super) const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
     SET LOCAL statement_timeout = '15s';
     SET LOCAL TimeZone = 'UTC';
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
            Some(words) => Some(Wording::parse(words, &mut transaction).await?),
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
            let weight = |id: &str, all_words: bool| match (elsewhere.contains(id), both) {
                (true, true) => 1.0 + own_weight(all_words),
                (true, false) => 1.0,
                (false, _) => own_weight(all_words),
            };
            let fused = both || (space.is_some() && !by_words.is_empty());
            // What came from fewer candidates keeps its place, so that no page depends on how far others went.
            let known: HashSet<String> = order.iter().map(|ranked| ranked.id.clone()).collect();
            let ranked = fuse(by_vector, by_words, fused, weight);
            order.extend(ranked.into_iter().filter(|ranked| !known.contains(&ranked.id)));
            if order.len() > wanted || exhausted {
                break;
            }
        }
        let more = order.len() > wanted;
        let page: Vec<Ranked> = order.into_iter().skip(query.offset).take(query.limit).collect();
        let mut facets = Vec::with_capacity(query.facets.len());
        for facet in &query.facets {
            let asked = wording.as_ref().filter(|_| query.words.is_some());
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

/// What a document's place among the words counts beside one among the vectors.
fn own_weight(all_words: bool) -> f64 {
    if all_words { 1.0 } else { SOME_WORDS }
}

/// The lists' union, the best first. `fused`: by reciprocal ranks, each place among the words with its `weight`; otherwise there is one
/// list and its scores stand.
fn fuse(by_vector: Vec<Candidate>, by_words: Vec<Candidate>, fused: bool, weight: impl Fn(&str, bool) -> f64) -> Vec<Ranked> {
    let mut union: BTreeMap<String, Ranked> = BTreeMap::new();
    for (is_vector, list) in [(true, by_vector), (false, by_words)] {
        for (index, Candidate { id, score, all_words, chunk }) in list.into_iter().enumerate() {
            let rank = index + 1;
            let weight = if is_vector { 1.0 } else { weight(&id, all_words) };
            let adds = if fused { weight / (FUSION + rank as f64) } else { score };
            let empty = || Ranked { id: id.clone(), score: 0.0, explanation: Explanation::default(), chunk: None };
            let ranked = union.entry(id.clone()).or_insert_with(empty);
            ranked.score += adds;
            ranked.chunk = ranked.chunk.or(chunk);
            match is_vector {
                true => ranked.explanation.vector = Some(Standing { rank, score, adds, all_words: None }),
                false => ranked.explanation.text = Some(Standing { rank, score, adds, all_words: Some(all_words) }),
            }
        }
    }
    let mut ranked: Vec<_> = union.into_values().collect();
    // Stable: documents that tie stay in the order of their ids.
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[&str], all_words: bool) -> Vec<Candidate> {
        ids.iter().map(|id| Candidate { id: (*id).to_owned(), score: 0.5, all_words, chunk: None }).collect()
    }

    #[test]
    fn some_of_the_words_count_less_than_all() {
        let ranked = fuse(list(&["a", "b"], false), list(&["c"], false), true, |_, all| own_weight(all));
        let ids: Vec<_> = ranked.iter().map(|ranked| ranked.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert!((ranked[2].score - SOME_WORDS / 61.0).abs() < 1e-12);
    }

    #[test]
    fn a_document_in_both_lists_beats_the_first_of_one() {
        let ranked = fuse(list(&["a", "b"], false), list(&["c", "b"], true), true, |_, all| own_weight(all));
        let ids: Vec<_> = ranked.iter().map(|ranked| ranked.id.as_str()).collect();
        assert_eq!(ids, ["b", "a", "c"], "b is second in both lists, a and c tie");
        let Explanation { vector: Some(vector), text: Some(text) } = &ranked[0].explanation else { panic!("b is in both lists") };
        assert_eq!((vector.rank, text.rank), (2, 2));
        assert!((ranked[0].score - 2.0 / 62.0).abs() < 1e-12);
        assert!((vector.adds + text.adds - ranked[0].score).abs() < 1e-12, "the explanation adds up");
    }

    #[test]
    fn a_document_of_another_space_is_not_beaten_for_having_no_place_among_the_vectors() {
        let ids = |weight: &dyn Fn(&str, bool) -> f64| -> Vec<String> {
            let (by_vector, by_words) = (list(&["a", "b"], false), list(&["old", "a", "b"], true));
            fuse(by_vector, by_words, true, weight).into_iter().map(|ranked| ranked.id).collect()
        };
        assert_eq!(ids(&|id, all| own_weight(all) + f64::from(id == "old")), ["old", "a", "b"]);
        assert_eq!(ids(&|_, all| own_weight(all)), ["a", "b", "old"], "without that it would be");
    }
}
