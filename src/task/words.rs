//! Finds whole words in folded text, for scripts with and without spaces between words.
//!
//! | script | a word ends |
//! |---|---|
//! | most scripts | where no letter or digit follows |
//! | Hangul | also before particles: 최고 is found in 최고의 and 최고는, but not in 최고급 |
//! | between Hangul and another script | always: SALE is found in SALE중 |
//! | Han and kana, which have no spaces | anywhere |

use std::ops::Range;

/// Korean particles, which can follow a noun within the same word. Separated by spaces.
const PARTICLES: &str = "입니다 이에요 에게서 으로 에서 에게 까지 부터 보다 처럼 이나 이며 이고 이라 이다 예요 \
    에 은 는 이 가 을 를 의 로 와 과 도 만 나 며 고 라 인 랑";

/// Most particles in a row, as in 에서만은.
const MOST_PARTICLES: usize = 3;

/// The first place where `text` contains `word` as a separate word. Both are folded.
pub(super) fn find(text: &str, word: &str) -> Option<Range<usize>> {
    if word.is_empty() {
        return None;
    }
    text.match_indices(word).map(|(start, _)| start..start + word.len()).find(|place| stands_alone(text, place))
}

fn stands_alone(text: &str, place: &Range<usize>) -> bool {
    let (before, word, after) = (&text[..place.start], &text[place.clone()], &text[place.end..]);
    let (Some(first), Some(last)) = (word.chars().next(), word.chars().next_back()) else { return false };
    if before.chars().next_back().is_some_and(|neighbour| !parts(neighbour, first)) {
        return false;
    }
    match after.chars().next() {
        Some(neighbour) if !parts(last, neighbour) => is_hangul(last) && is_particles(hangul(after)),
        _ => true,
    }
}

/// Whether there is a word boundary between the two.
fn parts(left: char, right: char) -> bool {
    !(left.is_alphanumeric() && right.is_alphanumeric())
        || is_hangul(left) != is_hangul(right)
        || is_unspaced(left)
        || is_unspaced(right)
}

/// Whether the text is empty or a sequence of a few particles.
pub(super) fn is_particles(text: &str) -> bool {
    fn within(text: &str, most: usize) -> bool {
        let parts = || PARTICLES.split_whitespace().filter_map(|particle| text.strip_prefix(particle));
        text.is_empty() || most > 0 && parts().any(|rest| within(rest, most - 1))
    }
    within(text, MOST_PARTICLES)
}

/// The Hangul letters at the start of `text`.
fn hangul(text: &str) -> &str {
    &text[..text.find(|letter| !is_hangul(letter)).unwrap_or(text.len())]
}

/// Whether the letter is Korean.
pub(super) fn is_hangul(letter: char) -> bool {
    matches!(letter, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '가'..='힣')
}

fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}')
}

/// Whether the letter belongs to a script in which one letter is a syllable or a word.
pub(super) fn is_wide(letter: char) -> bool {
    is_unspaced(letter)
        || matches!(letter, '\u{4dc0}'..='\u{4dff}' | '가'..='힣' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::folded_text::FoldedText;

    fn says(text: &str, word: &str) -> bool {
        find(FoldedText::of(text).text(), FoldedText::of(word).text()).is_some()
    }

    #[test]
    fn words_are_whole_whatever_their_case() {
        assert!(says("The BEST board", "best") && says("best-selling", "best") && says("(Best)", "BEST"));
        assert!(says("Simply  the\u{a0}best.", "the best"), "any white space counts as one space");
        assert!(says("ＢＥＳＴ choice", "best") && says("Straße", "strasse"));
        for text in ["bestow", "abest", "best1", "b est"] {
            assert!(!says(text, "best"), "{text}");
        }
        assert!(!says("anything", ""));
    }

    #[test]
    fn korean_words_carry_particles_and_no_other_letters() {
        for text in ["최고의 도마", "이 도마는 최고입니다.", "최고", "품질은 최고!", "최고에서만은", "국내최고 아님 최고로"]
        {
            assert!(says(text, "최고"), "{text}");
        }
        for text in ["최고급 원목", "국내최고", "최고참들"] {
            assert!(!says(text, "최고"), "{text}");
        }
        assert!(says("SALE중", "sale") && says("할인SALE", "sale") && says("무료배송3일", "무료배송"));
        assert!(says("\u{110e}\u{116c}\u{1100}\u{1169}의", "최고"), "decomposed jamo");
    }

    #[test]
    fn scripts_without_spaces_have_words_anywhere() {
        assert!(says("日本最高の品質", "最高"));
        assert!(says("せかいいち", "いち"));
    }
}
