//! The words of a text with the breaks between them.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

use super::function_words::{Weight, is_korean_denial, weight};
use super::stems::{is_compared, is_korean, korean_stems, stem};
use crate::task::words::is_particles;

/// What separates a word from the one before it. Later variants separate more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Break {
    /// A hyphen within a compound.
    Hyphen,
    Space,
    Comma,
    Sentence,
}

/// A word of a text.
#[derive(Debug, Clone)]
pub(super) struct Word {
    /// Its bytes in the text.
    pub place: Range<usize>,
    pub folded: String,
    pub before: Break,
    /// Its stems, the most specific first; none of a function word.
    pub stems: Vec<String>,
    /// Whether it states something of its own.
    pub is_content: bool,
}

impl Word {
    /// Whether it may be denied: it is more than a function word.
    pub(super) fn is_deniable(&self) -> bool {
        !self.stems.is_empty()
    }
}

/// The words of `text`, in order.
pub(super) fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let mut end = 0;
    for (start, word) in text.unicode_word_indices() {
        let before = if found.is_empty() { Break::Sentence } else { separator(&text[end..start]) };
        end = start + word.len();
        let folded = folded(word);
        let (stems, weight) = stems_of(&folded);
        found.push(Word { place: start..end, folded, before, stems, is_content: weight == Weight::Content });
    }
    found
}

fn separator(gap: &str) -> Break {
    if gap.contains(['\n', '\r', '.', '!', '?', ';', '…', '。', '！', '？', '|', '•', '\u{2028}', '\u{2029}']) {
        return Break::Sentence;
    }
    let dash = gap.contains(['–', '—']) || gap.contains(" - ");
    if dash || gap.contains([',', '(', ')', '[', ']', '/', '、', '，', '·']) {
        return Break::Comma;
    }
    if gap == "-" || gap == "\u{2010}" || gap == "\u{2011}" { Break::Hyphen } else { Break::Space }
}

/// The word in lower case, with plain apostrophes.
fn folded(word: &str) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    word.nfkc().flat_map(char::to_lowercase).map(|letter| if letter == '’' { '\'' } else { letter }).collect()
}

fn stems_of(word: &str) -> (Vec<String>, Weight) {
    let none = (Vec::new(), Weight::None);
    if word.chars().any(char::is_numeric) || weight(word) == Weight::None {
        return none;
    }
    if is_korean(word) {
        if is_korean_denial(word) {
            return none;
        }
        let stems = korean_stems(word);
        let weights = stems.iter().filter(|stem| is_compared(stem) || is_verb(word, stem));
        let weight = weights.flat_map(|stem| [weight(stem), weight(&format!("{stem}다"))]).min().unwrap_or(Weight::None);
        return if weight == Weight::None { none } else { (stems, weight) };
    }
    if word.chars().count() < 3 { none } else { (vec![stem(word)], weight(word)) }
}

/// Whether a Korean word of three syllables or more is a verb with a stem of one: 있습니다, and not 주인이.
fn is_verb(word: &str, stem: &str) -> bool {
    word.chars().count() >= 3 && word.strip_prefix(stem).is_none_or(|ending| !is_particles(ending))
}
