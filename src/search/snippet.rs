//! Snippets: the part of a passage with the most words of the query.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::outcome::Span;
use crate::store::Passage;

/// The maximum length of a snippet in bytes.
const MAX_BYTES: usize = 240;

/// A part of a passage, with the words of the query marked. The marks are ranges and not markup, so that callers can escape the
/// text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snippet {
    pub text: String,
    /// The position of its first byte in the document's text.
    pub start: usize,
    /// The position after its last byte.
    pub end: usize,
    /// The words of the query, as positions in bytes of `text`.
    pub marks: Vec<Span>,
}

impl Snippet {
    /// The part with the most highlights, or the beginning if there are none. Highlights are sorted positions in bytes of the
    /// document.
    pub(super) fn of(passage: &Passage, highlights: &[Span]) -> Self {
        let text = &passage.text;
        let marks: Vec<Span> =
            highlights.iter().map(|span| Span { start: span.start - passage.start, end: span.end - passage.start }).collect();
        let marks_from =
            |first: usize| marks[first..].iter().take_while(|span| span.end <= marks[first].start + MAX_BYTES * 3 / 4).count();
        // Of several equal parts the first.
        let first = (0..marks.len()).rev().max_by_key(|first| marks_from(*first));
        let anchor = first.map_or(0, |first| marks[first].start);
        // A few words before the first mark give context.
        let start = boundary(text, anchor.saturating_sub(MAX_BYTES / 5).min(text.len().saturating_sub(MAX_BYTES)), anchor);
        let end = match start + MAX_BYTES < text.len() {
            true => {
                let end = text.floor_char_boundary(start + MAX_BYTES);
                text[start..end].rfind(char::is_whitespace).filter(|at| *at > MAX_BYTES / 2).map_or(end, |at| start + at)
            }
            false => text.len(),
        };
        let inside = marks.iter().filter(|span| span.start >= start && span.end <= end);
        let marks = inside.map(|span| Span { start: span.start - start, end: span.end - start }).collect();
        Self { text: text[start..end].to_owned(), start: passage.start + start, end: passage.start + end, marks }
    }
}

/// The beginning of the next word at or after `from`, at most `anchor`.
fn boundary(text: &str, from: usize, anchor: usize) -> usize {
    let from = text.floor_char_boundary(from);
    if from == 0 || from >= anchor {
        return from.min(text.floor_char_boundary(anchor));
    }
    text[from..anchor].find(char::is_whitespace).map_or(from, |at| {
        let space = text[from + at..].chars().next().map_or(1, char::len_utf8);
        from + at + space
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snippet_lies_where_the_words_are_and_its_marks_are_its_own() {
        let text = format!("{}토마토 needs light, and light again. {}", "filler words ".repeat(40), "more of them ".repeat(40));
        let passage = Passage { start: 100, end: 100 + text.len(), text: text.clone() };
        let spans: Vec<Span> = ["토마토", "light"]
            .iter()
            .flat_map(|word| text.match_indices(word).map(|(at, word)| Span { start: 100 + at, end: 100 + at + word.len() }))
            .collect();
        let snippet = Snippet::of(&passage, &spans);
        let marked: Vec<&str> = snippet.marks.iter().map(|span| &snippet.text[span.start..span.end]).collect();
        assert_eq!(marked, ["토마토", "light", "light"]);
        assert_eq!(snippet.text, text[snippet.start - 100..snippet.end - 100]);
        assert!(snippet.text.len() <= MAX_BYTES, "{snippet:?}");
    }

    #[test]
    fn without_words_it_is_the_beginning_and_never_cuts_a_character() {
        let passage = Passage { text: "글".repeat(500), start: 0, end: 1500 };
        let snippet = Snippet::of(&passage, &[]);
        assert_eq!((snippet.start, snippet.marks.len()), (0, 0));
        assert!(snippet.text.len() <= MAX_BYTES);
        let last = Snippet::of(&passage, &[Span { start: 1497, end: 1500 }]);
        assert_eq!(last.end, 1500);
        let empty = Snippet::of(&Passage { text: String::new(), start: 0, end: 0 }, &[]);
        assert_eq!(empty.text, "");
    }
}
