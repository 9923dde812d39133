//! What the selection must know about a sentence besides its vector.

use super::coherence::{Opening, opening};
use crate::outcome::Span;
use crate::task::quotations::quotations;
use crate::task::sentences::weight;

/// Punctuation marks that end a sentence, in several scripts. In a text without any, all lines are headings and have the same
/// penalty.
const STOPS: &[char] = &['.', '!', '?', '…', '。', '！', '？', '．', '｡', '।', '॥', '؟', '۔', '።', '։', ';', ':'];

/// A sentence, with what decides whether it is selected.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Traits {
    /// Letters and digits; one of a script without spaces counts double.
    pub letters: usize,
    /// The share that is quoted speech, from 0 to 1.
    pub quoted: f32,
    /// Neither a heading nor part of a quotation.
    pub complete: bool,
    /// Whether it can stand without the sentence before.
    pub opening: Opening,
}

/// The traits of the sentences of `text`.
pub(super) fn traits(text: &str, sentences: &[Span]) -> Vec<Traits> {
    let quotations = quotations(text);
    let mut traits = Vec::with_capacity(sentences.len());
    for span in sentences {
        let sentence = &text[span.start..span.end];
        let first = quotations.spans.partition_point(|quotation| quotation.end <= span.start);
        let touching = quotations.spans[first..].iter().take_while(|quotation| quotation.start < span.end);
        let (mut quoted, mut cut) = (0, false);
        for quotation in touching {
            quoted += quotation.end.min(span.end) - quotation.start.max(span.start);
            cut |= quotation.start < span.start || quotation.end > span.end;
        }
        let stray = quotations.strays.partition_point(|stray| *stray < span.start);
        cut |= quotations.strays.get(stray).is_some_and(|stray| *stray < span.end);
        traits.push(Traits {
            letters: weight(sentence),
            quoted: quoted as f32 / sentence.len() as f32,
            complete: !cut && !is_heading(sentence),
            opening: opening(sentence),
        });
    }
    traits
}

fn is_heading(sentence: &str) -> bool {
    !sentence.trim_end_matches(['"', '\'', '”', '’', '»', '«', ')', ']', '」', '』', '）']).ends_with(STOPS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::sentences::sentences;

    #[test]
    fn headings_quotations_and_cut_quotations_are_recognized() {
        let long = format!("“{}”", "He spoke on and on. ".repeat(60));
        for (text, expected) in [
            ("Chef's knife\nIt cuts (well).\n물이 흐릅니다.", &[(false, false), (true, false), (true, false)][..]),
            ("‘Come here. Now!’ Hans said: ‘Yes. I will.’ They went.", &[(true, true), (true, true), (true, false)]),
            ("‘To Gretel.’ What did you take her?’ Hans slept.", &[(true, true), (false, false), (true, false)]),
            (&long, &[(false, true), (false, true), (false, true)]),
        ] {
            let spans = sentences(text, 3);
            let found = traits(text, &spans);
            let found: Vec<_> = found.iter().map(|traits| (traits.complete, traits.quoted > 0.3)).collect();
            assert_eq!(found[..expected.len()], *expected, "{text}");
        }
    }
}
