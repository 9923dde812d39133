//! Leaves values out of an extraction: null where the schema allows it, absent otherwise.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::did_you_mean::suggestion;
use crate::engine::Schema;
use crate::outcome::{ExtractedValue, Extraction};
use crate::task::json_spans::unescaped_key;

/// The confidence below which a value becomes null.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum MinConfidence {
    /// The same for all fields.
    All(f32),
    /// For each field by its name. Other fields keep every value.
    Fields(BTreeMap<String, f32>),
}

impl MinConfidence {
    /// The least confidence of the value at a JSON Pointer.
    pub(super) fn of(&self, path: &str) -> f32 {
        match self {
            Self::All(least) => *least,
            Self::Fields(fields) => {
                let name = path.split('/').nth(1).map(unescaped_key).unwrap_or_default();
                fields.get(&name).copied().unwrap_or(0.0)
            }
        }
    }

    /// The problem with the parameter for this schema.
    pub(super) fn problem(&self, schema: &Value) -> Option<String> {
        let out_of_range = |least: &f32| !(0.0..=1.0).contains(least);
        let known = schema.get("properties").and_then(Value::as_object).map(Map::keys);
        let known: Vec<&str> = known.into_iter().flatten().map(String::as_str).collect();
        match self {
            Self::All(least) => out_of_range(least).then(|| format!("has `min_confidence: {least}`: write a number from 0 to 1")),
            Self::Fields(fields) => fields.iter().find_map(|(name, least)| {
                if !known.contains(&name.as_str()) {
                    let near = suggestion(name, known.iter().copied());
                    return Some(format!("has `min_confidence` for `{name}`, which is not a field of its schema; {near}"));
                }
                out_of_range(least).then(|| format!("has `min_confidence` {least} for `{name}`: write a number from 0 to 1"))
            }),
        }
    }
}

impl<'de> Deserialize<'de> for MinConfidence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrFields;

        impl<'de> Visitor<'de> for NumberOrFields {
            type Value = MinConfidence;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 1, or one for each field by its name")
            }

            fn visit_f64<E: Error>(self, least: f64) -> Result<MinConfidence, E> {
                Ok(MinConfidence::All(least as f32))
            }

            fn visit_u64<E: Error>(self, least: u64) -> Result<MinConfidence, E> {
                self.visit_f64(least as f64)
            }

            fn visit_i64<E: Error>(self, least: i64) -> Result<MinConfidence, E> {
                self.visit_f64(least as f64)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MinConfidence, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(MinConfidence::Fields)
            }
        }

        deserializer.deserialize_any(NumberOrFields)
    }
}

/// Leaves out every value that `unwanted` selects. Returns the path of the first one that the schema requires as it is.
pub(super) fn abstain(
    extraction: &mut Extraction,
    schema: &Schema,
    unwanted: impl Fn(&ExtractedValue, &Value) -> bool,
) -> Option<String> {
    let mut required = None;
    // From the end, so that the numbers of earlier items stay.
    for index in (0..extraction.leaves.len()).rev() {
        let leaf = &extraction.leaves[index];
        let Some(value) = at(&mut extraction.fields, &leaf.path) else { continue };
        if !unwanted(leaf, value) {
            continue;
        }
        let path = leaf.path.clone();
        let mut nulled = extraction.fields.clone();
        if let Some(value) = at(&mut nulled, &path) {
            *value = Value::Null;
        }
        let mut removed = extraction.fields.clone();
        let is_item = remove(&mut removed, &path);
        if is_valid(schema, &nulled) {
            extraction.fields = nulled;
            let leaf = &mut extraction.leaves[index];
            (leaf.grounded, leaf.evidence) = (None, None);
        } else if is_valid(schema, &removed) {
            extraction.fields = removed;
            extraction.leaves.remove(index);
            if is_item {
                renumber(&mut extraction.leaves, &path);
            }
        } else {
            required = Some(path);
        }
    }
    required
}

fn is_valid(schema: &Schema, fields: &Map<String, Value>) -> bool {
    schema.faults(&Value::Object(fields.clone())).is_empty()
}

fn at<'a>(fields: &'a mut Map<String, Value>, path: &str) -> Option<&'a mut Value> {
    let (name, rest) = path[1..].split_once('/').map_or((&path[1..], ""), |(name, _)| (name, &path[name.len() + 1..]));
    fields.get_mut(&unescaped_key(name))?.pointer_mut(rest)
}

/// Removes the value at `path`. Returns whether it was an item of a list.
fn remove(fields: &mut Map<String, Value>, path: &str) -> bool {
    let Some((parent, name)) = path.rsplit_once('/') else { return false };
    if parent.is_empty() {
        fields.shift_remove(&unescaped_key(name));
        return false;
    }
    match at(fields, parent) {
        Some(Value::Object(fields)) => {
            fields.shift_remove(&unescaped_key(name));
            false
        }
        Some(Value::Array(items)) => {
            let index = name.parse().unwrap_or(usize::MAX);
            if index < items.len() {
                items.remove(index);
            }
            true
        }
        _ => false,
    }
}

/// Renumbers the items behind the removed item at `path`.
fn renumber(leaves: &mut [ExtractedValue], path: &str) {
    let Some((list, removed)) = path.rsplit_once('/') else { return };
    let Ok(removed) = removed.parse::<usize>() else { return };
    for leaf in leaves {
        let Some(rest) = leaf.path.strip_prefix(list).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let (index, behind) = rest.split_once('/').map_or((rest, ""), |(index, _)| (index, &rest[index.len()..]));
        if let Some(index) = index.parse::<usize>().ok().filter(|index| *index > removed) {
            leaf.path = format!("{list}/{}{behind}", index - 1);
        }
    }
}
