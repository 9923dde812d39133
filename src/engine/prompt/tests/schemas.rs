//! Random answers under random schemas: every completed answer is valid.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use super::fixture::chat;
use crate::completion::{Completion, Finish};
use crate::prompt::{ChatTokenizer, TokenMask};
use crate::schema::Schema;
use tidemill_base::failure::{Failure, FailureClass};

const SCHEMAS: u64 = 500;
const MAX_TOKENS: usize = 300;

fn value_schema(random: &mut StdRng, depth: usize) -> Value {
    let deep = depth > 2;
    match random.random_range(0..if deep { 12 } else { 15 }) {
        0 => json!({"type": "boolean"}),
        1 => json!({"enum": ["red", "green é", "a\"b\\c", 3, null, -1.5, [1, "x"], {"k": true}]}),
        2 => json!({"const": format!("value {}\n", random.random_range(0..99))}),
        3 => {
            let low = random.random_range(-500..500);
            json!({"type": "integer", "minimum": low, "exclusiveMaximum": low + random.random_range(1..200)})
        }
        4 => match random.random_range(0..4) {
            0 => json!({"type": "number"}),
            1 => json!({"type": "number", "minimum": -2.5}),
            2 => json!({"type": "number", "exclusiveMinimum": 0, "maximum": 10.25}),
            _ => json!({"type": "integer"}),
        },
        5 => {
            let low = random.random_range(0..5);
            json!({"type": "string", "minLength": low, "maxLength": low + random.random_range(0..9)})
        }
        6 => json!({"type": ["string", "null"], "maxLength": 6}),
        7 => json!({"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-c]{2,4}-[0-9]+$"}, {"type": "integer"}]}),
        8 => json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": false, "minItems": 1}),
        9 => json!({"oneOf": [{"type": "integer", "multipleOf": 5, "minimum": 0}, {"type": "string", "format": "date"}]}),
        10 => json!({"allOf": [{"type": "string", "minLength": 2}, {"type": "string", "maxLength": 7}]}),
        11 => json!({"$ref": "#/$defs/tree"}),
        12 => {
            let low = random.random_range(0..3);
            json!({"type": "array", "items": value_schema(random, depth + 1), "minItems": low, "maxItems": low + random.random_range(0..3)})
        }
        13 => json!({"anyOf": [{"type": "null"}, object_schema(random, depth + 1)]}),
        _ => object_schema(random, depth + 1),
    }
}

/// An object schema, nested up to three levels, with every kind of value that tasks use.
pub(crate) fn form_schema(random: &mut StdRng) -> Value {
    let mut schema = object_schema(random, 0);
    schema["$defs"] = json!({"tree": {
        "type": "object", "properties": {"leaf": {"type": "boolean"}, "branches": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}},
        "required": ["leaf"], "additionalProperties": false,
    }});
    schema
}

fn object_schema(random: &mut StdRng, depth: usize) -> Value {
    let mut properties = Map::new();
    for index in 0..random.random_range(1..5) {
        let name = ["title", "preis €", "a\"q", "tags", "n"][random.random_range(0..5)];
        properties.insert(format!("{name}{index}"), value_schema(random, depth));
    }
    let required: Vec<String> = properties.keys().filter(|_| random.random_bool(0.7)).cloned().collect();
    let mut schema = json!({"type": "object", "properties": properties, "required": required});
    match random.random_range(0..5) {
        0 => schema["additionalProperties"] = json!({"type": "integer", "minimum": 0, "maximum": 9}),
        1 => {}
        2 => {
            schema["patternProperties"] = json!({"^x-": {"type": "boolean"}});
            schema["additionalProperties"] = false.into();
        }
        _ => schema["additionalProperties"] = false.into(),
    }
    schema
}

/// Chooses randomly among the allowed tokens, sometimes preferring one that closes something.
fn answer(chat: &ChatTokenizer, schema: &Schema, random: &mut StdRng) -> Completion {
    let mut constraint = chat.grammar_cache().constraint(schema).unwrap();
    let mut mask = TokenMask::new();
    let mut text = chat.incremental_text();
    let mut written = 0;
    let finish = loop {
        for id in constraint.forced() {
            text.push(chat.piece(id));
            written += 1;
        }
        if constraint.is_finished() {
            break Finish::Stop;
        }
        if written >= MAX_TOKENS {
            break Finish::Length;
        }
        constraint.mask(&mut mask).unwrap();
        let allowed: Vec<u32> = mask.iter().collect();
        assert!(!allowed.is_empty(), "no token is allowed after {:?}", text.text());
        let may_end = allowed.iter().any(|id| chat.end_ids().contains(id));
        assert_eq!(may_end, constraint.may_finish(), "after {:?}", text.text());
        let closing: Vec<u32> =
            allowed.iter().copied().filter(|id| matches!(chat.piece(*id).first(), Some(b'"' | b'}' | b']' | b','))).collect();
        let choices = if !closing.is_empty() && random.random_bool(0.4) { &closing } else { &allowed };
        let id = choices[random.random_range(0..choices.len())];
        constraint.accept(id).unwrap();
        if chat.end_ids().contains(&id) {
            break Finish::Stop;
        }
        text.push(chat.piece(id));
        written += 1;
    };
    Completion { text: text.into_text(), tokens: Vec::new(), finish }
}

#[test]
fn every_answer_under_a_random_schema_is_valid_or_says_that_it_was_cut_off() {
    let chat = chat();
    let (mut whole, mut cut) = (0, 0);
    for seed in 0..SCHEMAS {
        let mut random = StdRng::seed_from_u64(seed);
        let schema = Schema::new(form_schema(&mut random)).unwrap();
        let completion = answer(&chat, &schema, &mut random);
        match schema.judge(&completion, MAX_TOKENS) {
            Ok(value) => {
                whole += 1;
                // Other JSON readers must be able to read the value.
                assert!(serde_json::from_str::<Value>(&value.to_string()).is_ok());
            }
            Err(Failure::Poison(poison)) if poison.class == FailureClass::Truncated => {
                assert_eq!(completion.finish, Finish::Length);
                cut += 1;
            }
            Err(failure) => panic!("schema {seed}: {failure}\n{}\n{}", schema.text(), completion.text),
        }
    }
    assert_eq!(whole + cut, SCHEMAS);
    assert!(whole > SCHEMAS * 3 / 4, "only {whole} answers were completed");
}
