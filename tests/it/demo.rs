//! The demo as a user runs it: the built command, its output, a second run, and an input larger than its broker keeps.

use std::future::ready;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let alone = Needs::NOTHING.alone().within(Duration::from_secs(300));
    vec![
        trial!(alone, a_second_run_reuses_every_result_and_serves_searches),
        trial!(Needs::NOTHING, an_input_that_can_be_none_is_refused_before_anything_starts),
        trial!(alone, a_pipeline_that_stops_ends_the_demo),
        trial!(alone, an_input_far_larger_than_the_broker_keeps_loses_nothing),
    ]
}

const PIPELINE: &str = r#"
version: 1
name: notes
source: { topic: notes, id: id, text: "{{ text }}" }
tasks:
  start:  { render: { template: "{{ document.text[:12] }}" } }
  vector: { embed: { model: minilm } }
sinks: { parquet: { dataset: results } }
"#;

/// How many valid documents the small input has.
const NOTES: usize = 40;

async fn a_second_run_reuses_every_result_and_serves_searches() {
    let folder = open_folder();
    let notes = (0..NOTES).map(|n| json!({"id": format!("n{n}"), "text": format!("note {n}: the kettle boils")}).to_string());
    let broken = ["{", r#"{"id":"no text"}"#, r#"{"id":"nul","text":"a\u0000b"}"#].map(str::to_owned);
    let lines: Vec<String> = notes.chain(broken).collect();
    std::fs::write(folder.path().join("notes.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("notes.jsonl"), lines.join("\n")).unwrap();

    let first = demo(folder.path()).await;
    let units = 2 * NOTES;
    assert_eq!(first["records"], lines.len(), "each line is a record: {first}");
    assert_eq!(first["documents"], NOTES, "{first}");
    assert_eq!(first["results"], json!({"start": NOTES, "vector": NOTES}), "{first}");
    assert_eq!(first["dead_letters"], 3, "each broken line is a dead letter: {first}");
    assert_eq!(first["parquet_rows"], units, "{first}");
    assert_eq!(first["reused"], 0, "{first}");
    let files = first["parquet_dir"].as_str().unwrap();
    assert!(Path::new(files).is_dir(), "there is no folder {files}");

    let arguments = arguments(folder.path(), &["--serve"]);
    let mut second = Worker::start(folder.path(), &arguments, &[]);
    eventually("the second run serves", Duration::from_secs(120), || {
        assert_eq!(second.ended(), None, "the second run ended early:\n{}", second.log());
        ready(second.log().contains("serving http"))
    })
    .await;
    let log = second.log();
    let report: Value = serde_json::from_str(log.lines().rfind(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!(report["reused"], units, "the second run computed what it had: {report}");
    assert_eq!(report["parquet_rows"], units, "the second run wrote rows again: {report}");
    assert!(log.contains("reused"), "the second run does not say that it reused results:\n{log}");
    let question = json!({"query": "boiling water", "pipeline": "notes", "limit": 5});
    let address = format!("{}/v1/search", report["http"].as_str().unwrap());
    let answer: Value = reqwest::Client::new().post(address).json(&question).send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["hits"].as_array().map(Vec::len), Some(5), "{answer}");
    second.signal(Signal::SIGINT);
    let status = spawn_blocking(move || (second.wait(Duration::from_secs(30)), second)).await.unwrap().0;
    assert!(status.success(), "told to stop, the demo ended with {status}");
}

/// The broker keeps about 5 MiB of a partition and drops older records silently.
async fn an_input_far_larger_than_the_broker_keeps_loses_nothing() {
    const RECORDS: usize = 1200;
    const BYTES: usize = 60_000_000;
    let folder = open_folder();
    let filler = "a mill that turns day and night ".repeat(BYTES / RECORDS / 32);
    let lines: Vec<String> = (0..RECORDS).map(|n| json!({"id": n, "text": format!("{n} {filler}")}).to_string()).collect();
    assert!(lines.iter().map(String::len).sum::<usize>() >= BYTES, "the input is smaller than it should be");
    let only_text = PIPELINE.replace("  vector: { embed: { model: minilm } }\n", "");
    std::fs::write(folder.path().join("notes.yaml"), only_text).unwrap();
    std::fs::write(folder.path().join("notes.jsonl"), lines.join("\n")).unwrap();

    let report = demo(folder.path()).await;
    assert_eq!(report["records"], RECORDS, "{report}");
    assert_eq!(report["documents"], RECORDS, "records went missing on the way: {report}");
    assert_eq!(report["results"], json!({"start": RECORDS}), "{report}");
    assert_eq!(report["dead_letters"], 0, "{report}");
}

/// Invalid input is the caller's fault: one sentence, exit code 2, and no database is made.
async fn an_input_that_can_be_none_is_refused_before_anything_starts() {
    let folder = open_folder();
    std::fs::write(folder.path().join("notes.yaml"), PIPELINE).unwrap();
    let utf16: Vec<u8> = "{\"id\": \"a\"}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let large = json!({"id": "a", "text": "a mill ".repeat(900_000)}).to_string();
    let inputs: [(&str, &[u8], &str); 4] = [
        ("notes.json", b"{}", "is neither .jsonl nor .parquet"),
        ("notes.parquet", b"", "cannot be read"),
        ("wide.jsonl", &utf16, "is UTF-16"),
        ("large.jsonl", large.as_bytes(), "takes at most 2500000"),
    ];
    for (name, bytes, sentence) in inputs {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let mut arguments = arguments(folder.path(), &[]);
        arguments[5] = folder.path().join(name).display().to_string();
        let output = run(arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(sentence) && stderr.lines().count() == 1, "{name}: {stderr}");
        assert!(!folder.path().join("data").exists(), "{name}: a database was made for it");
    }
}

async fn a_pipeline_that_stops_ends_the_demo() {
    let folder = open_folder();
    std::fs::write(folder.path().join("notes.yaml"), PIPELINE).unwrap();
    std::fs::write(folder.path().join("notes.jsonl"), "{broken\n".repeat(20_000)).unwrap();
    for _ in 0..2 {
        let output = run(arguments(folder.path(), &[])).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("error: pipeline `notes` waits for an operator and commits nothing more"), "{stderr}");
        assert!(stderr.contains("tidemill pipelines resume notes"), "{stderr}");
    }
}

fn arguments(folder: &Path, more: &[&str]) -> Vec<String> {
    let path = |name: &str| folder.join(name).display().to_string();
    let fixed = ["demo", "--json", "--pipeline"].map(str::to_owned).into_iter();
    let files = [path("notes.yaml"), "--input".into(), path("notes.jsonl"), "--data-dir".into(), path("data")];
    fixed.chain(files).chain(more.iter().map(|&flag| flag.to_owned())).collect()
}

/// Runs the demo to its end. `timeout` kills one that hangs, which must not outlive its test.
async fn run(arguments: Vec<String>) -> Output {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "240", env!("CARGO_BIN_EXE_tidemill")]).args(arguments);
    spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn demo(folder: &Path) -> Value {
    let output = run(arguments(folder, &[])).await;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the demo ended with {}:\n{stderr}", output.status);
    let last = stdout.lines().last().unwrap_or_else(|| panic!("the demo said nothing:\n{stderr}"));
    serde_json::from_str(last).unwrap_or_else(|e| panic!("the last line of stdout is no JSON: {e}\n{stdout}"))
}
