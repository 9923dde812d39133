//! Strict extraction through a real decoder of random weights, which would write anything that it may.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::*;
use crate::config::{EngineConfig, ModelConfig};
use crate::task::evidence::schemas_at;

const SCHEMAS: u64 = 500;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The texts of the sample products and tickets, in English and in Korean.
fn texts() -> Vec<String> {
    let lines = |file: &str| std::fs::read_to_string(repository(file)).unwrap();
    let products = lines("pipelines/samples/products.jsonl");
    let tickets = lines("pipelines/samples/tickets.jsonl");
    let product = |line: &str| {
        let record: Value = serde_json::from_str(line).ok()?;
        Some(format!("{}\n\n{}", record["title"].as_str()?, record["description"].as_str()?))
    };
    let ticket = |line: &str| Some(serde_json::from_str::<Value>(line).ok()?["text"].as_str()?.to_owned());
    let mut texts: Vec<String> = products.lines().filter_map(product).chain(tickets.lines().filter_map(ticket)).collect();
    texts.push(
        "Order 7781\n\nShipped on 5 January 2026, due 2026-02-01. Weighs 1.5 kg, 40 x 25 cm, holds 0.5 litres. -4 °C.".into(),
    );
    texts.push(
        "주문 12번\n\n2026년 1월 5일에 3만 5천원으로 두 개를 샀습니다. 무게는 1.2kg입니다. \"빠른\\배송\" 부탁해요.".into(),
    );
    texts
}

fn leaf(random: &mut StdRng) -> Value {
    let mut schema = match random.random_range(0..11) {
        0 => json!({"type": "string"}),
        1 => json!({"type": "string", "minLength": 2, "maxLength": random.random_range(2..40)}),
        2 => json!({"type": "integer"}),
        3 => json!({"type": "number", "minimum": 0, "maximum": 5000}),
        4 => json!({"type": "string", "format": "date"}),
        5 => json!({"type": "number", "unit": (["g", "cm", "l", "min"][random.random_range(0..4)])}),
        6 => json!({"type": "string", "unit": (["cm", "kg", "ml"][random.random_range(0..3)])}),
        7 => json!({"type": "string", "pattern": "^[A-Z][a-z]+$"}),
        8 => json!({"enum": ["red", "blue", null]}),
        9 => json!({"type": "boolean"}),
        _ => json!({}),
    };
    if let Some(name) = schema.get("type").cloned()
        && random.random_bool(0.7)
    {
        schema["type"] = json!([name, "null"]);
    }
    schema
}

fn property(random: &mut StdRng, depth: usize) -> Value {
    match random.random_range(0..if depth > 1 { 6 } else { 9 }) {
        0..=5 => leaf(random),
        6 => json!({"type": "array", "items": property(random, depth + 1), "maxItems": random.random_range(1..4)}),
        7 => json!({"anyOf": [{"type": "null"}, object_schema(random, depth + 1)]}),
        _ => object_schema(random, depth + 1),
    }
}

fn object_schema(random: &mut StdRng, depth: usize) -> Value {
    let names = ["title", "preis €", "a\"q", "x/y", "n"];
    let properties: Map<String, Value> = (0..random.random_range(1..4))
        .map(|index| (format!("{}{index}", names[random.random_range(0..5)]), property(random, depth)))
        .collect();
    let required: Vec<String> = properties.keys().filter(|_| random.random_bool(0.4)).cloned().collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// Fails if a string, number or date of the extraction is not in the text.
fn assert_quotes(schema: &Schema, text: &str, extraction: &Extraction) -> usize {
    let collapsed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut quoted = 0;
    for leaf in &extraction.leaves {
        let value = pointer(&extraction.fields, &leaf.path).unwrap();
        if is_choice(schema.value(), &leaf.path, value) || !(value.is_string() || value.is_number()) {
            continue;
        }
        let what = format!("{} = {value} of {text:?}", leaf.path);
        assert_eq!(leaf.grounded, Some(true), "{what}");
        let span = leaf.evidence.unwrap_or_else(|| panic!("no evidence for {what}")).span;
        let evidence = &text[span.start..span.end];
        let is_date = schemas_at(schema.value(), &leaf.path).iter().any(|part| part.get("format").is_some());
        match value {
            Value::String(date) if is_date => assert!(evidence.contains(&date[..4]), "{what}: {evidence}"),
            Value::String(value) => {
                assert!(collapsed(text).contains(value.as_str()), "{what}");
                assert_eq!(&collapsed(evidence), value, "{what}");
            }
            _ => assert!(
                evidence.chars().any(|letter| letter.is_numeric())
                    || evidence.chars().all(|letter| letter.is_alphabetic() || matches!(letter, ' ' | '-')),
                "{what}: {evidence}"
            ),
        }
        quoted += 1;
    }
    quoted
}

#[tokio::test]
async fn every_string_number_and_date_stands_in_the_document_whatever_the_schema() {
    let config = EngineConfig { threads: Some(2), ..EngineConfig::default() };
    let model = ModelConfig::local(repository("tests/fixtures/generators/qwen3"));
    let engine = Engine::start(&config, &BTreeMap::from([("writer".to_owned(), model)])).unwrap();
    let texts = texts();
    let (mut tasks, mut requests, mut impossible) = (Vec::new(), Vec::new(), 0);
    for seed in 0..SCHEMAS {
        let mut random = StdRng::seed_from_u64(seed);
        let schema = object_schema(&mut random, 0);
        let text = &texts[random.random_range(0..texts.len())];
        let spec = ExtractSpec { schema: Some(SchemaSource::Inline(schema)), max_tokens: Some(200), strict: true, ..spec() };
        let task = task(&spec);
        let Ok((file, _)) = spec.read(Path::new("")) else { panic!("schema {seed} is refused") };
        assert_eq!(spec.problems(Path::new("")), [""; 0], "schema {seed}, {}", file.name);
        let document = document(text);
        match task.prepare(&document, &TemplateContext::of(&document, None)) {
            Ok(TaskStep::Ask(asked)) => {
                let mut request = asked.into_iter().next().unwrap();
                let crate::engine::Work::Generate(generate) = &mut request.work else { panic!("no completion was asked for") };
                // The model's context is small, and what the prompt says does not matter to random weights.
                generate.prompt.messages.iter_mut().for_each(|message| message.content = "facts".into());
                generate.sampling.temperature = if seed % 3 == 0 { 0.0 } else { 2.0 };
                generate.sampling.seed = seed;
                requests.push(request);
                tasks.push((task, document));
            }
            Ok(other) => panic!("schema {seed}: {other:?}"),
            Err(failure) => {
                let poison = poison(failure);
                assert_eq!(poison.class, FailureClass::Ungrounded, "schema {seed}: {}", poison.reason);
                impossible += 1;
            }
        }
    }
    let (mut whole, mut quoted) = (0, 0);
    for ((task, document), answer) in tasks.iter().zip(engine.run(requests).await.unwrap()) {
        let answer = answer.unwrap_or_else(|failure| panic!("{failure}\n{}", task.schema.text()));
        match task.interpret(document, &TemplateContext::default(), vec![answer.prediction]) {
            Ok(TaskStep::Ready(Output::Extraction(extraction))) => {
                whole += 1;
                quoted += assert_quotes(&task.schema, &document.text, &extraction);
            }
            Ok(other) => panic!("no extraction, but {other:?}"),
            // A model of random weights may quote the whole document.
            Err(failure) => assert_eq!(poison(failure).class, FailureClass::Truncated),
        }
    }
    assert!(whole > 400 && quoted > 200, "{whole} answers were complete, with {quoted} values; {impossible} had no value");
}
