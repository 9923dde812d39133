//! Injection attempts of `tests/fixtures/injections.jsonl`, as documents through a whole pipeline and as input of the API.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tidemill::access::Scope;

use super::test_service::TestService;
use crate::harness::postgres::database_of;
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder, postgres};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Deserialize)]
struct Attempt {
    id: String,
    kind: String,
    text: String,
}

fn attempts() -> Vec<Attempt> {
    let text = std::fs::read_to_string(Path::new(ROOT).join("tests/fixtures/injections.jsonl")).unwrap();
    let attempts: Vec<Attempt> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: BTreeMap<&str, usize> = attempts.iter().fold(BTreeMap::new(), |mut kinds, attempt| {
        *kinds.entry(attempt.kind.as_str()).or_default() += 1;
        kinds
    });
    assert!(attempts.len() >= 60 && kinds.len() >= 10, "{kinds:?}");
    attempts
}

/// Counts that an injected statement could have changed.
async fn shape(url: &str) -> Vec<i64> {
    let mut counts = Vec::new();
    for query in [
        "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace",
        "SELECT count(*) FROM pg_policies",
        "SELECT count(*) FROM pg_roles",
        "SELECT count(*) FROM tokens",
        "SELECT count(*) FROM pipelines",
        "SELECT count(*) FROM pg_proc",
    ] {
        counts.push(postgres::count(url, query).await);
    }
    counts
}

pub async fn what_strangers_write_in_documents_stays_text() {
    let attempts = attempts();
    let folder = open_folder();
    let prompt = |name: &str| Path::new(ROOT).join("pipelines/prompts").join(name).display().to_string();
    let pipeline = format!(
        "version: 1\nname: strangers\nsource: {{ topic: strangers, id: id, text: \"{{{{ text }}}}\", metadata: [note] }}\n\
         tasks:\n  \
           copy: {{ render: {{ template: \"{{{{ document.text }}}}|{{{{ document.metadata.note }}}}\" }} }}\n  \
           topic: {{ classify: {{ model: writer, prompt: {topic}, labels: {{ delivery: a parcel, billing: an invoice }} }} }}\n  \
           facts: {{ extract: {{ model: writer, prompt: {facts} }} }}\n\
         sinks:\n  postgres: {{}}\n\
         stop_at: {{ dead_share: 1.0 }}\n",
        topic = prompt("ticket-topic.md"),
        facts = prompt("ticket-facts.md"),
    );
    std::fs::write(folder.path().join("strangers.yaml"), pipeline).unwrap();
    let line = |attempt: &Attempt| json!({ "id": attempt.id, "text": attempt.text, "note": attempt.text }).to_string() + "\n";
    std::fs::write(folder.path().join("strangers.jsonl"), attempts.iter().map(line).collect::<String>()).unwrap();
    std::os::unix::fs::symlink(Path::new(ROOT).join("pipelines"), folder.path().join("pipelines")).unwrap();
    let arguments =
        ["demo", "--serve", "--json", "--pipeline", "strangers.yaml", "--input", "strangers.jsonl", "--data-dir", "data"];
    let mut worker = Worker::start(folder.path(), &arguments, &[]);
    eventually("the demo serves", Duration::from_secs(240), || {
        assert_eq!(worker.ended(), None, "the demo ended early:\n{}", worker.log());
        std::future::ready(worker.log().contains("serving http"))
    })
    .await;
    let log = worker.log();
    let report: Value = serde_json::from_str(log.lines().rfind(|line| line.starts_with('{')).unwrap()).unwrap();
    let url = &database_of(&report);
    let before = shape(url).await;
    let mut database = PgConnection::connect(url).await.unwrap();
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(ROOT).join("pipelines/schemas/ticket.json")).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();

    for Attempt { id, text, .. } in &attempts {
        let row = sqlx::query("SELECT text, metadata, deleted FROM documents WHERE id = $1")
            .bind(id)
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(&row.get::<String, _>("text"), text, "{id}: the text is not what was sent");
        assert_eq!(row.get::<Value, _>("metadata"), json!({ "note": text }), "{id}: the metadata are not what was sent");
        let rows = sqlx::query("SELECT task, text, label, fields FROM results WHERE document_id = $1").bind(id);
        let rows: BTreeMap<String, _> =
            rows.fetch_all(&mut database).await.unwrap().into_iter().map(|row| (row.get::<String, _>("task"), row)).collect();
        let tasks: Vec<&str> = rows.keys().map(String::as_str).collect();
        assert_eq!(tasks, ["copy", "facts", "topic"], "{id}: the text kept a task from its output");
        let copy: Option<String> = rows["copy"].get("text");
        assert_eq!(copy, Some(format!("{text}|{text}")), "{id}: a template inside the text was rendered");
        let label: Option<String> = rows["topic"].get("label");
        assert!(label.as_deref().is_some_and(|label| ["delivery", "billing"].contains(&label)), "{id}: {label:?} is no label");
        let facts: Value = rows["facts"].get("fields");
        assert!(schema.is_valid(&facts["fields"]), "{id}: the answer left its schema: {facts}");
        for leaf in facts["leaves"].as_array().unwrap() {
            let (value, evidence) = (facts["fields"].pointer(leaf["path"].as_str().unwrap()).unwrap(), &leaf["evidence"]);
            if let (Some(value), "exact") = (value.as_str(), evidence["match"].as_str().unwrap_or_default()) {
                let place = evidence["start"].as_u64().unwrap() as usize..evidence["end"].as_u64().unwrap() as usize;
                assert_eq!(text.get(place), Some(value.trim()), "{id}: evidence points elsewhere");
            }
        }
    }
    let dead = postgres::count(url, "SELECT count(*) FROM dead_letters").await;
    assert_eq!(dead, 0, "no text makes a record a dead letter");

    // Over HTTP the texts come back as JSON, with headers that keep a browser from taking them for anything else.
    let client = Client::new();
    let (mut found, http) = (0, report["http"].as_str().unwrap().trim_end_matches('/').to_owned());
    for Attempt { id, text, .. } in &attempts {
        let question = json!({ "query": text, "limit": 100, "mode": "text" });
        let response = client.post(format!("{http}/v1/search")).json(&question).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{id}");
        assert_eq!(response.headers()["content-type"], "application/json", "{id}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{id}");
        let hits: Value = response.json().await.unwrap();
        for hit in hits["hits"].as_array().unwrap() {
            let attempt = attempts.iter().find(|attempt| hit["document_id"] == attempt.id.as_str()).expect("a hit is a document");
            assert_eq!(hit["metadata"]["note"], attempt.text.as_str(), "{id}: a hit's metadata have changed");
            found += usize::from(attempt.id == *id);
        }
    }
    assert!(
        found * 2 > attempts.len(),
        "only {found} of the attempts find their own document: the search does not work, and this test shows nothing"
    );
    assert_eq!(shape(url).await, before, "a statement was injected");
    drop(database);
    worker.kill();
}

pub async fn what_strangers_send_to_the_api_stays_text() {
    let service = TestService::with(|config| (config.limits.requests_per_second, config.limits.burst) = (100_000, 100_000)).await;
    let token = service.token(Some("acme"), &[Scope::Admin]).await;
    let before = shape(&service.database_url).await;
    let base = Url::parse(&service.url).unwrap();
    let with_query = |path: &str, name: &str, value: &str| {
        let mut url = base.join(path).unwrap();
        url.query_pairs_mut().append_pair(name, value);
        url
    };
    let in_path = |text: &str, end: &str| {
        let mut url = base.join("/v1/jobs").unwrap();
        url.path_segments_mut().unwrap().push(text).extend(Some(end).filter(|end| !end.is_empty()));
        url
    };
    for Attempt { id, text, .. } in attempts() {
        let job = |key: &str| {
            let mut job =
                json!({ "version": 1, "id": "x", "kind": "backfill", "pipeline": "acme-notes", "dataset": "acme-archive" });
            job[key] = json!(text);
            job
        };
        let searches = [
            json!({ "query": text }),
            json!({ "query": "x", "pipeline": text }),
            json!({ "query": "x", "mode": text }),
            json!({ "query": "x", "filter": { "note": text } }),
            json!({ "query": "x", "filter": [format!("{text}={text}")] }),
            json!({ text.as_str(): "x", "query": "x" }),
        ];
        let jobs = ["id", "kind", "pipeline", "dataset", "since", "deadline", "version"].map(job);
        let posts = searches.iter().map(|body| ("/v1/search", body)).chain(jobs.iter().map(|body| ("/v1/jobs", body)));
        let mut asked = Vec::new();
        for (path, body) in posts {
            asked.push(service.ask_raw(|client| client.post(base.join(path).unwrap()).bearer_auth(&token).json(body)).await);
        }
        for url in [
            with_query("/v1/jobs", "pipeline", &text),
            with_query("/v1/jobs", "state", &text),
            with_query("/v1/jobs", &text, "1"),
        ] {
            asked.push(service.ask_raw(|client| client.get(url).bearer_auth(&token)).await);
        }
        asked.push(service.ask_raw(|client| client.get(in_path(&text, "")).bearer_auth(&token)).await);
        asked.push(service.ask_raw(|client| client.post(in_path(&text, "cancel")).bearer_auth(&token)).await);
        asked.push(
            service
                .ask_raw(|client| {
                    client
                        .post(base.join("/v1/search").unwrap())
                        .bearer_auth(&token)
                        .header("content-type", "application/json")
                        .body(text.clone())
                })
                .await,
        );
        // Other characters cannot be sent in a header.
        if text.chars().all(|c| c.is_ascii() && !c.is_ascii_control()) {
            asked.push(service.ask_raw(|client| client.get(base.join("/v1/jobs").unwrap()).bearer_auth(&text)).await);
            let keyed = json!({ "version": 1, "kind": "rerun", "pipeline": "globex-notes" });
            let post = |client: &Client| {
                client.post(base.join("/v1/jobs").unwrap()).bearer_auth(&token).json(&keyed).header("Idempotency-Key", &text)
            };
            asked.push(service.ask_raw(post).await);
        }
        for response in asked {
            let (status, place) = (response.status(), response.url().clone());
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            assert!(status.is_success() || status.is_client_error(), "{id}: {place} answers {status}");
            assert_eq!(kind, if status.is_success() { "application/json" } else { "application/problem+json" }, "{id}: {place}");
            assert!(
                !response.headers().contains_key("set-cookie") && !response.headers().contains_key("location"),
                "{id}: {place}"
            );
            let answer: Value = response.json().await.unwrap_or_else(|error| panic!("{id}: {place} answers no JSON: {error}"));
            assert!(!answer.to_string().contains("plan of globex"), "{id}: {place} tells of another tenant: {answer}");
            if status.is_client_error() {
                assert_eq!(answer["status"], status.as_u16(), "{id}: {answer}");
            }
        }
    }
    assert_eq!(shape(&service.database_url).await, before, "a statement was injected");
    assert_eq!(service.count("SELECT count(*) FROM documents WHERE NOT deleted").await, 2);
    assert_eq!(service.count("SELECT count(*) FROM jobs WHERE pipeline = 'globex-notes'").await, 1);
}
