//! The shipped generator on the shipped tickets, from Kafka record to committed row.

use std::path::Path;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::harness::postgres::database_of;
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(300));
    vec![trial!(alone, tickets_become_topics_facts_and_gists_that_say_where_they_come_from)]
}

/// The share of topics and of fields that must be right at least, on tickets from the templates that the generator was trained on.
const RIGHT: f64 = 0.95;

async fn tickets_become_topics_facts_and_gists_that_say_where_they_come_from() {
    let folder = open_folder();
    let (first, mut worker) = serve(folder.path()).await;
    assert_eq!(first["documents"], 30, "{first}");
    assert_eq!(first["reused"], 0, "{first}");
    let mut database = PgConnection::connect(&database_of(&first)).await.unwrap();

    let rows = sqlx::query(
        "SELECT r.task, r.model, r.model_revision, r.tokens, r.generated_tokens, p.name, p.body, p.schema
         FROM results r LEFT JOIN prompts p ON p.version = r.prompt WHERE r.document_id = 'TK-1001' ORDER BY r.task",
    );
    let rows = rows.fetch_all(&mut database).await.unwrap();
    let tasks: Vec<String> = rows.iter().map(|row| row.get("task")).collect();
    assert_eq!(tasks, ["facts", "gist", "topic"]);
    for row in &rows {
        let task: String = row.get("task");
        assert_eq!(row.get::<Option<String>, _>("model").as_deref(), Some("writer"), "{task}");
        assert!(row.get::<Option<String>, _>("model_revision").is_some_and(|r| r.len() >= 16), "{task} names no revision");
        let body: Option<String> = row.get("body");
        assert!(body.is_some_and(|body| body.contains("{{ document.text }}")), "{task} names no prompt that is kept");
        assert!(row.get::<i32, _>("tokens") > 0, "{task} cost nothing");
        let (written, scored) = (row.get::<i32, _>("generated_tokens"), task == "topic");
        assert_eq!(written == 0, scored, "{task} wrote {written} tokens");
    }

    let truth: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(ROOT).join("tests/fixtures/tickets_truth.json")).unwrap())
            .unwrap();
    let rows = sqlx::query(
        "SELECT document_id, task, label, fields, (SELECT text FROM documents d WHERE d.id = document_id) AS text FROM results",
    );
    let (mut topics, mut fields, mut all) = (0, 0, 0);
    for row in rows.fetch_all(&mut database).await.unwrap() {
        let (id, task): (String, String) = (row.get("document_id"), row.get("task"));
        let stored: Value = row.get("fields");
        match task.as_str() {
            "topic" => topics += usize::from(row.get::<Option<String>, _>("label").as_deref() == truth[&id]["topic"].as_str()),
            "facts" => {
                for (name, value) in truth[&id]["fields"].as_object().unwrap() {
                    all += 1;
                    fields += usize::from(stored["fields"][name] == *value);
                }
                evidence_holds(&stored, &row.get::<String, _>("text"));
            }
            _ => {}
        }
    }
    let (topics, fields) = (topics as f64 / 30.0, fields as f64 / all as f64);
    assert!(topics >= RIGHT, "only {topics:.2} of the topics are right");
    assert!(fields >= RIGHT, "only {fields:.2} of the fields are right");
    database.close().await.unwrap();
    stop(&mut worker);

    let (second, mut worker) = serve(folder.path()).await;
    assert_eq!((&second["reused"], &second["tokens"]), (&json!(90), &json!(0)), "the second run asked the model again: {second}");
    stop(&mut worker);
}

/// Checks that every grounded value is in the text at its span.
fn evidence_holds(stored: &Value, text: &str) {
    for leaf in stored["leaves"].as_array().unwrap() {
        let value = stored["fields"].pointer(leaf["path"].as_str().unwrap()).unwrap();
        let (Some(value), evidence) = (value.as_str(), &leaf["evidence"]) else { continue };
        if evidence["match"] == "exact" {
            let place = evidence["start"].as_u64().unwrap() as usize..evidence["end"].as_u64().unwrap() as usize;
            assert_eq!(text.get(place), Some(value), "evidence of {} points elsewhere", leaf["path"]);
        }
        assert_eq!(leaf["grounded"] == true, evidence.is_object(), "{leaf}");
    }
}

async fn serve(folder: &Path) -> (Value, Worker) {
    let pipeline = Path::new(ROOT).join("pipelines/tickets.yaml").display().to_string();
    std::os::unix::fs::symlink(Path::new(ROOT).join("pipelines"), folder.join("pipelines")).ok();
    let data = folder.join("data").display().to_string();
    let arguments = ["demo", "--json", "--serve", "--pipeline", &pipeline, "--data-dir", &data].map(str::to_owned);
    let mut worker = Worker::start(folder, &arguments, &[]);
    eventually("the demo serves", Duration::from_secs(120), || {
        assert_eq!(worker.ended(), None, "the demo ended early:\n{}", worker.log());
        std::future::ready(worker.log().contains("serving http"))
    })
    .await;
    let log = worker.log();
    let report = serde_json::from_str(log.lines().rfind(|line| line.starts_with('{')).unwrap()).unwrap();
    (report, worker)
}

fn stop(worker: &mut Worker) {
    worker.signal(Signal::SIGINT);
    let status = tokio::task::block_in_place(|| worker.wait(Duration::from_secs(30)));
    assert!(status.success(), "told to stop, the demo ended with {status}");
}
