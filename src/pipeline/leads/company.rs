//! When two names denote the same company.
//!
//! | what differs | example |
//! |---|---|
//! | case, width, white space, punctuation | `ACME  Corp.`, `Ａｃｍｅ corp` |
//! | a conjunction | `Bell & Moor`, `Bell and Moor` |
//! | the legal form, before or after the name | `Acme Inc.`, `Acme GmbH & Co. KG`, `㈜한빛식품`, `한빛식품 주식회사` |
//!
//! Names that differ in anything else are different companies: `Acme Foods` and `Acme Tools`, or a name and its translation.

use unicode_normalization::UnicodeNormalization;

/// Words for the legal form of a company, in lower case. A name that consists of nothing else keeps them.
const LEGAL_FORMS: &[&str] = &[
    "inc",
    "incorporated",
    "corp",
    "corporation",
    "co",
    "company",
    "ltd",
    "limited",
    "llc",
    "llp",
    "plc",
    "lp",
    "pty",
    "pte",
    "gmbh",
    "ag",
    "kg",
    "kgaa",
    "ug",
    "ohg",
    "mbh",
    "se",
    "sa",
    "sas",
    "sarl",
    "srl",
    "spa",
    "bv",
    "nv",
    "oy",
    "ab",
    "as",
    "aps",
    "kk",
    "주식회사",
    "유한회사",
    "유한책임회사",
    "합자회사",
    "합명회사",
    "株式会社",
    "有限会社",
];

/// Legal forms that are written without a space before or after the name.
const JOINED: &[&str] = &["(주)", "(유)", "(株)", "(有)"];

/// Conjunctions, which are removed together with the legal forms around them.
const CONJUNCTIONS: &[&str] = &["and", "&", "und", "et"];

/// The longest key, in characters. Normalization may turn one character into eighteen, and an index limits the size of its entries.
const LONGEST: usize = 200;

/// The key that groups a company's documents; nothing where the name has neither a letter nor a digit.
pub fn key(name: &str) -> Option<String> {
    // Compatibility normalization turns the one character ㈜ into (주), and full-width letters into plain ones.
    let mut folded: String = name.nfkc().flat_map(char::to_lowercase).collect();
    for form in JOINED {
        folded = folded.replace(form, " ");
    }
    // A full stop does not separate words: `S.A.`, `l.l.c` and `smith.jones` are one word each.
    let folded = folded.replace(['.', '\'', '’'], "");
    let separates = |c: char| !(c.is_alphanumeric() || c == '&');
    let words: Vec<&str> = folded.split(separates).filter(|word| !word.is_empty()).collect();
    let first = words.iter().position(|word| word.is_ascii() || !is_form(word)).unwrap_or(0);
    let last = words.iter().rposition(|word| !is_form(word)).filter(|last| *last >= first).or(words.len().checked_sub(1))?;
    let words = &words[first..=last];
    let spelled: Vec<&str> = words.iter().map(|word| if *word == "&" { "and" } else { word }).collect();
    let key: String = spelled.join(" ").chars().take(LONGEST).collect();
    words.iter().any(|word| word.contains(char::is_alphanumeric)).then(|| key.trim_end().to_owned())
}

/// Whether a word at the end of a name belongs to its legal form. At the beginning only the Korean and Japanese forms count.
fn is_form(word: &str) -> bool {
    LEGAL_FORMS.contains(&word) || CONJUNCTIONS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_company_has_one_key_however_it_is_written() {
        for (names, expected) in [
            (["Acme Inc.", "ACME, Inc", "  acme   INC. ", "Ａｃｍｅ Incorporated"], "acme"),
            (["Müller GmbH & Co. KG", "müller gmbh", "Müller", "MÜLLER GMBH & CO KG"], "müller"),
            (["㈜한빛식품", "(주) 한빛식품", "한빛식품 주식회사", "주식회사 한빛식품"], "한빛식품"),
            (["Bell & Moor Ltd", "bell and moor limited", "Bell & Moor", "BELL AND MOOR LTD."], "bell and moor"),
            (["O'Neil S.A.", "ONeil SA", "O’Neil s.a.", "oneil"], "oneil"),
        ] {
            for name in names {
                assert_eq!(key(name).as_deref(), Some(expected), "{name}");
            }
        }
    }

    #[test]
    fn what_differs_otherwise_stays_apart() {
        assert_ne!(key("Acme Foods"), key("Acme Tools"));
        assert_ne!(key("Acme"), key("아크메"));
        assert_eq!(key("Company of Wolves").as_deref(), Some("company of wolves"), "in front it is a part of the name");
        assert_eq!((key("SE Ranking Ltd"), key("Limited")), (Some("se ranking".into()), Some("limited".into())));
        assert_eq!(key("Coca Co-op").as_deref(), Some("coca co op"), "a form inside a name is a part of it");
        // Decomposed Hangul is the same word.
        assert_eq!(key("\u{1112}\u{1161}\u{11ab}\u{1107}\u{1175}\u{11be}"), key("한빛"));
    }

    #[test]
    fn what_names_nothing_has_no_key() {
        assert_eq!(key(&"\u{fdfa}".repeat(200)).map(|key| key.chars().count()), Some(LONGEST), "no index holds more");
        for name in ["", "  ", "---", "&", "..."] {
            assert_eq!(key(name), None, "{name:?}");
        }
    }
}
