//! Splits a text into sentences, in any script.
//!
//! The Unicode segmentation rules find the boundaries. They do not recognize abbreviations and split `Mr. Kim` into two sentences.
//! So a piece that ends in an abbreviation, or is very short, is joined with its neighbour in the same paragraph.
//!
//! A quotation is not split, and neither is what says who speaks: `‘Yes! I will,’ said Hans.` is one sentence.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use super::quotations::quotations;
use super::words::is_wide;
use crate::outcome::Span;

/// Fewest letters and digits of a separate sentence. A letter of a script without spaces counts double.
const LEAST: usize = 8;

/// Most bytes of a sentence; longer pieces are split at a space. Otherwise a summary of a text without punctuation would be the
/// whole text.
const MOST: usize = 800;

/// Bytes that are segmented at once: a few of the longest sentences.
const WINDOW: usize = 2048;

/// Abbreviations whose full stop does not end a sentence.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "gen", "gov", "sen", "rep", "lt", "col", "capt", "sgt", "rev", "hon",
    "vs", "inc", "corp", "co", "ltd", "llc", "no", "vol", "fig", "eq", "approx", "dept", "est", "e.g", "i.e", "u.s", "u.k",
    "u.n", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "bzw", "z.b", "d.h", "ca", "nr",
    "str", "hr", "fr", "mme", "mlle",
];

/// Marks that end a quotation.
const CLOSING: &[char] = &['"', '\'', '”', '’', '“', '」', '』', '»'];

/// Words after a quotation that say that it was said, in scripts without capital letters.
const SAID: &[&str] = &["라고", "라며", "라는", "이라고", "이라며", "하고", "하며", "하면서", "と", "って"];

/// The first `limit` sentences of `text`, without surrounding white space.
pub(super) fn sentences(text: &str, limit: usize) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut open: Option<Span> = None;
    let mut quotations = quotations(text).spans.into_iter().peekable();
    let mut pieces = pieces(text).peekable();
    while let Some((start, piece)) = pieces.next() {
        let trimmed = piece.trim();
        if !trimmed.is_empty() {
            let start = start + (piece.len() - piece.trim_start().len());
            let span = Span { start: open.map_or(start, |span| span.start), end: start + trimmed.len() };
            open = Some(span);
        }
        let ends_paragraph = piece.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
        let Some(span) = open else { continue };
        // Without a space after it, a mark does not end a sentence, as in `page.html?id=1`. Scripts without spaces use other marks.
        let goes_on = piece.ends_with(['.', '!', '?', '"', '\'', ')', '”', '’']) && start + piece.len() < text.len();
        while quotations.next_if(|quotation| quotation.end <= span.end).is_some() {}
        // A quotation that is too long for one sentence is split like other text.
        let in_quotation = quotations
            .peek()
            .is_some_and(|quotation| (span.start..span.end).contains(&quotation.start) && quotation.end - span.start <= MOST);
        let next = pieces.peek().map_or("", |(_, next)| next.trim_start());
        let is_attributed = text[..span.end].ends_with(CLOSING)
            && (next.starts_with(char::is_lowercase) || SAID.iter().any(|said| next.starts_with(said)));
        // A piece longer than the limit is not joined any more. This also bounds how often a piece is read.
        let short = span.end - span.start < MOST;
        if short && !ends_paragraph && (goes_on || in_quotation || is_unfinished(&text[span.start..span.end]) || is_attributed) {
            continue;
        }
        open = None;
        close(text, span, &mut found);
        if found.len() >= limit {
            break;
        }
    }
    if let Some(span) = open {
        match found.last_mut() {
            Some(last) if weight(&text[span.start..span.end]) < LEAST && !text[last.end..span.start].contains(['\n', '\r']) => {
                last.end = span.end;
            }
            _ => close(text, span, &mut found),
        }
    }
    found.truncate(limit);
    found
}

/// The sentences by the Unicode rules, with the white space after them.
///
/// The rules look ahead for a letter at every full stop and every space after it, which takes hours on a megabyte of digits. So the
/// text is segmented one window at a time. The last piece of a window may be incomplete and is segmented again with the next
/// window.
fn pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    let mut found: VecDeque<(usize, &str)> = VecDeque::new();
    std::iter::from_fn(move || {
        if found.is_empty() && start < text.len() {
            let end = window_end(text, start);
            found.extend(text[start..end].split_sentence_bound_indices().map(|(at, piece)| (start + at, piece)));
            if found.len() > 1 && end < text.len() {
                found.pop_back();
            }
            start = found.back().map_or(text.len(), |(at, piece)| at + piece.len());
        }
        found.pop_front()
    })
}

/// The end of the window, after a space if there is one, so that no word is split.
fn window_end(text: &str, start: usize) -> usize {
    let end = text.floor_char_boundary(start + WINDOW);
    if end == text.len() {
        return end;
    }
    let space = text[start..end].char_indices().rfind(|(_, c)| c.is_whitespace());
    space.map_or(end, |(at, c)| start + at + c.len_utf8())
}

fn is_unfinished(piece: &str) -> bool {
    if weight(piece) < LEAST {
        return true;
    }
    let Some(body) = piece.strip_suffix('.') else { return false };
    let word = body.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or(body);
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Letters and digits; one of a script without spaces counts double.
pub(super) fn weight(piece: &str) -> usize {
    let of = |c: char| if is_wide(c) { 2 } else { usize::from(c.is_alphanumeric()) };
    piece.chars().map(of).sum()
}

fn close(text: &str, span: Span, found: &mut Vec<Span>) {
    let mut start = span.start;
    while span.end - start > MOST {
        let window = &text[start..text.floor_char_boundary(start + MOST)];
        let cut = window.rfind(char::is_whitespace).filter(|cut| *cut > 0).unwrap_or(window.len());
        found.push(Span { start, end: start + window[..cut].trim_end().len() });
        let rest = &text[start + cut..span.end];
        start += cut + (rest.len() - rest.trim_start().len());
    }
    if start < span.end {
        found.push(Span { start, end: span.end });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        sentences(text, usize::MAX).iter().map(|span| &text[span.start..span.end]).collect()
    }

    #[test]
    fn sentences_are_found_in_several_scripts() {
        assert_eq!(
            split("The mill turns. The water flows!  Does it stop?"),
            ["The mill turns.", "The water flows!", "Does it stop?"]
        );
        assert_eq!(
            split("물레방아가 돌아갑니다. 물이 흐릅니다. 멈추나요?"),
            ["물레방아가 돌아갑니다.", "물이 흐릅니다.", "멈추나요?"]
        );
        assert_eq!(split("水車が回ります。水が流れます。"), ["水車が回ります。", "水が流れます。"]);
        assert_eq!(split("चक्की चलती है। पानी बहता है।"), ["चक्की चलती है।", "पानी बहता है।"]);
    }

    #[test]
    fn abbreviations_and_scraps_end_no_sentence() {
        assert_eq!(
            split("Mr. Kim met Dr. J. Smith of Acme Inc. Today they signed."),
            ["Mr. Kim met Dr. J. Smith of Acme Inc. Today they signed."]
        );
        assert_eq!(split("It fell 3.5 percent. No. 4 was lost. Ok."), ["It fell 3.5 percent.", "No. 4 was lost. Ok."]);
        assert_eq!(split("Wait. What happened there? Nothing at all."), ["Wait. What happened there?", "Nothing at all."]);
    }

    #[test]
    fn a_stop_inside_an_address_ends_no_sentence() {
        let text = "See http://example.com/find.jhtml?ticker=SBC.N and more. Then go on!";
        assert_eq!(split(text), ["See http://example.com/find.jhtml?ticker=SBC.N and more.", "Then go on!"]);
    }

    #[test]
    fn quotations_stay_whole_with_their_speaker() {
        for (text, expected) in [
            (
                "‘Good evening, Hans. Where have you been?’ ‘With Gretel, mother.’ Hans went to bed.",
                &["‘Good evening, Hans. Where have you been?’", "‘With Gretel, mother.’", "Hans went to bed."][..],
            ),
            (
                "'Good evening, Hans. Where's Gretel?' asked the mother. 'To Gretel, mother.'",
                &["'Good evening, Hans. Where's Gretel?' asked the mother.", "'To Gretel, mother.'"],
            ),
            (
                "The hen said, \"No. We won't go! Never.\" Then all slept.",
                &["The hen said, \"No. We won't go! Never.\"", "Then all slept."],
            ),
            (
                "그는 “어서 가자. 늦었다!”라고 말했다. ‘정말 갈까?’ 하고 왕이 물었다. 모두 떠났다.",
                &["그는 “어서 가자. 늦었다!”라고 말했다.", "‘정말 갈까?’ 하고 왕이 물었다.", "모두 떠났다."],
            ),
            ("「行こう。もう遅い。」と彼は言った。水が流れます。", &["「行こう。もう遅い。」と彼は言った。", "水が流れます。"]),
            (
                "‘Blow, breezes, blow! The wind came. The hat flew away.",
                &["‘Blow, breezes, blow!", "The wind came.", "The hat flew away."],
            ),
        ] {
            assert_eq!(split(text), expected);
        }
        let speech = format!("‘{}’ said Hans. The end came.", "A word. ".repeat(MOST / 8));
        assert!(split(&speech).iter().all(|sentence| sentence.len() < 100), "a long speech is not split");
    }

    #[test]
    fn a_paragraph_ends_a_sentence_without_a_stop() {
        assert_eq!(
            split("Headline without a stop\n\nThe text begins.\r\nAnd ends."),
            ["Headline without a stop", "The text begins.", "And ends."]
        );
        assert_eq!(split("Dr.\nA new line is a new start."), ["Dr.", "A new line is a new start."]);
    }

    #[test]
    fn text_without_stops_is_cut_at_spaces() {
        let text = "word ".repeat(1000);
        let pieces = split(&text);
        assert!(pieces.len() >= 6 && pieces.iter().all(|piece| piece.len() <= MOST), "{} pieces", pieces.len());
        assert_eq!(pieces.join(" "), text.trim());
        assert_eq!(split(&"가".repeat(1000)).concat(), "가".repeat(1000));
    }

    #[test]
    fn a_megabyte_of_anything_is_split_in_time() {
        for part in ["Mr. ", "! ", "a.", ". 1", "1 ", ") a", ".\u{300}", "가.", "a.   ", "\u{200b}.", "“", "‘a.", "' a", "’ a. "]
        {
            for text in [part.repeat((1 << 20) / part.len()), format!("a.{}b", part.repeat((1 << 20) / part.len()))] {
                // With the whole text in one window, this takes hours.
                assert!(!sentences(&text, 256).is_empty(), "a megabyte of `{part}` has no sentence");
            }
        }
    }

    #[test]
    fn no_more_than_the_limit_are_found() {
        let text = "One sentence here. ".repeat(1000);
        assert_eq!(sentences(&text, 7).len(), 7);
    }

    proptest! {
        #[test]
        fn nothing_but_space_is_lost(text in "(\\PC|[.!?\\n\\r ]|Mr\\. |가|。|[“”‘’'\"「」]){0,300}") {
            let spans = sentences(&text, usize::MAX);
            let mut at = 0;
            for span in &spans {
                prop_assert!(span.start >= at && span.end > span.start, "spans overlap or are empty: {:?}", spans);
                prop_assert!(text[at..span.start].trim().is_empty(), "text between sentences is lost");
                at = span.end;
            }
            prop_assert!(text[at..].trim().is_empty(), "text at the end is lost");
        }
    }
}
