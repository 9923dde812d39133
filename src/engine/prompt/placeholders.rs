//! Prevents the content of messages from becoming control tokens.
//!
//! A template may cut, join and rewrite contents, so a search for control tokens in the contents proves nothing about the prompt.
//! Instead, the characters that control tokens consist of are replaced in the contents by placeholders: characters that Unicode
//! reserves for internal use and that occur in none of the contents. Any control token in the rendered prompt was then written by
//! the template. Afterwards the placeholders are replaced by the original characters, as plain text. (A template could still make a
//! control token by writing the brackets of a token around a message's content; no known template does.)

use std::collections::BTreeSet;

use super::added_tokens::FoundToken;

/// The noncharacters, and then a plane of private use characters for texts that contain all of the former.
fn candidates() -> impl Iterator<Item = char> {
    ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}')
}

/// Pairs of an original character and its placeholder.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    pairs: Vec<(char, char)>,
}

impl Placeholders {
    /// Chooses a placeholder for each of `characters` that occurs in `contents`; none if the contents use up all candidates.
    pub(super) fn choose<'a>(characters: &BTreeSet<char>, contents: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (mut needed, mut taken) = (BTreeSet::new(), BTreeSet::new());
        for c in contents.flat_map(str::chars) {
            if characters.contains(&c) {
                needed.insert(c);
            } else if c >= '\u{fdd0}' {
                taken.insert(c);
            }
        }
        let mut free = candidates().filter(|c| !taken.contains(c));
        let pairs = needed.into_iter().map(|c| Some((c, free.next()?))).collect::<Option<_>>()?;
        Some(Self { pairs })
    }

    /// The content with placeholders.
    pub(super) fn insert(&self, content: &str) -> String {
        let stand_in = |c: char| self.pairs.iter().find(|pair| pair.0 == c).map_or(c, |pair| pair.1);
        content.chars().map(stand_in).collect()
    }

    /// The text with its original characters, and the tokens at their new places.
    pub(super) fn restore(&self, text: &str, found: Vec<FoundToken>) -> (String, Vec<FoundToken>) {
        if self.pairs.is_empty() {
            return (text.to_owned(), found);
        }
        let original = |c: char| self.pairs.iter().find(|pair| pair.1 == c).map_or(c, |pair| pair.0);
        let mut output = String::with_capacity(text.len());
        let mut moved = Vec::with_capacity(found.len());
        let mut read = 0;
        for FoundToken { id, range } in found {
            output.extend(text[read..range.start].chars().map(original));
            let start = output.len();
            output.extend(text[range.start..range.end].chars().map(original));
            moved.push(FoundToken { id, range: start..output.len() });
            read = range.end;
        }
        output.extend(text[read..].chars().map(original));
        (output, moved)
    }
}
