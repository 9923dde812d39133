//! Folds a text for comparison and maps places back to the original bytes.

use std::cell::OnceCell;
use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use crate::outcome::Span;

/// A text after compatibility normalization (NFKC), case folding, collapsing of white space and replacement of typographic quotes
/// and dashes.
///
/// It is built grapheme by grapheme. The result is the same as for the whole text, and every part maps back to whole characters.
#[derive(Debug, Default)]
pub(super) struct FoldedText {
    text: String,
    segments: Vec<Segment>,
    letters: OnceCell<Vec<(usize, char)>>,
}

/// One grapheme, or a run of white space.
#[derive(Debug)]
struct Segment {
    /// Its start in the folded text.
    start: usize,
    /// Its range in the original text.
    span: Span,
}

impl FoldedText {
    pub(super) fn of(original: &str) -> Self {
        let mut folded = Self::default();
        let mut spaced = false;
        for (at, grapheme) in original.grapheme_indices(true) {
            let span = Span { start: at, end: at + grapheme.len() };
            let start = folded.text.len();
            if grapheme.chars().all(char::is_whitespace) {
                if spaced && let Some(segment) = folded.segments.last_mut() {
                    segment.span.end = span.end;
                    continue;
                }
                spaced = true;
                folded.text.push(' ');
            } else {
                match grapheme.as_bytes() {
                    [byte] => folded.text.push(byte.to_ascii_lowercase().into()),
                    _ => grapheme.nfkc().for_each(|letter| fold(letter, &mut folded.text)),
                }
                // A grapheme that folds to nothing is skipped.
                if folded.text.len() == start {
                    continue;
                }
                spaced = false;
            }
            folded.segments.push(Segment { start, span });
        }
        folded
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The letters with their byte offsets in the folded text.
    pub(super) fn letters(&self) -> &[(usize, char)] {
        self.letters.get_or_init(|| self.text.char_indices().collect())
    }

    /// The range of the original text that the bytes `place` of the folded text come from. `place` must not be empty.
    pub(super) fn original(&self, place: Range<usize>) -> Span {
        let segment = |at: usize| {
            self.segments.partition_point(|segment| segment.start <= at).checked_sub(1).and_then(|i| self.segments.get(i))
        };
        let start = segment(place.start).map_or(0, |segment| segment.span.start);
        let end = segment(place.end.saturating_sub(1)).map_or(start, |segment| segment.span.end);
        Span { start, end }
    }

    /// The folded text of a range of letters.
    pub(super) fn part(&self, place: Range<usize>) -> &str {
        let letters = self.letters();
        let byte = |index: usize| letters.get(index).map_or(self.text.len(), |(at, _)| *at);
        &self.text[byte(place.start)..byte(place.end)]
    }

    /// Like [`original`](Self::original), for a range of letters.
    pub(super) fn original_letters(&self, place: Range<usize>) -> Span {
        let letters = self.letters();
        let byte = |index: usize| letters.get(index).map_or(self.text.len(), |(at, _)| *at);
        self.original(byte(place.start)..byte(place.end))
    }
}

/// Folds a text, so that texts that look the same to a reader become equal: compatibility normalization, case folding, collapsed
/// white space.
pub fn folded(text: &str) -> String {
    FoldedText::of(text).text().trim().to_owned()
}

fn fold(letter: char, to: &mut String) {
    match letter {
        '‘' | '’' | '‚' | '‛' | '′' | '`' => to.push('\''),
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' => to.push('"'),
        '‐'..='―' | '−' => to.push('-'),
        // Soft hyphens and zero-width characters are invisible and would split words.
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => {}
        letter if letter.is_whitespace() => to.push(' '),
        // Converted to upper case first, so that ß becomes ss and all forms of sigma become equal.
        letter => letter.to_uppercase().flat_map(char::to_lowercase).for_each(|letter| to.push(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_folded_away() {
        let text = |original: &str| FoldedText::of(original).text().to_owned();
        assert_eq!(text("Ｆｕｌｌ \u{a0}\n Width"), "full width");
        assert_eq!(text("ﬁne Straße ΣΑΣ"), "fine strasse σασ");
        assert_eq!(text("it’s “so” – 3½"), "it's \"so\" - 31⁄2");
        assert_eq!(text("\u{1112}\u{1161}\u{11ab}글"), "한글", "decomposed jamo");
        assert_eq!(text("e\u{301}"), "é");
        assert_eq!(text("co\u{ad}operate"), "cooperate");
    }

    #[test]
    fn every_part_leads_back_to_whole_characters() {
        let original = "Ａ \t ﬁ\u{1112}\u{1161}\u{11ab}";
        let folded = FoldedText::of(original);
        assert_eq!(folded.text(), "a fi한");
        let back = |place: Range<usize>| {
            let span = folded.original(place);
            &original[span.start..span.end]
        };
        assert_eq!(back(0..1), "Ａ");
        assert_eq!(back(1..2), " \t ");
        assert_eq!(back(3..4), "ﬁ", "half of a ligature is the whole");
        assert_eq!(back(4..7), "\u{1112}\u{1161}\u{11ab}");
        assert_eq!(back(0..7), original);
    }
}
