//! What a text denies: the words that a negation governs.
//!
//! | negation | governs |
//! |---|---|
//! | `not`, `never`, `without`, `no`, `lacks`, `안`, `못` | the next words: narrowly the first two, broadly eight |
//! | `-free`, `free of`, `없는`, `않는`, `아닌`, `불가`, `금지`, `마세요` | the words before, and after `free of` those after |
//! | `non-`, `un…`, `…less`, `무…`, `비…` | the rest of the same word |
//!
//! A text is compared narrowly and its source broadly, so that a list after `no` is denied as a whole.

use super::function_words::is_korean_denial;
use super::sentence_words::{Break, Word};
use super::stems::{is_korean, korean_stems, stem};

/// English words that deny what follows, separated by spaces.
const DENIALS: &str = "not no never without cannot neither nor lacks lack lacking avoid none";

/// Korean words that deny what stands before them, or the beginning of the same word: 끊김없이, 반품불가.
const KOREAN_ENDS: &[&str] = &["없", "불가", "금지"];

/// Korean prefixes that deny the rest of the word.
const KOREAN_PREFIXES: &[&str] = &["무", "비", "불", "미"];

/// Words after which a harm is named that does not happen: `resists rust`.
const GUARDS: &str = "resist resists resistant resistance prevent prevents preventing against protect protects protection \
    avoid avoids stop stops instead rather unlike proof reduce reduces reducing less free 방지 예방 차단 대신 걱정 방지하는 막아 막는 줄여 줄이는 덜";

/// Verbs that end what `no` and `without` govern.
const VERBS: &[&str] = &["is", "are", "was", "were", "has", "have", "can", "will", "must", "may"];

/// Words that a negation governs narrowly, and broadly.
const NARROW: usize = 2;
const BROAD: usize = 8;

/// How far a negation reaches, in words of any kind.
const REACH: usize = 24;

/// Words of a text among which one must be denied by its source.
const COMPARED: usize = 3;

/// A negation with the words that it governs.
#[derive(Debug, Clone)]
pub(super) struct Denial {
    /// The index of the word that denies.
    pub at: usize,
    /// Stems of the first words that it governs, one list a word.
    pub narrow: Vec<Vec<String>>,
    /// Indexes of all words that it may govern.
    pub broad: Vec<usize>,
}

/// The negations of a text.
pub(super) fn denials(words: &[Word]) -> Vec<Denial> {
    (0..words.len()).filter_map(|index| denial(words, index)).collect()
}

fn denial(words: &[Word], at: usize) -> Option<Denial> {
    let word = words[at].folded.as_str();
    let next = words.get(at + 1).filter(|next| next.before < Break::Comma).map_or("", |next| next.folded.as_str());
    if is_korean(word) {
        // 담그면 안 됩니다.
        if word == "안" && ["되", "됩", "돼", "된"].iter().any(|verb| next.starts_with(verb)) {
            return Some(new(words, at, backward(words, at), false));
        }
        if matches!(word, "안" | "못") {
            return Some(new(words, at, forward(words, at, Break::Comma), false));
        }
        let end = KOREAN_ENDS.iter().find_map(|end| word.find(end));
        if let Some(start) = end.filter(|start| *start > 0) {
            return Some(Denial { at, narrow: vec![korean_stems(&word[..start])], broad: backward(words, at) });
        }
        if end.is_some() || is_korean_denial(word) {
            return Some(new(words, at, backward(words, at), word.starts_with('없')));
        }
        return None;
    }
    let is_idiom = matches!((word, next), ("not", "only" | "just" | "merely" | "least") | ("no", "matter" | "doubt" | "one"))
        || word == "no" && next.starts_with(char::is_numeric);
    if !is_idiom && (word.ends_with("n't") || DENIALS.split_whitespace().any(|denial| denial == word)) {
        let is_of_one = matches!(word, "no" | "without" | "lacks" | "lack" | "lacking");
        let mut governed = forward(words, at, Break::Sentence);
        if is_of_one {
            // `Photography without flash is allowed.`
            let verb =
                words.iter().skip(at).take(REACH).position(|word| VERBS.contains(&word.folded.as_str())).map(|verb| at + verb);
            governed.retain(|index| verb.is_none_or(|verb| *index < verb));
        }
        // `Cars cannot.`
        let governed = if governed.is_empty() { backward(words, at) } else { governed };
        return Some(new(words, at, governed, is_of_one));
    }
    if word == "free" && matches!(next, "of" | "from") {
        return Some(new(words, at, forward(words, at, Break::Sentence), true));
    }
    let is_compound = words[at].before == Break::Hyphen;
    if word == "free" && is_compound {
        return Some(new(words, at, backward(words, at), true));
    }
    None
}

fn new(words: &[Word], at: usize, broad: Vec<usize>, is_of_one: bool) -> Denial {
    let adjacent = |pair: &[usize]| pair[0].abs_diff(pair[1]) == 1;
    let mut narrow: Vec<usize> = broad.iter().copied().take(NARROW).collect();
    // `no handle to come loose` denies the handle; `no sharp edges` denies sharp edges.
    if is_of_one && !narrow.windows(2).all(adjacent) {
        narrow.truncate(1);
    }
    let narrow = narrow.into_iter().map(|index| words[index].stems.clone()).collect();
    Denial { at, narrow, broad }
}

/// The content words after `at`, up to a break of this strength or a `but`.
fn forward(words: &[Word], at: usize, end: Break) -> Vec<usize> {
    let rest = words.iter().enumerate().skip(at + 1).take(REACH);
    let rest = rest.take_while(|(_, word)| word.before < end && !matches!(word.folded.as_str(), "but" | "yet" | "however"));
    rest.filter(|(_, word)| word.is_deniable()).map(|(index, _)| index).take(BROAD).collect()
}

/// The content words before `at`, the nearest first.
fn backward(words: &[Word], at: usize) -> Vec<usize> {
    let before = (0..=at).rev().take(REACH).scan(Break::Space, |last, index| {
        let ends = *last == Break::Sentence;
        *last = words[index].before;
        (!ends).then_some(index)
    });
    before.filter(|index| *index < at && words[*index].is_deniable()).take(BROAD).collect()
}

impl Denial {
    /// The words of which a source must deny one.
    pub(super) fn compared<'a>(&'a self, words: &'a [Word]) -> Vec<&'a [String]> {
        let part = self.narrow.first().filter(|_| self.is_part(words)).map(Vec::as_slice);
        part.into_iter().chain(self.broad.iter().take(COMPARED).map(|index| &words[*index].stems[..])).collect()
    }

    /// Whether it denies the beginning of its own word.
    fn is_part(&self, words: &[Word]) -> bool {
        words[self.at].is_deniable() && is_korean(&words[self.at].folded)
    }
}

/// The word without a prefix or an ending that denies it: `unbreakable`, `cordless`, `무향`.
pub(super) fn denied_part(word: &str) -> Option<Vec<String>> {
    if is_korean(word) {
        let rest = KOREAN_PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix))?;
        let stems = korean_stems(rest);
        return (!stems.is_empty()).then_some(stems);
    }
    let rest = ["non", "un"].iter().find_map(|prefix| word.strip_prefix(prefix)).or_else(|| word.strip_suffix("less"))?;
    (rest.len() >= 4).then(|| vec![stem(rest)])
}

/// Whether the words around `at` say that something is kept off, in a word that no source has.
pub(super) fn is_guarded(words: &[Word], at: usize, is_known: impl Fn(&str) -> bool) -> bool {
    let mut near = words.iter().take(at + 4).skip(at.saturating_sub(4));
    near.any(|word| GUARDS.split_whitespace().any(|guard| guard == word.folded) && !is_known(&word.folded))
}
