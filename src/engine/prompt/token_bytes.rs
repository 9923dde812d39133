//! The bytes of each token, and text that is assembled from them.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::added_tokens::AddedTokens;

/// How the vocabulary spells bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteEncoding {
    /// One character of GPT-2's alphabet for each byte.
    ByteLevel,
    /// As text, with `▁` for a space, and `<0x0A>` for a byte that is not a character of the vocabulary.
    SentencePiece,
}

/// The bytes of every token.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    /// The end of each token in `bytes`.
    ends: Vec<usize>,
}

impl TokenBytes {
    /// `vocabulary` does not contain the added tokens.
    pub(super) fn new(vocabulary: &BTreeMap<String, u32>, added: &AddedTokens, spelling: ByteEncoding) -> Self {
        let ids = vocabulary.values().copied().chain(added.iter().map(|token| token.id));
        let mut pieces: Vec<Vec<u8>> = vec![Vec::new(); ids.max().map_or(0, |id| id as usize + 1)];
        for (token, id) in vocabulary {
            pieces[*id as usize] = spelled(token, spelling);
        }
        for token in added.iter() {
            pieces[token.id as usize] = if token.special { Vec::new() } else { token.content.clone().into_bytes() };
        }
        let ends = pieces
            .iter()
            .scan(0, |end, piece| {
                *end += piece.len();
                Some(*end)
            })
            .collect();
        Self { bytes: pieces.concat(), ends }
    }

    /// The bytes of a token; empty for control tokens and for unused ids.
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let Some(end) = self.ends.get(id as usize) else { return &[] };
        let start = (id as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }

    /// The largest id plus one.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn spelled(token: &str, spelling: ByteEncoding) -> Vec<u8> {
    match spelling {
        // A token with a character outside the alphabet was added by hand and stands for its own text.
        ByteEncoding::ByteLevel => {
            token.chars().map(|c| ALPHABET.get(&c).copied()).collect::<Option<_>>().unwrap_or_else(|| token.as_bytes().to_vec())
        }
        ByteEncoding::SentencePiece => {
            let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            }
        }
    }
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others are the characters from U+0100 on.
static ALPHABET: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(|byte| !prints(byte)).zip('\u{100}'..).map(|(byte, c)| (c, byte));
    (0..=u8::MAX).filter(prints).map(|byte| (char::from(byte), byte)).chain(others).collect()
});

/// Decodes tokens to text incrementally, and never returns an incomplete character.
#[derive(Debug, Clone, Default)]
pub(crate) struct IncrementalText {
    text: String,
    /// Bytes of an incomplete character.
    pending: Vec<u8>,
    /// Whether the tokenizer's decoder removes a space at the very start.
    drop_space: bool,
}

impl IncrementalText {
    pub(super) fn new(drop_space: bool) -> Self {
        Self { drop_space, ..Self::default() }
    }

    /// Adds the bytes of one token. Invalid bytes become U+FFFD.
    pub(crate) fn push(&mut self, mut piece: &[u8]) {
        if self.drop_space && !piece.is_empty() {
            self.drop_space = false;
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
        }
        self.pending.extend_from_slice(piece);
        let mut whole = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text.push_str(chunk.valid());
            whole += chunk.valid().len();
            let last = chunks.peek().is_none();
            if last && may_continue(chunk.invalid()) {
                break;
            }
            if !chunk.invalid().is_empty() {
                self.text.push(char::REPLACEMENT_CHARACTER);
                whole += chunk.invalid().len();
            }
        }
        self.pending.drain(..whole);
    }

    /// The text up to the last complete character.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The text, without an incomplete character at the end.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// Whether these bytes are the start of a character.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|e| e.error_len().is_none())
}
