//! Candidates by words, and the passage of a text that holds them.

use sqlx::postgres::PgArguments;
use sqlx::{Arguments, PgConnection, Postgres, QueryBuilder, Row};

use super::terms::Terms;
use super::{Candidate, Passage, SearchQuery};
use tidemill_base::outcome::Span;

/// Bytes of a passage that is cut from a text without regard to chunks.
const PASSAGE_BYTES: usize = 800;

/// Words of a query that count for rank: a page of text asks for no more than its beginning.
const WORDS: i64 = 48;

/// A query's words as the database has parsed them.
#[derive(Debug, Clone)]
pub(super) struct Wording {
    /// A document must hold all of it.
    pub all: String,
    /// A document may hold any of it. None where the query has no word that counts.
    pub any: Option<String>,
    /// Whether any of it is enough where few documents hold all.
    pub widens: bool,
    /// Runs of characters without spaces between words.
    pub runs: Vec<String>,
    /// The other words, in lower case.
    spaced: Vec<String>,
}

impl Wording {
    pub(super) async fn parse(words: &str, connection: &mut PgConnection) -> sqlx::Result<Self> {
        let terms = Terms::new(words);
        // Pairs of characters are whole already; what is begun elsewhere goes on: "tomato" finds "tomatoes" whatever the stemmer says.
        let row = sqlx::query!(
            r#"SELECT websearch_to_tsquery('english', $1)::text AS "all!",
                      (SELECT string_agg('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || ''''
                                         || CASE WHEN char_length(lexeme) > 3 THEN ':*' ELSE '' END, ' | ')
                       FROM (SELECT lexeme FROM unnest(to_tsvector('english', $2)) ORDER BY positions LIMIT $3) AS w) AS any"#,
            terms.all,
            terms.any,
            WORDS
        )
        .fetch_one(connection)
        .await?;
        // Whoever writes operators means them: "-rust" must not come back through the wider net.
        Ok(Self { all: row.all, widens: !terms.exact && row.any.is_some(), any: row.any, runs: terms.runs, spaced: terms.spaced })
    }

    /// Documents with all the words; where those are fewer than `depth`, then such with any of them, or with a word that one begins.
    pub(super) async fn candidates(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut found = self.matching(&self.all, query, depth, &mut *connection).await?;
        for candidate in &mut found {
            candidate.score += 1.0;
            candidate.all_words = true;
        }
        let any = self.any.as_deref().filter(|_| found.len() < depth && self.widens);
        if let Some(any) = any {
            let wider = self.matching(any, query, depth, connection).await?;
            let known: Vec<String> = found.iter().map(|candidate| candidate.id.clone()).collect();
            found.extend(wider.into_iter().filter(|candidate| !known.contains(&candidate.id)));
            found.truncate(depth);
        }
        Ok(found)
    }

    /// The part of the text that holds most of the words.
    pub(super) fn passage(&self, text: &str) -> Passage {
        let words: Vec<&str> = self.spaced.iter().chain(&self.runs).map(String::as_str).collect();
        best_passage(text, &words)
    }

    /// What any of which makes a document part of the answer, for counting.
    pub(super) fn widest(&self) -> &str {
        self.any.as_deref().filter(|_| self.widens).unwrap_or(&self.all)
    }

    async fn matching(
        &self,
        condition: &str,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        let mut bound = PgArguments::default();
        bound.add(&query.pipeline).map_err(sqlx::Error::Encode)?;
        bound.add(condition).map_err(sqlx::Error::Encode)?;
        bound.add(self.any.as_deref().unwrap_or(condition)).map_err(sqlx::Error::Encode)?;
        let mut sql: QueryBuilder<Postgres> = QueryBuilder::with_arguments(
            "SELECT d.id, ts_rank(d.search, $3::text::tsquery, 1) FROM documents d
             WHERE d.pipeline = $1 AND NOT d.deleted AND d.search @@ $2::text::tsquery",
            bound,
        );
        query.filter.push(&mut sql);
        sql.push("\n ORDER BY 2 DESC, d.id LIMIT ").push_bind(depth as i64);
        let rows = sql.build().persistent(false).fetch_all(connection).await?;
        let candidate = |row: &sqlx::postgres::PgRow| -> sqlx::Result<Candidate> {
            Ok(Candidate { id: row.try_get(0)?, score: f64::from(row.try_get::<f32, _>(1)?), all_words: false, chunk: None })
        };
        rows.iter().map(candidate).collect()
    }
}

/// The passage that holds most of the words, which are in lower case; of equals the first.
fn best_passage(text: &str, words: &[&str]) -> Passage {
    let mut best = (0, Span { start: 0, end: 0 });
    let mut start = 0;
    while start < text.len() {
        let mut end = text.floor_char_boundary(start + PASSAGE_BYTES);
        if end < text.len() {
            end = text[start..end].rfind(char::is_whitespace).map_or(end, |at| start + at + 1);
        }
        let passage = text[start..end].to_lowercase();
        let held = words.iter().filter(|word| passage.contains(**word)).count();
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

    #[test]
    fn the_passage_with_the_words_is_found_and_its_offsets_are_bytes() {
        let filler = "정원 이야기 ".repeat(200);
        let text = format!("{filler}tomato seedlings need light {filler}");
        let passage = best_passage(&text, &["tomato", "light"]);
        assert!(passage.text.contains("tomato seedlings need light"), "{passage:?}");
        assert_eq!(&text[passage.start..passage.end], passage.text);
        assert!(passage.text.len() <= PASSAGE_BYTES);
    }

    #[test]
    fn an_endless_word_and_an_empty_text_still_make_a_passage() {
        assert_eq!(best_passage("", &["x"]), Passage { text: String::new(), start: 0, end: 0 });
        assert_eq!(best_passage(&"글".repeat(1000), &["x"]).text.len() % 3, 0, "cut between characters");
    }
}
