//! Answers as they are stored: objects, and texts without characters that Postgres refuses.

use serde_json::{Map, Value};

use crate::failure::{Failure, FailureClass, Poison};

/// The object of a validated answer. Refuses characters that cannot be stored.
pub(super) fn object(value: Value) -> Result<Map<String, Value>, Failure> {
    if let Some(path) = nul_in(&value, &mut String::new()) {
        return Err(Failure::poison(FailureClass::NulCharacter, format!("the answer contains U+0000 at `{path}`")));
    }
    match value {
        Value::Object(fields) => Ok(fields),
        _ => Err(Failure::poison(FailureClass::Schema, "the answer is not an object")),
    }
}

/// Refuses a text that Postgres cannot store.
pub(super) fn refuse_nul(what: &str, text: &str) -> Result<(), Poison> {
    match text.find('\0') {
        Some(at) => Err(Poison {
            class: FailureClass::NulCharacter,
            reason: format!("{what} that the model wrote contains U+0000 at byte {at}"),
        }),
        None => Ok(()),
    }
}

fn nul_in(value: &Value, path: &mut String) -> Option<String> {
    let length = path.len();
    let inside = |path: &mut String, step: &str, inner: &Value| {
        path.push('/');
        path.push_str(&step.replace('\0', "\u{fffd}"));
        let found = if step.contains('\0') { Some(path.clone()) } else { nul_in(inner, path) };
        path.truncate(length);
        found
    };
    match value {
        Value::String(text) => text.contains('\0').then(|| path.clone()),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| inside(path, &index.to_string(), item)),
        Value::Object(fields) => fields.iter().find_map(|(name, inner)| inside(path, name, inner)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}
