//! A model behind a server, used through the same interface as models in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tidemill::config::{EngineConfig, ModelConfig};
use tidemill::document::Document;
use tidemill::engine::{
    Chunking, Engine, Finish, Generate, Message, ModelKind, Prediction, Prompt, Request, Role, Sampling, Schema, Score, TextKind,
    Work,
};
use tidemill::failure::{Component, Failure, FailureClass};
use tidemill::outcome::{Outcome, Output};
use tidemill::pipeline::definition::Definition;
use tidemill::pipeline::graph::{Graph, NoKnownResults};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder, postgres};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, a_server_answers_beside_a_model_on_disk),
        trial!(Needs::NOTHING, a_document_at_fault_does_not_hold_up_the_others),
        trial!(Needs::NOTHING, a_server_out_of_order_ends_the_call_at_once),
        trial!(Needs::NOTHING, a_server_that_hangs_ends_the_call_in_time),
        trial!(Needs::NOTHING, neighbours_of_a_document_that_a_server_fails_at_are_asked_once),
        trial!(Needs::NOTHING, a_pipeline_starts_while_its_server_is_down),
        trial!(Needs::NOTHING, a_stopped_backfill_ends_though_its_server_never_answers),
        trial!(Needs::NOTHING, tasks_of_a_pipeline_do_not_see_that_a_server_answers),
    ]
}

/// How many calls run at the same time.
const CONCURRENCY: usize = 4;

/// A server that answers with the result of `play` on the body, and the number of its calls.
async fn server(play: impl Fn(Value) -> Response + Clone + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let answer = move |Json(body): Json<Value>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let response = play(body);
        async move { response }
    };
    let app = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (address, calls)
}

fn said(text: &str) -> Response {
    let message = json!({"role": "assistant", "content": text});
    Json(json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}))
        .into_response()
}

fn engine(base_url: String) -> Engine {
    let remote = ModelConfig {
        base_url: Some(base_url),
        server_model: Some("small".into()),
        context: Some(4096),
        concurrency: Some(CONCURRENCY),
        timeout_seconds: Some(1),
        ..ModelConfig::default()
    };
    let encoder = ModelConfig::local(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/tiny-xlm-roberta"));
    let models = BTreeMap::from([("clerk".to_owned(), remote), ("encoder".to_owned(), encoder)]);
    Engine::start(&EngineConfig { threads: Some(1), ..EngineConfig::default() }, &models).unwrap()
}

fn prompt(text: &str) -> Prompt {
    Prompt { messages: vec![Message { role: Role::User, content: text.into() }], group: "test".into() }
}

fn generate(text: &str, schema: Option<Value>) -> Request {
    let schema = schema.map(|schema| Arc::new(Schema::new(schema).unwrap()));
    let generate =
        Generate { prompt: prompt(text), max_tokens: 20, sampling: Sampling::default(), stop: Vec::new(), schema, spans: None };
    Request { model: "clerk".into(), work: Work::Generate(generate) }
}

async fn a_server_answers_beside_a_model_on_disk() {
    let (address, _) = server(|body| match body["response_format"].is_null() {
        true => said(&format!("about {}", body["messages"][0]["content"].as_str().unwrap())),
        false => said("{\"label\": \"garden\"}"),
    })
    .await;
    let engine = engine(address.clone());
    let info = engine.model("clerk").unwrap();
    assert_eq!((info.kind, info.origin.as_str(), info.max_tokens), (ModelKind::Generator, address.as_str(), 4096));
    let encode = Work::Encode { texts: vec!["a kettle".into()], chunking: Chunking::Truncate, kind: TextKind::Plain };
    let score = Work::Score(Score { prompt: prompt("a rake"), answers: Arc::new(["kitchen".into(), "garden".into()]) });
    let requests = vec![
        generate("one", None),
        Request { model: "encoder".into(), work: encode },
        Request { model: "clerk".into(), work: score },
        generate("two", None),
    ];
    let answers: Vec<_> = engine.run(requests).await.unwrap().into_iter().map(Result::unwrap).collect();
    let text = |at: usize| match &answers[at].prediction {
        Prediction::Completion(completion) => (completion.text.as_str(), completion.finish),
        other => panic!("{other:?} is no completion"),
    };
    assert_eq!([text(0), text(3)], [("about one", Finish::Stop), ("about two", Finish::Stop)], "answers are in order");
    assert!(matches!(&answers[1].prediction, Prediction::Vectors(_)), "{answers:?}");
    assert!(matches!(&answers[2].prediction, Prediction::Scores(scores) if scores[1] > scores[0] + 10.0), "{answers:?}");
    assert_eq!((answers[0].tokens, answers[0].generated), (5, 2), "as the server counts");
    assert_eq!(engine.count_tokens("clerk", vec!["eight by".into()]).await.unwrap(), [2]);
}

async fn a_document_at_fault_does_not_hold_up_the_others() {
    let (address, _) = server(|body| match body["messages"][0]["content"].as_str().unwrap() {
        "refused" => (StatusCode::BAD_REQUEST, Json(json!({"error": {"message": "no"}}))).into_response(),
        "lied about" => said("Here is your object: {"),
        _ => said("{\"price\": 3}"),
    })
    .await;
    let schema = json!({"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]});
    let requests = ["good", "refused", "lied about", "good too"].map(|text| generate(text, Some(schema.clone()))).to_vec();
    let answers = engine(address).run(requests).await.unwrap();
    let classes: Vec<Option<FailureClass>> = answers
        .iter()
        .map(|answer| match answer {
            Err(Failure::Poison(poison)) => Some(poison.class),
            Err(Failure::Transient(transient)) => panic!("{transient}"),
            Ok(_) => None,
        })
        .collect();
    assert_eq!(classes, [None, Some(FailureClass::Model), Some(FailureClass::Schema), None]);
}

async fn a_server_out_of_order_ends_the_call_at_once() {
    let (address, calls) = server(|_| StatusCode::UNAUTHORIZED.into_response()).await;
    let requests = (0..200).map(|n| generate(&format!("document {n}"), None)).collect();
    let failure = engine(address).run(requests).await.unwrap_err();
    assert_eq!(failure.component, Component::Model);
    assert!(failure.reason.contains("`models.clerk.api_key_env`"), "{}", failure.reason);
    let calls = calls.load(Ordering::SeqCst);
    assert!(calls <= 2 * CONCURRENCY, "{calls} of 200 documents were asked about though the first answer applies to all");
}

async fn a_server_that_hangs_ends_the_call_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let engine = engine(format!("http://{}/v1", listener.local_addr().unwrap()));
    let start = Instant::now();
    let failure = engine.run((0..50).map(|n| generate(&format!("document {n}"), None)).collect()).await.unwrap_err();
    assert!(failure.reason.contains("no answer in time"), "{}", failure.reason);
    // A call fails after some 13 seconds. Fifty documents that each waited for that would take minutes.
    assert!(start.elapsed() < Duration::from_secs(45), "it took {:?}", start.elapsed());
}

async fn neighbours_of_a_document_that_a_server_fails_at_are_asked_once() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let (address, _) = server(move |body| {
        let text = body["messages"][0]["content"].as_str().unwrap().to_owned();
        let answer = if text == "cursed" { StatusCode::BAD_GATEWAY.into_response() } else { said("yes") };
        seen.lock().unwrap().push(text);
        answer
    })
    .await;
    let engine = engine(address);
    let requests = || ["one", "two", "cursed"].map(|text| generate(text, None)).to_vec();
    for _ in 0..2 {
        let failure = engine.run(requests()).await.unwrap_err();
        assert!(failure.reason.contains("502"), "{}", failure.reason);
    }
    let answers = engine.run(requests()).await.unwrap();
    assert!(matches!(&answers[2], Err(Failure::Poison(poison)) if poison.reason.contains("502")), "{answers:?}");
    assert!(answers[0].is_ok() && answers[1].is_ok(), "{answers:?}");
    let times = |text: &str| asked.lock().unwrap().iter().filter(|asked| *asked == text).count();
    assert_eq!((times("one"), times("two")), (1, 1), "an answer is kept and not requested again");
    engine.run(requests()[..1].to_vec()).await.unwrap();
    assert_eq!(times("one"), 2, "a call that ended well leaves nothing behind");
}

async fn a_pipeline_starts_while_its_server_is_down() {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let (address, calls) = server(move |body| match up.load(Ordering::SeqCst) {
        true if body["messages"].to_string().contains("spade") => said("{\"label\":\"garden\"}"),
        true => said("{\"label\":\"kitchen\"}"),
        false => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    })
    .await;
    let folder = open_folder();
    let file = "version: 1
name: test
source: { topic: docs }
tasks:
  topic: { classify: { model: clerk, labels: { garden: For growing, kitchen: For cooking } } }
";
    let definition = Definition::parse(&folder.path().join("p.yaml"), file).unwrap();
    let graph = Graph::build(&definition, &engine(address)).await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing at start needs the server");
    let document = |text: &str| {
        let (metadata, fields) = Default::default();
        Document { id: text.into(), version: 1, text: text.into(), metadata, fields }
    };
    let documents = [document("A spade."), document("A kettle."), document("A rake? A spade!")];
    let failure = graph.evaluate(&documents, &NoKnownResults).await.unwrap_err();
    assert!(failure.reason.contains("answers 503"), "{}", failure.reason);
    is_up.store(true, Ordering::SeqCst);
    let before = calls.load(Ordering::SeqCst);
    let outcomes = graph.evaluate(&documents, &NoKnownResults).await.unwrap();
    let labels: Vec<&str> = outcomes
        .iter()
        .map(|row| match &row[0] {
            Outcome::Computed(product) => match &product.output {
                Output::Classification(classification) => classification.labels[0].as_str(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(labels, ["garden", "kitchen", "garden"], "a choice without alternatives is what the server chose");
    assert_eq!(calls.load(Ordering::SeqCst) - before, 4, "the empty document is sent once");
}

async fn a_stopped_backfill_ends_though_its_server_never_answers() {
    let (address, calls) = server(|_| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    let database = postgres::database().await;
    let folder = open_folder();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "p.yaml",
        "version: 1\nname: test\nsource: { topic: docs }\ntasks:\n  topic: { classify: { model: clerk, labels: { garden: For growing, \
         kitchen: For cooking } } }\nsinks: { parquet: { dataset: results } }\n"
            .into(),
    );
    let config = format!(
        "[models.clerk]\nbase_url = \"{address}\"\nserver_model = \"small\"\ncontext = 4096\n[limits]\ndrain_seconds = 1\n"
    );
    write("tidemill.toml", config);
    crate::backfill::write(&folder.path().join("in.parquet"), &crate::backfill::documents(0..2), 10);
    let arguments = ["backfill", "--config", "tidemill.toml", "--pipeline", "p.yaml", "--input", "in.parquet", "--output", "out"];
    let mut worker = Worker::start(folder.path(), &arguments, &[("TIDEMILL_DATABASE__URL", database.url.as_str())]);
    eventually("the server is asked", Duration::from_secs(60), async || calls.load(Ordering::SeqCst) > 0).await;
    worker.signal(Signal::SIGTERM);
    let (status, log) = spawn_blocking(move || (worker.wait(Duration::from_secs(30)), worker.log())).await.unwrap();
    assert_eq!(status.code(), Some(1), "it ends and reports that it is not done:\n{log}");
    assert!(log.contains("run the same command again to go on"), "{log}");
}

async fn tasks_of_a_pipeline_do_not_see_that_a_server_answers() {
    let (address, _) = server(|body| {
        let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        match (body["response_format"].is_null(), asked.contains("liar")) {
            (true, _) => said(&format!("Buy it: {asked}")),
            (false, true) => said("Certainly! {"),
            (false, false) => said("{\"product\":\"kettle\",\"price\":49.5,\"brand\":\"Nobody\"}"),
        }
    })
    .await;
    let folder = open_folder();
    std::fs::write(folder.path().join("copy.md"), "---\nname: copy\n---\n{{ facts.product }} for {{ facts.price }}").unwrap();
    let file = "version: 1
name: test
source: { topic: docs }
tasks:
  facts: { extract: { model: clerk, strict: false, max_tokens: 40, schema: { type: object, required: [product, price, brand],
    properties: { product: { type: string }, price: { type: number }, brand: { type: string } } } } }
  copy: { write: { model: clerk, prompt: copy.md, max_tokens: 40, grounding: off } }
";
    let definition = Definition::parse(&folder.path().join("p.yaml"), file).unwrap();
    let graph = Graph::build(&definition, &engine(address)).await.unwrap();
    let document = |id: &str, text: &str| {
        let (metadata, fields) = Default::default();
        Document { id: id.into(), version: 1, text: text.into(), metadata, fields }
    };
    let documents = [document("good", "A kettle, 49.50 euros."), document("bad", "A liar.")];
    let outcomes = graph.evaluate(&documents, &NoKnownResults).await.unwrap();
    let [Outcome::Computed(facts), Outcome::Computed(copy)] = outcomes[0].as_slice() else { panic!("{:?}", outcomes[0]) };
    let Output::Extraction(extraction) = &facts.output else { panic!("{facts:?}") };
    let grounded: Vec<Option<bool>> = extraction.leaves.iter().map(|leaf| leaf.grounded).collect();
    assert_eq!(grounded, [Some(true), Some(true), Some(false)], "{extraction:?}");
    assert!(extraction.leaves.iter().all(|leaf| leaf.confidence.is_none()), "this server returns no probabilities");
    assert_eq!(copy.output.text(), Some("Buy it: kettle for 49.5"));
    assert_eq!((facts.cost.tokens, facts.cost.generated), (5, 2));
    let [Outcome::Dead(poison), Outcome::Skipped(_)] = outcomes[1].as_slice() else { panic!("{:?}", outcomes[1]) };
    assert_eq!(poison.class, FailureClass::Schema);
}
