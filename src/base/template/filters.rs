//! Additional filters for templates of pages.
//!
//! | filter | result |
//! |---|---|
//! | `slug` | the readable part of an address: "Oak bread board, 40 cm" becomes `oak-bread-board-40-cm` |
//! | `within(n)` | the text in at most `n` characters; a longer text is cut between words and ends with `…` |

use std::ops::RangeInclusive;

use minijinja::{Environment, Error, ErrorKind};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

/// The longest slug in characters. Longer ones are hard to read, and a Korean character takes nine bytes in a percent-encoded
/// address.
const SLUG_LETTERS: usize = 80;

/// Combining marks of Latin, Greek and Cyrillic letters. Marks of other scripts are vowels and are kept.
const ACCENTS: RangeInclusive<char> = '\u{300}'..='\u{36f}';

/// Adds the filters to the environment.
pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("slug", slug);
    environment.add_filter("within", within);
}

/// Removes accents, keeps other scripts, and separates words by hyphens.
fn slug(text: &str) -> Result<String, Error> {
    // Decomposition makes accents characters of their own, which are removed. Composition puts Hangul syllables together again.
    let plain: String = text.nfkd().filter(|letter| !ACCENTS.contains(letter)).nfc().flat_map(char::to_lowercase).collect();
    let mut slug = String::new();
    let mut letters = 0;
    for word in
        plain.split(|letter: char| !(letter.is_alphanumeric() || is_combining_mark(letter))).filter(|word| !word.is_empty())
    {
        let length = word.chars().count() + usize::from(!slug.is_empty());
        if letters + length > SLUG_LETTERS && !slug.is_empty() {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.extend(word.chars().take(SLUG_LETTERS));
        letters += length;
    }
    if slug.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "`slug` was given a text without letters and digits"));
    }
    Ok(slug)
}

/// Characters are code points, as in JSON Schema.
fn within(text: &str, limit: usize) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= limit {
        return text;
    }
    let length = limit.saturating_sub(1);
    let end = text.char_indices().nth(length).map_or(text.len(), |(at, _)| at);
    let between_words = text[..end].rfind(' ').filter(|at| text[..*at].chars().count() * 2 > length);
    // A text without a space in its second half is cut between graphemes, which readers see as letters.
    let between_letters = || text.grapheme_indices(true).map(|(at, _)| at).take_while(|at| *at <= end).last().unwrap_or(0);
    let kept = if text[end..].starts_with(' ') { end } else { between_words.unwrap_or_else(between_letters) };
    let kept =
        text[..kept].trim_end_matches(|letter: char| letter.is_whitespace() || matches!(letter, ',' | ';' | ':' | '-' | '|'));
    if length == 0 { String::new() } else { format!("{kept}…") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slugs_are_readable_in_every_script() {
        assert_eq!(slug("Oak bread board, 40 x 25 cm!").unwrap(), "oak-bread-board-40-x-25-cm");
        assert_eq!(slug("  Crème brûlée — Ｓｅｔ № 5 ").unwrap(), "creme-brulee-set-no-5");
        assert_eq!(slug("핸드드립 커피 세트").unwrap(), "핸드드립-커피-세트");
        assert_eq!(slug(&"word ".repeat(40)).unwrap().chars().count(), 79);
        assert_eq!(slug("हिन्दी किताब").unwrap(), "हिन्दी-किताब");
        assert!(slug("?!").is_err());
    }

    #[test]
    fn a_text_is_cut_between_words() {
        assert_eq!(within("An oak board", 12), "An oak board");
        assert_eq!(within("An oak board, for bread", 15), "An oak board…");
        assert_eq!(within("Donaudampfschifffahrt", 10), "Donaudamp…");
        assert_eq!(within("가\u{1112}\u{1161}\u{11ab}나다라", 4), "가…", "no syllable is taken apart");
        assert_eq!(within("abc", 0), "");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_asked(text in ".{0,80}", most in 0usize..60) {
            prop_assert!(within(&text, most).chars().count() <= most);
        }

        #[test]
        fn a_slug_of_a_slug_is_itself(text in ".{0,80}") {
            if let Ok(first) = slug(&text) {
                prop_assert_eq!(slug(&first).unwrap(), first);
            }
        }
    }
}
