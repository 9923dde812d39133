//! Generators through the engine: prompts in, completions and scores out, beside encoders and one another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::fixture::{self, bert, encode};
use crate::prompt::tests::schemas::form_schema;
use crate::{
    Answer, Chunking, Completion, Engine, Finish, Generate, GeneratedToken, Message, Prediction, Priority, Prompt, Request, Role,
    Sampling, Schema, Score, Work,
};
use tidemill_base::config::{EngineConfig, ModelConfig};
use tidemill_base::failure::{Failure, FailureClass, Poison};

const FAMILIES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators").join(family)
}

fn config() -> EngineConfig {
    EngineConfig { threads: Some(2), ..EngineConfig::default() }
}

fn engine(family: &str) -> Engine {
    fixture::start_with(&folder(family), config()).unwrap()
}

fn prompt(group: &str, text: &str) -> Prompt {
    Prompt { messages: vec![Message { role: Role::User, content: text.into() }], group: group.into() }
}

fn generate(text: &str, max_tokens: usize) -> Generate {
    Generate {
        prompt: prompt("task", text),
        max_tokens,
        sampling: Sampling::default(),
        stop: Vec::new(),
        schema: None,
        spans: None,
    }
}

fn request(ask: Generate) -> Request {
    Request { model: fixture::NAME.into(), work: Work::Generate(ask) }
}

fn schema() -> Arc<Schema> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["material", "price", "in_stock"],
        "properties": {
            "material": { "enum": ["oak", "steel", null] },
            "price": { "type": "integer", "minimum": 0, "maximum": 99 },
            "in_stock": { "type": "boolean" },
        },
    });
    Arc::new(Schema::new(schema).unwrap())
}

fn completion(answer: &Result<Answer, Failure>) -> &Completion {
    match &answer.as_ref().expect("the request fails").prediction {
        Prediction::Completion(completion) => completion,
        other => panic!("expected a completion, got {other:?}"),
    }
}

/// Requests of every kind, with prompts of several lengths.
fn mixed() -> Vec<Request> {
    let mut requests = Vec::new();
    for i in 0..8 {
        let text = format!("number {i}: {}", "grinding corn ".repeat(i * 3 % 11));
        let drawn = Sampling { temperature: 0.8, top_p: 0.9, top_k: 0, seed: i as u64 };
        requests.push(request(generate(&text, 20 + i)));
        requests.push(request(Generate { sampling: drawn, ..generate(&text, 24) }));
        requests.push(request(Generate { schema: Some(schema()), ..generate(&text, 90) }));
        let answers = ["garden", "kitchen", "a"].map(Arc::from).into();
        let work = Work::Score(Score { prompt: prompt("labels", &text), answers });
        requests.push(Request { model: fixture::NAME.into(), work });
    }
    requests
}

fn assert_alike(what: &str, got: &Answer, expected: &Answer) {
    let close = |a: f32, b: f32| assert!((a - b).abs() < 1e-3, "{what}: {a} and {b}");
    match (&got.prediction, &expected.prediction) {
        (Prediction::Completion(got), Prediction::Completion(expected)) => {
            assert_eq!((&got.text, got.finish), (&expected.text, expected.finish), "{what}");
            for (got, expected) in got.tokens.iter().zip(&expected.tokens) {
                assert_eq!(got.end, expected.end, "{what}");
                assert_eq!(got.log_probability.is_some(), expected.log_probability.is_some(), "{what}");
                close(got.log_probability.unwrap_or(0.0), expected.log_probability.unwrap_or(0.0));
            }
        }
        (Prediction::Scores(got), Prediction::Scores(expected)) => got.iter().zip(expected).for_each(|(a, b)| close(*a, *b)),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn batched_requests_are_answered_as_they_are_alone() {
    for family in FAMILIES {
        let batched = engine(family).run(mixed()).await.unwrap();
        let alone = engine(family);
        // So small a memory that rows are interrupted.
        let small = EngineConfig { kv_cache_mib: Some(1), step_tokens: Some(48), ..config() };
        let interrupted = fixture::start_with(&folder(family), small).unwrap().run(mixed()).await.unwrap();
        for (index, asked) in mixed().into_iter().enumerate() {
            let single = alone.run(vec![asked]).await.unwrap().remove(0).unwrap();
            assert_alike(&format!("{family}, request {index} of a batch"), batched[index].as_ref().unwrap(), &single);
            assert_alike(&format!("{family}, request {index} of many"), interrupted[index].as_ref().unwrap(), &single);
        }
    }
}

#[tokio::test]
async fn answers_under_a_schema_are_valid_and_forced_tokens_have_no_probability() {
    let engine = engine("qwen2");
    engine.check_schema(fixture::NAME, &schema(), 90).unwrap();
    assert!(engine.check_schema(fixture::NAME, &schema(), 5).unwrap_err().contains("raise max_tokens"));
    let asks = (0..20).map(|i| request(Generate { schema: Some(schema()), ..generate(&format!("product {i}"), 90) }));
    for answer in engine.run(asks.collect()).await.unwrap() {
        let got = completion(&answer);
        schema().judge(got, 90).unwrap();
        assert_eq!(got.finish, Finish::Stop);
        assert_eq!(got.tokens.last().map(|token| token.end), Some(got.text.len()));
        let (forced, chosen): (Vec<&GeneratedToken>, Vec<&GeneratedToken>) =
            got.tokens.iter().partition(|token| token.log_probability.is_none());
        assert!(forced.len() > 5 && chosen.len() >= 3, "{} tokens were forced and {} chosen", forced.len(), chosen.len());
        assert!(chosen.iter().all(|token| token.log_probability.is_some_and(|p| p <= 0.0)));
    }
    let cut = engine.run(vec![request(Generate { schema: Some(schema()), ..generate("product", 4) })]).await.unwrap().remove(0);
    assert_eq!((completion(&cut).finish, cut.unwrap().generated), (Finish::Length, 4));
}

#[tokio::test]
async fn every_answer_under_a_random_schema_is_valid_or_says_that_it_was_cut_off() {
    const SCHEMAS: u64 = 500;
    const MAX_TOKENS: usize = 150;
    let engine = engine("qwen3");
    let schemas: Vec<Arc<Schema>> =
        (0..SCHEMAS).map(|seed| Arc::new(Schema::new(form_schema(&mut StdRng::seed_from_u64(seed))).unwrap())).collect();
    let ask = |(seed, schema): (usize, &Arc<Schema>)| {
        // A model of random weights has no wish to end: so high a temperature ends strings as often as anything.
        let sampling = Sampling { temperature: if seed % 2 == 0 { 3.0 } else { 0.0 }, top_p: 1.0, top_k: 0, seed: seed as u64 };
        request(Generate { sampling, schema: Some(schema.clone()), ..generate("fill in the form", MAX_TOKENS) })
    };
    let answers = engine.run(schemas.iter().enumerate().map(ask).collect()).await.unwrap();
    let (mut whole, mut cut) = (0, 0);
    for (seed, (schema, answer)) in schemas.iter().zip(&answers).enumerate() {
        let got = completion(answer);
        match schema.judge(got, MAX_TOKENS) {
            Ok(_) => whole += 1,
            Err(Failure::Poison(poison)) if poison.class == FailureClass::Truncated => {
                assert_eq!((got.finish, got.tokens.len()), (Finish::Length, MAX_TOKENS), "schema {seed}");
                cut += 1;
            }
            Err(failure) => panic!("schema {seed}: {failure}\n{}\n{}", schema.text(), got.text),
        }
    }
    assert_eq!(whole + cut, SCHEMAS);
    assert!(whole > SCHEMAS / 4 && cut > 0, "{whole} answers came to their end and {cut} were cut off");
}

#[tokio::test]
async fn a_stop_text_ends_the_answer_before_it() {
    let engine = engine("qwen3");
    let whole = engine.run(vec![request(generate("a mill", 40))]).await.unwrap().remove(0);
    let text = completion(&whole).text.clone();
    let middle = text.floor_char_boundary(text.len() / 2);
    let stop: String = text[middle..].chars().take(3).collect();
    let expected = &text[..text.find(&stop).unwrap()];
    let asked = Generate { stop: vec!["never this".into(), stop.clone()], ..generate("a mill", 40) };
    let stopped = engine.run(vec![request(asked)]).await.unwrap().remove(0);
    assert_eq!((completion(&stopped).text.as_str(), completion(&stopped).finish), (expected, Finish::Stop));
}

#[tokio::test]
async fn equal_requests_of_a_call_are_computed_once() {
    let engine = engine("llama");
    let asks = vec![request(generate("corn", 9)), request(generate("rye", 9)), request(generate("corn", 9))];
    let answers: Vec<_> = engine.run(asks).await.unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(answers[0].prediction, answers[2].prediction);
    assert_eq!((answers[2].tokens, answers[2].generated, answers[2].device_micros), (0, 0, 0), "they are paid for once");
    let read = u64::from(answers[0].tokens + answers[1].tokens);
    let written = u64::from(answers[0].generated + answers[1].generated);
    // The device writes down what it did after it has answered.
    for _ in 0..200 {
        if engine.stats().generated_tokens == written {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((engine.stats().prompt_tokens, engine.stats().generated_tokens), (read, written));
}

#[tokio::test]
async fn one_bad_request_fails_alone_and_says_why() {
    let engine = engine("llama");
    let answers = vec![
        request(generate("fine", 5)),
        request(generate(&"too long ".repeat(400), 5)),
        request(generate("fine", 500)),
        encode(&["x"], Chunking::Truncate),
    ];
    let answers = engine.run(answers).await.unwrap();
    assert!(answers[0].is_ok());
    for (answer, class) in answers[1..].iter().zip([FailureClass::TooLong, FailureClass::TooLong, FailureClass::Model]) {
        let Err(Failure::Poison(poison)) = answer else { panic!("expected poison, got {answer:?}") };
        assert_eq!(poison.class, class, "{}", poison.reason);
    }
    let Err(Failure::Poison(Poison { reason, .. })) = &answers[2] else { panic!("expected poison") };
    assert!(reason.contains("500 may follow") && reason.contains("accepts 512"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_requests_do_not_wait_for_a_backfill() {
    let engine = engine("qwen2");
    let backfill = engine.with_priority(Priority::Backfill);
    let many = (0..300).map(|i| request(generate(&format!("old document {i}"), 60))).collect();
    let filling = tokio::spawn(async move { backfill.run(many).await.unwrap() });
    while engine.stats().generated_tokens == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = engine.stats().generated_tokens;
    engine.run(vec![request(generate("a new document", 20))]).await.unwrap().remove(0).unwrap();
    let meanwhile = engine.stats().generated_tokens - before;
    let all: u32 = filling.await.unwrap().into_iter().map(|answer| answer.unwrap().generated).sum();
    assert!(meanwhile < u64::from(all / 4), "live work waited while {meanwhile} of a backfill's {all} tokens were written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encoders_and_generators_share_the_device() {
    let encoder = bert().write();
    let models = BTreeMap::from([
        (fixture::NAME.to_owned(), ModelConfig::local(encoder.path())),
        ("writer".to_owned(), ModelConfig::local(folder("qwen3"))),
    ]);
    let engine = Engine::start(&EngineConfig { batch_tokens: Some(64), ..config() }, &models).unwrap();
    let write = |i: usize| Request { model: "writer".into(), ..request(generate(&format!("document {i}"), 50)) };
    let writer = engine.clone();
    let writing = tokio::spawn(async move { writer.run((0..40).map(write).collect()).await.unwrap() });
    let mut batches = 0;
    while !writing.is_finished() {
        let answers =
            engine.run(vec![encode(&["the mill grinds corn"], Chunking::Truncate), write(1000 + batches)]).await.unwrap();
        assert!(answers.iter().all(Result::is_ok));
        batches += 1;
    }
    assert!(writing.await.unwrap().iter().all(Result::is_ok));
    assert!(batches > 1, "the encoder waited for the generator to be done");
}

#[tokio::test]
async fn dropped_calls_leave_the_device_and_give_their_room_back() {
    let engine = engine("llama");
    let room = engine.inner.generator_capacity.free();
    let call = engine.run((0..100).map(|i| request(generate(&format!("document {i}"), 400))).collect());
    assert!(tokio::time::timeout(Duration::from_millis(100), call).await.is_err(), "the call was done before it was dropped");
    let deadline = Instant::now() + Duration::from_secs(5);
    while engine.inner.generator_capacity.free() < room {
        assert!(Instant::now() < deadline, "a call that went away keeps its room");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.run(vec![request(generate("still there", 3))]).await.unwrap().remove(0).unwrap();
}

#[tokio::test]
async fn a_panic_in_a_step_reaches_every_caller_and_health() {
    let engine = engine("llama");
    let models = engine.inner.models.clone();
    let asked = [request(generate("x", 5))];
    let mut plan = crate::call_plan::CallPlan::make(&models, &asked);
    // A token that the model does not have is what no tokenizer gives.
    plan.jobs[0].1.prompt = vec![1_000_000].into();
    engine
        .generate(plan.jobs, engine.inner.activity.begin_preparation())
        .await
        .expect_err("an answer from a device that panicked");
    engine.health().unwrap_err();
    let refused = tokio::time::timeout(Duration::from_secs(5), engine.run(asked.to_vec())).await;
    assert!(refused.expect("a call after the panic hangs").is_err());
}
