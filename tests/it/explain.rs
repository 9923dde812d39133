//! Explanations of a document's outputs: the records and versions that they come from, over HTTP and on the command line.

use std::time::Duration;

use libtest_mimic::Trial;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::free_port;
use crate::harness::kafka::NewRecord;
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![trial!(Needs::KAFKA, every_output_names_its_record_and_history_goes_back_to_the_first_version)]
}

async fn every_output_names_its_record_and_history_goes_back_to_the_first_version() {
    let mut stream = TestStream::new(kafka::shared().await, 1).await;
    stream.settings = "[jobs]\nprice_per_device_hour = 2.5\n".to_owned();
    stream.configure(&stream.path("data"));
    let address = format!("127.0.0.1:{}", free_port());
    let _worker = stream.worker_at(&address, "");
    stream.send(0..3).await;
    stream.drained(3, Duration::from_secs(60)).await;
    let changed =
        NewRecord { partition: None, key: b"d1".to_vec(), payload: Some(br#"{"id":"d1","text":"another text"}"#.to_vec()) };
    stream.client.send(&stream.topic, vec![changed]).await;
    stream.drained(4, Duration::from_secs(60)).await;

    let explained = stream.answer(&["explain", "d1", "--pipeline", "echo"]);
    assert_eq!((&explained["pipeline"], &explained["document_id"]), (&json!("echo"), &json!("d1")));
    assert_eq!(explained["document"]["text"], "another text");
    assert_eq!(explained["document"]["source"]["to_offset"], 4);
    let outputs = explained["outputs"].as_array().unwrap();
    let said: Vec<&Value> = outputs.iter().map(|output| &output["text"]).collect();
    assert_eq!(said, [&json!("another text!"), &json!("another text!?")]);
    for output in outputs {
        assert_eq!(output["record"], json!({"topic": stream.topic, "partition": 0, "offset": 3}), "{output}");
        assert_eq!(
            (&output["reused"], &output["cost"]),
            (&Value::Null, &json!(0.0)),
            "no model was asked, and that cost nothing"
        );
        assert_eq!(output["fingerprint"].as_str().map(str::len), Some(64));
    }
    let history = explained["history"]["outputs"].as_array().unwrap();
    let past: Vec<(&str, i64)> =
        history.iter().map(|past| (past["text"].as_str().unwrap(), past["offset"].as_i64().unwrap())).collect();
    assert_eq!(past.len(), 4, "{past:?}");
    assert!(past[..2].iter().all(|(_, offset)| *offset == 3) && past[2..].iter().all(|(_, offset)| *offset == 1), "{past:?}");
    assert!(past[2..].contains(&("text 1!", 1)), "{past:?}");
    assert_eq!(explained["history"]["files_read"], explained["history"]["files"]);

    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let response = client.get(format!("http://{address}{path}")).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    eventually("the worker serves", Duration::from_secs(30), || async {
        client.get(format!("http://{address}/v1/pipelines")).send().await.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    // Callers over HTTP do not learn the paths of files.
    let mut told = explained.clone();
    for past in told["history"]["outputs"].as_array_mut().unwrap() {
        past["file"] = past["file"].as_str().unwrap().rsplit('/').next().unwrap().into();
    }
    assert_eq!(get("/v1/documents/d1").await, (StatusCode::OK, told), "HTTP and the command line say the same");
    let (status, refused) = get("/v1/documents/none?pipeline=echo").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{refused}");
    let (status, refused) = get("/v1/documents/d1?pipeline=ecko").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused.to_string().contains("did you mean `echo`?"), "{refused}");
    assert_eq!(get("/v1/documents/d1?pipelin=echo").await.0, StatusCode::BAD_REQUEST);

    let post = async |path: &str, body: Value| {
        let response = client.post(format!("http://{address}{path}")).json(&body).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    let (status, found) =
        post("/v1/search", json!({"query": "text", "filter": {"document.id": {"in": ["d1", "d2"]}}, "limit": 1})).await;
    assert_eq!(status, StatusCode::OK, "{found}");
    assert_eq!((found["hits"].as_array().map(Vec::len), found["mode"].as_str()), (Some(1), Some("text")), "{found}");
    let (_, rest) =
        post("/v1/search", json!({"query": "text", "filter": ["document.id in d1,d2"], "limit": 1, "cursor": found["next"]}))
            .await;
    assert_ne!(rest["hits"][0]["document_id"], found["hits"][0]["document_id"], "both ways to write a filter are one question");
    assert_eq!(rest["next"], Value::Null, "{rest}");
    let (status, refused) = post("/v1/answer", json!({"question": "what does it say?"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refused}");
    assert!(refused.to_string().contains("has no model for answers"), "{refused}");

    std::fs::rename(stream.path("data"), stream.path("elsewhere")).unwrap();
    let explained = stream.answer(&["explain", "d1"]);
    assert_eq!((&explained["outputs"].as_array().unwrap().len(), &explained["outputs"][0]["record"]), (&2, &Value::Null));
    assert_eq!(explained["history"]["files_unreadable"], explained["history"]["files"]);
    assert!(explained["history"]["unknown"].to_string().contains("files cannot be read"), "{explained}");
    let told = stream.command(&["explain", "d1"]);
    assert!(told.contains("one of the offsets") && told.contains("files cannot be read"), "{told}");
}
