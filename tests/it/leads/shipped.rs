//! The shipped pipelines with a model server in place of the shipped generator, which then also writes drafts and summaries.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tidemill::config::{Config, ModelConfig};
use tidemill::demo::defaults::with_models;
use tidemill::document::avro::Schemas;
use tidemill::document::{DecodedRecord, Decoder};
use tidemill::engine::Engine;
use tidemill::outcome::{Outcome, Output};
use tidemill::pipeline::definition::Definition;
use tidemill::pipeline::graph::{Graph, NoKnownResults};
use tidemill::record::{Partition, Record, RecordLocation};
use tokio::net::TcpListener;

const PIPELINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");

/// The server's answers, by a word in the prompt's instructions.
const ANSWERS: [(&str, &str); 4] = [
    (
        "You take facts",
        r#"{"company":"Alder & Finch Ltd","person":"Ivy Alder","need":"room booking for 120 people","budget":"6000 pounds a year","timing":"May","objections":["too loud"]}"#,
    ),
    ("You draft the reply", "Dear Ivy Alder, a quote for 120 people follows."),
    ("You draft the message", "Dear Ivy Alder, has the quote arrived?"),
    ("You sum up", "Alder & Finch want rooms for 120 people from May."),
];

async fn server() -> (String, Arc<Mutex<Vec<Value>>>) {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let kept = asked.clone();
    let answer = move |Json(body): Json<Value>| {
        let told = body["messages"].to_string();
        let (_, text) = ANSWERS.iter().find(|(word, _)| told.contains(word)).expect("no prompt of these pipelines");
        kept.lock().unwrap().push(body);
        let message = json!({ "role": "assistant", "content": text });
        let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2 });
        async move { Json(json!({ "choices": [{ "message": message, "finish_reason": "stop" }], "usage": usage })) }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

/// The shipped file with the lines from `from` up to `to` replaced.
fn amended(name: &str, (from, to): (&str, &str), lines: &str) -> Definition {
    let path = Path::new(PIPELINES).join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find(from).unwrap_or_else(|| panic!("{name} has no `{from}`"));
    let end = start + text[start..].find(to).unwrap_or_else(|| panic!("{name} has no `{to}`"));
    Definition::parse(&path, &format!("{}{lines}{}", &text[..start], &text[end..])).unwrap_or_else(|error| panic!("{error}"))
}

async fn outputs(definition: &Definition, engine: &Engine, payload: String) -> Vec<Output> {
    let place = RecordLocation { partition: Partition { topic: "samples".into(), number: 0 }, offset: 0 };
    let record = Record { place, timestamp_ms: Some(0), key: None, payload: Some(payload.into()), headers: Vec::new() };
    let DecodedRecord::Document(document) =
        Decoder::new(&definition.source.document).unwrap().decode(&record, &Schemas::none()).unwrap()
    else {
        panic!("a sample is a delete")
    };
    let graph = Graph::build(definition, engine).await.unwrap_or_else(|error| panic!("{error:#}"));
    let outcomes = graph.evaluate(&[document], &NoKnownResults).await.unwrap().remove(0);
    let output = |outcome: Outcome| match outcome {
        Outcome::Computed(product) => product.output,
        other => panic!("there is no output, but {other:?}"),
    };
    outcomes.into_iter().map(output).collect()
}

pub async fn a_server_behind_the_writers_name_extracts_drafts_and_sums_up() {
    let (address, asked) = server().await;
    let mut config = Config::default();
    with_models(&mut config).await.unwrap();
    let remote = ModelConfig {
        base_url: Some(address),
        server_model: Some("large".into()),
        context: Some(8192),
        ..ModelConfig::default()
    };
    config.models.insert("writer".into(), remote);
    let engine = tokio::task::spawn_blocking(move || Engine::start(&config.engine, &config.models).unwrap()).await.unwrap();

    let drafts = "  reply: { write: { model: writer, prompt: prompts/lead-reply.md, grounding: { novel_words: 1 } } }\n  \
                  follow_up: { write: { model: writer, prompt: prompts/lead-follow-up.md, grounding: { novel_words: 1 } } }\n\n";
    let sales = amended("sales.yaml", ("  reply:\n", "leads:\n"), drafts);
    let samples = std::fs::read_to_string(Path::new(PIPELINES).join("samples/sales.jsonl")).unwrap();
    let form = samples.lines().next().unwrap().to_owned();
    let found = outputs(&sales, &engine, form).await;
    let Output::Extraction(facts) = &found[2] else { panic!("no facts: {found:?}") };
    let grounded = |path: &str| facts.leaves.iter().find(|leaf| leaf.path == path).and_then(|leaf| leaf.grounded);
    assert_eq!((grounded("/budget"), grounded("/timing")), (Some(true), Some(true)));
    assert_eq!(facts.fields["objections"], json!([]), "no document says that it is too loud");
    let Output::Score(score) = &found[3] else { panic!("no score: {found:?}") };
    let part = |name: &str| score.parts.iter().find(|part| part.name == name).map(|part| part.value);
    assert_eq!((part("budget"), part("timing"), part("asks_for_price")), (Some(20.0), Some(10.0), Some(15.0)), "{score:?}");
    let sum: f64 = score.parts.iter().map(|part| part.value).sum();
    assert!((score.value - sum).abs() < 1e-9 && score.value >= 60.0, "{score:?}");
    assert_eq!(found[4].text(), Some(ANSWERS[1].1));
    assert_eq!(found[5].text(), Some(ANSWERS[2].1));
    let told = asked.lock().unwrap().iter().find(|body| body.to_string().contains("You draft the reply")).unwrap().to_string();
    assert!(told.contains("architects' office") && told.contains("It is about: buying"), "the draft knows the message: {told}");

    let summary = "  summary: { summarize: { mode: abstractive, model: writer, prompt: prompts/account-summary.md,\n    \
                   grounding: off } }\n";
    let accounts = amended("accounts.yaml", ("  summary:\n", "  brief:\n"), summary);
    let newest = json!([{ "id": "a", "version": 1, "text": "We want rooms.", "metadata": {}, "score": 70, "person": null, "stage": null, "intent": null }]);
    let event = json!({ "account": "alder finch", "name": "Alder & Finch", "version": 1, "documents": 1, "newest": newest });
    let found = outputs(&accounts, &engine, event.to_string()).await;
    assert_eq!(found[0].text(), Some(ANSWERS[3].1));
}
