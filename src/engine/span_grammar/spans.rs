//! Writes spans as regular expressions of Lark.

use serde_json::Value;

use super::PASSAGE_END;

/// The chunk between words.
pub(super) const SPACE: &str = " ";

/// The most chunks of a span of limited length: more would nest too deep.
const MOST_CHUNKS: usize = 200;

/// The inside of the JSON string of `text`.
pub(super) fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The passages of the text. None begins or ends with a space, so that a span that has reached a space can always go on.
pub(super) fn passages<'a>(chunks: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let trimmed = |mut passage: &'a [&'a str]| {
        while let [rest @ .., SPACE] = passage {
            passage = rest;
        }
        while let [SPACE, rest @ ..] = passage {
            passage = rest;
        }
        passage
    };
    chunks.split(|chunk| *chunk == PASSAGE_END).map(trimmed).filter(|passage| !passage.is_empty()).collect()
}

pub(super) fn length(chunks: &[&str]) -> u64 {
    chunks.iter().map(|chunk| chunk.chars().count() as u64).sum()
}

/// A regular expression for every span that starts where `chunks` start and has at most `most` characters. Each further chunk is optional, with the
/// space before it, so that a span can end after any chunk. `None` if the first chunk is too long.
pub(super) fn spans_from(chunks: &[&str], most: u64) -> Option<String> {
    let (mut expression, mut length, mut steps, mut space) = (String::new(), 0, 0, "");
    for chunk in chunks {
        length += chunk.chars().count() as u64;
        if length > most || steps == MOST_CHUNKS {
            break;
        }
        if *chunk == SPACE {
            space = SPACE;
            continue;
        }
        if steps > 0 {
            expression.push('(');
        }
        expression.push_str(&pattern(&format!("{space}{}", escaped(chunk))));
        space = "";
        steps += 1;
    }
    expression.push_str(&")?".repeat(usize::max(steps, 1) - 1));
    (steps > 0).then_some(expression)
}

/// A regular expression of Lark for this text.
fn pattern(text: &str) -> String {
    regex::escape(text).replace('/', "\\/")
}
