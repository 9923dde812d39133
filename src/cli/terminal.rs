//! What a terminal is shown. Ids and texts come from outside, and a terminal obeys control characters: one moves the cursor, another names
//! the window, a third turns the direction of writing.

use std::borrow::Cow;
use std::fmt;

/// Prints a line to stdout, as [`visible`].
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::terminal::line(format_args!($($argument)*)) };
}
pub(crate) use say;

/// Prints a line to stdout.
pub fn line(text: fmt::Arguments<'_>) {
    println!("{}", visible(&text.to_string()));
}

/// The text with every character that a terminal would obey spelt out; line breaks and tabs stay. The spelling is that of JSON, so that
/// a line of JSON stays what it was.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let spelt = |c: char| if is_obeyed(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(spelt).collect())
}

/// The same of an id or another name, which stands on one line: its line breaks and tabs are spelt out, too.
pub fn name(text: &str) -> String {
    visible(text).replace('\n', "\\u000a").replace('\t', "\\u0009")
}

fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}');
    turns || c.is_control() && c != '\n' && c != '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(visible("x\u{1b}]0;pwned\u{7}\u{1b}[2J\r"), "x\\u001b]0;pwned\\u0007\\u001b[2J\\u000d");
        assert_eq!(visible("a\u{9b}2J \u{202e}txt.exe"), "a\\u009b2J \\u202etxt.exe");
        assert!(matches!(visible("one\ttwo\n세 줄, émoji 👩‍🔬"), Cow::Borrowed(_)), "all else stays, and nothing is copied");
    }

    #[test]
    fn an_id_makes_no_line_of_its_own() {
        assert_eq!(name("f\n  2. TRUSTED-1\t\u{2028}"), "f\\u000a  2. TRUSTED-1\\u0009\\u2028");
    }

    #[test]
    fn a_line_of_json_says_the_same_as_before() {
        let object = serde_json::json!({ "id": "a\u{9b}\u{202e}\u{7f}" });
        let read: serde_json::Value = serde_json::from_str(&visible(&object.to_string())).unwrap();
        assert_eq!(read, object);
    }
}
