//! Jobs over HTTP and on the command line, with a running worker on real Kafka.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use libtest_mimic::Trial;
use parquet::arrow::ArrowWriter;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::harness::free_port;
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(long, a_job_is_submitted_followed_and_found_over_http_and_from_the_command_line),
        trial!(long, a_cancelled_job_keeps_what_is_finished_and_a_retry_does_the_rest),
    ]
}

/// A stream with jobs, a dataset of documents, and the address that its worker serves at.
struct JobServer {
    stream: TestStream,
    address: String,
    client: Client,
}

impl JobServer {
    async fn new(documents: usize) -> Self {
        let stream = TestStream::new(kafka::shared().await, 1).await;
        let topics = [("jobs", 1), ("units", 2), ("events", 1)];
        let mut config = std::fs::read_to_string(stream.path("tidemill.toml")).unwrap();
        config
            .push_str(&format!("[datasets.archive]\npath = \"{}\"\n[jobs]\nenabled = true\n", stream.path("archive").display()));
        for ((stem, partitions), setting) in topics.into_iter().zip(["topic", "units_topic", "events_topic"]) {
            config.push_str(&format!("{setting} = \"{}\"\n", stream.client.topic(stem, partitions).await));
        }
        std::fs::write(stream.path("tidemill.toml"), config).unwrap();
        std::fs::create_dir(stream.path("archive")).unwrap();
        write(&stream.path("archive/a.parquet"), documents);
        Self { stream, address: format!("127.0.0.1:{}", free_port()), client: Client::new() }
    }

    async fn open(&self, failpoints: &str) -> Worker {
        let worker = self.stream.worker_at(&self.address, failpoints);
        // While models are still being loaded, the worker answers probes but no requests about jobs.
        let asked = || self.client.get(format!("http://{}/v1/jobs", self.address)).send();
        let is_up = || async { asked().await.is_ok_and(|answer| answer.status().is_success()) };
        eventually("the worker serves", Duration::from_secs(60), is_up).await;
        worker
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let response = self.client.post(format!("http://{}{path}", self.address)).json(body).send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", env!("CARGO_BIN_EXE_tidemill")]).args(arguments);
        command.env("TIDEMILL_DATABASE__URL", &self.stream.database_url).current_dir(self.stream.path(""));
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Waits until the job is in the state.
    async fn becomes(&self, job: &str, state: &str) -> Value {
        let path = format!("/v1/jobs/{job}");
        eventually(&format!("job {job} is {state}"), Duration::from_secs(90), || async {
            self.get(&path).await.1["state"] == state
        })
        .await;
        self.get(&path).await.1
    }

    async fn count(&self, query: &str) -> i64 {
        postgres::count(&self.stream.database_url, query).await
    }
}

fn write(path: &Path, documents: usize) {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values((0..documents).map(|n| format!("d{n}"))));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..documents).map(|n| format!("text {n}"))));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn job(id: &str) -> Value {
    json!({ "version": 1, "id": id, "kind": "backfill", "pipeline": PIPELINE, "dataset": "archive" })
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn a_job_is_submitted_followed_and_found_over_http_and_from_the_command_line() {
    let server = JobServer::new(300).await;
    let _worker = server.open("").await;
    let (status, queued) = server.post("/v1/jobs", &job("first")).await;
    assert_eq!(status, StatusCode::CREATED, "{queued}");
    assert_eq!((&queued["id"], &queued["spec"]["dataset"]), (&json!("first"), &json!("archive")), "{queued}");
    assert_eq!(server.post("/v1/jobs", &job("first")).await.0, StatusCode::OK, "the same job twice is one job");
    let mut other = job("first");
    other["sample"] = json!(10);
    let (status, conflict) = server.post("/v1/jobs", &other).await;
    assert_eq!((status, &conflict["code"]), (StatusCode::CONFLICT, &json!("conflict")), "{conflict}");
    let (status, unknown) = server.get("/v1/jobs/second").await;
    assert_eq!((status, &unknown["code"]), (StatusCode::NOT_FOUND, &json!("unknown_job")), "{unknown}");

    let ended = server.becomes("first", "succeeded").await;
    let progress = &ended["progress"];
    assert_eq!((&progress["rows"], &progress["rows_done"], &progress["ok"]), (&json!(300), &json!(300), &json!(600)), "{ended}");
    assert!(ended["finished_at"].as_str().is_some_and(|time| time.ends_with('Z')), "times are in RFC 3339: {ended}");
    let (_, list) = server.get("/v1/jobs?state=succeeded&pipeline=echo").await;
    assert_eq!((list["jobs"].as_array().map(Vec::len), &list["jobs"][0]["id"]), (Some(1), &json!("first")), "{list}");
    assert_eq!(server.get("/v1/jobs?state=queued").await.1["jobs"], json!([]));
    let (status, refused) = server.post("/v1/jobs/first/retry", &json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{refused}");

    // The command line writes to the ledger, and the worker takes the job from there.
    let flags = ["submit", "--pipeline", PIPELINE, "--dataset", "archive", "--id", "second", "--sample", "50", "--seed", "3"];
    let waited = server.command(&[&flags[..], &["--wait", "--json"]].concat()).await;
    assert!(waited.status.success(), "{}", stderr(&waited));
    let followed: Value = serde_json::from_str(stdout(&waited).lines().last().unwrap()).unwrap();
    assert_eq!((&followed["state"], &followed["progress"]["rows"]), (&json!("succeeded"), &json!(50)), "{followed}");
    let again = server.command(&flags).await;
    assert_eq!((stdout(&again).as_str(), again.status.success()), ("second", true), "{}", stderr(&again));
    assert!(stderr(&again).contains("job second exists already"), "{}", stderr(&again));
    std::fs::write(server.stream.path("job.json"), other.to_string()).unwrap();
    let conflict = server.command(&["submit", "job.json"]).await;
    assert_eq!(conflict.status.code(), Some(1), "{}", stderr(&conflict));
    assert!(stderr(&conflict).contains("the id `first` belongs to another job"), "{}", stderr(&conflict));
    let misspelt = server.command(&["submit", "--pipeline", "ecko", "--dataset", "archive"]).await;
    assert_eq!(misspelt.status.code(), Some(2), "{}", stderr(&misspelt));
    assert!(stderr(&misspelt).contains("did you mean `echo`?"), "{}", stderr(&misspelt));

    let listed = server.command(&["jobs", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(stdout(&listed).lines().last().unwrap()).unwrap();
    let ids: Vec<&str> = listed["jobs"].as_array().unwrap().iter().filter_map(|job| job["id"].as_str()).collect();
    assert_eq!(ids, ["second", "first"], "the latest first");
    assert!(stdout(&server.command(&["jobs", "list"]).await).contains("300 of 300"));
    assert!(stdout(&server.command(&["jobs", "show", "first"]).await).contains("600 computed"));
    assert_eq!(server.command(&["jobs", "watch", "first"]).await.status.code(), Some(0));
    assert_eq!(server.command(&["jobs", "show", "third"]).await.status.code(), Some(1));
    server.stream.audit("after two jobs").await;
}

async fn a_cancelled_job_keeps_what_is_finished_and_a_retry_does_the_rest() {
    let server = JobServer::new(3_000).await;
    let mut slow = server.open("commit-before-stage=sleep(100)").await;
    assert_eq!(server.post("/v1/jobs", &job("long")).await.0, StatusCode::CREATED);
    eventually("something is committed", Duration::from_secs(60), || async {
        server.count("SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE topic = 'job:long'").await > 0
    })
    .await;
    let running = server.get("/v1/jobs/long").await.1;
    assert!(running["rows_per_second"].as_f64() > Some(0.0), "a running job reports no rows per second: {running}");
    let (status, cancelled) = server.post("/v1/jobs/long/cancel", &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{cancelled}");
    let ended = server.becomes("long", "cancelled").await;
    let done = ended["progress"]["rows_done"].as_i64().unwrap();
    assert!((1..3_000).contains(&done), "it was cancelled after it had finished: {ended}");
    assert_eq!(server.count("SELECT count(*) FROM documents").await, done, "finished documents stay, and there are no others");
    let watched = server.command(&["jobs", "watch", "long"]).await;
    assert_eq!(watched.status.code(), Some(1), "{}", stderr(&watched));
    assert!(stderr(&watched).contains("job long ended as cancelled"), "{}", stderr(&watched));

    slow.kill();
    let _quick = server.open("").await;
    let retried = server.command(&["jobs", "retry", "long", "--json"]).await;
    assert!(retried.status.success(), "{}", stderr(&retried));
    let ended = server.becomes("long", "succeeded").await;
    assert_eq!((&ended["progress"]["rows_done"], &ended["progress"]["ok"]), (&json!(3_000), &json!(6_000)), "{ended}");
    assert_eq!(server.count("SELECT count(*) FROM documents").await, 3_000);
    server.stream.audit("after the retry").await;
}
