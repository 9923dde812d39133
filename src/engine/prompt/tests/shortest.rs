use serde_json::{Value, json};

use super::fixture::chat;
use crate::prompt::shortest_answer::shortest_answer;
use crate::schema::Schema;

#[test]
fn the_shortest_answer_has_only_what_it_must() {
    let schema = json!({
        "type": "object",
        "$defs": {"kind": {"enum": ["long one", "ab"]}, "node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"]}},
        "properties": {
            "optional": {"type": "string"}, "kind": {"$ref": "#/$defs/kind"}, "price": {"type": "number", "minimum": 10.5},
            "tags": {"type": "array", "minItems": 2, "items": {"type": "string", "minLength": 1}}, "node": {"$ref": "#/$defs/node"},
            "sure": {"const": false}, "below": {"type": "integer", "maximum": -7}, "either": {"type": ["string", "null"]},
        },
        "required": ["kind", "price", "tags", "node", "sure", "below", "either"],
    });
    let shortest = shortest_answer(&schema).unwrap();
    assert_eq!(shortest, r#"{"kind":"ab","price":10,"tags":["a","a"],"node":{"next":null},"sure":false,"below":-7,"either":""}"#);
    let chat = chat();
    let tokens = chat.shortest_answer_tokens(&Schema::new(schema).unwrap()).unwrap();
    assert_eq!(tokens, chat.count(&shortest).unwrap());
}

#[test]
fn schemas_without_an_end_have_no_shortest_answer() {
    let endless = json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]});
    assert_eq!(shortest_answer(&endless), None);
    // Each level doubles the answer, so its length must be computed without writing it.
    let mut definitions = serde_json::Map::new();
    for level in 0..60 {
        let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
        definitions
            .insert(level.to_string(), json!({"type": "object", "properties": {"a": next, "b": next}, "required": ["a", "b"]}));
    }
    definitions.insert("60".into(), json!({"type": "null"}));
    assert_eq!(shortest_answer(&json!({"$defs": definitions, "$ref": "#/$defs/0"})), None);
    assert_eq!(shortest_answer(&Value::Bool(false)), None);
}
