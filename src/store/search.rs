//! Search in one pipeline's documents: by vectors, by words, or both.
//!
//! | asked by | candidates | score of a hit |
//! |---|---|---|
//! | vector | documents by the nearest of their chunks | cosine similarity, -1 to 1 |
//! | words | documents with all the words, then with any | `ts_rank`, below 1; plus 1 where all the words are there |
//! | both | the union | reciprocal rank fusion: the sum of 1 / (60 + rank) |
//!
//! A vector is compared with those of its own space only. While documents move from one space to another, those that have not yet are
//! found by words: where only vectors were asked for, too, and then the two lists are fused; where both were, their place among the
//! words counts twice, because among the vectors they cannot have one.

mod vectors;
mod words;

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

use super::{Store, unavailable};
use crate::failure::Transient;
use crate::outcome::EmbeddingSet;
use vectors::{Space, Spans, of_other_spaces};
use words::{best_passage, by_words};

/// What to look for.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The pipeline whose documents are searched.
    pub pipeline: String,
    /// The words, where words count.
    pub words: Option<String>,
    /// The vector, where meaning counts.
    pub vector: Option<QueryVector>,
    /// Most hits to return.
    pub limit: usize,
    /// What every hit must fulfil.
    pub filter: SearchFilter,
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

/// Conditions that all must hold.
#[derive(Debug, Clone, Default)]
pub struct SearchFilter {
    /// Classification task and a label it must have given.
    pub labels: Vec<(String, String)>,
    /// For each condition, the JSON objects of which the document's metadata must contain at least one.
    pub metadata: Vec<Vec<Value>>,
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
    /// The place of the document in each list of candidates, from 1.
    pub ranks: Ranks,
}

/// A part of a document's text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// The words.
    pub text: String,
    /// Its first byte in the document's text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// The labels that a task gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HitLabel {
    /// The likeliest; a multi-label task may give none.
    pub label: Option<String>,
    /// Its probability.
    pub confidence: Option<f32>,
    /// All that were given.
    pub labels: Vec<String>,
}

/// Where a hit stood among the candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ranks {
    /// By vector.
    pub vector: Option<usize>,
    /// By words.
    pub text: Option<usize>,
}

/// Candidates that each list contributes at least: fusion needs to look below the last hit.
const DEPTH: usize = 100;

/// The usual constant of reciprocal rank fusion: dampens the first ranks enough that both lists have a say.
const FUSION: f64 = 60.0;

struct Candidate {
    id: String,
    score: f64,
}

/// The candidates of one way to look.
struct List {
    by_vector: bool,
    candidates: Vec<Candidate>,
}

impl SearchQuery {
    /// The words to look for where a vector cannot tell.
    fn any_words(&self) -> Option<&str> {
        self.words.as_deref().or(self.vector.as_ref().map(|vector| vector.words.as_str()))
    }
}

impl Store {
    /// The documents that fit best, the best first.
    ///
    /// Runs to its end even if the caller goes away: a transaction that is dropped while it begins poisons its connection.
    ///
    /// # Errors
    /// Where the database is unavailable or takes too long.
    pub async fn search(&self, query: SearchQuery) -> Result<Vec<SearchHit>, Transient> {
        let store = self.clone();
        let search = tokio::spawn(async move { store.search_to_the_end(&query).await.map_err(unavailable) });
        search.await.unwrap_or_else(|error| match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(unavailable(sqlx::Error::Io(std::io::Error::other(error)))),
        })
    }

    async fn search_to_the_end(&self, query: &SearchQuery) -> sqlx::Result<Vec<SearchHit>> {
        let mut connection = self.pool.acquire().await?;
        let mut transaction = connection.begin().await?;
        // One snapshot for all statements; an index scan that goes on until the filters let enough through.
        sqlx::raw_sql(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
             SET LOCAL statement_timeout = '15s';
             SET LOCAL hnsw.ef_search = 100;
             SET LOCAL hnsw.iterative_scan = relaxed_order;
             SET LOCAL hnsw.max_scan_tuples = 100000",
        )
        .execute(&mut *transaction)
        .await?;
        let space = match &query.vector {
            Some(vector) => Space::find(vector, &mut transaction).await?,
            None => None,
        };
        let mut lists = Vec::new();
        if let Some(space) = &space {
            lists.push(List { by_vector: true, candidates: space.candidates(query, &mut transaction).await? });
        }
        let (by_words, elsewhere) = by_words_too(query, space.as_ref(), &mut transaction).await?;
        let both = query.vector.is_some() && query.words.is_some();
        let fused = both || (space.is_some() && !by_words.is_empty());
        if !by_words.is_empty() {
            lists.push(List { by_vector: false, candidates: by_words });
        }
        let twice = if both { elsewhere } else { HashSet::new() };
        let ranked = fuse(lists, fused, &twice, query.limit);
        let hits = describe(query, space.as_ref(), ranked, &mut transaction).await?;
        transaction.commit().await?;
        Ok(hits)
    }
}

/// Candidates by words, and which of them have vectors of another space. Where only vectors were asked for, there are no others.
async fn by_words_too(
    query: &SearchQuery,
    space: Option<&Space<'_>>,
    connection: &mut PgConnection,
) -> sqlx::Result<(Vec<Candidate>, HashSet<String>)> {
    let moves = match &query.vector {
        Some(vector) => Space::has_others(vector, &mut *connection).await?,
        None => false,
    };
    let Some(words) = query.any_words().filter(|_| moves || query.words.is_some()) else {
        return Ok((Vec::new(), HashSet::new()));
    };
    let mut found = by_words(words, query, &mut *connection).await?;
    let Some(vector) = query.vector.as_ref().filter(|_| moves) else { return Ok((found, HashSet::new())) };
    let ids: Vec<String> = found.iter().map(|candidate| candidate.id.clone()).collect();
    let elsewhere = of_other_spaces(&query.pipeline, (vector, space), &ids, connection).await?;
    if query.words.is_none() {
        found.retain(|candidate| elsewhere.contains(&candidate.id));
    }
    Ok((found, elsewhere))
}

fn columns(pairs: &[(String, String)]) -> (Vec<&str>, Vec<&str>) {
    pairs.iter().map(|(task, label)| (task.as_str(), label.as_str())).unzip()
}

/// The best `limit` of the lists' union. `fused`: by reciprocal ranks, among words `twice` for some; otherwise there is one list and
/// its scores stand.
fn fuse(lists: Vec<List>, fused: bool, twice: &HashSet<String>, limit: usize) -> Vec<(Candidate, Ranks)> {
    let mut union: BTreeMap<String, (f64, Ranks)> = BTreeMap::new();
    for List { by_vector, candidates } in lists {
        for (index, candidate) in candidates.into_iter().enumerate() {
            let rank = index + 1;
            let times = if !by_vector && twice.contains(&candidate.id) { 2.0 } else { 1.0 };
            let (score, ranks) = union.entry(candidate.id).or_default();
            *score += if fused { times / (FUSION + rank as f64) } else { candidate.score };
            *(if by_vector { &mut ranks.vector } else { &mut ranks.text }) = Some(rank);
        }
    }
    let mut ranked: Vec<_> = union.into_iter().map(|(id, (score, ranks))| (Candidate { id, score }, ranks)).collect();
    // Stable: documents that tie stay in the order of their ids.
    ranked.sort_by(|a, b| b.0.score.total_cmp(&a.0.score));
    ranked.truncate(limit);
    ranked
}

/// Adds to each candidate what people want to see of it.
async fn describe(
    query: &SearchQuery,
    space: Option<&Space<'_>>,
    ranked: Vec<(Candidate, Ranks)>,
    connection: &mut PgConnection,
) -> sqlx::Result<Vec<SearchHit>> {
    let ids: Vec<String> = ranked.iter().map(|(candidate, _)| candidate.id.clone()).collect();
    let spans = match space {
        Some(space) => space.best_chunks(&query.pipeline, &ids, &mut *connection).await?,
        None => Spans::new(),
    };
    // Where a chunk is known only its bytes travel; otherwise the part of the text that is indexed for words.
    let starts: Vec<Option<i32>> = ids.iter().map(|id| spans.get(id).map(|span| span.start as i32)).collect();
    let lengths: Vec<Option<i32>> = ids.iter().map(|id| spans.get(id).map(|span| (span.end - span.start) as i32)).collect();
    let rows = sqlx::query!(
        r#"SELECT d.id, d.metadata,
                  coalesce(substring(convert_to(d.text, 'UTF8') FROM h.start + 1 FOR h.length),
                           convert_to(left(d.text, 100000), 'UTF8')) AS "text!",
                  (SELECT jsonb_object_agg(r.task, jsonb_build_object(
                       'label', r.label, 'confidence', r.confidence, 'labels', coalesce(r.fields -> 'labels', '[]')))
                   FROM results r WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'classify'
                  ) AS "labels: Json<BTreeMap<String, HitLabel>>",
                  (SELECT r.text FROM results r
                   WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.kind = 'summarize'
                   ORDER BY r.task LIMIT 1) AS summary
           FROM unnest($2::text[], $3::integer[], $4::integer[]) AS h (id, start, length)
           JOIN documents d ON d.pipeline = $1 AND d.id = h.id"#,
        query.pipeline,
        &ids,
        &starts as &[Option<i32>],
        &lengths as &[Option<i32>]
    )
    .fetch_all(connection)
    .await?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let found = ranked.into_iter().filter_map(|(candidate, ranks)| Some((rows.remove(&candidate.id)?, candidate.score, ranks)));
    let hits = found.map(|(row, score, ranks)| {
        let text = String::from_utf8_lossy(&row.text);
        let chunk = match spans.get(&row.id) {
            Some(span) => Passage { start: span.start, end: span.start + row.text.len(), text: text.into_owned() },
            None => best_passage(&text, query.any_words().unwrap_or_default()),
        };
        let labels = row.labels.map(|labels| labels.0).unwrap_or_default();
        SearchHit { document_id: row.id, score, chunk, labels, summary: row.summary, metadata: row.metadata, ranks }
    });
    Ok(hits.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(by_vector: &[&str], by_words: &[&str]) -> Vec<List> {
        let candidates = |ids: &[&str]| ids.iter().map(|id| Candidate { id: (*id).to_owned(), score: 0.5 }).collect();
        [(true, by_vector), (false, by_words)].map(|(by_vector, ids)| List { by_vector, candidates: candidates(ids) }).into()
    }

    fn ids(ranked: &[(Candidate, Ranks)]) -> Vec<&str> {
        ranked.iter().map(|(candidate, _)| candidate.id.as_str()).collect()
    }

    #[test]
    fn a_document_in_both_lists_beats_the_first_of_one() {
        let ranked = fuse(lists(&["a", "b"], &["c", "b"]), true, &HashSet::new(), 10);
        assert_eq!(ids(&ranked), ["b", "a", "c"], "b is second in both lists, a and c tie");
        assert_eq!(ranked[0].1, Ranks { vector: Some(2), text: Some(2) });
        assert!((ranked[0].0.score - 2.0 / 62.0).abs() < 1e-12);
    }

    #[test]
    fn a_document_of_another_space_is_not_beaten_for_having_no_place_among_the_vectors() {
        let twice = HashSet::from(["old".to_owned()]);
        let lists = || lists(&["a", "b"], &["old", "a", "b"]);
        assert_eq!(ids(&fuse(lists(), true, &twice, 10)), ["old", "a", "b"]);
        assert_eq!(ids(&fuse(lists(), true, &HashSet::new(), 10)), ["a", "b", "old"], "without that it would be");
    }
}
