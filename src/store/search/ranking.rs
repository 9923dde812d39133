//! Ranking by words: BM25, with what `word_counts` says of the pipeline's documents.
//!
//! A word counts `ln(1 + (documents - holding + 0.5) / (holding + 0.5))`: the fewer documents hold it, the more. A document that holds
//! it `n` times has `n * 2.2 / (n + k)` of that, where `k = 1.2 * (0.25 + 0.75 * length / mean length)`.
//!
//! | term | which documents hold it |
//! |---|---|
//! | a word that some document has | those that have it |
//! | one that none has, of four characters or more | those with a word that it begins |
//!
//! A frequent word counts little and is in many documents, so that most of the work would be for it. Which documents are the best can
//! be told without it: once the worst of those that hold a rarer word has more than all frequent words together can give, no document
//! with frequent words alone comes before it.

use std::collections::HashMap;
use std::sync::LazyLock;

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgConnection, Postgres, QueryBuilder, Row};

use super::{Candidate, SearchQuery};
use crate::{InTime, Store};
use tidemill_base::failure::Transient;

/// How soon further occurrences of a word count less.
const K1: f64 = 1.2;

/// How much the length of a document counts.
const B: f64 = 0.75;

/// Documents that hold a rare word are looked at first, up to about so many.
const FIRST: f64 = 2_000.0;

/// What a word counts where a document has only words that it begins, though others have the word itself.
const BEGUN: f64 = 0.5;

/// Occurrences of a word that are told apart: more count as so many, which is 98 % of what no end of them would.
const MOST: usize = 64;

/// Between what `ts_rank` says of a document with `n - 1` and with `n` occurrences of one word, for each `n` from 1: it adds up
/// 1 / n², and divides by what that comes to in the end.
static OCCURRENCES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let total = std::f64::consts::PI.powi(2) / 6.0;
    let mut sum = 0.0;
    let between = |n: usize| {
        let before = sum;
        sum += 1.0 / (n * n) as f64;
        (before + sum) / 2.0 / total
    };
    (1..=MOST).map(between).collect()
});

/// A word of a query, and what it counts.
#[derive(Debug, Clone, PartialEq)]
struct Term {
    lexeme: String,
    /// Whether words that it begins are meant.
    begins: bool,
    /// Documents that hold it.
    documents: f64,
    /// The most that a document can have for it.
    weight: f64,
}

/// What the words of a query count in a pipeline.
#[derive(Debug, Clone)]
pub(super) struct Ranking {
    /// The rarest first.
    terms: Vec<Term>,
    /// The words of the query that are long enough to begin others.
    long: Vec<String>,
    /// Documents of the pipeline.
    documents: f64,
    /// Words of a document.
    mean_length: f64,
}

impl Ranking {
    /// Looks up what the words count.
    pub(super) async fn of(pipeline: &str, lexemes: Vec<String>, connection: &mut PgConnection) -> sqlx::Result<Self> {
        // The empty word stands for all.
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
        let mut terms = ranking.begun_by(&missing, pipeline, connection).await?;
        terms.extend(lexemes.iter().filter_map(|lexeme| Some(ranking.term(lexeme, false, counts.get(lexeme.as_str())?.0))));
        ranking.terms = rarest_first(terms);
        Ok(ranking)
    }

    fn term(&self, lexeme: &str, begins: bool, documents: f64) -> Term {
        let documents = documents.min(self.documents);
        let rarity = (1.0 + (self.documents - documents + 0.5) / (documents + 0.5)).ln();
        Term { lexeme: lexeme.to_owned(), begins, documents, weight: rarity * (K1 + 1.0) }
    }

    /// Terms for the words that begin others, of those that do. A document with several of the words begun counts for each.
    async fn begun_by(&self, lexemes: &[String], pipeline: &str, connection: &mut PgConnection) -> sqlx::Result<Vec<Term>> {
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

    /// The best of the documents that fulfil the condition.
    pub(super) async fn holding(
        &self,
        condition: &str,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        self.matching((&self.terms, condition), query, depth, connection).await
    }

    /// The best of the documents that hold any of the words.
    pub(super) async fn best(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut looked = rare(&self.terms);
        loop {
            if looked == 0 {
                return Ok(Vec::new());
            }
            let condition = net(&self.terms[..looked]);
            let found = self.matching((&self.terms, &condition), query, depth, &mut *connection).await?;
            let worst = found.last().filter(|_| found.len() >= depth).map_or(0.0, |candidate| candidate.score);
            match enough(&self.terms, looked, worst) {
                wanted if wanted == looked => return Ok(found),
                wanted => looked = wanted,
            }
        }
    }

    /// The best of the documents with a word that one of the query's begins.
    pub(super) async fn begun(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut terms = self.begun_by(&self.long, &query.pipeline, &mut *connection).await?;
        if terms.is_empty() {
            return Ok(Vec::new());
        }
        terms.iter_mut().for_each(|term| term.weight *= BEGUN);
        let condition = net(&terms);
        self.matching((&terms, &condition), query, depth, connection).await
    }

    async fn matching(
        &self,
        (terms, condition): (&[Term], &str),
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
        bound.add(net(terms)).map_err(sqlx::Error::Encode)?;
        let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments("SELECT id, 0::double precision", bound);
        for term in terms {
            sql.push("\n + ").push_bind(term.weight);
            sql.push(" * (1 - k / (k + width_bucket(ts_rank('{1,1,1,1}', words, ");
            sql.push_bind(asked(&term.lexeme, term.begins)).push("::text::tsquery), $5::double precision[])))");
        }
        // A document's length is what `ts_rank` divides by where it is told to. What lies outside the row, or is packed, would be
        // fetched again for each term: long ones are unpacked once.
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
    /// Brings together what changes of documents added to the counts of words, in pipelines with at least so many changes, and drops
    /// the words that no document holds any more. No commit waits for it, and no answer changes.
    ///
    /// # Errors
    /// Where the database is unavailable.
    pub async fn gather_word_counts(&self, least: i64) -> Result<(), Transient> {
        let gathered = sqlx::query("SELECT gather_word_counts($1)").bind(least).execute(&self.pool);
        gathered.in_time(self.deadline).await.map(drop)
    }
}

/// Whether a word is long enough to mean what it begins, too. Pairs of characters are whole already.
pub(super) fn is_long(lexeme: &str) -> bool {
    lexeme.chars().count() > 3
}

/// Any of the words, or where that is said of a word, what it begins, in the language of `tsquery`.
pub(super) fn any_of<'a>(words: impl Iterator<Item = (&'a str, bool)>) -> String {
    words.map(|(lexeme, begins)| asked(lexeme, begins)).collect::<Vec<_>>().join(" | ")
}

fn net(terms: &[Term]) -> String {
    any_of(terms.iter().map(|term| (term.lexeme.as_str(), term.begins)))
}

fn asked(lexeme: &str, begins: bool) -> String {
    let quoted = lexeme.replace('\\', "\\\\").replace('\'', "''");
    format!("'{quoted}'{}", if begins { ":*" } else { "" })
}

fn rarest_first(mut terms: Vec<Term>) -> Vec<Term> {
    terms.sort_by(|a, b| b.weight.total_cmp(&a.weight).then_with(|| a.lexeme.cmp(&b.lexeme)));
    terms
}

/// The rarest terms that few documents hold together: at least one.
fn rare(terms: &[Term]) -> usize {
    let mut held = 0.0;
    let few = terms.iter().take_while(|term| {
        held += term.documents;
        held <= FIRST
    });
    few.count().max(1).min(terms.len())
}

/// How many of the terms, the rarest first, must be looked for where a document with the `worst` score is good enough: those after them
/// give less, even together. At least as many as were looked for.
fn enough(terms: &[Term], looked: usize, worst: f64) -> usize {
    let mut rest: f64 = terms[looked..].iter().map(|term| term.weight).sum();
    let mut wanted = looked;
    while wanted < terms.len() && rest >= worst {
        rest -= terms[wanted].weight;
        wanted += 1;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(weights: &[(f64, f64)]) -> Vec<Term> {
        let term = |&(weight, documents): &(f64, f64)| Term { lexeme: "x".into(), begins: false, documents, weight };
        weights.iter().map(term).collect()
    }

    #[test]
    fn frequent_words_are_looked_for_only_where_they_could_change_the_order() {
        let terms = terms(&[(20.0, 10.0), (15.0, 90.0), (5.0, 9_000.0), (2.0, 40_000.0), (1.0, 80_000.0)]);
        assert_eq!(rare(&terms), 2);
        assert_eq!(enough(&terms, 2, 9.0), 2, "the last three give at most 8");
        assert_eq!(enough(&terms, 2, 7.0), 3, "the last two give at most 3");
        assert_eq!(enough(&terms, 3, 3.5), 3);
        assert_eq!(enough(&terms, 2, 8.0), 3, "what gives as much may tie, and the smaller id comes first");
        assert_eq!(enough(&terms, 2, 0.0), 5, "too few were found: every word counts");
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
