//! Candidates by words, and the passage of a text that holds them.

use sqlx::PgConnection;
use sqlx::types::Json;

use super::{Candidate, DEPTH, Passage, SearchQuery, columns};
use crate::outcome::Span;

/// Bytes of a passage that is cut from a text without regard to chunks.
const PASSAGE_BYTES: usize = 800;

/// Documents with all the words; where those are too few, then such with any of them, or with a word that one begins.
pub(super) async fn by_words(words: &str, query: &SearchQuery, connection: &mut PgConnection) -> sqlx::Result<Vec<Candidate>> {
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

/// The passage that holds most of the words; of equals the first.
pub(super) fn best_passage(text: &str, words: &str) -> Passage {
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
