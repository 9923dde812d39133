//! JSON Schemas of completions. Every answer is validated here, from whichever model it comes.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::completion::{Completion, Finish};
use tidemill_base::failure::{Failure, FailureClass};

/// The maximum number of violations to report for one value.
const MOST_FAULTS: usize = 20;

/// The keyword for the unit of a field, which JSON Schema does not have.
const UNIT: &str = "unit";

/// Keywords whose value is one schema, a list of schemas, or a map of schemas.
pub(crate) const ONE: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
pub(crate) const LIST: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
pub(crate) const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// The schemas directly inside `schema`.
pub(crate) fn parts_mut(schema: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut parts = Vec::new();
    for (key, value) in schema.iter_mut() {
        let key = key.as_str();
        if LIST.contains(&key) && value.is_array() {
            parts.extend(value.as_array_mut().into_iter().flatten());
        } else if NAMED.contains(&key) {
            parts.extend(value.as_object_mut().into_iter().flat_map(Map::values_mut));
        } else if ONE.contains(&key) {
            parts.push(value);
        }
    }
    parts
}

/// Removes the units of all fields.
fn remove_units(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove(UNIT);
        parts_mut(schema).into_iter().for_each(remove_units);
    }
}

/// A valid JSON Schema, compiled into a validator.
pub struct Schema {
    value: Value,
    standard: Value,
    text: String,
    validator: jsonschema::Validator,
}

impl Schema {
    /// Compiles a schema of draft 2020-12, or of the draft that its `$schema` names. References must stay inside it.
    ///
    /// # Errors
    /// One sentence if it is not a valid schema.
    pub fn new(value: Value) -> Result<Self, String> {
        if value.get("type").and_then(Value::as_str) != Some("object") {
            return Err("the schema must be of `type: object`, so that every answer has named fields".into());
        }
        let validator =
            jsonschema::validator_for(&value).map_err(|e| format!("the schema is not valid: {e}, at `{}`", e.instance_path()))?;
        let mut standard = value.clone();
        remove_units(&mut standard);
        Ok(Self { text: value.to_string(), value, standard, validator })
    }

    /// The schema as it was given.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The schema without the keyword `unit`, which servers and the grammar library do not know.
    pub(crate) fn standard(&self) -> &Value {
        &self.standard
    }

    /// The schema as compact JSON, its keys in the order of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The violations of `value`: for each, the JSON Pointer of the invalid place and the path of the violated rule in the schema.
    /// At most the first 20.
    pub fn faults(&self, value: &Value) -> Vec<(String, String)> {
        let faults = self.validator.iter_errors(value).take(MOST_FAULTS);
        faults.map(|error| (error.instance_path().to_string(), error.schema_path().to_string())).collect()
    }

    /// Parses the completion and validates it.
    ///
    /// # Errors
    /// A poison failure if the completion was truncated, is not JSON, or is not valid.
    pub fn judge(&self, completion: &Completion, max_tokens: usize) -> Result<Value, Failure> {
        let parsed: Result<Value, _> = serde_json::from_str(&completion.text);
        if completion.finish == Finish::Length && parsed.is_err() {
            let reason = format!(
                "the answer reached max_tokens ({max_tokens}) before its object was complete; raise max_tokens or bound the schema's strings and lists"
            );
            return Err(Failure::poison(FailureClass::Truncated, reason));
        }
        let value = parsed.map_err(|e| Failure::poison(FailureClass::Schema, format!("the answer is not JSON: {e}")))?;
        // The error's own message would quote the value, which may be a whole document.
        let broken =
            self.validator.iter_errors(&value).next().map(|e| (e.instance_path().to_string(), e.schema_path().to_string()));
        let Some((place, rule)) = broken else { return Ok(value) };
        let place = if place.is_empty() { "the object itself".to_owned() } else { format!("`{place}`") };
        Err(Failure::poison(
            FailureClass::Schema,
            format!("the answer is not valid under the schema at {place}: it violates `{rule}`"),
        ))
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.text).finish()
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(text: &str, finish: Finish) -> Result<Value, String> {
        let schema = Schema::new(json!({
            "type": "object", "properties": {"price": {"type": "number", "minimum": 0}}, "required": ["price"], "additionalProperties": false,
        }));
        let completion = Completion { text: text.into(), tokens: Vec::new(), finish };
        schema.unwrap().judge(&completion, 9).map_err(|e| e.to_string())
    }

    #[test]
    fn an_answer_is_taken_only_if_it_is_valid() {
        assert_eq!(judged("{\"price\":3}", Finish::Stop), Ok(json!({"price": 3})));
        assert_eq!(judged("{\"price\":3}", Finish::Length), Ok(json!({"price": 3})), "complete at the last token");
        let refused = |text, finish| judged(text, finish).unwrap_err();
        assert!(refused("{\"price\":", Finish::Length).starts_with("truncated: the answer reached max_tokens (9)"));
        assert!(refused("Sure! {", Finish::Stop).starts_with("schema: the answer is not JSON"));
        assert!(refused("{\"price\":-1}", Finish::Stop).contains("at `/price`: it violates `/properties/price/minimum`"));
        assert!(refused("{}", Finish::Stop).contains("the object itself"));
    }

    #[test]
    fn what_is_no_schema_is_refused_with_its_place() {
        assert!(
            Schema::new(json!({"type": "object", "properties": {"a": {"type": "nothing"}}}))
                .unwrap_err()
                .contains("/properties/a")
        );
        assert!(Schema::new(json!({"type": "string"})).unwrap_err().contains("type: object"));
        assert!(
            Schema::new(json!({"type": "object", "$ref": "https://example.com/s.json"})).is_err(),
            "references are not fetched"
        );
    }
}
