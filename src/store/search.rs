//! Search in one pipeline's documents: by vectors, by words, or both.
//!
//! | asked by | candidates | score of a hit |
//! |---|---|---|
//! | vector | documents by the nearest of their chunks | cosine similarity, -1 to 1 |
//! | words | documents with all the words, then with any | `ts_rank`, below 1; plus 1 where all the words are there |
//! | both | the union | reciprocal rank fusion: the sum of 1 / (60 + rank) |

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use super::{Store, unavailable};
use crate::failure::Transient;
use crate::outcome::{EmbeddingSet, Span};

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

/// Bytes of a passage that is cut from a text without regard to chunks.
const PASSAGE_BYTES: usize = 800;

struct Candidate {
    id: String,
    score: f64,
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
            lists.push((true, space.candidates(query, &mut transaction).await?));
        }
        if let Some(words) = &query.words {
            lists.push((false, by_words(words, query, &mut transaction).await?));
        }
        let ranked = fuse(lists, query.vector.is_some() && query.words.is_some(), query.limit);
        let hits = describe(query, space.as_ref(), ranked, &mut transaction).await?;
        transaction.commit().await?;
        Ok(hits)
    }
}

/// The vector space that the query lives in, once it holds vectors.
struct Space<'a> {
    id: i32,
    query: &'a QueryVector,
}

impl<'a> Space<'a> {
    async fn find(query: &'a QueryVector, connection: &mut PgConnection) -> sqlx::Result<Option<Self>> {
        let (model, revision) = (&query.set.model, &query.set.revision);
        let id = sqlx::query_scalar!("SELECT id FROM embedding_sets WHERE model = $1 AND revision = $2", model, revision)
            .fetch_optional(connection)
            .await?;
        Ok(id.map(|id| Self { id, query }))
    }

    /// The cosine distance in the very words of the space's index, or the planner would not use it.
    fn distance(&self) -> String {
        let dimension = self.query.set.dimension;
        format!("(e.vector::vector({dimension})) <=> $1::real[]::vector({dimension})")
    }

    /// The documents by their nearest chunk, as far as the filters let them through.
    async fn candidates(&self, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<Vec<Candidate>> {
        let depth = query.limit.max(DEPTH);
        let (id, distance) = (self.id, self.distance());
        let mut conditions = String::new();
        if !query.filter.labels.is_empty() {
            conditions.push_str(LABELS_OF_CHUNK);
        }
        if !query.filter.metadata.is_empty() {
            conditions.push_str(METADATA_OF_CHUNK);
        }
        let matching = format!(
            "SELECT e.document_id, {distance} AS distance FROM embeddings e
             WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3
               AND cardinality($4::text[]) = cardinality($5::text[]) AND $6::jsonb IS NOT NULL {conditions}"
        );
        // A document may have several chunks among the nearest: four a document is enough nearly always.
        let nearest = format!("{matching} ORDER BY {distance} LIMIT {}", depth * 4);
        let approximate = self.by_document(&nearest, depth, query, &mut *connection).await?;
        if approximate.len() >= query.limit {
            return Ok(approximate);
        }
        // Too little came through: the filters are narrow, or few documents have all the near chunks. Compare every vector.
        self.by_document(&matching, depth, query, connection).await
    }

    async fn by_document(
        &self,
        chunks: &str,
        depth: usize,
        query: &SearchQuery,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let sql = format!(
            "WITH chunks AS MATERIALIZED ({chunks})
             SELECT document_id, min(distance) AS distance FROM chunks
             GROUP BY document_id ORDER BY min(distance), document_id LIMIT {depth}"
        );
        let (tasks, labels) = columns(&query.filter.labels);
        // Only integers are written into the text; everything that a caller typed is bound.
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.query.vector)
            .bind(&query.pipeline)
            .bind(&self.query.task)
            .bind(tasks)
            .bind(labels)
            .bind(Json(&query.filter.metadata))
            .persistent(false)
            .fetch_all(connection)
            .await?;
        rows.iter().map(|row| Ok(Candidate { id: row.try_get(0)?, score: 1.0 - row.try_get::<f64, _>(1)? })).collect()
    }

    /// For each document the chunk that is nearest.
    async fn best_chunks(&self, pipeline: &str, ids: &[String], connection: &mut PgConnection) -> sqlx::Result<Spans> {
        let sql = format!(
            "SELECT DISTINCT ON (e.document_id) e.document_id, e.span_start, e.span_end FROM embeddings e
             WHERE e.set_id = {id} AND e.pipeline = $2 AND e.task = $3 AND e.document_id = ANY($4)
             ORDER BY e.document_id, {distance}, e.chunk",
            id = self.id,
            distance = self.distance()
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(&self.query.vector)
            .bind(pipeline)
            .bind(&self.query.task)
            .bind(ids)
            .persistent(false)
            .fetch_all(connection)
            .await?;
        let span = |start: i32, end: i32| Span { start: start.max(0) as usize, end: end.max(0) as usize };
        rows.iter().map(|row| Ok((row.try_get(0)?, span(row.try_get(1)?, row.try_get(2)?)))).collect()
    }
}

type Spans = HashMap<String, Span>;

/// No wanted label is missing. `$4` and `$5` hold tasks and labels, pair by pair.
const LABELS_OF_CHUNK: &str = "
    AND NOT EXISTS (
        SELECT FROM unnest($4::text[], $5::text[]) AS wanted (task, label)
        WHERE NOT EXISTS (
            SELECT FROM results r
            WHERE r.pipeline = e.pipeline AND r.document_id = e.document_id AND r.task = wanted.task
              AND (r.label = wanted.label OR r.fields -> 'labels' ? wanted.label)))";

/// Of each condition in `$6`, the metadata contains one of the alternatives.
const METADATA_OF_CHUNK: &str = "
    AND EXISTS (
        SELECT FROM documents d
        WHERE d.pipeline = e.pipeline AND d.id = e.document_id
          AND NOT EXISTS (
              SELECT FROM jsonb_array_elements($6::jsonb) AS wanted (alternatives)
              WHERE NOT EXISTS (
                  SELECT FROM jsonb_array_elements(wanted.alternatives) AS alternative (contained)
                  WHERE d.metadata @> alternative.contained)))";

/// Documents with all the words; where those are too few, then such with any of them, or with a word that one begins.
async fn by_words(words: &str, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<Vec<Candidate>> {
    let depth = query.limit.max(DEPTH);
    let terms = sqlx::query!(
        r#"SELECT websearch_to_tsquery('english', $1)::text AS "all!",
                  (SELECT string_agg('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
                                     || CASE WHEN octet_length(lexeme) > 3 THEN ':*' ELSE '' END, ' | ')
                   FROM unnest(to_tsvector('english', $1))) AS any"#,
        words
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut found = by_terms(&terms.all, query, depth, &mut *connection).await?;
    for candidate in &mut found {
        candidate.score += 1.0;
    }
    // Whoever writes operators means them: "-rust" must not come back through the wider net.
    let any = terms.any.filter(|_| found.len() < query.limit && !has_operators(words));
    if let Some(any) = any {
        let wider = by_terms(&any, query, depth, connection).await?;
        let known: Vec<String> = found.iter().map(|candidate| candidate.id.clone()).collect();
        found.extend(wider.into_iter().filter(|candidate| !known.contains(&candidate.id)));
        found.truncate(depth);
    }
    Ok(found)
}

async fn by_terms(terms: &str, query: &SearchQuery, depth: usize, connection: &mut PgConnection) -> sqlx::Result<Vec<Candidate>> {
    let (tasks, labels) = columns(&query.filter.labels);
    let rows = sqlx::query!(
        r#"SELECT d.id, ts_rank(d.search, $2::text::tsquery, 1) AS "rank!"
           FROM documents d
           WHERE d.pipeline = $1 AND NOT d.deleted AND d.search @@ $2::text::tsquery
             AND NOT EXISTS (
                 SELECT FROM unnest($3::text[], $4::text[]) AS wanted (task, label)
                 WHERE NOT EXISTS (
                     SELECT FROM results r
                     WHERE r.pipeline = d.pipeline AND r.document_id = d.id AND r.task = wanted.task
                       AND (r.label = wanted.label OR r.fields -> 'labels' ? wanted.label)))
             AND NOT EXISTS (
                 SELECT FROM jsonb_array_elements($5::jsonb) AS wanted (alternatives)
                 WHERE NOT EXISTS (
                     SELECT FROM jsonb_array_elements(wanted.alternatives) AS alternative (contained)
                     WHERE d.metadata @> alternative.contained))
           ORDER BY 2 DESC, d.id LIMIT $6"#,
        query.pipeline,
        terms,
        &tasks as &[&str],
        &labels as &[&str],
        Json(&query.filter.metadata) as _,
        depth as i64
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Candidate { id: row.id, score: f64::from(row.rank) }).collect())
}

fn has_operators(words: &str) -> bool {
    let negated = words.split_whitespace().any(|word| word.len() > 1 && word.starts_with('-'));
    negated || words.matches('"').count() > 1
}

fn columns(pairs: &[(String, String)]) -> (Vec<&str>, Vec<&str>) {
    pairs.iter().map(|(task, label)| (task.as_str(), label.as_str())).unzip()
}

/// The best `limit` of the lists' union. `fused`: by reciprocal ranks; otherwise there is one list and its scores stand.
fn fuse(lists: Vec<(bool, Vec<Candidate>)>, fused: bool, limit: usize) -> Vec<(Candidate, Ranks)> {
    let mut union: BTreeMap<String, (f64, Ranks)> = BTreeMap::new();
    for (by_vector, list) in lists {
        for (index, candidate) in list.into_iter().enumerate() {
            let rank = index + 1;
            let (score, ranks) = union.entry(candidate.id).or_default();
            *score += if fused { 1.0 / (FUSION + rank as f64) } else { candidate.score };
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
            None => best_passage(&text, query.words.as_deref().unwrap_or_default()),
        };
        let labels = row.labels.map(|labels| labels.0).unwrap_or_default();
        SearchHit { document_id: row.id, score, chunk, labels, summary: row.summary, metadata: row.metadata, ranks }
    });
    Ok(hits.collect())
}

/// The passage that holds most of the words; of equals the first.
fn best_passage(text: &str, words: &str) -> Passage {
    let words: Vec<String> =
        words.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    let mut best = (0, Span { start: 0, end: 0 });
    let mut start = 0;
    while start < text.len() {
        let mut end = text.floor_char_boundary(start + PASSAGE_BYTES);
        if end < text.len() {
            end = text[start..end].rfind(char::is_whitespace).map_or(end, |at| start + at + 1);
        }
        let passage = text[start..end].to_lowercase();
        let held = words.iter().filter(|word| passage.contains(word.as_str())).count();
        if held > best.0 || best.1.end == 0 {
            best = (held, Span { start, end });
        }
        start = end;
    }
    let Span { start, end } = best.1;
    Passage { text: text[start..end].to_owned(), start, end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[&str]) -> Vec<Candidate> {
        ids.iter().map(|id| Candidate { id: (*id).to_owned(), score: 0.5 }).collect()
    }

    #[test]
    fn a_document_in_both_lists_beats_the_first_of_one() {
        let ranked = fuse(vec![(true, list(&["a", "b"])), (false, list(&["c", "b"]))], true, 10);
        let ids: Vec<_> = ranked.iter().map(|(candidate, _)| candidate.id.as_str()).collect();
        assert_eq!(ids, ["b", "a", "c"], "b is second in both lists, a and c tie");
        assert_eq!(ranked[0].1, Ranks { vector: Some(2), text: Some(2) });
        assert!((ranked[0].0.score - 2.0 / 62.0).abs() < 1e-12);
    }

    #[test]
    fn the_passage_with_the_words_is_found_and_its_offsets_are_bytes() {
        let filler = "정원 이야기 ".repeat(200);
        let text = format!("{filler}tomato seedlings need light {filler}");
        let passage = best_passage(&text, "Tomato light?");
        assert!(passage.text.contains("tomato seedlings need light"), "{passage:?}");
        assert_eq!(&text[passage.start..passage.end], passage.text);
        assert!(passage.text.len() <= PASSAGE_BYTES);
    }

    #[test]
    fn an_endless_word_and_an_empty_text_still_make_a_passage() {
        assert_eq!(best_passage("", "x"), Passage { text: String::new(), start: 0, end: 0 });
        assert_eq!(best_passage(&"글".repeat(1000), "x").text.len() % 3, 0, "cut between characters");
    }

    #[test]
    fn operators_are_told_from_plain_words() {
        assert!(has_operators("rust -oxide") && has_operators("\"rust belt\""));
        assert!(!has_operators("state-of-the-art 5\" pipe") && !has_operators("a - b"));
    }
}
