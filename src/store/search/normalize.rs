//! Normalizes queries as `searchable_text` in `migrations/0016_word_statistics.sql` normalizes documents, so that both can be
//! compared.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The text without invisible characters, in Unicode normalization form NFKC, which makes forms that look alike equal.
pub(super) fn normalize(text: &str) -> String {
    text.chars().filter(|c| !is_invisible(*c)).nfkc().collect()
}

/// Soft hyphens, zero-width characters, variation selectors and the like: Unicode's default ignorable code points.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Whether the character continues a word although it is not a letter.
pub(super) fn continues_word(c: char) -> bool {
    is_invisible(c) || is_combining_mark(c)
}

/// Whether the character separates the parts of a part number, an address or a path. Each part is a word.
pub(super) fn is_joint(c: char) -> bool {
    matches!(c, '-' | '_' | '.' | '/' | '\\' | ':' | '@' | '+')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_look_alike_are_one_and_what_is_unseen_is_gone() {
        for (written, expected) in [
            ("Mu\u{308}ller", "Müller"),
            ("\u{FB01}nancial o\u{FB03}ce", "financial office"),
            ("Kaffee\u{AD}maschine", "Kaffeemaschine"),
            ("ＫＥＴＴＬＥ", "KETTLE"),
            ("zero\u{200B}width\u{FEFF}", "zerowidth"),
            ("ﾃｽﾄ", "テスト"),
            ("\u{1112}\u{1161}\u{11ab}", "한"),
        ] {
            assert_eq!(normalize(written), expected);
        }
    }
}
