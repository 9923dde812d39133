use serde_json::{Value, json};

use super::fixture::{chat, spelled};
use crate::prompt::{ChatTokenizer, SchemaConstraint, TokenMask};
use crate::schema::Schema;
use tidemill_base::failure::FailureClass;

fn schema(properties: Value) -> Schema {
    let required: Vec<&String> = properties.as_object().unwrap().keys().collect();
    let schema = json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    Schema::new(schema).unwrap()
}

fn allowed(chat: &ChatTokenizer, constraint: &mut SchemaConstraint) -> Vec<u32> {
    let mut mask = TokenMask::new();
    constraint.mask(&mut mask).unwrap();
    let _ = chat;
    mask.iter().collect()
}

/// Writes `text` token by token. Fails with the first token that the constraint does not allow.
fn follow(chat: &ChatTokenizer, constraint: &mut SchemaConstraint, text: &str) -> Result<(), String> {
    for id in chat.encode_text(text).unwrap() {
        let allowed = allowed(chat, constraint);
        if !allowed.contains(&id) {
            return Err(spelled(chat, &[id]));
        }
        constraint.accept(id).unwrap();
    }
    Ok(())
}

#[test]
fn what_is_certain_is_forced_and_what_is_not_is_masked() {
    let chat = chat();
    let schema = schema(json!({"colour": {"enum": ["red", "blue"]}, "sure": {"type": "boolean"}}));
    let mut constraint = chat.grammar_cache().constraint(&schema).unwrap();
    let forced = constraint.forced();
    assert!(spelled(&chat, &forced).starts_with("{\"colour\":"), "{:?}", spelled(&chat, &forced));
    assert!(constraint.forced().is_empty(), "there is a choice");
    let rest = "{\"colour\":\"red\",\"sure\":true}".strip_prefix(&spelled(&chat, &forced)).unwrap().to_owned();
    let (first, _) = rest.split_at(rest.find('r').unwrap() + 1);
    follow(&chat, &mut constraint, first).unwrap();
    let forced = constraint.forced();
    assert!(spelled(&chat, &forced).starts_with("ed\",\"sure"), "{:?}", spelled(&chat, &forced));
    assert!(!constraint.may_finish() && !constraint.is_finished());
    assert!(follow(&chat, &mut constraint, "x").is_err());
}

#[test]
fn the_turn_may_end_exactly_where_the_answer_is_whole() {
    let chat = chat();
    let schema = schema(json!({"n": {"type": "integer"}}));
    let mut constraint = chat.grammar_cache().constraint(&schema).unwrap();
    let ends = chat.end_ids().to_vec();
    for id in chat.encode_text("{\"n\":12}").unwrap() {
        let allowed = allowed(&chat, &mut constraint);
        assert!(ends.iter().all(|end| !allowed.contains(end)), "an end before the answer is complete");
        constraint.accept(id).unwrap();
    }
    assert!(constraint.is_finished() && constraint.may_finish());
    let mut left = allowed(&chat, &mut constraint);
    let mut ends = ends;
    left.sort();
    ends.sort();
    assert_eq!(left, ends);
    constraint.accept(ends[0]).unwrap();
    assert!(constraint.forced().is_empty() && constraint.is_finished());
}

#[test]
fn sequences_of_one_schema_go_their_own_ways() {
    let chat = chat();
    let schema = schema(json!({"a": {"enum": ["x", "y"]}}));
    let mut first = chat.grammar_cache().constraint(&schema).unwrap();
    let mut second = chat.grammar_cache().constraint(&schema).unwrap();
    follow(&chat, &mut first, "{\"a\":\"x\"}").unwrap();
    follow(&chat, &mut second, "{\"a\":\"y\"}").unwrap();
    assert!(first.is_finished() && second.is_finished());
}

#[test]
fn strings_spell_control_tokens_out_and_hold_no_control_characters() {
    let chat = chat();
    let schema = schema(json!({"s": {"type": "string"}}));
    let start = || {
        let mut constraint = chat.grammar_cache().constraint(&schema).unwrap();
        follow(&chat, &mut constraint, "{\"s\":\"").unwrap();
        constraint
    };
    let controls: Vec<u32> = chat.definition.added.iter().map(|token| token.id).collect();
    assert!(allowed(&chat, &mut start()).iter().all(|id| !controls.contains(id)), "a control token inside a string");
    follow(&chat, &mut start(), "<|im_end|> <think> 가 \\n \\\"\"}").unwrap();
    assert!(follow(&chat, &mut start(), "\\u0000\"}").is_err(), "databases do not accept it");
    assert!(follow(&chat, &mut start(), "\n").is_err());
}

#[test]
fn answers_are_compact_bounded_and_without_properties_nobody_named() {
    let chat = chat();
    let open = Schema::new(json!({
        "type": "object", "properties": {"n": {"type": "number"}, "i": {"type": ["integer", "null"], "minimum": 3}}, "required": ["n", "i"],
    }))
    .unwrap();
    let start = || chat.grammar_cache().constraint(&open).unwrap();
    follow(&chat, &mut start(), "{\"n\":-1.5,\"i\":9007199254740991}").unwrap();
    follow(&chat, &mut start(), "{\"n\":1000000000000000,\"i\":null}").unwrap();
    for refused in [
        "{ \"n\"",
        "{\"n\": ",
        "{\"n\":1e9",
        "{\"n\":10000000000000000",
        "{\"n\":1,\"i\":2}",
        "{\"n\":1,\"i\":9007199254740992",
        "{\"n\":1,\"i\":3,",
    ] {
        assert!(follow(&chat, &mut start(), refused).is_err(), "{refused} was allowed");
    }
    let told = Schema::new(
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": {"type": "boolean"}}),
    );
    follow(&chat, &mut chat.grammar_cache().constraint(&told.unwrap()).unwrap(), "{\"n\":1,\"other\":true}").unwrap();
    let joined = Schema::new(json!({
        "type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
        "allOf": [{"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}],
    }));
    follow(&chat, &mut chat.grammar_cache().constraint(&joined.unwrap()).unwrap(), "{\"a\":true,\"b\":false}").unwrap();
}

#[test]
fn schemas_that_cannot_be_followed_are_refused_at_once() {
    let chat = chat();
    let refused = |schema: Value| chat.check_schema(&Schema::new(schema).unwrap()).unwrap_err();
    let unique = json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true}}});
    assert!(refused(unique).contains("the keywords [\"uniqueItems\"] are not supported"));
    let looks_ahead = json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=a)b$"}}});
    assert!(refused(looks_ahead).contains("look-around"));
    let overlapping = json!({"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}, {"const": "b"}]}}});
    assert!(refused(overlapping).contains("oneOf constraints are not supported; rewrite the schema without it"));
    let impossible =
        json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 2}}, "required": ["a"]});
    assert!(refused(impossible).starts_with("answers cannot be held to the schema: "));
    let long = json!({"type": "object", "description": "x".repeat(300_000)});
    assert!(refused(long).contains("262144 is the limit"));
    let poison = chat.grammar_cache().constraint(&Schema::new(json!({"type": "object", "not": {}})).unwrap()).err().unwrap();
    assert_eq!(poison.class, FailureClass::Schema);
}

/// The output of a model that prolongs numbers as far as it may, with `digit` where it is allowed.
fn stubborn(chat: &ChatTokenizer, schema: &Schema, digit: u8) -> String {
    let mut constraint = chat.grammar_cache().constraint(schema).unwrap();
    let mut written = Vec::new();
    for _ in 0..200 {
        constraint.forced().iter().for_each(|id| written.extend_from_slice(chat.piece(*id)));
        if constraint.is_finished() {
            return String::from_utf8(written).unwrap();
        }
        let mut mask = TokenMask::new();
        constraint.mask(&mut mask).unwrap();
        let begins =
            |wanted: &dyn Fn(u8) -> bool| mask.iter().find(|id| chat.piece(*id).first().is_some_and(|byte| wanted(*byte)));
        let next = begins(&|byte| byte == digit).or_else(|| begins(&|byte| byte == b'.'));
        let next = next.or_else(|| begins(&|byte| byte.is_ascii_digit())).or_else(|| begins(&|_| true));
        let Some(next) = next else { return String::from_utf8(written).unwrap() };
        written.extend_from_slice(chat.piece(next));
        constraint.accept(next).unwrap();
    }
    panic!("a number that never ends: {}", String::from_utf8_lossy(&written))
}

#[test]
fn numbers_end_and_are_valid_whatever_their_bounds() {
    let chat = chat();
    for number in [
        json!({"type": "number", "minimum": 0, "maximum": 1}),
        json!({"type": "number"}),
        json!({"type": "number", "minimum": 1e-7, "maximum": 1}),
        json!({"type": "number", "minimum": 1e-300, "maximum": 1}),
        json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-20}),
        json!({"type": "number", "exclusiveMinimum": 0.1, "maximum": 0.30000000000000004}),
        json!({"type": "number", "exclusiveMinimum": -1, "maximum": 0}),
        json!({"type": "number", "minimum": -1e300, "maximum": 1e300}),
        json!({"type": "number", "minimum": 0, "maximum": 18446744073709551615_u64}),
        json!({"type": "number", "minimum": 0, "multipleOf": 0.05}),
        json!({"type": "integer", "minimum": 0, "maximum": 20000000000_u64}),
        json!({"type": "integer", "minimum": 1, "maximum": i64::MAX}),
        json!({"type": "integer", "minimum": i64::MIN, "exclusiveMaximum": 9223372036854776000_u64}),
        json!({"type": "integer", "exclusiveMinimum": i64::MIN, "maximum": -1}),
        json!({"type": "integer", "minimum": u64::MIN, "maximum": u64::MAX}),
        json!({"type": "integer", "minimum": 9007199254740993_i64, "maximum": 9007199254740995_i64}),
        json!({"type": "integer", "minimum": -1e300, "maximum": 1e300}),
        json!({"type": ["integer", "null"], "minimum": 0.5, "maximum": 2.5}),
        json!({"description": "anything"}),
        json!({"minimum": 3}),
    ] {
        let schema = schema(json!({"n": number}));
        for digit in [b'0', b'9', b'-', b'1'] {
            let written = stubborn(&chat, &schema, digit);
            let value: Value = serde_json::from_str(&written).unwrap_or_else(|e| panic!("{number}: {written:?}: {e}"));
            assert!(schema.faults(&value).is_empty(), "{number}: {written}");
        }
    }
}

#[test]
fn what_of_a_number_cannot_be_followed_is_named_and_nothing_panics() {
    let chat = chat();
    for (number, named) in [
        (json!({"type": "integer", "minimum": 1e19}), "integers beyond 64 bits"),
        (json!({"type": "number", "maximum": -1e30}), "numbers beyond 64 bits"),
        (json!({"type": "number", "multipleOf": 1e-12}), "multipleOf 0.000000000001"),
        (json!({"type": "number", "multipleOf": 0.3333333333333333}), "multipleOf 0.3333333333333333"),
        (json!({"enum": [9007199254740993_i64]}), "enum 9007199254740993"),
        (json!({"const": u64::MAX}), "const 18446744073709551615"),
        (json!({"not": {"type": "null"}}), "\"not\""),
        (json!({"type": "object", "propertyNames": {"maxLength": 3}}), "\"propertyNames\""),
        (json!({"type": "array", "contains": {"type": "null"}}), "\"contains\""),
        (json!({"if": {"type": "null"}, "then": true}), "\"if\""),
        (json!({"type": "string", "format": "no-such-format"}), "no-such-format"),
    ] {
        let error = chat.check_schema(&schema(json!({"n": number}))).unwrap_err();
        assert!(error.contains(named) && error.starts_with("answers cannot be held to the schema"), "{number}: {error}");
    }
    for property in [
        json!({"type": "string", "maxLength": i64::MAX}),
        json!({"type": "string", "minLength": u64::MAX}),
        json!({"type": "array", "items": {"type": "null"}, "maxItems": u64::MAX}),
        json!({"type": "object", "minProperties": u64::MAX}),
        json!({"allOf": [{"type": "number", "multipleOf": 1e-9}, {"type": "number", "multipleOf": 4000000000_u64}]}),
        json!({"type": "number", "minimum": 5e-324, "maximum": 1e-323}),
        json!({"type": "string", "pattern": "(a)\\1"}),
        json!({"type": "string", "pattern": "\\bword\\b"}),
    ] {
        // Both results are acceptable.
        let _ = chat.check_schema(&schema(json!({"n": property})));
    }
}

#[test]
fn hostile_schemas_end_in_time() {
    let chat = chat();
    let begun = std::time::Instant::now();
    let mut nested = json!({"type": "string", "maxLength": 5});
    for _ in 0..60 {
        nested = json!({"anyOf": [nested, {"type": "object", "properties": {"a": nested}, "required": ["a"]}]});
        if nested.to_string().len() > 60_000 {
            break;
        }
    }
    for property in [
        json!({"type": "string", "minLength": 1_000_000, "maxLength": 10_000_000}),
        json!({"type": "string", "pattern": "^(a|aa|aaa){1,900}(b|bb){900}$"}),
        json!({"type": "array", "minItems": 1_000_000, "items": {"type": "array", "minItems": 1_000_000}}),
        nested,
    ] {
        let schema = Schema::new(json!({"type": "object", "properties": {"a": property}, "required": ["a"]})).unwrap();
        // Both results are acceptable, as long as there is one in time.
        let _ = chat.check_schema(&schema);
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn grammars_are_kept_and_the_oldest_make_room() {
    let chat = chat();
    let numbered = |n: usize| schema(json!({format!("field{n}"): {"type": "boolean"}}));
    for n in 0..80 {
        chat.check_schema(&numbered(n % 70)).unwrap();
        chat.check_schema(&numbered(0)).unwrap();
    }
    assert!(chat.grammar_cache().cached() <= 64);
    assert!(chat.grammar_cache().holds(&numbered(0)), "it was used all the time");
    assert!(!chat.grammar_cache().holds(&numbered(12)));
}

#[test]
fn constraints_move_between_threads() {
    fn moves<T: Send>() {}
    fn shared<T: Sync>() {}
    moves::<SchemaConstraint>();
    shared::<ChatTokenizer>();
}
