//! The rules for the strings and numbers of a schema in strict extraction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Map, Value};

use crate::did_you_mean::suggestion;
use crate::engine::LeafType;
use crate::task::folded_text::folded;
use crate::task::units::{self, Unit};

/// The keyword that names the unit of a field: a string, or a list of strings.
const UNIT: &str = "unit";

/// Which spans of a document a string may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StringRule {
    /// Any span with at most this number of characters.
    Spans { most: Option<u64> },
    /// A date, written as ISO 8601 does.
    Dates,
    /// A quantity in the document's own notation.
    Quantities,
    /// A span that the schema's pattern, format and least length accept.
    Matches,
}

/// The rule for the strings or numbers with the same keywords.
#[derive(Debug)]
pub(super) struct LeafRule {
    strings: StringRule,
    units: Vec<Unit>,
    validator: jsonschema::Validator,
}

/// The rules of one schema.
#[derive(Debug, Default)]
pub(super) struct LeafRules {
    rules: HashMap<String, LeafRule>,
}

impl LeafRules {
    /// Adds the rule for a string or number with the keywords `schema`.
    ///
    /// # Errors
    /// A message that names the keyword.
    pub(super) fn add(&mut self, schema: &Map<String, Value>, of: LeafType) -> Result<(), String> {
        if let Entry::Vacant(place) = self.rules.entry(key(schema, of)) {
            place.insert(LeafRule::new(schema, of)?);
        }
        Ok(())
    }

    pub(super) fn get(&self, schema: &Map<String, Value>, of: LeafType) -> Option<&LeafRule> {
        self.rules.get(&key(schema, of))
    }
}

fn key(schema: &Map<String, Value>, of: LeafType) -> String {
    format!("{of:?}{}", Value::Object(schema.clone()))
}

impl LeafRule {
    fn new(schema: &Map<String, Value>, of: LeafType) -> Result<Self, String> {
        let units = units_of(schema)?;
        let mut own = schema.clone();
        own.insert("type".into(), if of == LeafType::String { "string" } else { "number" }.into());
        let own = Value::Object(own);
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&own)
            .map_err(|e| format!("the schema is not valid: {e}"))?;
        let number = |key: &str| schema.get(key).and_then(Value::as_u64);
        let strings = match () {
            () if !units.is_empty() => StringRule::Quantities,
            () if schema.get("format").is_some_and(|format| format == "date") => StringRule::Dates,
            () if schema.contains_key("pattern") || schema.contains_key("format") => StringRule::Matches,
            () if number("minLength").is_some_and(|least| least > 1) => StringRule::Matches,
            () => StringRule::Spans { most: number("maxLength") },
        };
        Ok(Self { strings, units, validator })
    }

    pub(super) fn strings(&self) -> StringRule {
        self.strings
    }

    /// The units into which numbers are converted; none for plain numbers.
    pub(super) fn units(&self) -> &[Unit] {
        &self.units
    }

    /// Whether `unit` measures the same as one of the field's units.
    pub(super) fn measures(&self, unit: Unit) -> bool {
        self.units.iter().any(|own| own.quantity == unit.quantity)
    }

    /// Whether the schema accepts the value.
    pub(super) fn allows(&self, value: &Value) -> bool {
        self.validator.is_valid(value)
    }
}

/// The units that `schema` names.
///
/// # Errors
/// A message about the keyword `unit`.
pub(super) fn units_of(schema: &Map<String, Value>) -> Result<Vec<Unit>, String> {
    let names = match schema.get(UNIT) {
        None => return Ok(Vec::new()),
        Some(Value::Array(names)) => names.iter().map(Value::as_str).collect(),
        Some(name) => name.as_str().map(|name| vec![name]),
    };
    let names = names
        .filter(|names| !names.is_empty())
        .ok_or("has a `unit` that is neither a name nor a list of names, such as \"cm\"")?;
    let known = |name: &str| {
        units::named(&folded(name))
            .ok_or_else(|| format!("has the unit `{name}`, which is not known; {}", suggestion(name, units::spellings())))
    };
    names.into_iter().map(known).collect()
}
