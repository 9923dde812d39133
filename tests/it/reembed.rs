//! Re-embedding with another model, from the plan to the last document, and the answers of search meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::StringArray;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tidemill::store::JobState;

use crate::harness::eventually;
use crate::harness::readiness::{assert_ready, listen};
use crate::harness::trial::{Needs, trial};
use crate::jobs::{JobSetup, backfill, write_parquet};
use crate::test_stream::PIPELINE;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-xlm-roberta");
const POOLING: &str = "1_Pooling/config.json";
const DOCUMENTS: usize = 400;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let needs = Needs::KAFKA.within(Duration::from_secs(300));
    vec![trial!(needs, search_finds_every_document_while_vectors_move_and_compares_none_of_two_models)]
}

/// A stream with jobs whose pipeline makes vectors with a model that can be changed.
async fn setup() -> JobSetup {
    let setup = JobSetup::new().await;
    let stream = &setup.stream;
    let model = stream.path("model");
    fs::create_dir_all(model.join("1_Pooling")).unwrap();
    for entry in fs::read_dir(MODEL).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
    }
    fs::copy(format!("{MODEL}/{POOLING}"), model.join(POOLING)).unwrap();
    stream.amend("tidemill.toml", |text| text + &format!("[models.minilm]\npath = \"{}\"\n", model.display()));
    stream.amend("pipelines/echo.yaml", |text| {
        let second = "second: { render: { template: \"{{ first.text }}?\" } }";
        assert!(text.contains(second), "the stream's second task has changed:\n{text}");
        text.replace(second, "second: { embed: { model: minilm } }")
    });
    let ids = StringArray::from_iter_values((0..DOCUMENTS).map(|n| format!("d{n}")));
    let texts = StringArray::from_iter_values((0..DOCUMENTS).map(text));
    write_parquet(setup.file("all.parquet"), vec![("id", Arc::new(ids)), ("text", Arc::new(texts))]);
    setup
}

/// A text unlike every other, both in words and in the tokens of the model, which does not know every digit.
fn text(number: usize) -> String {
    const WORDS: [&str; 8] = ["mill", "water", "bread", "honey", "clock", "rain", "model", "table"];
    let [first, second, third] = [number / 64, number / 8, number].map(|at| WORDS[at % 8]);
    format!("{first} {second} {third} {number}")
}

fn text_of(document: &str) -> String {
    text(document[1..].parse().unwrap())
}

/// Hits of a search, the best first: the document, and its rank in each list.
async fn search(address: &str, query: &str, mode: &str) -> Vec<Value> {
    let question = json!({ "query": query, "pipeline": PIPELINE, "mode": mode, "limit": 100 });
    let answer = reqwest::Client::new().post(format!("http://{address}/v1/search")).json(&question).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["hits"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

fn found<'a>(hits: &'a [Value], document: &str) -> Option<&'a Value> {
    hits.iter().find(|hit| hit["document_id"] == document)
}

/// The embedding set of each document's vectors.
async fn spaces(setup: &JobSetup) -> BTreeMap<String, i32> {
    let mut connection = PgConnection::connect(&setup.stream.database_url).await.unwrap();
    let rows = sqlx::query("SELECT DISTINCT document_id, set_id FROM embeddings").fetch_all(&mut connection).await.unwrap();
    let spaces: BTreeMap<String, i32> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!((rows.len(), spaces.len()), (DOCUMENTS, DOCUMENTS), "a document has vectors in two embedding sets, or in none");
    spaces
}

/// Checks that a search by vector finds documents of the given set only.
fn assert_unmixed(hits: &[Value], spaces: &BTreeMap<String, i32>, space: i32) {
    for hit in hits {
        let is_of_it = spaces[hit["document_id"].as_str().unwrap()] == space;
        assert!(is_of_it || hit["explanation"]["vector"]["rank"].is_null(), "a vector of another model was compared: {hit}");
    }
}

async fn search_finds_every_document_while_vectors_move_and_compares_none_of_two_models() {
    let setup = setup().await;
    let stream = &setup.stream;
    let address = listen();
    let worker = stream.worker_at(&address, "");
    assert_ready(&address, &worker).await;
    setup.ask(backfill("first")).await;
    assert_eq!(setup.ended("first", &worker).await.state, JobState::Succeeded);
    let old = *spaces(&setup).await.values().next().unwrap();
    let hits = search(&address, &text(7), "vector").await;
    assert_eq!(hits.len(), 100);
    assert!(hits.iter().all(|hit| hit["explanation"]["text"].is_null()), "a search in one embedding set by words: {hits:?}");
    drop(worker);

    // Another model has the same name, and no document is re-embedded yet.
    stream.amend(&format!("model/{POOLING}"), |text| {
        text.replace("\"pooling_mode_cls_token\": false", "\"pooling_mode_cls_token\": true")
            .replace("\"pooling_mode_mean_tokens\": true", "\"pooling_mode_mean_tokens\": false")
    });
    let job = json!({ "version": 1, "id": "move", "kind": "reembed", "pipeline": PIPELINE });
    fs::write(stream.path("job.json"), job.to_string()).unwrap();
    let plan = stream.answer(&["plan", "--job", "job.json", "--sample", "100"]);
    assert_eq!((&plan["rows"], &plan["units"], &plan["sampled"]), (&json!(DOCUMENTS), &json!(1), &json!(100)), "{plan}");
    assert_eq!(spaces(&setup).await.values().filter(|space| **space != old).count(), 0, "a plan moved something");
    let worker = stream.worker_at(&address, "commit-before-stage=sleep(500)");
    assert_ready(&address, &worker).await;
    for mode in ["vector", "hybrid"] {
        let hits = search(&address, "17", mode).await;
        assert_eq!(
            (&hits[0]["document_id"], &hits[0]["explanation"]["vector"]),
            (&json!("d17"), &Value::Null),
            "{mode}: {hits:?}"
        );
        assert_eq!(hits[0]["chunk"]["text"], json!(text(17)), "{mode}: {hits:?}");
    }

    // The job is held half-way.
    setup.ask(job).await;
    eventually("some have moved", Duration::from_secs(60), || async { spaces(&setup).await.values().any(|space| *space != old) })
        .await;
    stream.command(&["jobs", "cancel", "move"]);
    assert_eq!(setup.ended("move", &worker).await.state, JobState::Cancelled);
    let now = spaces(&setup).await;
    let new = *now.values().find(|space| **space != old).unwrap();
    let (moved, left): (Vec<&String>, Vec<&String>) = now.keys().partition(|document| now[*document] == new);
    assert!(!moved.is_empty() && !left.is_empty(), "{} have moved, {} have not", moved.len(), left.len());
    for mode in ["vector", "hybrid"] {
        for document in [&left[0], &left[left.len() - 1]] {
            let hits = search(&address, &document[1..], mode).await;
            assert_unmixed(&hits, &now, new);
            let hit = found(&hits, document).unwrap_or_else(|| panic!("{mode}: {document} is not found: {hits:?}"));
            assert_eq!(
                (&hit["explanation"]["vector"]["rank"], &hit["explanation"]["text"]["rank"]),
                (&Value::Null, &json!(1)),
                "{mode}: {hit}"
            );
            assert!(hits.iter().position(|hit| hit["document_id"] == **document) < Some(2), "{mode}: {document} is far down");
        }
        let hits = search(&address, &text_of(moved[0]), mode).await;
        assert_unmixed(&hits, &now, new);
        let hit = found(&hits, moved[0]).unwrap_or_else(|| panic!("{mode}: {} is not found: {hits:?}", moved[0]));
        assert_eq!(hit["explanation"]["vector"]["rank"], 1, "{mode}: a text is nearest to itself: {hit}");
    }
    drop(worker);

    // At the end there is one embedding set again, and the job cost what the plan said.
    let worker = stream.worker_at(&address, "");
    assert_ready(&address, &worker).await;
    stream.command(&["jobs", "retry", "move"]);
    let job = setup.ended("move", &worker).await;
    assert_eq!((job.state, job.reason.as_deref()), (JobState::Succeeded, None));
    let now = spaces(&setup).await;
    assert!(now.values().all(|space| *space == new), "some have not moved");
    let hits = search(&address, &text_of(left[0]), "vector").await;
    let hit = found(&hits, left[0]).unwrap();
    assert_eq!((&hit["explanation"]["vector"]["rank"], &hit["explanation"]["text"]["rank"]), (&json!(1), &Value::Null), "{hit}");
    let progress = stream.store.job_progress(&job).await.unwrap();
    let rows = DOCUMENTS as i64;
    assert_eq!(
        (progress.rows_done, progress.work.ok, progress.work.reused),
        (rows, rows, rows),
        "only vectors are recomputed: {progress:?}"
    );
    let holds = |figure: &str, truth: f64| {
        let (low, high) = (plan[figure]["low"].as_f64().unwrap(), plan[figure]["high"].as_f64().unwrap());
        assert!((low - 1e-9..=high + 1e-9).contains(&truth), "{figure} was {truth}, and planned as {low} to {high}: {plan}");
    };
    holds("tokens", progress.work.tokens as f64);
    holds("documents", rows as f64);
    holds("reused_share", 0.5);
    holds("dead_letters", 0.0);
    let idle = stream.answer(&["plan", "--job", "job.json"]);
    assert_eq!(idle["rows"], 0, "nothing is left to move: {idle}");
    stream.audit("at the end").await;
}
