//! Jobs from the topic to their last unit: exactly once whichever process is killed, and every way in which a job can end.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use libtest_mimic::Trial;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};
use tidemill::store::{JobRow, JobState};
use tokio::time::sleep;

use crate::harness::kafka::{self, NewRecord};
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, postgres};
use crate::test_stream::{PIPELINE, TASKS, TestStream, read_topic};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let needs = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(needs.alone(), a_backfill_runs_exactly_once_over_workers_that_are_killed),
        trial!(needs, every_file_at_fault_fails_alone_and_says_why),
        trial!(needs, a_cancelled_job_keeps_what_was_finished_and_goes_on_when_retried),
        trial!(needs, a_job_stops_at_its_deadline_and_says_what_is_left),
        trial!(needs, a_backfill_never_overwrites_a_fresher_live_result),
        trial!(needs, what_asks_for_no_job_becomes_a_dead_letter),
        trial!(needs, an_evaluation_counts_what_is_right_and_commits_nothing),
        trial!(needs, a_rerun_takes_up_what_is_missing_and_a_delete_takes_all),
    ]
}

/// A stream with topics for jobs and a dataset to read.
pub struct JobSetup {
    pub stream: TestStream,
    jobs: String,
    events: String,
}

impl JobSetup {
    /// A stream with empty topics and an empty dataset.
    pub async fn new() -> Self {
        let stream = TestStream::new(kafka::shared().await, 2).await;
        let jobs = stream.client.topic("jobs", 1).await;
        let units = stream.client.topic("units", 4).await;
        let events = stream.client.topic("job-events", 1).await;
        let archive = stream.path("archive");
        fs::create_dir(&archive).unwrap();
        let file = stream.path("tidemill.toml");
        let config = fs::read_to_string(&file).unwrap();
        let more = format!(
            "[jobs]\nenabled = true\ntopic = \"{jobs}\"\nunits_topic = \"{units}\"\nevents_topic = \"{events}\"\n\
             [datasets.archive]\npath = \"{}\"\n",
            archive.display()
        );
        fs::write(file, config + &more).unwrap();
        Self { stream, jobs, events }
    }

    /// A path in the dataset.
    pub fn file(&self, name: &str) -> PathBuf {
        self.stream.path("archive").join(name)
    }

    /// Writes the documents of the range as a file of the dataset.
    pub fn archive(&self, name: &str, range: std::ops::Range<usize>) {
        let ids = StringArray::from_iter_values(range.clone().map(|n| format!("d{n}")));
        let texts = StringArray::from_iter_values(range.map(|n| format!("text {n}")));
        write_parquet(self.file(name), vec![("id", Arc::new(ids)), ("text", Arc::new(texts))]);
    }

    /// Sends a record to the jobs topic.
    pub async fn ask(&self, job: impl ToString) {
        let payload = Some(job.to_string().into_bytes());
        self.stream.client.send(&self.jobs, vec![NewRecord { partition: None, key: Vec::new(), payload }]).await;
    }

    /// The topic of events about jobs.
    pub fn events(&self) -> &str {
        &self.events
    }

    /// Waits until the job has ended.
    pub async fn ended(&self, id: &str, worker: &Worker) -> JobRow {
        let what = format!("job {id} ends; the worker says:\n{}", worker.log());
        eventually(&what, Duration::from_secs(120), || async { self.job(id).await.is_some_and(|job| job.state.is_final()) })
            .await;
        self.job(id).await.unwrap()
    }

    async fn job(&self, id: &str) -> Option<JobRow> {
        self.stream.store.job(id).await.unwrap()
    }

    async fn count(&self, query: &'static str) -> i64 {
        postgres::count(&self.stream.database_url, query).await
    }

    /// Checks that `documents` documents were computed exactly once each.
    pub async fn assert_once(&self, documents: i64) {
        self.stream.audit("at the end").await;
        assert_eq!(self.count("SELECT count(*) FROM documents").await, documents, "distinct documents = rows");
        assert_eq!(self.count("SELECT count(*) FROM results").await, documents * TASKS, "distinct keys = rows");
        let ok = self.count("SELECT coalesce(sum(units_ok), 0)::bigint FROM batches WHERE pipeline = 'echo'").await;
        assert_eq!(ok, documents * TASKS, "each was computed once");
        let live = self.count("SELECT coalesce(sum(rows), 0)::bigint FROM parquet_files WHERE state = 'live'").await;
        assert_eq!(live, ok, "live Parquet rows = units computed");
    }
}

/// Writes a Parquet file with small row groups.
pub fn write_parquet(path: PathBuf, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(500)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// A backfill of the whole dataset.
pub fn backfill(id: &str) -> Value {
    json!({ "version": 1, "id": id, "kind": "backfill", "pipeline": PIPELINE, "dataset": "archive" })
}

async fn a_backfill_runs_exactly_once_over_workers_that_are_killed() {
    const FILES: usize = 4;
    const ROWS: usize = 3_000;
    let setup = JobSetup::new().await;
    for file in 0..FILES {
        setup.archive(&format!("part-{file}.parquet"), file * ROWS..(file + 1) * ROWS);
    }
    let start = || setup.stream.worker("commit-before-stage=sleep(30)");
    let mut workers = [start(), start()];
    setup.ask(backfill("all")).await;
    setup.ask(backfill("all")).await;
    let committed = || setup.count("SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE pipeline = 'echo'");
    for round in 0..4_i64 {
        let least = (round + 1) * (FILES * ROWS / 6) as i64;
        eventually("the backfill gets on", Duration::from_secs(90), || async { committed().await >= least }).await;
        let victim = round as usize % 2;
        workers[victim].kill();
        setup.stream.audit(&format!("after kill {round}")).await;
        workers[victim] = start();
    }
    let job = setup.ended("all", &workers[0]).await;
    assert_eq!((job.state, job.reason), (JobState::Succeeded, None));
    setup.assert_once((FILES * ROWS) as i64).await;
    let progress = setup.stream.store.job_progress(&setup.job("all").await.unwrap()).await.unwrap();
    assert_eq!((progress.rows, progress.rows_done), ((FILES * ROWS) as i64, (FILES * ROWS) as i64));
    assert!(progress.units > FILES as i64 && progress.units == progress.units_done, "{progress:?}");
    eventually("the outbox is empty", Duration::from_secs(30), || async {
        setup.count("SELECT count(*) FROM outbox").await == 0
    })
    .await;
    let events = read_topic(&setup.stream.client, &setup.events).await;
    let states: Vec<&str> = events.values().filter_map(|event| event["state"].as_str()).collect();
    assert_eq!(states, ["queued", "planning", "running", "succeeded"], "the same request twice is one job");
}

async fn every_file_at_fault_fails_alone_and_says_why() {
    let setup = JobSetup::new().await;
    setup.archive("a-good.parquet", 0..700);
    fs::write(setup.file("b-noise.parquet"), vec![7; 5_000]).unwrap();
    let numbers = Float64Array::from_iter_values((0..10).map(f64::from));
    let texts = StringArray::from_iter_values((0..10).map(|n| format!("text {n}")));
    write_parquet(setup.file("c-retyped.parquet"), vec![("id", Arc::new(numbers)), ("text", Arc::new(texts))]);
    let cut = fs::read(setup.file("a-good.parquet")).unwrap();
    fs::write(setup.file("d-cut.parquet"), &cut[..cut.len() / 2]).unwrap();
    setup.archive("e-good.parquet", 700..900);
    let worker = setup.stream.worker("");
    setup.ask(backfill("mixed")).await;
    let job = setup.ended("mixed", &worker).await;
    assert_eq!(job.state, JobState::Partial);
    assert_eq!(job.reason.as_deref(), Some("3 of 5 units failed"));
    let faults = setup.stream.store.reader(None).unit_faults("mixed", 10).await.unwrap();
    let classes: Vec<&str> = faults.iter().map(|(_, _, class, _)| class.as_str()).collect();
    assert_eq!(classes, ["corrupt_file", "schema_mismatch", "corrupt_file"]);
    assert!(
        faults[1].3.contains("`c-retyped.parquet`") && faults[1].3.contains("an id is text or an integer"),
        "{}",
        faults[1].3
    );
    setup.assert_once(900).await;
    // A repaired file is another version: units that were planned on the old one fail with that reason, and a new job reads it.
    setup.archive("c-retyped.parquet", 900..910);
    setup.ask(json!({ "version": 1, "id": "repaired", "kind": "backfill", "pipeline": PIPELINE, "dataset": "archive", "prefix": "c-" }))
        .await;
    assert_eq!(setup.ended("repaired", &worker).await.state, JobState::Succeeded);
    setup.assert_once(910).await;
}

async fn a_cancelled_job_keeps_what_was_finished_and_goes_on_when_retried() {
    let setup = JobSetup::new().await;
    for file in 0..3 {
        setup.archive(&format!("part-{file}.parquet"), file * 2_000..(file + 1) * 2_000);
    }
    let worker = setup.stream.worker("commit-before-stage=sleep(100)");
    setup.ask(backfill("long")).await;
    let committed = || setup.count("SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE pipeline = 'echo'");
    eventually("the backfill gets on", Duration::from_secs(90), || async { committed().await > 200 }).await;
    assert!(setup.stream.store.cancel_job("long", &setup.events).await.unwrap());
    let job = setup.ended("long", &worker).await;
    assert_eq!(job.state, JobState::Cancelled);
    let kept = committed().await;
    assert!((200..6_000).contains(&kept), "{kept} rows of a cancelled job were committed");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(committed().await, kept, "nothing goes on after the end");
    setup.stream.audit("after the cancellation").await;
    assert_eq!(setup.count("SELECT count(*) FROM results").await, kept * TASKS, "results of what was finished stay");
    drop(worker);
    let units = fs::read_to_string(setup.stream.path("tidemill.toml")).unwrap();
    let units = units.lines().find_map(|line| line.strip_prefix("units_topic = ")).unwrap().trim_matches('"').to_owned();
    assert!(setup.stream.store.retry_job("long", None, &units, &setup.events).await.unwrap());
    let worker = setup.stream.worker("");
    assert_eq!(setup.ended("long", &worker).await.state, JobState::Succeeded);
    setup.assert_once(6_000).await;
}

async fn a_job_stops_at_its_deadline_and_says_what_is_left() {
    let setup = JobSetup::new().await;
    for file in 0..3 {
        setup.archive(&format!("part-{file}.parquet"), file * 2_000..(file + 1) * 2_000);
    }
    let worker = setup.stream.worker("commit-before-stage=sleep(1000)");
    let committed = || setup.count("SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE pipeline = 'echo'");
    let mut job = backfill("short");
    job["deadline"] = json!((jiff::Timestamp::now() + jiff::SignedDuration::from_secs(20)).to_string());
    setup.ask(job).await;
    let job = setup.ended("short", &worker).await;
    let done = committed().await;
    assert_eq!(job.state, JobState::Partial);
    let reason = job.reason.unwrap();
    assert!(reason.starts_with("its deadline has passed; ") && reason.contains("are left to do"), "{reason}");
    assert!((1..6_000).contains(&done), "{done} rows by the deadline; the worker says:\n{}", worker.log());
    assert!(reason.contains(&format!("about {} rows", 6_000 - done)), "{reason} after {done} rows");
    setup.stream.audit("after the deadline").await;
}

async fn a_backfill_never_overwrites_a_fresher_live_result() {
    let setup = JobSetup::new().await;
    setup.archive("old.parquet", 0..100);
    // The file is older than the stream's records, and in this pipeline the time of arrival is the version.
    let old = std::time::SystemTime::now() - Duration::from_secs(3_600);
    fs::File::options().write(true).open(setup.file("old.parquet")).unwrap().set_modified(old).unwrap();
    let live = (50..100).map(|n| NewRecord {
        partition: None,
        key: format!("d{n}").into_bytes(),
        payload: Some(format!(r#"{{"id":"d{n}","text":"live {n}"}}"#).into_bytes()),
    });
    setup.stream.client.send(&setup.stream.topic, live.collect()).await;
    let worker = setup.stream.worker("");
    eventually("the live records are committed", Duration::from_secs(60), || async { setup.stream.committed().await == 50 })
        .await;
    setup.ask(backfill("older")).await;
    assert_eq!(setup.ended("older", &worker).await.state, JobState::Succeeded);
    setup.stream.audit("at the end").await;
    let live = setup.count("SELECT count(*) FROM results WHERE task = 'first' AND text LIKE 'live %'").await;
    let old = setup.count("SELECT count(*) FROM results WHERE task = 'first' AND text LIKE 'text %'").await;
    assert_eq!((live, old), (50, 50));
}

async fn what_asks_for_no_job_becomes_a_dead_letter() {
    let setup = JobSetup::new().await;
    setup.archive("x.parquet", 0..10);
    let mut unknown_key = backfill("a");
    unknown_key["brokers"] = json!("elsewhere:9092");
    let mut unknown_dataset = backfill("b");
    unknown_dataset["dataset"] = json!("/etc");
    let mut climbs = backfill("c");
    climbs["prefix"] = json!("../");
    let mut other = backfill("good");
    other["priority"] = json!(9);
    setup.ask("no job at all").await;
    for job in [unknown_key, unknown_dataset, climbs, backfill("good"), other] {
        setup.ask(job).await;
    }
    let worker = setup.stream.worker("");
    assert_eq!(setup.ended("good", &worker).await.state, JobState::Succeeded);
    eventually("the refused ones are dead letters", Duration::from_secs(30), || async {
        setup.count("SELECT count(*) FROM dead_letters WHERE pipeline = '@jobs' AND class = 'invalid_job'").await == 5
    })
    .await;
    assert_eq!(setup.count("SELECT count(*) FROM jobs").await, 1);
    setup.assert_once(10).await;
}

async fn a_rerun_takes_up_what_is_missing_and_a_delete_takes_all() {
    let setup = JobSetup::new().await;
    setup.archive("x.parquet", 0..1_200);
    let worker = setup.stream.worker("");
    setup.ask(backfill("first")).await;
    assert_eq!(setup.ended("first", &worker).await.state, JobState::Succeeded);
    drop(worker);
    // A new task: only its outputs are missing, and only they are computed.
    let file = setup.stream.path("pipelines").join("echo.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let more = "sinks:\n  postgres: {}\n";
    let third = "  third: { render: { template: \"{{ document.id }}\" } }\nsinks:\n  postgres: {}\n";
    fs::write(&file, text.replacen(more, third, 1)).unwrap();
    let worker = setup.stream.worker("");
    setup.ask(json!({ "version": 1, "id": "again", "kind": "rerun", "pipeline": PIPELINE })).await;
    let job = setup.ended("again", &worker).await;
    assert_eq!(job.state, JobState::Succeeded, "{:?}; {}", job.reason, worker.log());
    let progress = setup.stream.store.job_progress(&job).await.unwrap();
    assert_eq!((progress.work.ok, progress.work.reused, progress.rows_done), (1_200, 2_400, 1_200), "{progress:?}");
    assert_eq!(setup.count("SELECT count(*) FROM results WHERE task = 'third'").await, 1_200);
    setup.ask(json!({ "version": 1, "id": "again-2", "kind": "rerun", "pipeline": PIPELINE })).await;
    let job = setup.ended("again-2", &worker).await;
    assert_eq!(job.reason.as_deref(), Some("there was nothing to do"));
    let gone: Vec<String> = (0..700).map(|n| format!("d{n}")).collect();
    setup.ask(json!({ "version": 1, "id": "gone", "kind": "delete", "pipeline": PIPELINE, "documents": gone })).await;
    assert_eq!(setup.ended("gone", &worker).await.state, JobState::Succeeded);
    setup.stream.audit("at the end").await;
    assert_eq!(setup.count("SELECT count(*) FROM documents WHERE NOT deleted").await, 500);
    assert_eq!(setup.count("SELECT count(*) FROM results").await, 1_500);
}

async fn an_evaluation_counts_what_is_right_and_commits_nothing() {
    let setup = JobSetup::new().await;
    let ids = StringArray::from_iter_values((0..1_000).map(|n| format!("d{n}")));
    let texts = StringArray::from_iter_values((0..1_000).map(|n| format!("kind {}", n % 2)));
    // A tenth of the rows with the label 1 are labelled wrongly.
    let said = (0..1_000).map(|n| match n % 20 {
        1 => None,
        3 => Some("kind 0!".to_owned()),
        _ => Some(format!("kind {}!", n % 2)),
    });
    let said = StringArray::from_iter(said);
    write_parquet(setup.file("x.parquet"), vec![("id", Arc::new(ids)), ("text", Arc::new(texts)), ("said", Arc::new(said))]);
    let file = setup.stream.path("pipelines").join("echo.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let more = "sinks:\n  postgres: {}\n";
    fs::write(&file, text.replacen(more, "  worth: { score: { parts: { all: '80' } } }\nsinks:\n  postgres: {}\n", 1)).unwrap();
    let worker = setup.stream.worker("");
    // A column with neither labels nor texts would be wrong in every row, after all of them were computed.
    let mut job = backfill("hopeless");
    (job["kind"], job["task"], job["expected"]) = (json!("evaluate"), json!("worth"), json!("said"));
    setup.ask(job).await;
    let job = setup.ended("hopeless", &worker).await;
    let reason = job.reason.as_deref().unwrap_or_default();
    assert!(job.state == JobState::Failed && reason.contains("task `worth` (kind `score`) cannot be compared"), "{job:?}");
    assert_eq!(setup.count("SELECT count(*) FROM units").await, 0, "some rows were processed");
    let mut job = backfill("measure");
    (job["kind"], job["task"], job["expected"]) = (json!("evaluate"), json!("first"), json!("said"));
    setup.ask(job).await;
    let job = setup.ended("measure", &worker).await;
    assert_eq!(job.state, JobState::Succeeded, "{:?}", job.reason);
    let report = job.report.unwrap();
    assert_eq!((&report["rows"], &report["labelled"], &report["right"]), (&json!(1_000), &json!(950), &json!(900)), "{report}");
    assert_eq!(report["values"]["kind 1!"]["precision"], json!(400.0 / 450.0), "{report}");
    assert_eq!(report["values"]["kind 0!"]["said"], json!({ "kind 0!": 500, "kind 1!": 50 }), "{report}");
    assert_eq!(setup.count("SELECT count(*) FROM documents").await, 0, "nothing is committed");
    setup.stream.audit("at the end").await;
}
