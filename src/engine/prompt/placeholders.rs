//! Keeps what messages say from becoming what controls the model.
//!
//! A template is free to cut, join and rewrite contents, so looking for control tokens in a content beforehand proves nothing about the
//! prompt. Instead the characters that every control token needs are replaced in contents by stand-ins: characters that Unicode reserves
//! for such use and that occur in none of the contents. The tokens found in the rendered prompt are then the template's own; afterwards
//! the stand-ins become what they stood for, as plain text. (Only a template that itself writes both brackets of a token around what a
//! message says could still make one; none does.)

use std::collections::BTreeSet;

use super::added_tokens::FoundToken;

/// The noncharacters, then a plane of private use for texts that hold all of them.
fn candidates() -> impl Iterator<Item = char> {
    ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}')
}

/// Which character stands for which.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    pairs: Vec<(char, char)>,
}

impl Placeholders {
    /// Finds a stand-in for every one of `characters` that occurs in `contents`; none if the contents hold all the candidates.
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

    /// The content with stand-ins.
    pub(super) fn insert(&self, content: &str) -> String {
        let stand_in = |c: char| self.pairs.iter().find(|pair| pair.0 == c).map_or(c, |pair| pair.1);
        content.chars().map(stand_in).collect()
    }

    /// The text as it was meant, and where the tokens found in it are then.
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
