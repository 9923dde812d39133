//! Which document a record deletes.
//!
//! | record | deletes |
//! |---|---|
//! | payload null, key a text | the document whose id is the key |
//! | payload null, key a JSON string, a JSON object or an Avro record | the document that it names: by the id's field, by the last part of that field's path, or by its only field; inside `payload`, if change data capture wraps the key |
//! | an object for which the condition `delete.when` is true | the document that `delete.id` names |

use std::sync::Arc;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{FieldMapping, checked_id, default_version, describe, id_in, id_of, key_of, look_up, poison, version_of};
use crate::document::avro::{self, Schemas};
use crate::failure::{FailureClass, Poison};
use crate::record::Record;
use crate::template::{Condition, ConditionError};

/// Which objects delete a document, such as the delete events of change data capture.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteSpec {
    /// A condition over the object's fields, such as `payload.op == 'd'`.
    pub when: String,
    /// The field with the id in such an object. The default is the id field of documents.
    pub id: Option<String>,
}

/// A compiled [`DeleteSpec`].
#[derive(Debug)]
pub(super) struct Delete {
    when: Condition,
    id: String,
}

impl Delete {
    pub(super) fn new(spec: &DeleteSpec, id: &str) -> anyhow::Result<Self> {
        let hint = "write an expression such as `payload.op == 'd'`, without braces";
        let when = Condition::new(&spec.when).with_context(|| format!("the condition `delete.when`: {hint}"))?;
        Ok(Self { when, id: spec.id.clone().unwrap_or_else(|| id.to_owned()) })
    }
}

impl FieldMapping {
    /// The id of the document that the object deletes, and the version of the delete. None where the object is no delete.
    pub(super) fn deleted(&self, fields: &Map<String, Value>, record: &Record) -> Result<Option<(Arc<str>, i64)>, Poison> {
        let Some(delete) = &self.delete else { return Ok(None) };
        match delete.when.holds(&minijinja::Value::from(minijinja::value::Serde(fields))) {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(ConditionError::Absent(reason)) => return poison(FailureClass::MissingField, reason),
            Err(ConditionError::Poison(fault)) => return Err(fault),
        }
        let version = match &self.version {
            Some(path) => version_of(path, fields)?,
            None => default_version(record),
        };
        Ok(Some((id_of(&delete.id, fields)?, version)))
    }

    /// The id in a record's key. A key that begins with the byte 0 is Avro in the wire format, because ids may not hold that byte.
    pub(super) fn key_of(&self, record: &Record, schemas: Option<&Schemas>) -> Result<Arc<str>, Poison> {
        let key = record.key.as_deref().unwrap_or_default();
        if let Some(schemas) = schemas.filter(|_| avro::schema_id(key).is_some()) {
            return self.id_in_key(schemas.read("the record's key", key)?);
        }
        // An id may begin with a brace or a quotation mark. The key counts as JSON only if all of it is JSON.
        match serde_json::from_slice(key) {
            Ok(value @ (Value::Object(_) | Value::String(_))) => self.id_in_key(value),
            _ => key_of(record),
        }
    }

    fn id_in_key(&self, key: Value) -> Result<Arc<str>, Poison> {
        let place = "the record's key";
        let mut fields = match key {
            Value::Object(fields) => fields,
            Value::String(id) => return checked_id(&id, place, FailureClass::MissingKey),
            value => return id_in(&value, place, FailureClass::MissingKey),
        };
        if look_up(&fields, &self.id).is_none()
            && let Some(wrapped) = fields.remove("payload")
        {
            match wrapped {
                Value::Object(inner) => fields = inner,
                value => return id_in(&value, place, FailureClass::MissingKey),
            }
        }
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        let paths = [Some(&self.id), self.delete.as_ref().map(|delete| &delete.id)].into_iter().flatten();
        let names = paths.flat_map(|path| [path.clone(), last(path)]);
        let only = || fields.values().next().filter(|_| fields.len() == 1);
        match names.into_iter().find_map(|name| look_up(&fields, &name)).or_else(only) {
            Some(id) => id_in(id, place, FailureClass::MissingKey),
            None => {
                let object = describe(&Value::Object(Map::new()));
                let reason = format!("{place} is {object} without `{}`, which must name the document", last(&self.id));
                poison(FailureClass::MissingKey, reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::{DecodedRecord, Decoder, DocumentSpec};
    use crate::record::{Partition, RecordLocation};

    fn changes() -> DocumentSpec {
        DocumentSpec {
            id: Some("payload.after.id".into()),
            version: Some("payload.ts_ms".into()),
            text: Some("{{ payload.after.title }}".into()),
            delete: Some(DeleteSpec { when: "payload.op == 'd'".into(), id: Some("payload.before.id".into()) }),
            ..DocumentSpec::default()
        }
    }

    fn decode(spec: &DocumentSpec, key: Option<&str>, payload: Option<Value>) -> Result<DecodedRecord, Poison> {
        let record = Record {
            place: RecordLocation { partition: Partition { topic: "t".into(), number: 0 }, offset: 7 },
            timestamp_ms: Some(1_000),
            key: key.map(|key| key.to_owned().into()),
            payload: payload.map(|payload| payload.to_string().into()),
            headers: Vec::new(),
        };
        Decoder::new(spec).unwrap().decode(&record, &Schemas::none())
    }

    fn tombstone(id: &str, version: Option<i64>) -> Result<DecodedRecord, Poison> {
        Ok(DecodedRecord::Tombstone { id: id.into(), version })
    }

    #[test]
    fn a_change_that_says_delete_deletes_under_its_version() {
        let deleted = json!({"payload": {"op": "d", "before": {"id": 2, "title": "lamp"}, "after": null, "ts_ms": 11}});
        assert_eq!(decode(&changes(), None, Some(deleted.clone())), tombstone("2", Some(11)));
        let created = json!({"payload": {"op": "c", "before": null, "after": {"id": 2, "title": "lamp"}, "ts_ms": 10}});
        assert!(matches!(decode(&changes(), None, Some(created)), Ok(DecodedRecord::Document(document)) if &*document.id == "2"));
        let silent = DocumentSpec { delete: None, ..changes() };
        assert_eq!(decode(&silent, None, Some(deleted)).unwrap_err().class, FailureClass::MissingField);
        let flat = DocumentSpec {
            delete: Some(DeleteSpec { when: "__deleted is defined and __deleted == 'true'".into(), id: None }),
            ..DocumentSpec::default()
        };
        assert_eq!(decode(&flat, None, Some(json!({"id": "a", "__deleted": "true"}))), tombstone("a", Some(1_000)));
        assert!(matches!(decode(&flat, None, Some(json!({"id": "a", "text": "t"}))), Ok(DecodedRecord::Document(_))));
    }

    #[test]
    fn what_the_condition_misses_is_named() {
        let fault = decode(&changes(), None, Some(json!({"payload": {"ts_ms": 1}}))).unwrap_err();
        assert_eq!(fault.class, FailureClass::MissingField);
        assert!(fault.reason.contains("`payload.op` is absent"), "{fault}");
        let braces = DeleteSpec { when: "{{ payload.op == 'd' }}".into(), id: None };
        let error = Decoder::new(&DocumentSpec { delete: Some(braces), ..DocumentSpec::default() }).unwrap_err();
        assert!(format!("{error:#}").contains("without braces"), "{error:#}");
    }

    #[test]
    fn a_key_of_json_is_unwrapped() {
        for key in [
            r#"{"payload":{"id":2}}"#,
            r#"{"schema":{"type":"struct"},"payload":{"id":2}}"#,
            r#"{"id":2}"#,
            r#"{"id":2,"region":"eu"}"#,
            r#"{"sku":"2"}"#,
            r#"{"payload":2}"#,
            r#""2""#,
            "2",
        ] {
            assert_eq!(decode(&changes(), Some(key), None), tombstone("2", None), "{key}");
        }
        for (key, class) in [
            (r#"{"a":1,"b":2}"#, FailureClass::MissingKey),
            (r#"{"payload":{}}"#, FailureClass::MissingKey),
            (r#"{"id":[2]}"#, FailureClass::WrongType),
            (r#""""#, FailureClass::MissingKey),
        ] {
            assert_eq!(decode(&changes(), Some(key), None).unwrap_err().class, class, "{key}");
        }
        for key in ["{broken", "\"half", "a\"b"] {
            assert_eq!(decode(&changes(), Some(key), None), tombstone(key, None), "an id that is no JSON stands for itself");
        }
    }
}
