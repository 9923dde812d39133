//! Answers that quote a text: every string is a span of it, and numbers are those that are listed.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::fixture;
use crate::{
    Completion, Engine, Generate, LeafType, LeafValues, Message, PASSAGE_END, Prediction, Prompt, Request, Role, Sampling,
    Schema, SpanGrammar, SpanGrammarError, Work,
};
use tidemill_base::config::EngineConfig;

const CHUNKS: [&str; 13] = ["An", " ", "oak", " ", "\"bread\"", " ", "board", PASSAGE_END, "40 x 25 cm", ",", " ", "도", "마"];

fn leaf(schema: &Map<String, Value>, of: LeafType) -> LeafValues {
    match of {
        LeafType::String => LeafValues::Spans { most: schema.get("maxLength").and_then(Value::as_u64) },
        LeafType::Number => LeafValues::Listed(vec![json!(40), json!(2.5)]),
        LeafType::Integer => LeafValues::Listed(vec![json!(40)]),
    }
}

fn grammar(schema: &Value) -> Result<SpanGrammar, SpanGrammarError> {
    SpanGrammar::new(schema, &CHUNKS, &leaf)
}

fn object(properties: Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn engine() -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators/qwen3");
    fixture::start_with(&folder, EngineConfig { threads: Some(2), ..EngineConfig::default() }).unwrap()
}

/// Answers under the grammar, at several temperatures.
async fn answers(engine: &Engine, schema: &Value, count: u64) -> Vec<Completion> {
    let spans = Arc::new(grammar(schema).unwrap());
    let schema = Arc::new(Schema::new(schema.clone()).unwrap());
    let ask = |seed: u64| {
        let sampling = Sampling { temperature: if seed == 0 { 0.0 } else { 3.0 }, top_p: 1.0, top_k: 0, seed };
        let prompt = Prompt { messages: vec![Message { role: Role::User, content: "facts".into() }], group: "t".into() };
        let (schema, spans) = (Some(schema.clone()), Some(spans.clone()));
        let work = Work::Generate(Generate { prompt, max_tokens: 200, sampling, stop: Vec::new(), schema, spans });
        Request { model: fixture::NAME.into(), work }
    };
    let answers = engine.run((0..count).map(ask).collect()).await.unwrap();
    answers
        .into_iter()
        .map(|answer| match answer.unwrap().prediction {
            Prediction::Completion(completion) => completion,
            other => panic!("expected a completion, got {other:?}"),
        })
        .collect()
}

fn is_span(text: &str) -> bool {
    let spans = |passage: &[&str]| {
        (0..passage.len()).any(|start| (start + 1..=passage.len()).any(|end| passage[start..end].concat() == text))
    };
    !text.starts_with(' ') && !text.ends_with(' ') && CHUNKS.split(|chunk| *chunk == PASSAGE_END).any(spans)
}

#[tokio::test]
async fn every_string_is_a_span_and_every_number_is_listed() {
    let schema = object(
        json!({
            "name": {"type": "string", "maxLength": 9}, "brand": {"type": ["string", "null"]}, "pieces": {"type": "integer"},
            "kind": {"enum": ["a", "b\"c"]}, "parts": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            "more": {"anyOf": [{"$ref": "#/$defs/box"}, {"type": "null"}]}, "any": {},
        }),
        &["name", "brand", "pieces", "kind", "parts", "more"],
    );
    let mut schema = schema;
    schema["$defs"] =
        json!({"box": object(json!({"weight": {"type": "number"}, "inner": {"$ref": "#/$defs/box"}}), &["weight"])});
    let judge = Schema::new(schema.clone()).unwrap();
    let mut spans = std::collections::BTreeSet::new();
    for completion in answers(&engine(), &schema, 60).await {
        // Recursion and lists can be longer than the limit on tokens.
        let Ok(value) = judge.judge(&completion, 200) else { continue };
        let name = value["name"].as_str().unwrap();
        assert!(is_span(name) && name.chars().count() <= 9, "{name}");
        spans.insert(name.to_owned());
        assert!(value["brand"].is_null() || is_span(value["brand"].as_str().unwrap()), "{value}");
        assert_eq!(value["pieces"], 40);
        assert!(value["parts"].as_array().unwrap().iter().all(|part| is_span(part.as_str().unwrap())), "{value}");
        assert!(value["any"].is_null() || !value["any"].is_object(), "{value}");
    }
    assert!(spans.len() > 3, "the answers hardly differ: {spans:?}");
}

#[tokio::test]
async fn optional_properties_can_be_left_out_in_any_combination() {
    let schema = object(json!({"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}), &["b"]);
    let mut seen = std::collections::BTreeSet::new();
    for completion in answers(&engine(), &schema, 80).await {
        seen.insert(completion.text);
    }
    let all = ["{\"a\":1,\"b\":2,\"c\":3}", "{\"a\":1,\"b\":2}", "{\"b\":2,\"c\":3}", "{\"b\":2}"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[tokio::test]
async fn what_the_text_does_not_have_is_left_out_or_empty_and_otherwise_an_error() {
    let none = |_: &Map<String, Value>, _: LeafType| LeafValues::Listed(Vec::new());
    let refused = |schema: &Value| SpanGrammar::new(schema, &CHUNKS, &none).unwrap_err();
    assert_eq!(refused(&object(json!({"a/b": {"type": "number"}}), &["a/b"])), SpanGrammarError::NoValue("/a~1b".into()));
    let list = json!({"type": "array", "items": {"type": "number"}, "minItems": 1});
    assert_eq!(refused(&object(json!({"a": list}), &["a"])), SpanGrammarError::NoValue("/a/0".into()));
    let fine = object(json!({"a": {"type": "number"}, "b": {"type": "array", "items": {"type": "number"}}}), &["b"]);
    let lark = SpanGrammar::new(&fine, &CHUNKS, &none).unwrap();
    assert!(lark.lark().contains("\"[]\""), "{}", lark.lark());
    let null = object(json!({"a": {"type": ["number", "null"]}}), &["a"]);
    assert!(SpanGrammar::new(&null, &CHUNKS, &none).is_ok());
}

#[test]
fn keywords_that_cannot_be_followed_are_refused_by_name() {
    for (property, part) in [
        (json!({"oneOf": [{"type": "string"}]}), "`oneOf`"),
        (json!({"type": "array", "uniqueItems": true}), "`uniqueItems`"),
        (json!({"type": "object", "patternProperties": {}}), "`patternProperties`"),
        (json!({"anyOf": [{"type": "string"}], "minLength": 3}), "`minLength` beside `anyOf`"),
        (json!({"$ref": "#/$defs/none"}), "leads nowhere"),
        (json!({"type": "array", "items": [{"type": "string"}]}), "`prefixItems`"),
    ] {
        let error = grammar(&object(json!({"field": property}), &[])).unwrap_err();
        let SpanGrammarError::Unsupported(message) = &error else { panic!("{property}: {error:?}") };
        assert!(message.contains(part) && message.contains("`/field`"), "{message}");
    }
}
