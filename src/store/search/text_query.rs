//! Candidates by words, and the passage of a text that holds most of them.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::normalize::normalize;
use super::query_terms::QueryTerms;
use super::ranking::{Ranking, any_of, is_long};
use super::{Candidate, Passage, SearchQuery};
use tidemill_base::outcome::Span;

/// How many bytes a passage has that does not come from a chunk.
const PASSAGE_BYTES: usize = 800;

/// How many words of a query count for the ranking. A query that is a whole page is represented by its beginning.
const WORDS: i64 = 48;

/// A query's words, parsed by the database.
#[derive(Debug, Clone)]
pub(super) struct TextQuery {
    /// A `tsquery` for documents that hold all the words, or meet the query's operators.
    pub all: String,
    /// A `tsquery` for documents that hold any of the words, or a word beginning with one. None where the query has only stop
    /// words.
    pub any: Option<String>,
    /// Whether documents with any of the words are added if few documents hold all of them.
    pub widens: bool,
    /// Runs of characters of scripts without spaces between words.
    pub runs: Vec<String>,
    /// The other words, in lower case.
    spaced: Vec<String>,
    /// The weights of the words.
    ranking: Ranking,
}

impl TextQuery {
    pub(super) async fn parse(pipeline: &str, words: &str, connection: &mut PgConnection) -> sqlx::Result<Self> {
        let terms = QueryTerms::new(words);
        let row = sqlx::query!(
            r#"SELECT websearch_to_tsquery('english', searchable_text($1))::text AS "all!",
                      ARRAY(SELECT lexeme FROM unnest(to_tsvector('english', searchable_text($2)))
                            ORDER BY positions LIMIT $3) AS "any!: Vec<String>""#,
            terms.all,
            terms.any,
            WORDS
        )
        .fetch_one(&mut *connection)
        .await?;
        let any = (!row.any.is_empty()).then(|| any_of(row.any.iter().map(|lexeme| (lexeme.as_str(), is_long(lexeme)))));
        let ranking = Ranking::of(pipeline, row.any, connection).await?;
        // A query with operators is not widened: a document that "-rust" excludes must not be added again.
        let widens = !terms.exact && any.is_some();
        Ok(Self { all: row.all, any, widens, runs: terms.runs, spaced: terms.spaced, ranking })
    }

    /// The best documents with all the words. If they are fewer than `depth`, documents with any word are added, then documents
    /// with a word that begins with a word of the query. The best first; documents with equal scores are in the order of ids.
    pub(super) async fn candidates(
        &self,
        query: &SearchQuery,
        depth: usize,
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Candidate>> {
        // A query with exclusions only would match every other document: it finds nothing.
        if self.all.split(" & ").all(|part| part.starts_with('!')) {
            return Ok(Vec::new());
        }
        let mut found = self.ranking.meeting(&self.all, query, depth, &mut *connection).await?;
        found.iter_mut().for_each(|candidate| candidate.all_words = true);
        if found.len() < depth && self.widens {
            add(&mut found, self.ranking.with_any_word(query, depth, &mut *connection).await?);
        }
        if found.len() < depth && self.widens {
            add(&mut found, self.ranking.with_any_prefix(query, depth, connection).await?);
        }
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.id.cmp(&b.id)));
        found.truncate(depth);
        Ok(found)
    }

    /// The passage of the text that holds most of the words.
    pub(super) fn passage(&self, text: &str) -> Passage {
        let words: Vec<&str> = self.spaced.iter().chain(&self.runs).map(String::as_str).collect();
        best_passage(text, &words)
    }

    /// A `tsquery` for all documents that can be part of the result, for counting facets.
    pub(super) fn widest(&self) -> &str {
        self.any.as_deref().filter(|_| self.widens).unwrap_or(&self.all)
    }
}

/// Adds the candidates that are not in the list yet.
fn add(found: &mut Vec<Candidate>, further: Vec<Candidate>) {
    let known: HashSet<String> = found.iter().map(|candidate| candidate.id.clone()).collect();
    found.extend(further.into_iter().filter(|candidate| !known.contains(&candidate.id)));
}

/// The first passage that holds most of the words. The words are in lower case.
fn best_passage(text: &str, words: &[&str]) -> Passage {
    let mut best = (0, Span { start: 0, end: 0 });
    let mut start = 0;
    while start < text.len() {
        let mut end = text.floor_char_boundary(start + PASSAGE_BYTES);
        if end < text.len() {
            end = text[start..end].rfind(char::is_whitespace).map_or(end, |at| start + at + 1);
        }
        let passage = normalize(&text[start..end]).to_lowercase();
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
