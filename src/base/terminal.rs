//! Text that is safe to print on a terminal. Ids and texts come from outside, and terminals act on control characters: one moves
//! the cursor, another renames the window, a third changes the direction of writing.

use std::borrow::Cow;

/// The text with each character that a terminal acts on written as `\u001b`; line breaks and tabs stay. JSON has the same
/// escapes, so a line of JSON keeps its meaning.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let written = |c: char| if is_control(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(written).collect())
}

/// The same for an id, a name or another text that must stay on one line: line breaks and tabs are escaped as well.
pub fn escaped_line(text: &str) -> String {
    escaped(text).replace('\n', "\\u000a").replace('\t', "\\u0009")
}

fn is_control(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}');
    turns || c.is_control() && c != '\n' && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(escaped("x\u{1b}]0;pwned\u{7}\u{1b}[2J\r"), "x\\u001b]0;pwned\\u0007\\u001b[2J\\u000d");
        assert_eq!(escaped("a\u{9b}2J \u{202e}txt.exe"), "a\\u009b2J \\u202etxt.exe");
        assert!(matches!(escaped("one\ttwo\n세 줄, émoji 👩‍🔬"), Cow::Borrowed(_)), "all else stays, and nothing is copied");
    }

    #[test]
    fn an_id_makes_no_line_of_its_own() {
        assert_eq!(escaped_line("f\n  2. TRUSTED-1\t\u{2028}"), "f\\u000a  2. TRUSTED-1\\u0009\\u2028");
    }

    #[test]
    fn a_line_of_json_says_the_same_as_before() {
        let object = serde_json::json!({ "id": "a\u{9b}\u{202e}\u{7f}" });
        let read: serde_json::Value = serde_json::from_str(&escaped(&object.to_string())).unwrap();
        assert_eq!(read, object);
    }
}
