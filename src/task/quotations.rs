//! Finds quotations: the text between two quotation marks of a pair, with the marks.
//!
//! | mark | where | what it does |
//! |---|---|---|
//! | `“` `‘` `「` `『` `«` `„` | anywhere | opens |
//! | `”` `」` `』` `»` | anywhere | closes |
//! | `"` `'` | before a letter or another mark, and after a space, a bracket or a dash | opens |
//! | `"` `'` `’` | after punctuation, or after a script without apostrophes, as in `‘가자’라고` | closes |
//! | `'` `’` `‘` | between two letters, as in `don’t` | is an apostrophe |
//! | `'` `’` | after a letter, as in `the kings’ sons` | closes where no clearer mark does |
//!
//! A quotation ends in its paragraph, and within [`LONGEST`] bytes and [`MARKS`] marks. So a mark that is never closed does not
//! take the rest of the text with it, and the time is linear.

use super::words::is_wide;
use crate::outcome::Span;

/// Most bytes from the first to the last mark: the longest speech that is recognized, about half a page.
const LONGEST: usize = 2000;

/// Most marks from the first to the last, which may all be apostrophes.
const MARKS: usize = 64;

/// What stands before a straight mark that opens, besides white space.
const BEFORE_OPENING: &[char] = &['(', '[', '{', '-', '–', '—', '“', '‘', '"', '\'', '「', '『'];

/// What stands after a straight mark that opens, besides letters and digits.
const AFTER_OPENING: &[char] =
    &['“', '‘', '"', '\'', '「', '『', '(', '[', '{', '¿', '¡', '…', '—', '-', '$', '€', '£', '#', '@'];

/// Words that begin with an apostrophe.
const CLIPPED: &[&str] = &["tis", "twas", "twere", "em", "til", "cause"];

/// The quotations of a text.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Quotations {
    /// In text order. One inside another is part of the outer one.
    pub spans: Vec<Span>,
    /// Where a mark stands that must belong to a pair, but has no partner.
    pub strays: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Closing {
    Never,
    Perhaps,
    Surely,
}

struct Mark {
    start: usize,
    mark: char,
    opens: bool,
    closes: Closing,
    paragraph: usize,
}

/// The quotations of `text`.
pub(super) fn quotations(text: &str) -> Quotations {
    let marks = marks(text);
    let mut found = Quotations::default();
    let mut index = 0;
    while let Some(mark) = marks.get(index) {
        let partner = if mark.opens { partner(&marks[index..]) } else { None };
        if let Some(distance) = partner {
            let last = &marks[index + distance];
            found.spans.push(Span { start: mark.start, end: last.start + last.mark.len_utf8() });
            index += distance;
        } else if mark.opens || mark.closes == Closing::Surely {
            found.strays.push(mark.start);
        }
        index += 1;
    }
    found
}

/// How many marks after the first one, which opens, the one that closes it stands.
fn partner(marks: &[Mark]) -> Option<usize> {
    let (opening, rest) = marks.split_first()?;
    let mut perhaps = None;
    for (distance, mark) in (1..).zip(rest.iter().take(MARKS)) {
        if mark.start - opening.start > LONGEST || mark.paragraph != opening.paragraph {
            break;
        }
        if is_pair(opening.mark, mark.mark) {
            match mark.closes {
                Closing::Surely => return Some(distance),
                Closing::Perhaps => perhaps = perhaps.or(Some(distance)),
                Closing::Never => {}
            }
        }
        if mark.mark == opening.mark && mark.opens {
            break;
        }
    }
    perhaps
}

fn is_pair(opening: char, closing: char) -> bool {
    matches!(
        (opening, closing),
        ('“', '”') | ('„', '“' | '”') | ('‘', '’') | ('「', '」') | ('『', '』') | ('«', '»') | ('"', '"') | ('\'', '\'')
    )
}

fn marks(text: &str) -> Vec<Mark> {
    let mut marks = Vec::new();
    let (mut before, mut paragraph) = (' ', 0);
    for (start, mark) in text.char_indices() {
        if matches!(mark, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            paragraph += 1;
        }
        if is_mark(mark) {
            let (opens, closes) = directions(mark, before, &text[start + mark.len_utf8()..]);
            if opens || closes != Closing::Never {
                marks.push(Mark { start, mark, opens, closes, paragraph });
            }
        }
        before = mark;
    }
    marks
}

fn is_mark(c: char) -> bool {
    matches!(c, '“' | '”' | '„' | '‘' | '’' | '「' | '」' | '『' | '』' | '«' | '»' | '"' | '\'')
}

/// Whether a mark opens and whether it closes, from the letter before it and the text after it.
fn directions(mark: char, before: char, rest: &str) -> (bool, Closing) {
    let letter = |c: char| c.is_alphanumeric() && !is_wide(c);
    let after = rest.chars().next().unwrap_or(' ');
    if matches!(mark, '\'' | '’' | '‘') && letter(before) && letter(after) {
        return (false, Closing::Never);
    }
    match mark {
        '„' | '「' | '『' | '«' => (true, Closing::Never),
        '“' => (true, Closing::Surely),
        '‘' => (!letter(before), Closing::Never),
        '”' | '」' | '』' | '»' => (false, Closing::Surely),
        '’' if before.is_whitespace() && after.is_alphanumeric() => (false, Closing::Never),
        _ => {
            let opens = mark != '’'
                && (before.is_whitespace() || BEFORE_OPENING.contains(&before))
                && (after.is_alphanumeric() || AFTER_OPENING.contains(&after))
                && !(mark == '\'' && is_clipped(rest));
            let closes = match before {
                _ if opens => Closing::Never,
                before if before.is_whitespace() && mark != '’' => Closing::Never,
                before if !letter(before) => Closing::Surely,
                // A digit may be followed by the sign of inches.
                before if mark == '"' && !before.is_ascii_digit() => Closing::Surely,
                _ => Closing::Perhaps,
            };
            (opens, closes)
        }
    }
}

/// Whether the word after an apostrophe is one of those that begin with it, as in `'tis` or `the '90s`.
fn is_clipped(rest: &str) -> bool {
    let word = &rest[..rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len())];
    rest.starts_with(|c: char| c.is_ascii_digit()) || CLIPPED.iter().any(|clipped| word.eq_ignore_ascii_case(clipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(text: &str) -> Vec<&str> {
        quotations(text).spans.iter().map(|span| &text[span.start..span.end]).collect()
    }

    #[test]
    fn quotations_are_told_from_apostrophes() {
        for (text, expected) in [
            ("‘I’ll go,’ said Hans. ‘Don’t!’", &["‘I’ll go,’", "‘Don’t!’"][..]),
            ("'I'll go,' said Hans. 'Don't!'", &["'I'll go,'", "'Don't!'"]),
            ("He said: ‘The kings’ sons are here. Come!’ and left.", &["‘The kings’ sons are here. Come!’"]),
            ("They called her ‘Clever Elsie’ and laughed.", &["‘Clever Elsie’"]),
            ("The dogs' bowls and the cats' beds.", &[]),
            ("'Tis late, and the '90s are over.", &[]),
            ("She was born in ’72 and said ‘no, never.’", &["‘no, never.’"]),
            ("\"Come,\" she said, \"or stay.\" A 5\" nail.", &["\"Come,\"", "\"or stay.\""]),
            ("She said, \"He shouted 'no', and ran.\"", &["\"He shouted 'no', and ran.\""]),
            ("그는 “가자!”라고 했다. '집'은 멀었다.", &["“가자!”", "'집'"]),
            ("‘가자’라고 했다. 「行こう。」と言った。", &["‘가자’", "「行こう。」"]),
            ("Er sagte: „Komm mit.“ Und «non».", &["„Komm mit.“", "«non»"]),
        ] {
            assert_eq!(quoted(text), expected, "{text}");
        }
    }

    #[test]
    fn a_mark_without_a_partner_takes_nothing_with_it() {
        let long = format!("‘Open. {} close.’ ‘Yes,’ he said.", "word ".repeat(LONGEST / 5));
        assert_eq!(quoted(&long), ["‘Yes,’"]);
        assert_eq!(quotations(&long).strays.len(), 2);
        assert_eq!(quoted("“Two paragraphs\nare no quotation.” “But this is.”"), ["“But this is.”"]);
        assert_eq!(quoted("‘Blow, breezes, blow! ‘What is it?’ she asked."), ["‘What is it?’"]);
        assert_eq!(quotations("What did you take her?’ Nothing."), Quotations { spans: vec![], strays: vec![22] });
    }

    #[test]
    fn a_megabyte_of_marks_is_read_in_time() {
        for part in ["“", "‘", "'a", "\" ", " '", "”", "‘a’ ", "a’ "] {
            let found = quotations(&part.repeat((1 << 20) / part.len()));
            assert!(found.spans.len() + found.strays.len() < 1 << 20, "{part}");
        }
    }
}
