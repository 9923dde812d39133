//! The text of a completion while it is generated, and the end of each token in it.

use crate::completion::GeneratedToken;
use crate::prompt::IncrementalText;

/// The text so far.
pub(super) struct CompletionText {
    text: IncrementalText,
    tokens: Vec<GeneratedToken>,
    /// Where the completed stop text starts.
    cut: Option<usize>,
}

impl CompletionText {
    /// Starts with `text`, which must be empty.
    pub(super) fn new(text: IncrementalText) -> Self {
        Self { text, tokens: Vec::new(), cut: None }
    }

    /// Adds a token. If it ends with an incomplete character, its recorded end is that of the last complete character.
    pub(super) fn push(&mut self, piece: &[u8], log_probability: Option<f32>) {
        self.text.push(piece);
        self.tokens.push(GeneratedToken { end: self.text.text().len(), log_probability });
    }

    /// Cuts the text before the first of the `stops` that the last token has completed. Returns whether there is one.
    pub(super) fn stopped(&mut self, stops: &[Box<str>]) -> bool {
        let text = self.text.text();
        let before = self.tokens.iter().rev().nth(1).map_or(0, |token| token.end);
        let first = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| {
            // A stop text that ended earlier would have been found earlier.
            let from = text.floor_char_boundary((before + 1).saturating_sub(stop.len()));
            text[from..].find(&**stop).map(|at| from + at)
        });
        self.cut = first.min();
        let Some(cut) = self.cut else { return false };
        // The token that contains the cut is kept, shortened.
        let begins_before = |i: usize| i.checked_sub(1).map_or(0, |last| self.tokens[last].end) < cut;
        let kept = (0..self.tokens.len()).take_while(|i| begins_before(*i)).count();
        self.tokens.truncate(kept);
        self.tokens.iter_mut().for_each(|token| token.end = token.end.min(cut));
        true
    }

    /// The text and its tokens, without an incomplete character at the end.
    pub(super) fn finish(self) -> (String, Vec<GeneratedToken>) {
        let mut text = self.text.into_text();
        text.truncate(self.cut.unwrap_or(text.len()));
        (text, self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&[u8]], stops: &[&str]) -> (String, Vec<usize>, bool) {
        let stops: Vec<Box<str>> = stops.iter().map(|stop| (*stop).into()).collect();
        let mut text = CompletionText::new(IncrementalText::default());
        let stopped = pieces.iter().any(|piece| {
            text.push(piece, None);
            text.stopped(&stops)
        });
        let (text, tokens) = text.finish();
        (text, tokens.iter().map(|token| token.end).collect(), stopped)
    }

    #[test]
    fn a_stop_text_may_span_tokens_and_is_no_part_of_the_text() {
        assert_eq!(written(&[b"one ", b"E", b"N", b"D x"], &["END"]), ("one ".into(), vec![4], true));
        assert_eq!(written(&[b"one E", b"ND"], &["END"]), ("one ".into(), vec![4], true));
        assert_eq!(written(&[b"EN", b"E", b"ND"], &["END"]), ("EN".into(), vec![2], true));
        assert_eq!(written(&[b"END"], &["END"]), (String::new(), vec![], true));
        assert_eq!(written(&[b"a\n\nb"], &["\n\n", "a"]), (String::new(), vec![], true), "the one that starts first");
        assert_eq!(written(&[b"EN", b"d"], &["END", ""]), ("ENd".into(), vec![2, 3], false));
        assert_eq!(written(&["é".as_bytes(), "é€".as_bytes()], &["é€"]), ("é".into(), vec![2], true));
    }

    #[test]
    fn characters_may_span_tokens_and_half_ones_are_never_given() {
        let euro = "€".as_bytes();
        assert_eq!(written(&[b"a", &euro[..1], &euro[1..], b"b"], &[]), ("a€b".into(), vec![1, 1, 4, 5], false));
        assert_eq!(written(&[b"a", &euro[..2]], &[]), ("a".into(), vec![1, 1], false));
        assert_eq!(written(&[b"a\xff", b"b"], &[]), ("a\u{fffd}b".into(), vec![4, 5], false));
        assert_eq!(written(&[b"", b"ok", b""], &[]), ("ok".into(), vec![0, 2, 2], false));
        assert_eq!(written(&[], &[]), (String::new(), vec![], false));
    }
}
