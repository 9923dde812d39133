//! Finds the byte range of each value in a JSON text, by JSON Pointer.

use std::ops::Range;

/// The byte range of each value in `json` that is neither a list nor an object, with its JSON Pointer, in text order. The range of
/// a string includes its quotes. `json` must be valid; for other text the result is incomplete.
pub(super) fn value_spans(json: &str) -> Vec<(String, Range<usize>)> {
    let mut scanner = Scanner { json, at: 0, found: Vec::new() };
    // A text that ends too early just has fewer values.
    let _ = scanner.value(&mut String::new(), 0);
    scanner.found
}

/// A key as a step of a JSON Pointer.
pub(super) fn escaped_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The key of a step of a JSON Pointer.
pub(super) fn unescaped_key(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// More levels than the JSON parser accepts.
const MOST_DEPTH: usize = 256;

struct Scanner<'a> {
    json: &'a str,
    at: usize,
    found: Vec<(String, Range<usize>)>,
}

impl Scanner<'_> {
    fn value(&mut self, path: &mut String, depth: usize) -> Option<()> {
        if depth > MOST_DEPTH {
            return None;
        }
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'{' | b'[' => return self.container(first == b'{', path, depth),
            b'"' => self.string()?,
            _ => {
                self.at += self.json[self.at..].find([',', '}', ']', ' ', '\t', '\n', '\r']).unwrap_or(self.json.len() - self.at)
            }
        }
        self.found.push((path.clone(), start..self.at));
        Some(())
    }

    fn container(&mut self, named: bool, path: &mut String, depth: usize) -> Option<()> {
        self.at += 1;
        let length = path.len();
        let mut index = 0usize;
        loop {
            match self.peek()? {
                b'}' | b']' => {
                    self.at += 1;
                    return Some(());
                }
                b',' => {
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            path.push('/');
            if named {
                let start = self.at;
                self.string()?;
                let key: String = serde_json::from_str(&self.json[start..self.at]).ok()?;
                path.push_str(&escaped_key(&key));
                if self.peek()? != b':' {
                    return None;
                }
                self.at += 1;
            } else {
                path.push_str(&index.to_string());
                index += 1;
            }
            let before = self.at;
            self.value(path, depth + 1)?;
            path.truncate(length);
            if self.at == before {
                return None;
            }
        }
    }

    /// Moves past the string that begins here.
    fn string(&mut self) -> Option<()> {
        let bytes = self.json.as_bytes();
        if bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        loop {
            match bytes.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    /// The next byte that is not white space, without moving past it.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.json.as_bytes();
        while bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn each_value_is_found_under_its_pointer() {
        let text = r#"{"a":"x\"}","b": {"c/d":[1, -2.5e3,null],"~":{}},"은":true ,"e":[]}"#;
        let found: Vec<(String, &str)> = value_spans(text).into_iter().map(|(path, place)| (path, &text[place])).collect();
        let expected = [("/a", r#""x\"}""#), ("/b/c~1d/0", "1"), ("/b/c~1d/1", "-2.5e3"), ("/b/c~1d/2", "null"), ("/은", "true")];
        assert_eq!(found, expected.map(|(path, value)| (path.to_owned(), value)));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<f32>().prop_filter("JSON has no such number", |x| x.is_finite()).prop_map(|x| json!(x)),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_stands_at_each_place_is_the_value_under_its_pointer(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let parsed: Value = serde_json::from_str(&text).unwrap();
            for (path, place) in value_spans(&text) {
                let found: Value = serde_json::from_str(&text[place]).unwrap();
                prop_assert_eq!(Some(&found), parsed.pointer(&path));
            }
        }

        #[test]
        fn what_is_no_json_neither_hangs_nor_panics(text in r#"[\[\]{}",:\\ a1é]{0,40}"#) {
            value_spans(&text);
        }
    }
}
