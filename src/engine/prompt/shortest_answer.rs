//! Computes the shortest answer that a schema allows, to detect a too low token limit before anything runs.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Longer answers exceed any model's limit.
const MAX_BYTES: usize = 1 << 20;

/// The shortest answer as compact JSON. It satisfies the minimum of each keyword and ignores patterns and formats, so valid answers
/// are hardly shorter. None if the schema allows nothing, or only answers that are far too long.
pub(super) fn shortest_answer(schema: &Value) -> Option<String> {
    ShortestAnswer { root: schema, known: BTreeMap::new() }.of(schema)
}

struct ShortestAnswer<'a> {
    root: &'a Value,
    /// The shortest answers of references. None for a reference that is being resolved: its answer would never end.
    known: BTreeMap<&'a str, Option<String>>,
}

impl<'a> ShortestAnswer<'a> {
    fn of(&mut self, schema: &'a Value) -> Option<String> {
        let schema = match schema {
            Value::Bool(allowed) => return allowed.then(|| "0".to_owned()),
            schema => schema.as_object()?,
        };
        if let Some(value) = schema.get("const") {
            return Some(value.to_string());
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().map(Value::to_string).min_by_key(String::len);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            return self.referred(reference);
        }
        for choice in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(choice).and_then(Value::as_array) {
                return options.iter().filter_map(|option| self.of(option)).min_by_key(String::len);
            }
        }
        let whole = match schema.get("type") {
            Some(Value::Array(names)) => {
                names.iter().filter_map(|name| self.of_type(name.as_str()?, schema)).min_by_key(String::len)?
            }
            Some(name) => self.of_type(name.as_str()?, schema)?,
            None => "0".to_owned(),
        };
        let parts = schema.get("allOf").and_then(Value::as_array).into_iter().flatten();
        let parts: Option<Vec<String>> = parts.map(|part| self.of(part)).collect();
        parts?.into_iter().chain([whole]).max_by_key(String::len)
    }

    fn referred(&mut self, reference: &'a str) -> Option<String> {
        if let Some(known) = self.known.get(reference) {
            return known.clone();
        }
        self.known.insert(reference, None);
        let target = self.root.pointer(reference.strip_prefix('#')?)?;
        let shortest = self.of(target);
        self.known.insert(reference, shortest.clone());
        shortest
    }

    fn of_type(&mut self, name: &str, schema: &'a Map<String, Value>) -> Option<String> {
        let count = |key: &str| schema.get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
        match name {
            "null" => Some("null".into()),
            "boolean" => Some("true".into()),
            "integer" | "number" => Some(nearest_to_zero(schema)),
            "string" => {
                Some(count("minLength")).filter(|length| *length <= MAX_BYTES).map(|length| format!("\"{}\"", "a".repeat(length)))
            }
            "array" => {
                let first = schema.get("prefixItems").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let others = schema.get("items").unwrap_or(&Value::Bool(true));
                self.joined('[', (0..count("minItems")).map(|index| (None, first.get(index).unwrap_or(others))), ']')
            }
            "object" => {
                let named = schema.get("properties").and_then(Value::as_object);
                let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                let property = |name| named.and_then(|named| named.get(name)).unwrap_or(&Value::Bool(true));
                self.joined('{', required.map(|name| (Some(name), property(name))), '}')
            }
            _ => None,
        }
    }

    fn joined(&mut self, open: char, members: impl Iterator<Item = (Option<&'a str>, &'a Value)>, close: char) -> Option<String> {
        let mut text = String::from(open);
        for (index, (name, schema)) in members.enumerate() {
            if index > 0 {
                text.push(',');
            }
            if let Some(name) = name {
                text.push_str(&Value::from(name).to_string());
                text.push(':');
            }
            text.push_str(&self.of(schema)?);
            if text.len() > MAX_BYTES {
                return None;
            }
        }
        text.push(close);
        Some(text)
    }
}

/// The number with the fewest digits between the bounds.
fn nearest_to_zero(schema: &Map<String, Value>) -> String {
    let bound = |keys: [&str; 2]| keys.iter().find_map(|key| schema.get(*key)?.as_f64());
    let (low, high) = (bound(["minimum", "exclusiveMinimum"]), bound(["maximum", "exclusiveMaximum"]));
    match (low, high) {
        (Some(low), _) if low > 0.0 => format!("{:.0}", low.floor()),
        (_, Some(high)) if high < 0.0 => format!("{:.0}", high.ceil()),
        _ => "0".into(),
    }
}
