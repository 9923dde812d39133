//! The text of a completion as it grows.

use crate::engine::request::GeneratedToken;

/// Bytes and tokens written so far.
#[derive(Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    tokens: Vec<GeneratedToken>,
}

impl Text {
    /// Adds a token.
    pub(super) fn push(&mut self, piece: &[u8], log_probability: Option<f32>) {
        self.bytes.extend_from_slice(piece);
        self.tokens.push(GeneratedToken { end: self.bytes.len(), log_probability });
    }

    /// Cuts the text before the first of `stops` that the last token has completed, and says whether there is one.
    pub(super) fn stopped(&mut self, stops: &[Box<[u8]>]) -> bool {
        let before = self.tokens.iter().rev().nth(1).map_or(0, |token| token.end);
        let first = stops.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| {
            // What ended before the last token would have been found then.
            let from = (before + 1).saturating_sub(stop.len());
            self.bytes[from..].windows(stop.len()).position(|window| window == &**stop).map(|at| from + at)
        });
        let Some(cut) = first.min() else { return false };
        self.bytes.truncate(cut);
        let whole = self.tokens.partition_point(|token| token.end < cut);
        // The token that the cut goes through stays, with what is left of it.
        let kept = if whole < self.tokens.len() && cut > whole.checked_sub(1).map_or(0, |i| self.tokens[i].end) {
            self.tokens[whole].end = cut;
            whole + 1
        } else {
            whole
        };
        self.tokens.truncate(kept);
        true
    }

    /// The text, and the tokens with their places in it. A character that is cut off at the end is left out; what else is no UTF-8
    /// becomes the replacement character.
    pub(super) fn finish(self) -> (String, Vec<GeneratedToken>) {
        let Self { bytes, mut tokens } = self;
        let mut text = String::with_capacity(bytes.len());
        let mut read = 0;
        let mut token = tokens.iter_mut().peekable();
        for chunk in bytes.utf8_chunks() {
            let (valid, invalid) = (chunk.valid().len(), chunk.invalid().len());
            while let Some(next) = token.next_if(|token| token.end <= read + valid) {
                next.end = text.len() + chunk.valid().floor_char_boundary(next.end - read);
            }
            text.push_str(chunk.valid());
            read += valid + invalid;
            let cut_off = read == bytes.len() && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none());
            if invalid > 0 && !cut_off {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            while let Some(next) = token.next_if(|token| token.end <= read) {
                next.end = text.len();
            }
        }
        (text, tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&[u8]], stops: &[&str]) -> (String, Vec<usize>, bool) {
        let stops: Vec<Box<[u8]>> = stops.iter().map(|stop| stop.as_bytes().into()).collect();
        let mut text = Text::default();
        let stopped = pieces.iter().any(|piece| {
            text.push(piece, None);
            text.stopped(&stops)
        });
        let (text, tokens) = text.finish();
        (text, tokens.iter().map(|token| token.end).collect(), stopped)
    }

    #[test]
    fn a_stop_text_may_span_tokens_and_is_no_part_of_the_text() {
        assert_eq!(written(&[b"one ", b"E", b"N", b"D x"], &["END"]), ("one ".into(), vec![4], true));
        assert_eq!(written(&[b"one E", b"ND"], &["END"]), ("one ".into(), vec![4], true));
        assert_eq!(written(&[b"EN", b"E", b"ND"], &["END"]), ("EN".into(), vec![2], true));
        assert_eq!(written(&[b"END"], &["END"]), (String::new(), vec![], true));
        assert_eq!(written(&[b"a\n\nb"], &["\n\n", "a"]), (String::new(), vec![], true), "the one that starts first");
        assert_eq!(written(&[b"EN", b"d"], &["END", ""]), ("ENd".into(), vec![2, 3], false));
    }

    #[test]
    fn characters_may_span_tokens_and_half_ones_are_never_given() {
        let euro = "€".as_bytes();
        assert_eq!(written(&[b"a", &euro[..1], &euro[1..], b"b"], &[]), ("a€b".into(), vec![1, 1, 4, 5], false));
        assert_eq!(written(&[b"a", &euro[..2]], &[]), ("a".into(), vec![1, 1], false));
        assert_eq!(written(&[b"a\xff", b"b"], &[]), ("a\u{fffd}b".into(), vec![4, 5], false));
        assert_eq!(written(&[b"", b"ok", b""], &[]), ("ok".into(), vec![0, 2, 2], false));
        assert_eq!(written(&[], &[]), (String::new(), vec![], false));
    }
}
