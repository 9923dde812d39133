//! Splits templates into blocks and words.

/// The contents of `{{ }}` and `{% %}`, without comments and raw text.
pub(super) fn blocks(source: &str) -> impl Iterator<Item = &str> {
    let mut rest = source;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('{')?;
            rest = &rest[start + 1..];
            let close = match rest.chars().next()? {
                '{' => "}}",
                '%' => "%}",
                '#' => {
                    rest = rest.find("#}").map_or("", |end| &rest[end + 2..]);
                    continue;
                }
                _ => continue,
            };
            let inside = &rest[1..];
            let end = end_of(inside, close);
            let block = &inside[..end];
            rest = inside.get(end + 2..).unwrap_or("");
            if block.trim_matches(['-', '+', ' ']) == "raw" {
                rest = rest.find("endraw").map_or("", |end| &rest[end..]);
                continue;
            }
            return Some(block);
        }
    })
}

/// The offset of `close` outside of quotes.
fn end_of(source: &str, close: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in source.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if letter == '\\' => escaped = true,
            Some(open) if letter == open => quote = None,
            Some(_) => {}
            None if letter == '"' || letter == '\'' => quote = Some(letter),
            None if source[at..].starts_with(close) => return at,
            None => {}
        }
    }
    source.len()
}

/// Identifiers and single characters. Quoted text is one word.
pub(super) fn words_of(source: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = source.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => 1 + end_of_quote(&rest[1..], first),
            _ if is_letter(first) => rest.find(|c| !is_letter(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

fn end_of_quote(source: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in source.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return at + letter.len_utf8(),
            _ => {}
        }
    }
    source.len()
}

fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(super) fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
