//! Avro in Confluent's wire format: a byte 0, four bytes with the id of a schema, and a value of that schema.
//!
//! A value becomes the JSON value that a producer of JSON would have sent, so that ids, versions, templates and metadata work the
//! same for both formats. It is read with the schema that it was written with. A field that this schema does not have is absent.
//!
//! | Avro | JSON |
//! |---|---|
//! | `null`, `boolean`, `int`, `long`, `float`, `double` | the same; numbers that are not finite: `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `string`, `enum` | a string |
//! | `bytes`, `fixed` | a string in base64 |
//! | `record`, `map` | an object |
//! | `array` | an array |
//! | a union | its branch |
//! | `decimal` of at most 15 digits | a number, because 15 digits survive as floating point |
//! | `decimal` of more digits, `big-decimal` | a string, `"12.30"` |
//! | `date`, `time-*`, `timestamp-*`, `local-timestamp-*`, `duration` | a string in ISO 8601; timestamps end with `Z`, local ones do not |
//! | `uuid` | a string with hyphens |
//!
//! Anyone who may write to the topic can write hostile payloads. So the reader checks every length against the bytes that are left,
//! limits nesting as the JSON parser does, and limits the memory that a payload may take. Avro libraries allocate and recurse as
//! the payload says, and guess whether a `uuid` is 16 bytes or a string. They are used in tests only.

mod logical;
mod plan;
mod read;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::poison;
use crate::failure::{FailureClass, Poison};
use plan::ReadPlan;

/// The first byte of a value in the wire format.
const MAGIC: u8 = 0;
/// How many bytes come before the value: the magic byte and the id.
const FRAME: usize = 5;

/// A compiled schema, ready to read values.
#[derive(Debug)]
pub struct Schema {
    id: u32,
    plan: ReadPlan,
}

/// Schemas by id. A schema that the registry does not know or that is invalid is stored as the poison of the records that name it.
#[derive(Debug, Clone, Default)]
pub struct Schemas(HashMap<u32, Result<Arc<Schema>, Poison>>);

impl Schema {
    /// Compiles the schema `text` with this id of the registry. `references` are the texts of schemas that it refers to, each
    /// before those that refer to it.
    pub fn parse(id: u32, text: &str, references: &[String]) -> Result<Self, Poison> {
        let plan = ReadPlan::parse(text, references)
            .or_else(|reason| poison(FailureClass::MalformedAvro, format!("schema {id} is not an Avro schema: {reason}")))?;
        Ok(Self { id, plan })
    }

    /// The value in `bytes`. No bytes may be left over.
    fn read(&self, bytes: &[u8]) -> Result<Value, Poison> {
        read::value(&self.plan, bytes).map_err(|fault| Poison { class: fault.class, reason: fault.sentence(self.id) })
    }
}

impl Schemas {
    /// No schemas, for records that name none.
    pub fn none() -> Self {
        Self::default()
    }

    /// The value in a payload or key in the wire format. `what` names it in messages.
    pub(super) fn read(&self, what: &str, bytes: &[u8]) -> Result<Value, Poison> {
        let Some(id) = schema_id(bytes) else {
            let reason =
                format!("{what} does not begin with the byte 0 and the id of a schema, as Confluent's wire format requires");
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

/// The id of the schema of a value; none where it is not in the wire format.
pub(super) fn schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [MAGIC, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

/// The ids of the schemas of the values.
pub(super) fn schema_ids<'a>(values: impl Iterator<Item = &'a [u8]>) -> BTreeSet<u32> {
    values.filter_map(schema_id).collect()
}

#[cfg(test)]
mod tests;
