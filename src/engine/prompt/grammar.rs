//! The schema that an answer is held to while it is written: the given one, narrowed to answers that are good to have.
//!
//! | given | while writing | because |
//! |---|---|---|
//! | white space anywhere | none outside strings | a model could write it forever |
//! | `\u0000` and the like in strings | `\n`, `\t` and so on only | no database takes the first |
//! | a number without an upper or a lower bound | ±9007199254740991, or ±10¹⁵ for fractions | digits end, and every reader keeps the value |
//! | an object that names its properties and does not speak of others | no others | the named ones were meant |
//! | anything at all | any value, its numbers bounded as above | the same |
//!
//! Every answer under the narrowed schema is valid under the given one. The last two lines do not hold where a schema puts objects or
//! lists together from several schemas: closing one would shut out the properties of the others.

use serde_json::{Map, Value, json};

/// The largest integer that every reader of JSON keeps exactly.
const LARGEST_INTEGER: i64 = (1 << 53) - 1;

/// The bound of numbers with a fraction.
const LARGEST_NUMBER: i64 = 1_000_000_000_000_000;

/// The name of the schema of any value, among the definitions.
const ANY: &str = "any-bounded-value";

/// The schema for the grammar.
pub(super) fn grammar_schema(schema: &Value) -> Value {
    let mut narrowed = schema.clone();
    narrow(&mut narrowed, !joins(schema));
    if let Some(object) = narrowed.as_object_mut() {
        if let Some(definitions) = object.entry("$defs").or_insert_with(|| json!({})).as_object_mut() {
            definitions.insert(ANY.into(), any_value());
        }
        let options = json!({
            "whitespace_flexible": false, "item_separator": ",", "key_separator": ":", "json_allowed_escapes": "nrbtf\\\"",
        });
        object.insert("x-guidance".into(), options);
    }
    narrowed
}

fn any() -> Value {
    json!({ "$ref": format!("#/$defs/{ANY}") })
}

fn any_value() -> Value {
    json!({ "anyOf": [
        {"type": "null"}, {"type": "boolean"}, {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER},
        {"type": "string"}, {"type": "array", "items": any()}, {"type": "object", "additionalProperties": any()},
    ]})
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

/// Whether objects or lists are put together from several schemas anywhere in `schema`.
fn joins(schema: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return false };
    let has = |keys: &[&str]| keys.iter().any(|key| schema.contains_key(*key));
    let simple = |part: &Value| {
        part.as_object().is_some_and(|part| part.contains_key("type") && !is(part, "object") && !is(part, "array"))
    };
    let nested =
        is(schema, "object") || is(schema, "array") || has(&["properties", "items", "prefixItems", "additionalProperties"]);
    let joined = schema.get("allOf").and_then(Value::as_array).is_some_and(|parts| !parts.iter().all(simple));
    joined || (nested && has(&["allOf", "anyOf", "oneOf", "$ref"])) || parts(schema).any(joins)
}

/// Whether the schema names this type, alone or among others.
fn is(schema: &Map<String, Value>, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::Array(names)) => names.iter().any(|given| given == name),
        given => given.is_some_and(|given| given == name),
    }
}

fn narrow(schema: &mut Value, closes: bool) {
    if closes && (*schema == true || schema.as_object().is_some_and(Map::is_empty)) {
        *schema = any();
    }
    let Some(schema) = schema.as_object_mut() else { return };
    if is(schema, "number") {
        bound(schema, LARGEST_NUMBER);
    } else if is(schema, "integer") {
        bound(schema, LARGEST_INTEGER);
    }
    if closes && is(schema, "object") {
        let others = !speaks_of_its_properties_only(schema);
        schema.entry("additionalProperties").or_insert(others.into());
    }
    if closes && is(schema, "array") {
        schema.entry("items").or_insert(true.into());
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
