//! Ranking by words: BM25, with the word counts of the pipeline's documents from `word_counts`.
//!
//! The weight of a word is `ln(1 + (documents - holding + 0.5) / (holding + 0.5))`, where `holding` is the number of documents that
//! hold it. A document that holds it `n` times gets `n * 2.2 / (n + k)` of the weight, where `k = 1.2 * (0.25 + 0.75 * length /
//! mean length)`.
//!
//! | word of the query | documents that hold it |
//! |---|---|
//! | some document has it | documents with this word |
//! | no document has it, and it has four characters or more | documents with a word that begins with it |
//!
//! A frequent word has a small weight, but many documents hold it, so that most of the work would be for it. The best documents can
//! be found without it: once the worst candidate with a rarer word scores more than all frequent words together could add, no
//! document with only frequent words can come before it. (This is the idea of the MaxScore algorithm.)

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgConnection, Postgres, QueryBuilder, Row};

use super::{Candidate, SearchQuery};
use crate::{Store, WithDeadline};
use tidemill_base::failure::Transient;

/// BM25's `k1`: how quickly further occurrences of a word add less.
const K1: f64 = 1.2;

/// BM25's `b`: how much the length of a document counts.
const B: f64 = 0.75;

/// The first query looks for the rarest words that about this number of documents hold together.
const FIRST: f64 = 2_000.0;

/// The factor for a document that has only words beginning with a query's word, while other documents have the word itself.
const PREFIX_MATCH: f64 = 0.5;

/// How many occurrences of a word are counted. More occurrences count as this number, which is 98 % of the limit.
const MAX_OCCURRENCES: usize = 64;

/// For each `n` from 1, the value half-way between the `ts_rank` of a document with `n - 1` and with `n` occurrences of one word.
/// `ts_rank` is the sum of 1 / i² for i up to n, divided by the limit of that sum, π² / 6. `width_bucket` finds `n` with these
/// boundaries.
static OCCURRENCES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let total = std::f64::consts::PI.powi(2) / 6.0;
    let mut sum = 0.0;
    let between = |n: usize| {
        let before = sum;
        sum += 1.0 / (n * n) as f64;
        (before + sum) / 2.0 / total
    };
    (1..=MAX_OCCURRENCES).map(between).collect()
});

/// A word of a query with its weight.
#[derive(Debug, Clone, PartialEq)]
struct Term {
    lexeme: String,
    /// Whether it matches every word that begins with it.
    is_prefix: bool,
    /// How many documents hold it.
    documents: f64,
    /// The highest score that a document can get for it.
    weight: f64,
}

/// The words of a query with their weights in a pipeline.
#[derive(Debug, Clone)]
pub(super) struct Ranking {
    /// The rarest word first.
    terms: Vec<Term>,
    /// The words that are long enough to match as prefixes.
    long: Vec<String>,
    /// How many documents the pipeline has.
    documents: f64,
    /// The mean number of words in a document.
    mean_length: f64,
}

impl Ranking {
    /// Looks up the word counts.
    pub(super) async fn of(pipeline: &str, lexemes: Vec<String>, connection: &mut PgConnection) -> sqlx::Result<Self> {
        // The row of the empty word has the totals.
        let words: Vec<&str> = std::iter::once("").chain(lexemes.iter().map(String::as_str)).collect();
        let rows = sqlx::query!(
            r#"SELECT word, sum(documents)::double precision AS "documents!", sum(words)::double precision AS "words!"
               FROM word_counts WHERE pipeline = $1 AND word = ANY($2) GROUP BY word"#,
            pipeline,
            &words as &[&str]
        );
        let rows = rows.fetch_all(&mut *connection).await?;
        let counts: HashMap<&str, (f64, f64)> =
            rows.iter().map(|row| (row.word.as_str(), (row.documents, row.words))).filter(|(_, counts)| counts.0 > 0.0).collect();
        let (documents, words) = counts.get("").copied().unwrap_or_default();
        let long: Vec<String> = lexemes.iter().filter(|lexeme| is_long(lexeme)).cloned().collect();
        let mut ranking = Self { terms: Vec::new(), long, documents, mean_length: (words / documents.max(1.0)).max(1.0) };
        let missing: Vec<String> = ranking.long.iter().filter(|lexeme| !counts.contains_key(lexeme.as_str())).cloned().collect();
        let mut terms = ranking.prefix_terms(&missing, pipeline, connection).await?;
        terms.extend(lexemes.iter().filter_map(|lexeme| Some(ranking.term(lexeme, false, counts.get(lexeme.as_str())?.0))));
        ranking.terms = rarest_first(terms);
        Ok(ranking)
    }

    fn term(&self, lexeme: &str, is_prefix: bool, documents: f64) -> Term {
        let documents = documents.min(self.documents);
        let rarity = (1.0 + (self.documents - documents + 0.5) / (documents + 0.5)).ln();
        Term { lexeme: lexeme.to_owned(), is_prefix, documents, weight: rarity * (K1 + 1.0) }
    }

    /// Prefix terms for those of the words with which other words begin. A document with several such words is counted several
    /// times.
    async fn prefix_terms(&self, lexemes: &[String], pipeline: &str, connection: &mut PgConnection) -> sqlx::Result<Vec<Term>> {
        if lexemes.is_empty() {
            return Ok(Vec::new());
        }
        let rows = sqlx::query!(
            r#"SELECT lexeme AS "lexeme!", documents::double precision AS "documents!"
               FROM unnest($2::text[]) AS given (lexeme),
                    LATERAL (SELECT sum(documents) AS documents FROM word_counts
                             WHERE pipeline = $1 AND word >= lexeme AND word < lexeme || U&'\+10FFFF') AS counted
               WHERE documents > 0"#,
            pipeline,
            lexemes
        );
        let rows = rows.fetch_all(connection).await?;
        Ok(rows.iter().map(|row| self.term(&row.lexeme, true, row.documents)).collect())
    }

    /// The best documents that meet the condition, a `tsquery`.
    pub(super) async fn meeting(
        &self,
        condition: &str,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        self.ranked(&self.terms, condition, query, depth, connection).await
    }

    /// The best documents that hold any of the words.
    pub(super) async fn with_any_word(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut searched = rare(&self.terms);
        loop {
            if searched == 0 {
                return Ok(Vec::new());
            }
            let condition = any_term(&self.terms[..searched]);
            let found = self.ranked(&self.terms, &condition, query, depth, &mut *connection).await?;
            let worst = found.last().filter(|_| found.len() >= depth).map_or(0.0, |candidate| candidate.score);
            match needed(&self.terms, searched, worst) {
                needed if needed == searched => return Ok(found),
                needed => searched = needed,
            }
        }
    }

    /// The best documents with a word that begins with one of the query's words.
    pub(super) async fn with_any_prefix(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut terms = self.prefix_terms(&self.long, &query.pipeline, &mut *connection).await?;
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        terms.iter_mut().for_each(|term| term.weight *= PREFIX_MATCH);
        let condition = any_term(&terms);
        self.ranked(&terms, &condition, query, depth, connection).await
    }

    /// The best documents that meet the condition, scored by the terms.
    async fn ranked(
        &self,
        terms: &[Term],
        condition: &str,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut bound = PgArguments::default();
        bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
        bound.add(condition).map_err(sqlx::Error::Encode)?;
        bound.add(K1 * (1.0 - B)).map_err(sqlx::Error::Encode)?;
        bound.add(K1 * B / self.mean_length).map_err(sqlx::Error::Encode)?;
        bound.add(&*OCCURRENCES).map_err(sqlx::Error::Encode)?;
        bound.add(any_term(terms)).map_err(sqlx::Error::Encode)?;
        let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments("SELECT id, 0::double precision", bound);
        for term in terms {
            sql.push("\n + ").push_bind(term.weight);
            sql.push(" * (1 - k / (k + width_bucket(ts_rank('{1,1,1,1}', words, ");
            sql.push_bind(quoted(&term.lexeme, term.is_prefix)).push("::text::tsquery), $5::double precision[])))");
        }
        // `ts_rank` with the flag 2 divides by the document's length, which gives the length. A long `tsvector` is stored
        // compressed or outside the row, and every use would read it again: concatenating an empty one makes a copy that is read
        // once.
        sql.push(
            "\n AS score FROM (
                 SELECT id, words, $3 + $4 * coalesce(round((ts_rank('{1,1,1,1}', words, $6::text::tsquery)
                     / nullif(ts_rank('{1,1,1,1}', words, $6::text::tsquery, 2), 0))::double precision), 0) AS k
                 FROM (
                     SELECT d.id, CASE WHEN pg_column_size(d.search) > 1000 THEN d.search || ''::tsvector ELSE d.search END AS words
                     FROM documents d WHERE d.pipeline = $1 AND NOT d.deleted AND d.search @@ $2::text::tsquery",
        );
        query.filter.push(&mut sql);
        sql.push("\n OFFSET 0) AS held OFFSET 0) AS measured ORDER BY score DESC, id LIMIT ").push_bind(depth as i64);
        let rows = sql.build().persistent(false).fetch_all(connection).await?;
        let candidate = |row: &sqlx::postgres::PgRow| -> sqlx::Result<Candidate> {
            Ok(Candidate { id: row.try_get(0)?, score: row.try_get(1)?, all_words: false, chunk: None })
        };
        rows.iter().map(candidate).collect()
    }
}

impl Store {
    /// Merges the rows that changes of documents added to `word_counts`, in pipelines with at least `min_changes` changes, and
    /// deletes the words that no document holds any more. Commits do not wait for it, and the results of searches do not change.
    pub async fn gather_word_counts(&self, min_changes: i64) -> Result<(), Transient> {
        let gathered = sqlx::query("SELECT gather_word_counts($1)").bind(min_changes).execute(&self.pool);
        gathered.with_deadline(self.deadline).await.map(drop)
    }
}

/// Whether a word is long enough to match as a prefix. Pairs of characters of scripts without spaces are not.
pub(super) fn is_long(lexeme: &str) -> bool {
    lexeme.chars().count() > 3
}

/// A `tsquery` for any of the words; each comes with a flag whether it matches as a prefix.
pub(super) fn any_of<'a>(words: impl Iterator<Item = (&'a str, bool)>) -> String {
    words.map(|(lexeme, is_prefix)| quoted(lexeme, is_prefix)).collect::<Vec<_>>().join(" | ")
}

fn any_term(terms: &[Term]) -> String {
    any_of(terms.iter().map(|term| (term.lexeme.as_str(), term.is_prefix)))
}

fn quoted(lexeme: &str, is_prefix: bool) -> String {
    let escaped = lexeme.replace('\\', "\\\\").replace('\'', "''");
    format!("'{escaped}'{}", if is_prefix { ":*" } else { "" })
}

fn rarest_first(mut terms: Vec<Term>) -> Vec<Term> {
    terms.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.lexeme.cmp(&b.lexeme)));
    terms
}

/// How many of the rarest terms to search first: as many as about `FIRST` documents hold together, and at least one.
fn rare(terms: &[Term]) -> usize {
    let mut held = 0.0;
    let few = terms.iter().take_while(|term| {
        held += term.documents;
        held <= FIRST
    });
    few.count().max(1).min(terms.len())
}

/// How many of the terms, the rarest first, must be searched if the page's worst document has the score `worst`: the terms after
/// them add less, even together. At least `searched`.
fn needed(terms: &[Term], searched: usize, worst: f64) -> usize {
    let mut rest: f64 = terms[searched..].iter().map(|term| term.weight).sum();
    let mut needed = searched;
    while needed < terms.len() && rest >= worst {
        rest -= terms[needed].weight;
        needed += 1;
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(weights: &[(f64, f64)]) -> Vec<Term> {
        let term = |&(weight, documents): &(f64, f64)| Term { lexeme: "x".into(), is_prefix: false, documents, weight };
        weights.iter().map(term).collect()
    }

    #[test]
    fn frequent_words_are_looked_for_only_where_they_could_change_the_order() {
        let terms = terms(&[(20.0, 10.0), (15.0, 90.0), (5.0, 9_000.0), (2.0, 40_000.0), (1.0, 80_000.0)]);
        assert_eq!(rare(&terms), 2);
        assert_eq!(needed(&terms, 2, 9.0), 2, "the last three give at most 8");
        assert_eq!(needed(&terms, 2, 7.0), 3, "the last two give at most 3");
        assert_eq!(needed(&terms, 3, 3.5), 3);
        assert_eq!(needed(&terms, 2, 8.0), 3, "what gives as much may tie, and the smaller id comes first");
        assert_eq!(needed(&terms, 2, 0.0), 5, "too few were found: every word counts");
        assert_eq!(rare(&terms[3..]), 1, "one is looked for in any case");
        assert_eq!(rare(&[]), 0);
    }

    #[test]
    fn a_word_counts_the_more_the_fewer_documents_hold_it() {
        let ranking = Ranking { terms: Vec::new(), long: Vec::new(), documents: 100.0, mean_length: 10.0 };
        let weight = |documents| ranking.term("x", false, documents).weight;
        assert!(weight(1.0) > weight(2.0) && weight(99.0) > weight(100.0) && weight(100.0) > 0.0);
        assert!((weight(3.0) - 2.2 * (1.0_f64 + 97.5 / 3.5).ln()).abs() < 1e-12);
        assert_eq!(weight(500.0), weight(100.0), "a beginning may be counted more than once in a document");
    }

    #[test]
    fn words_are_quoted_for_a_query() {
        assert_eq!(any_of([("o'neil", false), ("a\\b", true)].into_iter()), r"'o''neil' | 'a\\b':*");
    }
}
