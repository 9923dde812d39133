//! Documents, decoded from records.
//!
//! Every record becomes a [`DecodedRecord`] or a [`Poison`] of some class. No payload can make decoding panic.
//!
//! | payload | key | decoded as |
//! |---|---|---|
//! | valid | any | a document; its id comes from the payload, or from the key where the format is text |
//! | an object for which `delete.when` is true | any | a tombstone for the document that `delete.id` names |
//! | null | UTF-8; in JSON: a string, or an object with the id | a tombstone for the document that the key names |
//! | null, of an Avro source | Avro: the id, or a record with the id in a field | a tombstone for that document |
//! | null | absent or empty | `missing_key` |
//! | anything else | any | a poison of the matching class |
//!
//! If a JSON object has a key twice, the last one counts, as in JavaScript, Python and Postgres.

pub mod avro;
mod delete;
pub mod json_scalars;

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::failure::{FailureClass, Poison};
use crate::record::Record;
use crate::template::{PrintMode, Template};
use avro::Schemas;
use delete::Delete;
pub use delete::DeleteSpec;
pub use json_scalars::microseconds;

/// The longest id in bytes. Ids are part of database keys, and a B-tree index of Postgres allows keys of about 2,700 bytes.
pub const MAX_ID_BYTES: usize = 1024;

/// The default of `max_bytes`.
pub const DEFAULT_MAX_BYTES: usize = 1 << 20;

/// One version of one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// From the field that the pipeline names.
    pub id: Arc<str>,
    /// The greatest version of a document wins; of two equal ones, the one that arrived later.
    pub version: i64,
    /// The text that the pipeline's template makes.
    pub text: Arc<str>,
    /// The fields that the pipeline stores besides the text, for filters.
    pub metadata: Map<String, Value>,
    /// Every field of the source, for templates and conditions.
    pub fields: Map<String, Value>,
}

/// The content of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum DecodedRecord {
    Document(Document),
    /// A delete of a document.
    Tombstone {
        id: Arc<str>,
        /// The version of the delete. None where versions come from a field, because a null payload has no fields.
        version: Option<i64>,
    },
}

/// The section of a pipeline file that says how records become documents. Names of fields may be dotted paths into nested objects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DocumentSpec {
    pub format: Format,
    /// The field with the id, a string or an integer. The default is `id`. Not allowed for the format text, where the key is the
    /// id.
    pub id: Option<String>,
    /// The field with the version: an integer, or a date or time in ISO 8601. The default is the record's timestamp.
    pub version: Option<String>,
    /// The template of the text. The default is `{{ text }}`. Not allowed for the format text, where the payload is the text.
    pub text: Option<String>,
    /// Fields to store besides the text. A document may lack them.
    pub metadata: Vec<String>,
    /// Which objects delete a document. By default none do. Not allowed for the format text.
    pub delete: Option<DeleteSpec>,
    /// The largest payload and the largest text, in bytes. The default is 1 MiB.
    pub max_bytes: Option<usize>,
}

/// The formats of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Json,
    /// The text itself, in UTF-8.
    Text,
    /// An Avro record in Confluent's wire format.
    Avro,
}

impl DocumentSpec {
    /// The same documents in JSON, which is the format of examples and samples of an Avro source.
    pub fn in_json(&self) -> Self {
        let format = if self.format == Format::Avro { Format::Json } else { self.format };
        Self { format, ..self.clone() }
    }
}

/// Turns records into documents.
#[derive(Debug)]
pub struct Decoder {
    kind: DecoderKind,
    max_bytes: usize,
}

#[derive(Debug)]
enum DecoderKind {
    Json(Box<FieldMapping>),
    Text,
    Avro(Box<FieldMapping>),
}

/// Which fields of an object become which parts of a document.
#[derive(Debug)]
struct FieldMapping {
    id: String,
    version: Option<String>,
    text: Template,
    metadata: Vec<String>,
    delete: Option<Delete>,
}

impl Decoder {
    /// Compiles the templates and conditions of `spec`.
    ///
    /// # Errors
    /// Where one of them cannot be compiled, or settings contradict the format.
    pub fn new(spec: &DocumentSpec) -> anyhow::Result<Self> {
        let max_bytes = spec.max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
        if max_bytes == 0 {
            bail!("max_bytes is 0, which refuses every document: leave it out for 1 MiB");
        }
        let mapping = || -> anyhow::Result<Box<FieldMapping>> {
            let id = spec.id.clone().unwrap_or_else(|| "id".into());
            let source = spec.text.as_deref().unwrap_or("{{ text }}");
            let text = Template::new(source, PrintMode::Strings, max_bytes).context("the template `text`")?;
            if text.variables().is_empty() {
                bail!(
                    "`text` is `{source}`, which names no field: every document would have the same text; write a field as `{{{{ {source} }}}}`"
                );
            }
            Ok(Box::new(FieldMapping {
                delete: spec.delete.as_ref().map(|delete| Delete::new(delete, &id)).transpose()?,
                id,
                version: spec.version.clone(),
                text,
                metadata: spec.metadata.clone(),
            }))
        };
        let kind = match spec.format {
            Format::Json => DecoderKind::Json(mapping()?),
            Format::Avro => DecoderKind::Avro(mapping()?),
            Format::Text => {
                let names = spec.id.is_some() || spec.version.is_some() || spec.text.is_some() || spec.delete.is_some();
                if names || !spec.metadata.is_empty() {
                    bail!("a source of format `text` has no fields: leave out `id`, `version`, `text`, `metadata` and `delete`");
                }
                DecoderKind::Text
            }
        };
        Ok(Self { kind, max_bytes })
    }

    /// The ids of the schemas that [`Self::decode`] needs; empty for formats without schemas.
    pub fn schema_ids(&self, records: &[Record]) -> BTreeSet<u32> {
        let DecoderKind::Avro(_) = &self.kind else { return BTreeSet::new() };
        let is_allowed = |record: &&Record| record.payload.as_ref().is_none_or(|payload| payload.len() <= self.max_bytes);
        let allowed = records.iter().filter(is_allowed);
        avro::schema_ids(allowed.filter_map(|record| record.payload.as_deref().or(record.key.as_deref())))
    }

    /// Decodes `record`. `schemas` must hold the schemas that [`Self::schema_ids`] names.
    pub fn decode(&self, record: &Record, schemas: &Schemas) -> Result<DecodedRecord, Poison> {
        let Some(payload) = &record.payload else { return self.tombstone(record, schemas) };
        if payload.len() > self.max_bytes {
            let reason = format!("the payload has {} bytes, the limit is {}: raise `max_bytes`", payload.len(), self.max_bytes);
            return poison(FailureClass::TooLarge, reason);
        }
        let (mapping, fields) = match &self.kind {
            DecoderKind::Json(mapping) => (mapping, object(parse(utf8(payload)?)?, "a JSON object")?),
            DecoderKind::Avro(mapping) => (mapping, object(schemas.read("the payload", payload)?, "a record")?),
            DecoderKind::Text => {
                let text = utf8(payload)?.into();
                let id = key_of(record)?;
                let version = default_version(record);
                let document = Document { id, version, text, metadata: Map::new(), fields: Map::new() };
                check_text(&document)?;
                return Ok(DecodedRecord::Document(document));
            }
        };
        if let Some((id, version)) = mapping.deleted(&fields, record)? {
            return Ok(DecodedRecord::Tombstone { id, version: Some(version) });
        }
        let document = mapping.document(fields, record)?;
        check_text(&document)?;
        Ok(DecodedRecord::Document(document))
    }

    fn tombstone(&self, record: &Record, schemas: &Schemas) -> Result<DecodedRecord, Poison> {
        let (id, versions_by_field) = match &self.kind {
            DecoderKind::Text => (key_of(record)?, false),
            DecoderKind::Json(mapping) => (mapping.key_of(record, None)?, mapping.version.is_some()),
            DecoderKind::Avro(mapping) => (mapping.key_of(record, Some(schemas))?, mapping.version.is_some()),
        };
        Ok(DecodedRecord::Tombstone { id, version: (!versions_by_field).then(|| default_version(record)) })
    }
}

impl FieldMapping {
    fn document(&self, fields: Map<String, Value>, record: &Record) -> Result<Document, Poison> {
        let id = id_of(&self.id, &fields)?;
        let version = match &self.version {
            Some(path) => version_of(path, &fields)?,
            None => default_version(record),
        };
        let text = self.text.render(&minijinja::Value::from(minijinja::value::Serde(&fields)))?;
        let metadata = self.metadata.iter().filter_map(|path| Some((path.clone(), look_up(&fields, path)?.clone()))).collect();
        Ok(Document { id, version, text: text.into(), metadata, fields })
    }
}

/// The value at `path`: the field with exactly that name, or else the one at the dotted path in nested objects.
pub fn look_up<'a>(fields: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = fields.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| match fields.get(&path[..dot]) {
        Some(Value::Object(inner)) => look_up(inner, &path[dot + 1..]),
        _ => None,
    })
}

fn poison<T>(class: FailureClass, reason: impl Into<String>) -> Result<T, Poison> {
    Err(Poison { class, reason: reason.into() })
}

fn utf8(payload: &[u8]) -> Result<&str, Poison> {
    // ASCII text in UTF-16 is also valid UTF-8, with a zero byte in every other place. Its first bytes are detected instead.
    if [&b"\xff\xfe"[..], b"\xfe\xff", b"{\0", b"\0{"].iter().any(|start| payload.starts_with(start)) {
        return poison(FailureClass::InvalidUtf8, "the payload is UTF-16: send it as UTF-8");
    }
    std::str::from_utf8(payload)
        .or_else(|e| poison(FailureClass::InvalidUtf8, format!("the payload is not UTF-8 at byte {}", e.valid_up_to())))
}

fn object(value: Value, wanted: &str) -> Result<Map<String, Value>, Poison> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => poison(FailureClass::WrongType, format!("the payload is {}, not {wanted}", kind(&other))),
    }
}

fn parse(payload: &str) -> Result<Value, Poison> {
    // RFC 8259 allows a parser to ignore a byte-order mark.
    match serde_json::from_str::<Value>(payload.strip_prefix('\u{feff}').unwrap_or(payload)) {
        Ok(value) => Ok(value),
        // serde_json has no own category for this error. A test checks that the text of its message does not change.
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => {
            let reason = format!("the JSON is nested deeper than 127 levels at line {} column {}", error.line(), error.column());
            poison(FailureClass::TooDeep, reason)
        }
        Err(error) => poison(FailureClass::MalformedJson, format!("the payload is not JSON: {error}")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn present<'a>(path: &str, fields: &'a Map<String, Value>) -> Result<&'a Value, Poison> {
    match look_up(fields, path) {
        None => poison(FailureClass::MissingField, format!("field `{path}` is absent")),
        Some(Value::Null) => poison(FailureClass::MissingField, format!("field `{path}` is null")),
        Some(value) => Ok(value),
    }
}

fn id_of(path: &str, fields: &Map<String, Value>) -> Result<Arc<str>, Poison> {
    id_in(present(path, fields)?, &format!("field `{path}`"), FailureClass::MissingField)
}

fn id_in(value: &Value, place: &str, when_empty: FailureClass) -> Result<Arc<str>, Poison> {
    match value {
        Value::String(id) => checked_id(id, place, when_empty),
        Value::Number(id) if id.is_i64() || id.is_u64() => Ok(id.to_string().into()),
        other => {
            let reason = format!("{place} is {}, but an id is a string or an integer of 64 bits", describe(other));
            poison(FailureClass::WrongType, reason)
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("the number {number}"),
        other => kind(other).to_owned(),
    }
}

fn key_of(record: &Record) -> Result<Arc<str>, Poison> {
    let Some(key) = &record.key else {
        return poison(FailureClass::MissingKey, "the record has no key, which must name the document");
    };
    match std::str::from_utf8(key) {
        Ok(id) => checked_id(id, "the record's key", FailureClass::MissingKey),
        Err(e) => poison(FailureClass::InvalidUtf8, format!("the record's key is not UTF-8 at byte {}", e.valid_up_to())),
    }
}

fn checked_id(id: &str, place: &str, when_empty: FailureClass) -> Result<Arc<str>, Poison> {
    if id.trim().is_empty() {
        return poison(when_empty, format!("{place} is empty, but must name the document"));
    }
    if id.len() > MAX_ID_BYTES {
        let reason = format!("{place} has {} bytes, but an id has at most {MAX_ID_BYTES}", id.len());
        return poison(FailureClass::TooLarge, reason);
    }
    if id.contains('\0') {
        return poison(FailureClass::NulCharacter, format!("{place} holds U+0000"));
    }
    Ok(id.into())
}

fn version_of(path: &str, fields: &Map<String, Value>) -> Result<i64, Poison> {
    let value = present(path, fields)?;
    let version = match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => microseconds(text),
        _ => None,
    };
    let Some(version) = version else {
        let reason = format!(
            "field `{path}` is {}, but a version is an integer of 64 bits or a date or time in ISO 8601",
            describe(value)
        );
        return poison(FailureClass::WrongType, reason);
    };
    Ok(version)
}

/// The version of a document without a version field: the record's timestamp, or its offset if the source does not know the time.
fn default_version(record: &Record) -> i64 {
    record.timestamp_ms.unwrap_or(record.place.offset)
}

fn check_text(document: &Document) -> Result<(), Poison> {
    if document.text.trim().is_empty() {
        return poison(FailureClass::EmptyText, format!("document `{}` has no text", document.id));
    }
    if let Some(at) = document.text.find('\0') {
        return poison(FailureClass::NulCharacter, format!("the text holds U+0000 at byte {at}"));
    }
    match document.metadata.iter().find(|(_, value)| holds_nul(value)) {
        Some((path, _)) => poison(FailureClass::NulCharacter, format!("field `{path}` holds U+0000")),
        None => Ok(()),
    }
}

/// Whether a name or a string of `fields` holds U+0000, which Postgres cannot store.
pub fn hold_nul(fields: &Map<String, Value>) -> bool {
    fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
}

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => hold_nul(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
