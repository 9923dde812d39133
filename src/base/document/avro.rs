//! Avro in Confluent's wire format: a byte 0, the four bytes of a schema's id, and the value after that schema.
//!
//! A value becomes the JSON object that a producer of JSON would have sent, so that ids, versions, templates and metadata work
//! the same on both. It is read by the schema that it was written with: a field that this schema has not is absent.
//!
//! | Avro | JSON |
//! |---|---|
//! | `null`, `boolean`, `int`, `long`, `float`, `double` | the same; what is no finite number: `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `string`, `enum` | a string |
//! | `bytes`, `fixed` | a string in base64 |
//! | `record`, `map` | an object |
//! | `array` | an array |
//! | a union | its branch |
//! | `decimal` of at most 15 digits | a number: so many survive as binary floating point |
//! | `decimal` of more digits, `big-decimal` | a string, `"12.30"` |
//! | `date`, `time-*`, `timestamp-*`, `local-timestamp-*`, `duration` | a string in ISO 8601; timestamps end with `Z`, local ones do not |
//! | `uuid` | a string with hyphens |
//!
//! A payload is written by whoever may write to the topic. The reader here takes nothing on trust: no length is believed before so
//! many bytes are there, nesting is bounded as it is for JSON, and so is what a payload may grow to. Libraries of the
//! format allocate and recurse as the payload says, and tell a `uuid` of 16 bytes from one in text by guessing; they serve the tests.

mod logical;
mod plan;
mod read;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::poison;
use crate::failure::{FailureClass, Poison};
use plan::Plan;

/// The byte that a framed value begins with.
const MAGIC: u8 = 0;
/// Bytes before the value.
const FRAME: usize = 5;

/// A schema, ready to read values with.
#[derive(Debug)]
pub struct Schema {
    id: u32,
    plan: Plan,
}

/// The schemas that some records name, by id: each as the registry gave it, or why no record that names it can be read.
#[derive(Debug, Clone, Default)]
pub struct Schemas(HashMap<u32, Result<Arc<Schema>, Poison>>);

impl Schema {
    /// The schema `text` that the registry calls `id`, with the texts of those that it refers to: each before those that refer to it.
    pub fn parse(id: u32, text: &str, references: &[String]) -> Result<Self, Poison> {
        let plan = Plan::parse(text, references)
            .or_else(|reason| poison(FailureClass::MalformedAvro, format!("schema {id} is no Avro schema: {reason}")))?;
        Ok(Self { id, plan })
    }

    /// The value that `bytes` hold, all of them.
    fn read(&self, bytes: &[u8]) -> Result<Value, Poison> {
        read::value(&self.plan, bytes).map_err(|fault| Poison { class: fault.class, reason: fault.sentence(self.id) })
    }
}

impl Schemas {
    /// None: for records that name none.
    pub fn none() -> Self {
        Self::default()
    }

    /// The value in a framed payload or key, which `what` names for messages.
    pub(super) fn read(&self, what: &str, bytes: &[u8]) -> Result<Value, Poison> {
        let Some(id) = schema_id(bytes) else {
            let reason = format!("{what} does not begin with the byte 0 and the id of a schema, as Confluent's wire format asks");
            return poison(FailureClass::MalformedAvro, reason);
        };
        match self.0.get(&id) {
            Some(Ok(schema)) => schema.read(&bytes[FRAME..]),
            Some(Err(fault)) => Err(fault.clone()),
            None => poison(FailureClass::UnknownSchema, format!("{what} names schema {id}, which was not looked up")),
        }
    }
}

impl FromIterator<(u32, Result<Arc<Schema>, Poison>)> for Schemas {
    fn from_iter<I: IntoIterator<Item = (u32, Result<Arc<Schema>, Poison>)>>(schemas: I) -> Self {
        Self(schemas.into_iter().collect())
    }
}

/// The id of the schema that a framed value names; none where it is not framed.
pub(super) fn schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [MAGIC, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// Which schemas some values name.
pub(super) fn schema_ids<'a>(values: impl Iterator<Item = &'a [u8]>) -> BTreeSet<u32> {
    values.filter_map(schema_id).collect()
}

#[cfg(test)]
mod tests;
