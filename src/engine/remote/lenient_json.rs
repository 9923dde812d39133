//! Parses response bodies that are almost JSON.

use serde_json::Value;

/// The parsed body, and whether it had to be repaired: some servers write numbers that JSON does not have, such as `-Infinity`.
/// They become null.
pub(super) fn parse(body: &[u8]) -> Option<(Value, bool)> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Some((value, false));
    }
    let text = std::str::from_utf8(body).ok()?;
    let mut repaired = String::with_capacity(text.len());
    let (mut in_string, mut at) = (false, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let number = ["-Infinity", "Infinity", "NaN"].into_iter().find(|number| !in_string && rest.starts_with(number));
        let taken = match (c, number) {
            (_, Some(number)) => {
                repaired.push_str("null");
                at += number.len();
                continue;
            }
            // An escaped quote does not end the string.
            ('\\', None) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        in_string ^= c == '"';
        repaired.push_str(&rest[..taken]);
        at += taken;
    }
    Some((serde_json::from_str(&repaired).ok()?, true))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_no_json_are_absent_and_words_stay() {
        let text = r#"{"a \\": [-Infinity, Infinity, NaN, -1], "b": "NaN \" -Infinity \u00e9 ☕"}"#;
        let expected = json!({"a \\": [null, null, null, -1], "b": "NaN \" -Infinity é ☕"});
        assert_eq!(parse(text.as_bytes()), Some((expected, true)));
        assert_eq!(parse(b"[1]"), Some((json!([1]), false)));
        for text in ["<html>", "{\"a\": Infinit}", "\"\\", "\"NaN"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
