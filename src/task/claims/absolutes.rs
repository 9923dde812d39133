//! Superlatives and words that allow no exception. A text may use one only if its source uses it, or one of the same meaning.

use super::sentence_words::{Break, Word};
use super::stems::is_korean;
use crate::task::evidence::number;
use crate::task::words::is_particles;

/// Words of one meaning in each row, separated by spaces. Korean words are beginnings of words.
const GROUPS: &[&str] = &[
    "best finest greatest top 최고 최상 으뜸",
    "worst 최악",
    "only sole solely exclusively 유일 오직 오로지",
    "always constantly 항상 언제나 늘",
    "most 가장 제일",
    "least",
    "all every everything everyone everybody any each whole entire entirely 모든 모두 전부 누구나 누구든 어디서나",
    "unique one-of-a-kind 독보적 독창적",
    "perfect perfectly flawless 완벽",
    "first 최초",
    "ultimate unrivalled unrivaled unbeatable unmatched unparalleled unsurpassed peerless incomparable 독보 압도적 비교불가",
    "guaranteed guarantee guarantees 보장 보증",
    "absolutely utterly 절대 무조건",
    "leading premier foremost 선두 일류",
    "newest latest 최신",
    "lowest cheapest 최저 최저가",
    "revolutionary groundbreaking 혁신적 획기적",
    "lifetime forever eternal 평생 영원",
    "nothing nobody none",
];

/// Words that end like a superlative and are none.
const NO_SUPERLATIVES: &str = "request interest honest modest earnest harvest forest guest west east quest test contest \
    protest chest vest nest rest pest arrest invest suggest digest manifest priest breast northwest southwest conquest \
    tempest midwest crest zest wrest behest inquest bequest unrest everest attest detest ingest infest divest budapest";

/// The superlatives and absolute words that `words` claim: the index of each, and its meaning.
pub(super) fn claimed(words: &[Word]) -> Vec<(usize, Meaning)> {
    let claimed = (0..words.len()).filter(|index| !is_idiom(words, *index));
    claimed.filter_map(|index| Some((index, meaning(&words[index].folded)?))).collect()
}

/// The meanings of all superlatives and absolute words in a source. An idiom counts, because it may be meant literally.
pub(super) fn meanings(words: &[Word]) -> impl Iterator<Item = Meaning> {
    words.iter().filter_map(|word| meaning(&word.folded))
}

/// What an absolute word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The row of [`GROUPS`].
    Group(usize),
    /// A superlative by its ending, with the stem of its adjective.
    Superlative(String),
}

/// Whether the word is part of a phrase that is no claim: `at most`, `most of`, `only 3`, `not only`, `at all`, `first of all`.
fn is_idiom(words: &[Word], index: usize) -> bool {
    let previous = index.checked_sub(1).map_or("", |index| words[index].folded.as_str());
    let next = words.get(index + 1).filter(|next| next.before <= Break::Space).map_or("", |next| next.folded.as_str());
    let counts = next.starts_with(char::is_numeric) || is_number_word(next);
    match words[index].folded.as_str() {
        "most" => previous == "at" || next == "of" || counts,
        "only" => counts || previous == "not",
        "least" | "best" | "worst" => previous == "at",
        "all" => matches!(previous, "at" | "after" | "above" | "of" | "in") || next == "in",
        "any" | "each" => true,
        "first" => counts || matches!(next, "time" | "aid" | "name" | "of" | "then") || previous == "at",
        "top" => !matches!(next, "quality" | "choice" | "rated" | "pick" | "seller"),
        _ => false,
    }
}

fn meaning(word: &str) -> Option<Meaning> {
    let belongs = |known: &str| if is_korean(known) { begins_with(word, known) } else { known == word };
    if let Some(row) = GROUPS.iter().position(|row| row.split_whitespace().any(belongs)) {
        return Some(Meaning::Group(row));
    }
    let stem = word.strip_suffix("est").filter(|stem| stem.len() >= 3 && word.is_ascii())?;
    (!NO_SUPERLATIVES.split_whitespace().any(|known| known == word)).then(|| Meaning::Superlative(stem.to_owned()))
}

/// Whether the Korean `word` begins with `known`. Words that other words begin with must stand alone or before particles.
fn begins_with(word: &str, known: &str) -> bool {
    word.strip_prefix(known).is_some_and(|rest| {
        // 가장자리 is an edge, and 늘어나다 grows.
        !matches!(known, "가장" | "늘" | "제일" | "모두") || is_particles(rest)
    })
}

fn is_number_word(word: &str) -> bool {
    !number::claimed(word).is_empty()
}
