//! Names in a text: words with capitals, and Korean words before a title.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

use crate::task::words::is_hangul;

/// If more than this share of the words of a text is capitalized, capitals are ignored.
const TITLE_CASE: f64 = 0.6;

/// Titles that follow the name of a person in Korean. Separated by spaces.
const TITLES: &str = "씨 님 대표 교수 작가 박사 감독 의원 과장 팀장 부장 사장 기자 선수 장관 총리 대통령 원장 회장 이사 선생 셰프 디자이너 대리 매니저 시장 위원장 총장 검사 판사 변호사";

/// Family names, the first syllable of a Korean name.
const FAMILIES: &str = "김이박최정강조윤장임한오서신권황안송류홍전고문손양배백허남심노하곽성차주우구민진나엄채원천방공현함변염여추도소석선설마길연위표명기반";

/// The names of `text`, in text order.
pub(in crate::task) fn names(text: &str) -> Vec<Range<usize>> {
    let is_capital = |word: &str| word.chars().next().is_some_and(char::is_uppercase);
    let words: Vec<(usize, &str)> =
        text.unicode_word_indices().filter(|(_, word)| word.chars().any(char::is_alphabetic)).collect();
    let cased =
        words.iter().filter(|(_, word)| word.chars().any(|letter| letter.is_lowercase() || letter.is_uppercase())).count();
    let capitals = words.iter().filter(|(_, word)| is_capital(word)).count();
    let is_title = cased > 2 && capitals as f64 > TITLE_CASE * cased as f64;
    let is_loud = !text.chars().any(char::is_lowercase);
    let mut found = Vec::new();
    for (at, word) in words {
        let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        // A word that starts with a digit is a number with a suffix.
        if word.chars().nth(1).is_none() || word.starts_with(|letter: char| letter.is_numeric()) {
            continue;
        }
        let mut pairs = word.chars().zip(word.chars().skip(1));
        let mixed = pairs.any(|(left, right)| left.is_alphabetic() && !is_hangul(left) && right.is_numeric());
        let loud = !is_loud && word.chars().filter(|letter| letter.is_uppercase()).count() > 1;
        let named = is_capital(word) && !is_title && !is_loud && !begins(&text[..at]);
        if mixed || loud || named {
            found.push(at..at + word.len());
        }
    }
    found
}

/// Names of persons in Korean: three syllables before a title.
pub(super) fn korean_names(text: &str) -> Vec<Range<usize>> {
    let words: Vec<(usize, &str)> = text.unicode_word_indices().collect();
    let follows_title = |after: &str| TITLES.split_whitespace().any(|title| after.starts_with(title));
    let mut found = Vec::new();
    for (index, (at, word)) in words.iter().enumerate() {
        let end = word.char_indices().nth(3).map_or(word.len(), |(end, _)| end);
        let is_named = word.chars().next().is_some_and(|first| FAMILIES.contains(first));
        let is_syllables = is_named && word.chars().count() >= 3 && word.chars().take(3).all(is_hangul);
        let after = if end < word.len() { &word[end..] } else { words.get(index + 1).map_or("", |(_, next)| *next) };
        if is_syllables && follows_title(after) {
            found.push(*at..at + end);
        }
    }
    found
}

/// Whether a sentence or a part of a heading starts after `before`.
fn begins(before: &str) -> bool {
    let before =
        before.trim_end_matches(|letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '“' | '‘' | '(' | '«'));
    let last = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let is_title = ["Dr.", "Mr.", "Mrs.", "Ms.", "Prof.", "St."].contains(&last);
    before.is_empty() || !is_title && before.ends_with(['.', '!', '?', ':', ';', '|', '–', '—', '-', '•', '·', '/', '。'])
}
