//! The schema that an answer is held to while it is written: the given one, narrowed to answers that are good to have.
//!
//! | given | while writing | because |
//! |---|---|---|
//! | white space anywhere | none outside strings | a model could write it forever |
//! | `\u0000` and the like in strings | `\n`, `\t` and so on only | no database takes the first |
//! | a number without an upper or a lower bound | ±9007199254740991, or ±10¹⁵ for fractions | digits end, and every reader keeps the value |
//! | an object that names its properties and does not speak of others | no others | the named ones were meant |
//!
//! Every answer under the narrowed schema is valid under the given one.

use serde_json::{Map, Value, json};

/// The largest integer that every reader of JSON keeps exactly.
const LARGEST_INTEGER: i64 = (1 << 53) - 1;

/// The bound of numbers with a fraction.
const LARGEST_NUMBER: i64 = 1_000_000_000_000_000;

/// The schema for the grammar.
pub(super) fn grammar_schema(schema: &Value) -> Value {
    let mut narrowed = schema.clone();
    // Where objects are put together from several schemas, one that allows nothing else would shut out the others' properties.
    let closes = !joins_objects(schema);
    narrow(&mut narrowed, closes);
    if let Some(object) = narrowed.as_object_mut() {
        let options = json!({
            "whitespace_flexible": false, "item_separator": ",", "key_separator": ":", "json_allowed_escapes": "nrbtf\\\"",
        });
        object.insert("x-guidance".into(), options);
    }
    narrowed
}

/// Keywords whose value is one schema, a list of schemas, or schemas by name.
const ONE: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
const LIST: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

fn parts(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = ONE.iter().filter_map(|key| schema.get(*key));
    let list = LIST.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    let named = NAMED.iter().filter_map(|key| schema.get(*key)?.as_object()).flat_map(|parts| parts.values());
    one.chain(list).chain(named)
}

fn joins_objects(schema: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return false };
    let joint = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| schema.contains_key(*key));
    (joint && schema.contains_key("properties")) || schema.contains_key("allOf") || parts(schema).any(joins_objects)
}

fn narrow(schema: &mut Value, closes: bool) {
    let Some(schema) = schema.as_object_mut() else { return };
    let is = |schema: &Map<String, Value>, name: &str| match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(|given| given == name),
        given => given.is_some_and(|given| given == name),
    };
    if is(schema, "number") {
        bound(schema, LARGEST_NUMBER);
    } else if is(schema, "integer") {
        bound(schema, LARGEST_INTEGER);
    }
    if closes && speaks_of_its_properties_only(schema) {
        schema.insert("additionalProperties".into(), false.into());
    }
    for key in ONE {
        schema.get_mut(key).into_iter().for_each(|part| narrow(part, closes));
    }
    for key in LIST {
        schema.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(|part| narrow(part, closes));
    }
    for key in NAMED {
        let parts = schema.get_mut(key).and_then(Value::as_object_mut).into_iter();
        parts.flat_map(Map::values_mut).for_each(|part| narrow(part, closes));
    }
}

/// Gives a number the bounds it lacks, as far as they leave any number.
fn bound(schema: &mut Map<String, Value>, largest: i64) {
    let limit = |keys: [&str; 2], schema: &Map<String, Value>| keys.iter().filter_map(|key| schema.get(*key)?.as_f64()).next();
    let (low, high) = (limit(["minimum", "exclusiveMinimum"], schema), limit(["maximum", "exclusiveMaximum"], schema));
    if low.is_none() && high.is_none_or(|high| high > -largest as f64) {
        schema.insert("minimum".into(), (-largest).into());
    }
    if high.is_none() && low.is_none_or(|low| low < largest as f64) {
        schema.insert("maximum".into(), largest.into());
    }
}

fn speaks_of_its_properties_only(schema: &Map<String, Value>) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|named| !named.is_empty()) else {
        return false;
    };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let others = ["additionalProperties", "patternProperties", "minProperties"];
    !others.iter().any(|key| schema.contains_key(*key))
        && required.filter_map(Value::as_str).all(|name| properties.contains_key(name))
}
