//! Tests the client against a local server that behaves well or badly.

mod hostile;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::completion::Finish;
use crate::request::{Chunking, Message, Prompt, Role};
use crate::schema::Schema;
use crate::tests::server::{Play, Seen, Server};
use tidemill_base::failure::{Poison, Transient};

const KEY: &str = "sk-77777";

fn config(server: &Server) -> ModelConfig {
    ModelConfig {
        base_url: Some(format!("{}/v1", server.address)),
        server_model: Some("small".into()),
        context: Some(1000),
        api_key_env: Some("WRITER_KEY".into()),
        ..ModelConfig::default()
    }
}

fn environment(variable: &str) -> Option<String> {
    (variable == "WRITER_KEY").then(|| KEY.to_owned())
}

/// The model with short waits.
fn opened(config: &ModelConfig) -> RemoteModel {
    let mut model = RemoteModel::open_with("writer", config, environment).unwrap();
    model.patience.first_wait = Duration::from_millis(4);
    model.patience.longest_wait = Duration::from_secs(2);
    model
}

fn prompt() -> Prompt {
    let said = |role, content: &str| Message { role, content: content.into() };
    Prompt {
        messages: vec![said(Role::System, "You are an editor."), said(Role::User, "A kettle. <|im_end|>")],
        group: "test".into(),
    }
}

fn generate() -> Generate {
    Generate { prompt: prompt(), max_tokens: 50, sampling: Sampling::default(), stop: Vec::new(), schema: None, spans: None }
}

fn with_schema() -> Generate {
    let schema = json!({"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]});
    Generate { schema: Some(Arc::new(Schema::new(schema).unwrap())), ..generate() }
}

async fn ask(model: &RemoteModel, work: Work) -> Result<Answer, Failure> {
    model.answer(&Request { model: "writer".into(), work }).await
}

fn completion(text: &str) -> Value {
    json!({
        "id": "x", "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    })
}

fn good(text: &str) -> Play {
    Play::ok(completion(text).to_string())
}

fn text_of(answer: &Answer) -> &Completion {
    let Prediction::Completion(completion) = &answer.prediction else { panic!("{answer:?} is not a completion") };
    completion
}

async fn poison_of(play: impl Fn(&Seen, usize) -> Play + Send + Sync + 'static, work: Generate) -> (Poison, usize) {
    let server = Server::start(play).await;
    match ask(&opened(&config(&server)), Work::Generate(work)).await {
        Err(Failure::Poison(poison)) => (poison, server.seen().len()),
        other => panic!("{other:?} is not poison"),
    }
}

async fn transient_of(play: impl Fn(&Seen, usize) -> Play + Send + Sync + 'static) -> (Transient, usize) {
    let server = Server::start(play).await;
    match ask(&opened(&config(&server)), Work::Generate(generate())).await {
        Err(Failure::Transient(transient)) => {
            assert_eq!(transient.component, Component::Model);
            assert!(!transient.reason.contains(KEY), "{} shows the key", transient.reason);
            (transient, server.seen().len())
        }
        other => panic!("{other:?} is not transient"),
    }
}

#[tokio::test]
async fn a_prompt_becomes_a_chat_completion() {
    let server = Server::start(|_, _| {
        let mut body = completion("A fine kettle.");
        body["choices"][0]["logprobs"] =
            json!({"content": [{"token": "A fine", "logprob": -0.5, "bytes": null}, {"token": " kettle.", "logprob": -0.25}]});
        Play::ok(body.to_string())
    })
    .await;
    let sampling = Sampling { temperature: 0.7, top_p: 0.9, top_k: 40, seed: u64::MAX };
    let work = Generate { sampling, stop: vec!["\n\n".into()], ..generate() };
    let answer = ask(&opened(&config(&server)), Work::Generate(work)).await.unwrap();
    let completion = text_of(&answer);
    assert_eq!((completion.text.as_str(), completion.finish), ("A fine kettle.", Finish::Stop));
    assert_eq!(
        completion.tokens.iter().map(|t| (t.end, t.log_probability)).collect::<Vec<_>>(),
        [(6, Some(-0.5)), (14, Some(-0.25))]
    );
    assert_eq!((answer.tokens, answer.generated, answer.device_micros), (11, 7, 0));
    let seen = server.seen();
    assert_eq!((seen[0].path.as_str(), seen[0].headers["authorization"].as_str()), ("/v1/chat/completions", "Bearer sk-77777"));
    let expected = json!({
        "model": "small", "max_tokens": 50, "temperature": 0.7_f32, "top_p": 0.9_f32, "top_k": 40, "seed": i64::MAX,
        "stop": ["\n\n"], "logprobs": true,
        "messages": [{"role": "system", "content": "You are an editor."}, {"role": "user", "content": "A kettle. < |im_end|>"}],
    });
    assert_eq!(seen[0].json(), expected);
}

#[tokio::test]
async fn a_schema_is_sent_and_the_answer_judged() {
    let server = Server::start(|_, _| good("{\"price\": 3}")).await;
    let work = with_schema();
    let schema = work.schema.clone().unwrap();
    let answer = ask(&opened(&config(&server)), Work::Generate(work)).await.unwrap();
    assert_eq!(text_of(&answer).text, "{\"price\": 3}");
    let format = server.seen()[0].json()["response_format"].clone();
    let expected = json!({"name": "answer", "schema": schema.value(), "strict": true});
    assert_eq!(format, json!({"type": "json_schema", "json_schema": expected}));
}

#[tokio::test]
async fn an_answer_that_breaks_its_schema_is_asked_for_once_more() {
    let server = Server::start(|_, number| good(if number == 0 { "{\"price\": \"three\"}" } else { "{\"price\": 3}" })).await;
    let answer = ask(&opened(&config(&server)), Work::Generate(with_schema())).await.unwrap();
    assert_eq!((answer.tokens, answer.generated), (22, 14), "both calls are charged");
    let seeds: Vec<Value> = server.seen().iter().map(|seen| seen.json()["seed"].clone()).collect();
    assert_eq!(seeds, [json!(0), json!(1)]);
}

#[tokio::test]
async fn a_server_that_lies_about_json_makes_a_dead_letter() {
    let (poison, calls) = poison_of(|_, _| good("Sure! Here is your JSON: {"), with_schema()).await;
    assert_eq!((poison.class, calls), (FailureClass::Schema, 2));
}

#[tokio::test]
async fn an_object_cut_off_by_the_limit_is_not_asked_for_again() {
    let play = |_: &Seen, _| {
        let mut body = completion("{\"price\": ");
        body["choices"][0]["finish_reason"] = json!("length");
        Play::ok(body.to_string())
    };
    let (poison, calls) = poison_of(play, with_schema()).await;
    assert_eq!((poison.class, calls), (FailureClass::Truncated, 1));
    let server = Server::start(play).await;
    let answer = ask(&opened(&config(&server)), Work::Generate(generate())).await.unwrap();
    assert_eq!(text_of(&answer).finish, Finish::Length, "free text may be truncated");
}

#[tokio::test]
async fn too_many_requests_are_repeated_when_the_server_says() {
    let server = Server::start(|_, number| match number {
        0 => Play { headers: vec![("retry-after", "0.3".into())], ..Play::status(429, "slow down") },
        _ => good("yes"),
    })
    .await;
    let start = std::time::Instant::now();
    let answer = ask(&opened(&config(&server)), Work::Generate(generate())).await.unwrap();
    assert_eq!(text_of(&answer).text, "yes");
    assert!(start.elapsed() >= Duration::from_millis(300), "asked again after {:?}", start.elapsed());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn while_the_server_wants_peace_nobody_asks() {
    let server = Server::start(|_, number| match number {
        0 => Play { headers: vec![("retry-after", "0.3".into())], ..Play::status(503, "") },
        _ => good("yes"),
    })
    .await;
    let model = opened(&config(&server));
    let start = std::time::Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ask(&model, Work::Generate(generate())).await.unwrap();
        start.elapsed()
    };
    let (first, second) = tokio::join!(ask(&model, Work::Generate(generate())), second);
    first.unwrap();
    assert!(second >= Duration::from_millis(300), "the second call went through after {second:?}");
}

#[tokio::test]
async fn a_server_that_wants_peace_for_long_pauses_the_stream() {
    let play = |_: &Seen, _| Play { headers: vec![("retry-after", "3600".into())], ..Play::status(429, "") };
    let (transient, calls) = transient_of(play).await;
    assert!(transient.reason.contains("429") && transient.reason.contains("3600 s"), "{}", transient.reason);
    assert_eq!(calls, 1);

    let server = Server::start(play).await;
    let mut model = opened(&config(&server));
    model.patience.longest_wait = Duration::from_millis(300);
    ask(&model, Work::Generate(generate())).await.unwrap_err();
    let start = std::time::Instant::now();
    ask(&model, Work::Generate(generate())).await.unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(250), "the stream came back after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_server_out_of_order_pauses_the_stream_after_some_attempts() {
    let (transient, calls) = transient_of(|_, _| Play::status(503, "loading")).await;
    assert_eq!(calls, 5);
    assert!(transient.reason.contains("answers 503") && transient.reason.contains("(5 attempts)"), "{}", transient.reason);
}

#[tokio::test]
async fn a_server_that_is_not_there_pauses_the_stream() {
    let server = Server::start(|_, _| good("yes")).await;
    let config = config(&server);
    drop(server);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let Err(Failure::Transient(transient)) = ask(&opened(&config), Work::Generate(generate())).await else {
        panic!("it answers")
    };
    assert!(transient.reason.contains("cannot be reached: Connection refused"), "{}", transient.reason);
}

#[tokio::test]
async fn a_server_that_hangs_pauses_the_stream_in_time() {
    let server = Server::start(|_, _| Play { delay: Duration::from_secs(60), ..good("late") }).await;
    let mut model = opened(&config(&server));
    model.timeout = Duration::from_millis(100);
    model.patience.total = Duration::from_millis(300);
    let start = std::time::Instant::now();
    let Err(Failure::Transient(transient)) = ask(&model, Work::Generate(generate())).await else { panic!("it answers") };
    assert!(transient.reason.contains("no answer in time"), "{}", transient.reason);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test]
async fn what_is_no_chat_completion_is_the_servers_fault() {
    for body in ["<html>welcome</html>", "{}", "{\"choices\": []}"] {
        let (transient, calls) = transient_of(move |_, _| Play::ok(body)).await;
        assert!(transient.reason.contains("a chat completion"), "{transient}");
        assert_eq!(calls, 6, "five attempts and the probe");
    }
    let cut = |_: &Seen, _| Play { cut: Some(20), ..good("yes") };
    assert!(transient_of(cut).await.0.reason.contains("breaks off its answer"));
}

#[tokio::test]
async fn settings_at_fault_pause_the_stream_and_name_the_setting() {
    let cases = [(401, "WRITER_KEY", 1), (403, "WRITER_KEY", 2), (404, "server_model", 1), (307, "base_url", 1)];
    for (status, named, expected) in cases {
        let (transient, calls) = transient_of(move |_, _| Play {
            headers: vec![("location", "http://127.0.0.1:9/".into())],
            ..Play::status(status, format!("{{\"error\": {{\"message\": \"no key {KEY}\"}}}}"))
        })
        .await;
        assert!(transient.reason.contains(named) && transient.reason.ends_with(": no key …"), "{}", transient.reason);
        assert_eq!(calls, expected, "{status}: only 403 is followed by the probe");
    }
}

/// Answers with `play` to the document of [`prompt`], and normally to everything else.
fn only_for_the_document(
    play: impl Fn() -> Play + Send + Sync + 'static,
) -> impl Fn(&Seen, usize) -> Play + Send + Sync + 'static {
    move |seen, _| if is_the_document(seen) { play() } else { good("yes") }
}

fn is_the_document(seen: &Seen) -> bool {
    seen.json()["messages"].to_string().contains("A kettle.")
}

#[tokio::test]
async fn a_document_that_the_server_refuses_makes_a_dead_letter() {
    for status in [400, 403, 422] {
        let refusal = json!({"error": {"message": format!("bad input for {KEY}"), "type": "invalid_request_error"}}).to_string();
        let play = only_for_the_document(move || Play::status(status, refusal.clone()));
        let (poison, calls) = poison_of(play, generate()).await;
        assert_eq!((poison.class, calls), (FailureClass::Model, 2), "one request for the document, and the probe");
        assert!(poison.reason.contains("bad input") && !poison.reason.contains(KEY), "{}", poison.reason);
    }

    let long = json!({"error": {"message": "maximum context length", "code": "context_length_exceeded"}}).to_string();
    let (poison, calls) = poison_of(move |_, _| Play::status(400, long.clone()), generate()).await;
    assert_eq!((poison.class, calls), (FailureClass::TooLong, 1));

    for (part, value) in [("finish_reason", json!("content_filter")), ("message", json!({"refusal": "I cannot help with that"}))]
    {
        let mut body = completion("no");
        body["choices"][0][part] = value;
        let (poison, calls) = poison_of(move |_, _| Play::ok(body.to_string()), generate()).await;
        assert_eq!((poison.class, calls), (FailureClass::Model, 1), "{}", poison.reason);
    }
}

#[tokio::test]
async fn an_answer_beyond_all_bounds_makes_a_dead_letter() {
    let (poison, calls) = poison_of(|_, _| good(&"x".repeat(3 << 20)), generate()).await;
    assert_eq!((poison.class, calls), (FailureClass::Model, 1));
    assert!(poison.reason.contains("impossible for 50 tokens"), "{}", poison.reason);
}

#[tokio::test]
async fn no_more_calls_at_a_time_than_allowed() {
    let server = Server::start(|_, _| Play { delay: Duration::from_millis(30), ..good("yes") }).await;
    let model = opened(&ModelConfig { concurrency: Some(3), ..config(&server) });
    let calls = (0..12).map(|_| ask(&model, Work::Generate(generate())));
    for answer in futures::future::join_all(calls).await {
        answer.unwrap();
    }
    assert_eq!((server.most_at_once(), server.seen().len()), (3, 12));
}

#[tokio::test]
async fn a_dropped_call_gives_its_slot_back() {
    let server = Server::start(|_, number| match number {
        0 => Play { delay: Duration::from_secs(60), ..good("late") },
        _ => good("yes"),
    })
    .await;
    let model = opened(&ModelConfig { concurrency: Some(1), ..config(&server) });
    let dropped = tokio::time::timeout(Duration::from_millis(100), ask(&model, Work::Generate(generate()))).await;
    assert!(dropped.is_err());
    let answer = tokio::time::timeout(Duration::from_secs(5), ask(&model, Work::Generate(generate()))).await;
    assert_eq!(text_of(&answer.expect("the slot is free").unwrap()).text, "yes");
}

#[tokio::test]
async fn labels_are_weighed_by_a_choice() {
    let server = Server::start(|_, number| match number {
        0 => good("I would say garden"),
        _ => good("{\"label\":\"garden\"}"),
    })
    .await;
    let answers: Arc<[Arc<str>]> = Arc::new(["kitchen".into(), "garden".into()]);
    let score = Score { prompt: prompt(), answers };
    let answer = ask(&opened(&config(&server)), Work::Score(score)).await.unwrap();
    let Prediction::Scores(scores) = &answer.prediction else { panic!("{answer:?}") };
    assert!(scores[1] > -0.001 && scores[0] < -13.0, "{scores:?}");
    let body = server.seen()[0].json();
    assert_eq!(body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"], json!(["kitchen", "garden"]));
    assert_eq!((&body["top_logprobs"], &body["temperature"]), (&json!(20), &json!(0.0)));
}

#[tokio::test]
async fn a_server_is_not_asked_for_vectors_or_for_what_cannot_fit() {
    let server = Server::start(|_, _| good("yes")).await;
    let model = opened(&config(&server));
    let encode = Work::Encode { texts: vec!["a".into()], chunking: Chunking::Truncate, kind: Default::default() };
    assert!(matches!(ask(&model, encode).await, Err(Failure::Poison(p)) if p.class == FailureClass::Model));
    let mut long = generate();
    long.prompt.messages[1].content = "word ".repeat(5000).into();
    assert!(matches!(ask(&model, Work::Generate(long)).await, Err(Failure::Poison(p)) if p.class == FailureClass::TooLong));
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn nothing_shows_the_key() {
    let server = Server::start(|_, _| good("yes")).await;
    let model = opened(&config(&server));
    assert!(!format!("{model:?} {:?} {:?}", model.key, model.client).contains("77777"));
    let missing = RemoteModel::open_with("writer", &config(&server), |_| None).unwrap_err().to_string();
    assert_eq!(
        missing,
        "`models.writer.api_key_env` names the variable WRITER_KEY, which is not set; set it to the server's key"
    );
    let broken = RemoteModel::open_with("writer", &config(&server), |_| Some("sk-77777\nx".into())).unwrap_err().to_string();
    assert!(!broken.contains("77777"), "{broken}");
}

#[tokio::test]
async fn the_revision_is_that_of_the_address_and_the_model() {
    let server = Server::start(|_, _| good("yes")).await;
    let revision = |config: &ModelConfig| opened(config).info.revision;
    let config = config(&server);
    assert_eq!(revision(&config), revision(&ModelConfig { timeout_seconds: Some(5), ..config.clone() }));
    assert_ne!(revision(&config), revision(&ModelConfig { server_model: Some("large".into()), ..config.clone() }));
}

#[tokio::test]
async fn texts_are_counted_and_split_by_the_same_estimate() {
    let server = Server::start(|_, _| good("yes")).await;
    let model = opened(&config(&server));
    assert_eq!([model.count(""), model.count("four"), model.count("five5"), model.count("茶茶")], [0, 1, 2, 2]);
    for text in ["", "x", &"a word or two, ".repeat(40), &"茶道".repeat(50), &"x".repeat(333), "👩‍👩‍👧‍👦👩‍👩‍👧‍👦"]
    {
        for (tokens, overlap) in [(1, 0), (3, 1), (10, 4), (50, 49), (10_000, 5)] {
            let spans = model.split(text, tokens, overlap);
            assert_eq!((spans[0].start, spans[spans.len() - 1].end), (0, text.len()), "{text:?} by {tokens}");
            for span in &spans {
                let piece = &text[span.start..span.end];
                assert!(model.count(piece) <= tokens || piece.chars().count() == 1, "{piece:?} is more than {tokens} tokens");
            }
            for pair in spans.windows(2) {
                assert!(
                    pair[0].start < pair[1].start && pair[1].start <= pair[0].end,
                    "{pair:?} leave a gap or make no progress"
                );
                assert!(model.count(&text[pair[1].start..pair[0].end]) <= overlap, "{pair:?} share too much");
            }
        }
    }
}
