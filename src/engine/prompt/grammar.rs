//! Narrows a schema for constrained generation, so that models write only useful answers.
//!
//! | in the schema | in the narrowed schema | reason |
//! |---|---|---|
//! | white space anywhere | none outside strings | a model could write it forever |
//! | `\u0000` and the like in strings | only `\n`, `\t` and so on | databases do not accept the former |
//! | a number without an upper or a lower bound | ±9007199254740991, or ±10¹⁵ for fractions | the number ends, and every JSON reader keeps its value |
//! | bounds beyond 64 bits, or with more than 15 decimals | the nearest supported number inside the bound | the grammar library supports only these |
//! | an object that names properties and does not mention others | no other properties | the named ones were meant |
//! | no constraint at all | any value, its numbers bounded as above | the same |
//!
//! A schema cannot limit the digits of a number; `number_digits` does that. Every answer under the narrowed schema is valid under
//! the given one. The last two rows do not apply if the schema composes objects or lists from several schemas: closing one would
//! exclude the properties of the others.

use serde_json::{Map, Number, Value, json};

use crate::schema::{LIST, NAMED, ONE, parts_mut};

/// The largest integer that every JSON reader keeps exactly.
const LARGEST_INTEGER: i64 = (1 << 53) - 1;

/// The bound of numbers with a fraction.
const LARGEST_NUMBER: i64 = 1_000_000_000_000_000;

/// The name of the definition that allows any value.
const ANY: &str = "any-bounded-value";

/// The largest bound that the grammar library supports: the last double below 2⁶³.
const LARGEST_BOUND: i64 = i64::MAX - 1023;

/// The maximum number of decimals of a bound.
const BOUND_DIGITS: i32 = 15;

/// The maximum number of decimals of `multipleOf`.
const STEP_DIGITS: i32 = 9;

/// The narrowed schema.
///
/// # Errors
/// Which number in the schema is not supported.
pub(super) fn grammar_schema(schema: &Value) -> Result<Value, String> {
    let mut narrowed = schema.clone();
    narrow(&mut narrowed, !joins(schema))?;
    if let Some(object) = narrowed.as_object_mut() {
        if let Some(definitions) = object.entry("$defs").or_insert_with(|| json!({})).as_object_mut() {
            definitions.insert(ANY.into(), any_value());
        }
        let options = json!({
            "whitespace_flexible": false, "item_separator": ",", "key_separator": ":", "json_allowed_escapes": "nrbtf\\\"",
        });
        object.insert("x-guidance".into(), options);
    }
    Ok(narrowed)
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

fn parts(schema: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = ONE.iter().filter_map(|key| schema.get(*key));
    let list = LIST.iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
    let named = NAMED.iter().filter_map(|key| schema.get(*key)?.as_object()).flat_map(|parts| parts.values());
    one.chain(list).chain(named)
}

/// Whether `schema` composes objects or lists from several schemas anywhere.
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

fn narrow(schema: &mut Value, closes: bool) -> Result<(), String> {
    if closes && (*schema == true || schema.as_object().is_some_and(Map::is_empty)) {
        *schema = any();
    }
    let Some(schema) = schema.as_object_mut() else { return Ok(()) };
    listed(schema)?;
    if is(schema, "number") {
        step(schema)?;
        bound_number(schema)?;
    } else if is(schema, "integer") {
        step(schema)?;
        bound_integer(schema)?;
    }
    if closes && is(schema, "object") {
        let others = !speaks_of_its_properties_only(schema);
        schema.entry("additionalProperties").or_insert(others.into());
    }
    if closes && is(schema, "array") {
        schema.entry("items").or_insert(true.into());
    }
    parts_mut(schema).into_iter().try_for_each(|part| narrow(part, closes))
}

/// Refuses listed values with numbers that the grammar library would write differently.
fn listed(schema: &Map<String, Value>) -> Result<(), String> {
    fn check(key: &str, value: &Value) -> Result<(), String> {
        match value {
            Value::Number(number)
                if exact(number).is_some_and(|exact| number.as_f64().is_none_or(|near| near as i128 != exact)) =>
            {
                Err(format!("{key} {number} has more digits than a number keeps"))
            }
            Value::Array(values) => values.iter().try_for_each(|value| check(key, value)),
            Value::Object(values) => values.values().try_for_each(|value| check(key, value)),
            _ => Ok(()),
        }
    }
    ["const", "enum"].iter().filter_map(|key| Some((*key, schema.get(*key)?))).try_for_each(|(key, value)| check(key, value))
}

fn step(schema: &Map<String, Value>) -> Result<(), String> {
    let Some(step) = schema.get("multipleOf").and_then(Value::as_f64) else { return Ok(()) };
    let finest = step * 10_f64.powi(STEP_DIGITS);
    match (finest - finest.round()).abs() < 1e-6 && finest >= 1.0 {
        true => Ok(()),
        false => Err(format!("multipleOf {step} has more than {STEP_DIGITS} decimals")),
    }
}

/// The exact value, if the number is an integer.
fn exact(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// A bound of a number. An excluded bound is not itself allowed.
#[derive(Clone, Copy)]
struct Bound<'a> {
    number: &'a Number,
    excluded: bool,
}

/// The schema's bounds at one end. In draft 4, `exclusiveMinimum` is a boolean that modifies `minimum`.
fn given<'a>(schema: &'a Map<String, Value>, keys: [&str; 2]) -> impl Iterator<Item = Bound<'a>> {
    let number = |key: &str| schema.get(key).and_then(Value::as_number);
    let excluded = schema.get(keys[1]) == Some(&Value::Bool(true));
    let own = number(keys[0]).map(|number| Bound { number, excluded });
    own.into_iter().chain(number(keys[1]).map(|number| Bound { number, excluded: true }))
}

const LOW: [&str; 2] = ["minimum", "exclusiveMinimum"];
const HIGH: [&str; 2] = ["maximum", "exclusiveMaximum"];

/// Adds missing bounds to an integer, unless they would exclude all values, and converts its own bounds to supported ones.
fn bound_integer(schema: &mut Map<String, Value>) -> Result<(), String> {
    let up = |bound: Bound<'_>| match exact(bound.number) {
        Some(exact) => exact.saturating_add(bound.excluded.into()),
        None => {
            let value = bound.number.as_f64().unwrap_or(0.0);
            (value.ceil() as i128).saturating_add((bound.excluded && value.fract() == 0.0).into())
        }
    };
    let down = |bound: Bound<'_>| match exact(bound.number) {
        Some(exact) => exact.saturating_sub(bound.excluded.into()),
        None => {
            let value = bound.number.as_f64().unwrap_or(0.0);
            (value.floor() as i128).saturating_sub((bound.excluded && value.fract() == 0.0).into())
        }
    };
    let (low, high) = (given(schema, LOW).map(up).max(), given(schema, HIGH).map(down).min());
    let (most, usual) = (i128::from(LARGEST_BOUND), i128::from(LARGEST_INTEGER));
    if let Some(beyond) = low.filter(|low| *low > most).or(high.filter(|high| *high < -most)) {
        return Err(format!("integers beyond 64 bits (from {beyond} on) are not supported"));
    }
    let low = low.or((high.is_none_or(|high| high > -usual)).then_some(-usual)).map(|low| low.max(-most));
    let high = high.or((low.is_none_or(|low| low < usual)).then_some(usual)).map(|high| high.min(most));
    // The grammar library computes with doubles. An integer that is not a double becomes the next double inside the bound.
    let near = |exact: i128| exact as f64;
    let low = low.map(|low| if (near(low) as i128) < low { near(low).next_up() } else { near(low) });
    let high = high.map(|high| if near(high) as i128 > high { near(high).next_down() } else { near(high) });
    for (keys, bound) in [(LOW, low), (HIGH, high)] {
        keys.iter().for_each(|key| drop(schema.remove(*key)));
        if let Some(bound) = bound {
            schema.insert(keys[0].into(), (bound as i64).into());
        }
    }
    Ok(())
}

/// The same for a number with a fraction.
fn bound_number(schema: &mut Map<String, Value>) -> Result<(), String> {
    let value = |bound: Bound<'_>| (bound.number.as_f64().unwrap_or(0.0) + 0.0, bound.excluded);
    let inner = |one: (f64, bool), other: (f64, bool), sign: f64| match (one.0 * sign).total_cmp(&(other.0 * sign)) {
        std::cmp::Ordering::Less => other,
        std::cmp::Ordering::Greater => one,
        std::cmp::Ordering::Equal => (one.0, one.1 || other.1),
    };
    let low = given(schema, LOW).map(value).reduce(|one, other| inner(one, other, 1.0));
    let high = given(schema, HIGH).map(value).reduce(|one, other| inner(one, other, -1.0));
    let (most, usual) = (LARGEST_BOUND as f64, LARGEST_NUMBER as f64);
    if let Some((beyond, _)) = low.filter(|low| low.0 > most).or(high.filter(|high| high.0 < -most)) {
        return Err(format!("numbers beyond 64 bits (from {beyond:e} on) are not supported"));
    }
    let low = low.or((high.is_none_or(|high| high.0 > -usual)).then_some((-usual, false)));
    let low = low.map(|low| if low.0 < -most { (-most, false) } else { low });
    let high = high.or((low.is_none_or(|low| low.0 < usual)).then_some((usual, false)));
    let high = high.map(|high| if high.0 > most { (most, false) } else { high });
    let scale = 10_f64.powi(BOUND_DIGITS);
    let rounded = |bound: (f64, bool), sign: f64| {
        let inside = sign * ((sign * bound.0 * scale).ceil() / scale);
        // From 1 on, a double has no more than 15 decimals.
        if bound.0.abs() < 1.0 && sign * inside > sign * bound.0 { (inside + 0.0, false) } else { bound }
    };
    let (shorter_low, shorter_high) = (low.map(|low| rounded(low, 1.0)), high.map(|high| rounded(high, -1.0)));
    let leaves_some = shorter_low.zip(shorter_high).is_none_or(|(low, high)| low.0 < high.0);
    let (low, high) = if leaves_some { (shorter_low, shorter_high) } else { (low, high) };
    for (keys, bound) in [(LOW, low), (HIGH, high)] {
        keys.iter().for_each(|key| drop(schema.remove(*key)));
        if let Some((bound, excluded)) = bound {
            let number = if bound.fract() == 0.0 { (bound as i64).into() } else { Value::from(bound) };
            schema.insert(keys[usize::from(excluded)].into(), number);
        }
    }
    Ok(())
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
