//! The added tokens of a tokenizer: control tokens for turns, roles and tools.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;

/// One entry of `added_tokens` in `tokenizer.json`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: u32,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
}

impl AddedToken {
    /// Whether it is a control token. Some trainers also add tokens for white space, which are not.
    fn controls(&self) -> bool {
        self.special || !self.content.trim().is_empty()
    }

    /// Whether `single_word` lets it match between `before` and `after`.
    fn fits(&self, before: &str, after: &str) -> bool {
        let in_word = |c: char| c.is_alphanumeric() || c == '_';
        !self.single_word || !(before.ends_with(in_word) || after.starts_with(in_word))
    }
}

/// All added tokens of a model.
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// The tokens by their first byte, the longest first.
    by_start: BTreeMap<u8, Vec<usize>>,
}

/// An added token in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundToken {
    pub(super) id: u32,
    pub(super) range: Range<usize>,
}

impl AddedTokens {
    pub(super) fn new(tokens: Vec<AddedToken>) -> Self {
        let mut by_start: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (index, token) in tokens.iter().enumerate() {
            if let Some(first) = token.content.bytes().next() {
                by_start.entry(first).or_default().push(index);
            }
        }
        for indices in by_start.values_mut() {
            indices.sort_by_key(|index| std::cmp::Reverse(tokens[*index].content.len()));
        }
        Self { tokens, by_start }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &AddedToken> {
        self.tokens.iter()
    }

    /// A set of characters such that every control token contains at least one: the token's brackets; otherwise its characters that
    /// are not alphanumeric; otherwise all its characters.
    pub(super) fn control_characters(&self) -> BTreeSet<char> {
        let bracket = |c: &char| "<>|[]{}".contains(*c);
        let mark = |c: &char| !c.is_alphanumeric() && !c.is_whitespace();
        let mut characters = BTreeSet::new();
        for token in self.tokens.iter().filter(|token| token.controls()) {
            let content = || token.content.chars();
            if content().any(|c| bracket(&c)) {
                characters.extend(content().filter(bracket));
            } else if content().any(|c| mark(&c)) {
                characters.extend(content().filter(mark));
            } else {
                // A template may change the case of a message.
                characters.extend(content().flat_map(|c| c.to_lowercase().chain(c.to_uppercase()).chain([c])));
            }
        }
        characters
    }

    /// The tokens in `text`, found as the tokenizers library finds them: first those that match the raw text, then the others in
    /// the rest.
    pub(super) fn find(&self, text: &str) -> Vec<FoundToken> {
        let mut raw = Vec::new();
        self.find_kind(text, 0..text.len(), false, &mut raw);
        let mut found = Vec::with_capacity(raw.len());
        let mut start = 0;
        for token in raw {
            self.find_kind(text, start..token.range.start, true, &mut found);
            start = token.range.end;
            found.push(token);
        }
        self.find_kind(text, start..text.len(), true, &mut found);
        found
    }

    fn find_kind(&self, text: &str, within: Range<usize>, normalized: bool, found: &mut Vec<FoundToken>) {
        let piece = &text[within.clone()];
        let (mut at, mut free) = (0, 0);
        while let Some(first) = piece.as_bytes().get(at) {
            let candidates = self.by_start.get(first).into_iter().flatten().map(|index| &self.tokens[*index]);
            let longest = candidates
                .filter(|token| token.normalized == normalized)
                .find(|token| piece.as_bytes()[at..].starts_with(token.content.as_bytes()));
            let Some(token) = longest else {
                at += 1;
                continue;
            };
            let (mut start, mut end) = (at, at + token.content.len());
            at = end;
            if !token.fits(&piece[..start], &piece[end..]) {
                continue;
            }
            if token.lstrip {
                start = piece[..start].trim_end().len().max(free);
            }
            if token.rstrip {
                end += piece[end..].len() - piece[end..].trim_start().len();
            }
            free = end;
            at = at.max(end);
            found.push(FoundToken { id: token.id, range: within.start + start..within.start + end });
        }
    }
}
