//! Cuts a text into the chunks of which strict extraction takes spans.
//!
//! | chunk | example |
//! |---|---|
//! | a word with its inner hyphens, apostrophes and digits | `noise-cancelling`, `Mother's`, `X200` |
//! | a number with its unit, numbers that share a unit, a date | `1.4 litres`, `40 x 25 cm`, `3만 5천원`, `5 January 2026` |
//! | a letter of a script without spaces, or of Hangul, whose words carry particles | `서`, `울` |
//! | a space, whatever white space it was | |
//! | a punctuation mark | |
//!
//! The end of a sentence, an empty line, and a control character end a passage. No span crosses the end of a passage.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use crate::engine::PASSAGE_END;
use crate::outcome::Span;
use crate::task::sentences::sentences;
use crate::task::words::is_hangul;

/// The chunks of `text`. The spans `whole`, which are in order and do not overlap, stay whole.
pub(super) fn cut<'a>(text: &'a str, whole: &[Span]) -> Vec<&'a str> {
    // A line without a stop may go on in the next one.
    let follows_stop = |start: &usize| text[..*start].trim_end().ends_with(|last: char| !last.is_alphanumeric() && last != ',');
    let starts: Vec<usize> =
        sentences(text, usize::MAX).into_iter().map(|sentence| sentence.start).filter(follows_stop).collect();
    let mut cutter = Cutter { text, starts: starts.into(), chunks: Vec::new() };
    let mut at = 0;
    for span in whole {
        // A number inside a word, as in 5th, stays in the word.
        let joins = |neighbour: Option<char>| neighbour.is_some_and(|letter| letter.is_alphanumeric() && !is_single(letter));
        if span.start < at || joins(text[span.end..].chars().next()) || joins(text[..span.start].chars().next_back()) {
            continue;
        }
        cutter.cut_words(at, span.start);
        cutter.push(span.start, span.end);
        at = span.end;
    }
    cutter.cut_words(at, text.len());
    cutter.chunks
}

struct Cutter<'a> {
    text: &'a str,
    /// Where the sentences start that have not been reached.
    starts: VecDeque<usize>,
    chunks: Vec<&'a str>,
}

impl<'a> Cutter<'a> {
    /// Adds a chunk that is no space.
    fn push(&mut self, start: usize, end: usize) {
        let mut begins = false;
        while self.starts.front().is_some_and(|sentence| *sentence < end) {
            // What stays whole can cross what looks like the end of a sentence, as in 2026. 1. 5.
            begins |= self.starts.pop_front().is_some_and(|sentence| sentence <= start);
        }
        if begins {
            self.end_passage();
        }
        self.chunks.push(&self.text[start..end]);
    }

    fn end_passage(&mut self) {
        self.chunks.pop_if(|last| *last == " ");
        if self.chunks.last().is_some_and(|last| *last != PASSAGE_END) {
            self.chunks.push(PASSAGE_END);
        }
    }

    fn cut_words(&mut self, from: usize, to: usize) {
        let text = &self.text[from..to];
        let mut words = text.split_word_bound_indices().peekable();
        while let Some((start, first)) = words.next() {
            if first.chars().all(char::is_whitespace) {
                let mut end = start + first.len();
                while let Some((at, space)) = words.next_if(|(_, word)| word.chars().all(char::is_whitespace)) {
                    end = at + space.len();
                }
                match text[start..end].matches('\n').count() {
                    0 | 1 => self.chunks.push(" "),
                    _ => self.end_passage(),
                }
            } else if first.chars().any(char::is_control) {
                self.end_passage();
            } else if first.chars().any(is_single) {
                self.cut_letters(from + start, first);
            } else {
                // Hyphens and the like inside a word do not divide it.
                let mut end = start + first.len();
                let is_word = |word: &str| word.starts_with(char::is_alphanumeric) && !word.chars().any(is_single);
                while is_word(first)
                    && text[end..].starts_with(['-', '‑', '‐', '&', '+', '_'])
                    && let Some((mark, next)) = pair(&text[end..]).filter(|(_, next)| is_word(next))
                {
                    end += mark.len() + next.len();
                    words.nth(1);
                }
                self.push(from + start, from + end);
            }
        }
    }

    /// Cuts a word of a script without spaces, or of Hangul, into its letters. Letters and digits of other scripts stay together.
    fn cut_letters(&mut self, from: usize, word: &str) {
        let mut other = 0;
        for (at, letter) in word.grapheme_indices(true).filter(|(_, letter)| letter.chars().any(is_single)) {
            if other < at {
                self.push(from + other, from + at);
            }
            other = at + letter.len();
            self.push(from + at, from + other);
        }
        if other < word.len() {
            self.push(from + other, from + word.len());
        }
    }
}

/// The first two words of `text`, of which the first may be a mark.
fn pair(text: &str) -> Option<(&str, &str)> {
    let mut words = text.split_word_bounds();
    Some((words.next()?, words.next()?))
}

/// Whether a letter is a chunk of its own: Hangul, Han, kana, and the scripts of Thailand, Laos, Myanmar and Cambodia.
fn is_single(letter: char) -> bool {
    is_hangul(letter)
        || matches!(letter, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut_plain(text: &str) -> Vec<&str> {
        cut(text, &[])
    }

    #[test]
    fn words_keep_what_is_inside_them() {
        assert_eq!(
            cut_plain("Noise-cancelling X200, by O'Neil & Sons."),
            ["Noise-cancelling", " ", "X200", ",", " ", "by", " ", "O'Neil", " ", "&", " ", "Sons", "."]
        );
        assert_eq!(cut_plain("USB-C\tand Wi-Fi"), ["USB-C", " ", "and", " ", "Wi-Fi"]);
        assert_eq!(cut_plain("A&B - C"), ["A&B", " ", "-", " ", "C"]);
    }

    #[test]
    fn letters_of_scripts_without_spaces_are_chunks() {
        assert_eq!(cut_plain("서울에서 KTX로"), ["서", "울", "에", "서", " ", "KTX", "로"]);
        assert_eq!(cut_plain("東京タワー"), ["東", "京", "タ", "ワ", "ー"]);
    }

    #[test]
    fn an_empty_line_ends_a_passage() {
        assert_eq!(cut_plain("Oak board\n \nMade of\noak"), ["Oak", " ", "board", PASSAGE_END, "Made", " ", "of", " ", "oak"]);
        assert_eq!(cut_plain("a\u{7}b"), ["a", PASSAGE_END, "b"]);
    }

    #[test]
    fn the_end_of_a_sentence_ends_a_passage() {
        let ends = |text: &str| cut_plain(text).iter().filter(|chunk| **chunk == PASSAGE_END).count();
        assert_eq!(ends("This bowl is made of oak. It floats on the water."), 1);
        assert_eq!(ends("This bowl is made of oak\nand floats on the water."), 0, "a line can go on in the next");
        assert_eq!(ends("It was paid by Mr. Kim, 3.5 euros in all."), 0);
        let dated = "It was paid on 2026. 1. 5 in Seoul.";
        assert!(cut(dated, &[Span { start: 15, end: 25 }]).contains(&"2026. 1. 5"), "a date is cut");
        assert_eq!(ends("水が流れます。木で作られた器です。"), 1);
    }

    #[test]
    fn given_spans_stay_whole() {
        let text = "about 40 x 25 cm, 5th";
        assert_eq!(
            cut(text, &[Span { start: 6, end: 16 }, Span { start: 18, end: 19 }]),
            ["about", " ", "40 x 25 cm", ",", " ", "5th"]
        );
    }

    proptest! {
        #[test]
        fn no_letter_is_lost(text in "(\\PC|[-. \\n']|가|cm |12){0,80}") {
            let kept = |text: &str| text.chars().filter(|letter| !letter.is_whitespace() && !letter.is_control()).collect::<String>();
            prop_assert_eq!(kept(&cut_plain(&text).concat()), kept(&text));
        }
    }
}
