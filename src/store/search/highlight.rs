//! Highlights the words of a query in passages. The database decides which words match, because it stems them; in scripts without
//! spaces between words, characters are compared.

use std::collections::HashSet;

use sqlx::PgConnection;

use super::SearchHit;
use super::normalize::{continues_word, normalize};
use super::query_terms::is_unspaced;
use super::text_query::TextQuery;
use tidemill_base::outcome::Span;

/// Fills in the highlights of every hit.
pub(super) async fn highlight(text_query: &TextQuery, hits: &mut [SearchHit], connection: &mut PgConnection) -> sqlx::Result<()> {
    let Some(any) = &text_query.any else { return Ok(()) };
    let distinct: HashSet<String> =
        hits.iter().flat_map(|hit| words(&hit.chunk.text).map(|(_, word)| normalize(word).to_lowercase())).collect();
    let mut distinct: Vec<String> = distinct.into_iter().collect();
    distinct.sort();
    let matching = sqlx::query_scalar!(
        r#"SELECT word AS "word!" FROM unnest($1::text[]) AS words (word) WHERE to_tsvector('english', word) @@ $2::text::tsquery"#,
        &distinct,
        any
    )
    .fetch_all(connection)
    .await?;
    let matching: HashSet<String> = matching.into_iter().collect();
    for hit in hits {
        let text = &hit.chunk.text;
        let spelled = words(text).filter(|(_, word)| matching.contains(&normalize(word).to_lowercase())).map(|(span, _)| span);
        let mut found: Vec<Span> = spelled.chain(runs(text, &text_query.runs)).collect();
        found.sort_by_key(|span| (span.start, span.end));
        hit.highlights =
            joined(found).map(|span| Span { start: hit.chunk.start + span.start, end: hit.chunk.start + span.end }).collect();
    }
    Ok(())
}

/// The words of scripts with spaces between words.
fn words(text: &str) -> impl Iterator<Item = (Span, &str)> {
    let mut at = 0;
    let is_word = |c: char| c.is_alphanumeric() && !is_unspaced(c);
    std::iter::from_fn(move || {
        let start = at + text[at..].find(is_word)?;
        at = text[start..].find(|c| !is_word(c) && !continues_word(c)).map_or(text.len(), |length| start + length);
        Some((Span { start, end: at }, &text[start..at]))
    })
}

/// The occurrences of each run, or of its pairs of characters if the run itself does not occur.
fn runs(text: &str, runs: &[String]) -> Vec<Span> {
    let mut found = Vec::new();
    for run in runs {
        let all = |part: &str| {
            text.match_indices(part).map(|(start, part)| Span { start, end: start + part.len() }).collect::<Vec<_>>()
        };
        let whole = all(run);
        if whole.is_empty() {
            let characters: Vec<char> = run.chars().collect();
            found.extend(characters.windows(2).flat_map(|pair| all(&String::from_iter(pair))));
        }
        found.extend(whole);
    }
    found
}

/// Joins sorted spans that touch or overlap.
fn joined(sorted: Vec<Span>) -> impl Iterator<Item = Span> {
    let mut sorted = sorted.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut span = sorted.next()?;
        while let Some(next) = sorted.next_if(|next| next.start <= span.end) {
            span.end = span.end.max(next.end);
        }
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_whole_or_by_their_pairs_and_joined() {
        let marked = |text: &str, run: &str| {
            let mut found = runs(text, &[run.to_owned()]);
            found.sort_by_key(|span| (span.start, span.end));
            joined(found).map(|span| text[span.start..span.end].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(marked("방울토마토는 토마토다", "토마토"), ["토마토", "토마토"]);
        assert_eq!(marked("필요한 물", "필요하다"), ["필요"]);
        assert_eq!(marked("물", "불"), [""; 0]);
    }

    #[test]
    fn words_end_where_a_script_without_spaces_begins() {
        let found: Vec<_> = words("갤럭시S24는 so-called").map(|(_, word)| word).collect();
        assert_eq!(found, ["S24", "so", "called"]);
        let found: Vec<_> = words("Mu\u{308}ller, Kaffee\u{AD}maschine").map(|(_, word)| word).collect();
        assert_eq!(found, ["Mu\u{308}ller", "Kaffee\u{AD}maschine"], "what is unseen ends no word");
    }
}
