//! Tests refusals: which are the document's fault, and which the server's or the settings'.

use super::*;

fn refuse(message: &str, parameter: Option<&str>) -> Play {
    Play::status(400, json!({"error": {"message": message, "param": parameter}}).to_string())
}

#[tokio::test]
async fn a_refusal_that_names_the_wrong_parameter_takes_only_the_right_one() {
    let server = Server::start(|seen, number| match seen.json().get("seed") {
        Some(_) => refuse(&format!("Unknown argument seed ({number}a). Known are: temperature, stop, max_tokens"), None),
        None => good("yes"),
    })
    .await;
    let model = opened(&config(&server));
    for _ in 0..2 {
        ask(&model, Work::Generate(Generate { stop: vec!["#".into()], ..generate() })).await.unwrap();
    }
    let last = server.seen().last().unwrap().json();
    assert!(
        ["temperature", "stop", "max_tokens"].iter().all(|name| last.get(name).is_some()) && last.get("seed").is_none(),
        "{last}"
    );
}

#[tokio::test]
async fn a_server_may_refuse_a_parameter_with_any_status() {
    for status in [400, 403, 422, 500, 501] {
        let server = Server::start(move |seen, _| match seen.json().get("logprobs") {
            Some(_) => Play::status(status, json!({"error": {"message": "this model gives no logprobs to you"}}).to_string()),
            None => good("yes"),
        })
        .await;
        let model = opened(&config(&server));
        for _ in 0..2 {
            ask(&model, Work::Generate(generate())).await.unwrap();
        }
        assert_eq!(server.seen().len(), 3, "{status}: one refusal, and then no more");
    }
}

#[tokio::test]
async fn what_is_said_of_one_document_changes_nothing_for_the_others() {
    let words =
        ["This content is restricted.", "The word \"seed\" is not permitted.", "temperature, logprobs, max_tokens: not here"];
    for words in words {
        let server = Server::start(move |seen, _| if is_the_document(seen) { refuse(words, None) } else { good("yes") }).await;
        let model = opened(&config(&server));
        let Err(Failure::Poison(poison)) = ask(&model, Work::Generate(generate())).await else { panic!("it answers") };
        assert!(poison.reason.contains(words), "{poison}");
        let mut other = generate();
        other.prompt.messages[1].content = "A spade.".into();
        ask(&model, Work::Generate(other)).await.unwrap();
        let (first, last) = (server.seen()[0].json(), server.seen().last().unwrap().json());
        for name in ["seed", "temperature", "logprobs", "max_tokens"] {
            assert_eq!(first[name], last[name], "{words}: {name}");
        }
    }
}

#[tokio::test]
async fn a_refusal_of_every_request_pauses_the_stream_and_is_not_asked_for_again_at_once() {
    let server = Server::start(|_, _| refuse("this deployment takes no chats", None)).await;
    let model = opened(&config(&server));
    for _ in 0..3 {
        let Err(Failure::Transient(transient)) = ask(&model, Work::Generate(generate())).await else { panic!("a dead letter") };
        assert!(
            transient.reason.contains("this deployment takes no chats") && transient.reason.contains("`models.writer`"),
            "{transient}"
        );
    }
    assert_eq!(server.seen().len(), 2, "the document and the probe");
}

#[tokio::test]
async fn a_document_that_gets_no_answer_while_others_do_makes_a_dead_letter() {
    let half = |finish: &str| {
        let mut body = completion("A kettle of st");
        body["choices"][0]["finish_reason"] = json!(finish);
        body
    };
    let mut broken = half("stop");
    broken["choices"][0]["error"] = json!({"message": "the provider hung up"});
    for body in [json!({"odd": 1}), json!({"error": "odd"}), half("abort"), broken] {
        let text = body.to_string();
        let (poison, calls) = poison_of(only_for_the_document(move || Play::ok(text.clone())), generate()).await;
        assert_eq!((poison.class, calls), (FailureClass::Model, 6), "{body}: five attempts and the probe");
        assert!(poison.reason.contains("answers other requests") && poison.reason.contains("(5 attempts)"), "{poison}");
    }
}

#[tokio::test]
async fn the_answer_of_a_neighbour_shows_as_much_as_that_of_the_probe() {
    let server = Server::start(|seen, _| {
        let mut body = completion("A spade of st");
        let is_whole = seen.json()["messages"].to_string().contains("A spade.");
        body["choices"][0]["finish_reason"] = json!(if is_whole { "stop" } else { "abort" });
        Play::ok(body.to_string())
    })
    .await;
    let model = opened(&config(&server));
    let mut other = generate();
    other.prompt.messages[1].content = "A spade.".into();
    ask(&model, Work::Generate(other)).await.unwrap();
    let Err(Failure::Poison(poison)) = ask(&model, Work::Generate(generate())).await else { panic!("it waits forever") };
    assert!(poison.reason.contains("\"abort\""), "{poison}");
    assert_eq!(server.seen().len(), 6, "the probe is not asked");
}

#[tokio::test]
async fn a_document_that_a_server_fails_at_has_more_patience() {
    let server = Server::start(only_for_the_document(|| Play::status(500, "segmentation fault"))).await;
    let model = opened(&config(&server));
    for _ in 0..2 {
        assert!(matches!(ask(&model, Work::Generate(generate())).await, Err(Failure::Transient(_))));
    }
    let Err(Failure::Poison(poison)) = ask(&model, Work::Generate(generate())).await else { panic!("it waits forever") };
    assert!(poison.reason.contains("segmentation fault"), "{poison}");
}

#[tokio::test]
async fn an_error_under_a_good_status_counts_as_its_code() {
    let body = |code: Value| json!({"error": {"message": "flagged by the provider", "code": code}}).to_string();
    let (poison, calls) = poison_of(only_for_the_document(move || Play::ok(body(json!(403)))), generate()).await;
    assert_eq!((poison.class, calls), (FailureClass::Model, 2));
    assert!(poison.reason.contains("flagged by the provider"), "{poison}");
    for code in [json!(429), json!(503), json!("overloaded_error")] {
        let text = body(code);
        let (transient, calls) = transient_of(only_for_the_document(move || Play::ok(text.clone()))).await;
        assert_eq!(calls, 5, "{transient}");
    }
}

#[tokio::test]
async fn parameters_that_a_server_refuses_are_left_out_from_then_on() {
    let server = Server::start(|seen, _| {
        let body = seen.json();
        let refuse = |message: &str| Play::status(400, json!({"error": {"message": message}}).to_string());
        match () {
            () if body.get("logprobs").is_some() => refuse("logprobs is not supported by this model"),
            () if body.get("max_tokens").is_some() => refuse("use 'max_completion_tokens' instead"),
            () => good("yes"),
        }
    })
    .await;
    let model = opened(&config(&server));
    for _ in 0..2 {
        ask(&model, Work::Generate(generate())).await.unwrap();
    }
    assert_eq!(server.seen().len(), 4, "two refusals, and then no more");
}

#[tokio::test]
async fn labels_are_weighed_with_fewer_alternatives_where_a_server_gives_no_more() {
    for (most, expected) in [(5, json!(5)), (2, Value::Null)] {
        let server = Server::start(move |seen, _| match seen.json()["top_logprobs"].as_u64() {
            Some(asked) if asked > most => {
                refuse(&format!("Requested sample logprobs of {asked}, greater than max allowed: {most}"), None)
            }
            _ => good("{\"label\":\"garden\"}"),
        })
        .await;
        let score = Score { prompt: prompt(), answers: Arc::new(["kitchen".into(), "garden".into()]) };
        ask(&opened(&config(&server)), Work::Score(score)).await.unwrap();
        let last = server.seen().last().unwrap().json();
        assert_eq!((&last["top_logprobs"], &last["logprobs"]), (&expected, &json!(true)));
    }
}

#[tokio::test]
async fn a_request_that_no_quota_lets_through_is_too_long_and_no_pause_is_made_for_it() {
    let message = "Request too large for small on tokens per min (TPM): Limit 30000, Requested 45000.";
    let body = json!({"error": {"message": message, "type": "tokens", "code": "rate_limit_exceeded"}}).to_string();
    let (poison, calls) = poison_of(move |_, _| Play::status(429, body.as_str()), generate()).await;
    assert_eq!((poison.class, calls), (FailureClass::TooLong, 1));
    assert!(poison.reason.contains("Requested 45000"), "{}", poison.reason);
}
