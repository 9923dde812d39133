//! The form in which texts and questions are compared: `searchable_text` in `migrations/0016_word_statistics.sql`, for questions.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// The text without what no reader sees, with forms that look alike made one.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !is_invisible(*c)).nfkc().collect()
}

/// Soft hyphens, zero-width characters, selectors of variants and the like: what Unicode calls ignorable by default.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Whether the character goes on a word that has begun, though it is no letter.
pub(super) fn continues_word(c: char) -> bool {
    is_invisible(c) || is_combining_mark(c)
}

/// What stands between the parts of a part number, an address or a path, each of which is a word.
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
            assert_eq!(plain(written), expected);
        }
    }
}
