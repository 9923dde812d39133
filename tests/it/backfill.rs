//! Backfills without Kafka: the built command, over Parquet files, with a real Postgres.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::harness::postgres::Database;
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder, postgres};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::NOTHING.within(Duration::from_secs(300));
    vec![
        trial!(long, every_row_of_every_file_ends_once_and_a_rerun_takes_what_is_new),
        trial!(long, interrupted_or_killed_it_goes_on_where_it_was),
        trial!(long, a_corrupt_file_among_good_ones_leaves_it_partial),
        trial!(long, a_link_that_leads_nowhere_fails_alone_and_the_log_of_a_lake_is_no_data),
        trial!(long, a_model_sees_every_row_once),
    ]
}

/// Two tasks without a model, the second on the output of the first, and topics that cannot be published to without Kafka.
const ECHO: &str = "version: 1\nname: echo\nsource: { topic: t, id: id, text: \"{{ text }}\" }\ntasks:\n  \
     first: { render: { template: \"{{ document.text }}!\" } }\n  second: { render: { template: \"{{ first.text }}?\" } }\n\
     sinks:\n  parquet: { dataset: nowhere }\n  topic: { name: results }\n  dead_letters: { name: dead }\n\
     budget: { max_wait: 50ms, max_records: 50 }\n";

const VECTORS: &str = "version: 1\nname: vectors\nsource: { topic: t, id: id, text: \"{{ text }}\" }\ntasks:\n  \
     vector: { embed: { model: minilm } }\n";

/// A folder with pipelines and data, and a ledger for it.
pub struct BackfillSetup {
    folder: TempDir,
    database: Database,
}

impl BackfillSetup {
    /// A folder without data yet.
    pub async fn new() -> Self {
        let setup = Self { folder: open_folder(), database: postgres::database().await };
        for folder in ["pipelines", "data/deep"] {
            std::fs::create_dir_all(setup.path(folder)).unwrap();
        }
        std::fs::write(setup.path("pipelines/echo.yaml"), ECHO).unwrap();
        std::fs::write(setup.path("pipelines/vectors.yaml"), VECTORS).unwrap();
        let config = format!(
            "pipelines = \"pipelines\"\n[datasets.archive]\npath = \"{}\"\n[jobs]\nprice_per_device_hour = 3600.0\n",
            setup.path("data").display()
        );
        std::fs::write(setup.path("tidemill.toml"), config).unwrap();
        setup
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ledger's address.
    pub fn database_url(&self) -> &str {
        &self.database.url
    }

    /// Runs the command to its end. `timeout` kills one that hangs.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "200", env!("CARGO_BIN_EXE_tidemill")]).args(arguments);
        command.env("TIDEMILL_DATABASE__URL", &self.database.url).current_dir(self.folder.path());
        spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Backfills the pipeline to the end, and returns the exit code, the report and stderr.
    pub async fn backfill(&self, pipeline: &str) -> (Option<i32>, Value, String) {
        let arguments = ["backfill", "--pipeline", pipeline, "--input", "data/**/*.parquet", "--output", "out", "--json"];
        let output = self.run(&arguments).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), last_line(&output), stderr)
    }

    /// Starts a backfill with failpoints set, for a test to interrupt.
    fn begin(&self, failpoints: &str) -> Worker {
        let environment = [("TIDEMILL_DATABASE__URL", self.database.url.as_str()), ("FAILPOINTS", failpoints)];
        let arguments = ["backfill", "--pipeline", "echo", "--input", "data/**/*.parquet", "--output", "out"];
        Worker::start(self.folder.path(), &arguments, &environment)
    }

    /// The number that a query of the ledger returns.
    pub async fn count(&self, query: &str) -> i64 {
        postgres::count(&self.database.url, query).await
    }

    async fn committed(&self) -> i64 {
        self.count("SELECT coalesce(sum(records), 0)::bigint FROM batches").await
    }

    /// Checks that the ledger's counts agree, that `documents` documents have the outputs of both tasks, and that the output folder
    /// holds exactly what was computed: nothing missing, repeated or unfinished.
    async fn assert_echoed(&self, documents: i64) {
        assert_eq!(self.database.store.audit().await.unwrap(), [""; 0]);
        assert_eq!(self.count("SELECT count(*) FROM documents").await, documents);
        assert_eq!(self.count("SELECT count(*) FROM results").await, documents * 2);
        let written = self.count("SELECT coalesce(sum(parquet_rows), 0)::bigint FROM batches").await;
        assert_eq!(rows_below(&self.path("out")) as i64, written, "the folder holds something else than what went live");
        let ok = self.count("SELECT sum(units_ok)::bigint FROM batches").await;
        assert_eq!(written, ok, "live Parquet rows = units computed");
        assert_eq!(
            self.count("SELECT count(*) FROM outbox").await,
            0,
            "events are in the outbox, though nothing publishes them here"
        );
    }
}

/// The JSON object on the last line of a command's stdout.
pub fn last_line(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("{last:?} is no JSON ({e}); stderr: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Writes rows of id and text, in row groups of `group` rows.
pub fn write(path: &Path, rows: &[(String, String)], group: usize) {
    let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.0)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.1)));
    let batch = RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Rows for [`write`].
pub fn documents(range: std::ops::Range<usize>) -> Vec<(String, String)> {
    range.map(|n| (format!("d{n}"), format!("text {n}"))).collect()
}

/// Rows of every Parquet file below the folder.
fn rows_below(folder: &Path) -> usize {
    let mut rows = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        rows += match path.is_dir() {
            true => rows_below(&path),
            false => {
                SerializedFileReader::new(File::open(&path).unwrap()).unwrap().metadata().file_metadata().num_rows() as usize
            }
        };
    }
    rows
}

async fn every_row_of_every_file_ends_once_and_a_rerun_takes_what_is_new() {
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..300), 1_000);
    write(&setup.path("data/b.parquet"), &documents(300..800), 100);
    write(&setup.path("data/deep/c.parquet"), &documents(800..900), 7);
    let (code, first, stderr) = setup.backfill("echo").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(
        (&first["state"], &first["rows"], &first["rows_done"]),
        (&json!("succeeded"), &json!(900), &json!(900)),
        "{first}"
    );
    assert_eq!((&first["ok"], &first["dead"], &first["reused"]), (&json!(1_800), &json!(0), &json!(0)), "{first}");
    assert!(stderr.contains("topic results gets no events"), "it does not say that no events are written: {stderr}");
    setup.assert_echoed(900).await;

    let (code, again, stderr) = setup.backfill("echo").await;
    assert_eq!((code, &again["job"], &again["rows_of_this_run"]), (Some(0), &first["job"], &json!(0)), "{again} {stderr}");
    setup.assert_echoed(900).await;

    write(&setup.path("data/d.parquet"), &documents(900..950), 100);
    write(&setup.path("data/a.parquet"), &documents(0..310), 100);
    let (code, more, stderr) = setup.backfill("echo").await;
    assert_eq!((code, &more["job"]), (Some(0), &first["job"]), "{stderr}");
    assert_eq!(more["rows_of_this_run"], 360, "a new file and a changed one are read, and no other: {more}");
    assert_eq!(setup.count("SELECT count(*) FROM documents WHERE id = 'd305'").await, 1, "d305 moved to another file");
    assert_eq!(setup.database.store.audit().await.unwrap(), [""; 0]);
    assert_eq!(setup.count("SELECT count(*) FROM documents").await, 950);
    assert_eq!(setup.count("SELECT count(*) FROM outbox").await, 0);
}

async fn interrupted_or_killed_it_goes_on_where_it_was() {
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..1_500), 250);
    write(&setup.path("data/b.parquet"), &documents(1_500..2_500), 250);
    let begun = |least: i64| {
        let setup = &setup;
        async move {
            eventually("something is committed", Duration::from_secs(60), || async { setup.committed().await > least }).await
        }
    };

    let mut killed = setup.begin("commit-after-stage=sleep(100)");
    begun(0).await;
    let mut killed = spawn_blocking(move || {
        killed.kill();
        killed
    })
    .await
    .unwrap();
    assert!(killed.ended().is_some());
    assert_eq!(setup.database.store.audit().await.unwrap(), [""; 0]);
    let after_kill = setup.committed().await;
    assert!(after_kill < 2_500, "it was killed after it had finished");

    let interrupted = setup.begin("commit-before-stage=sleep(100)");
    begun(after_kill).await;
    interrupted.signal(Signal::SIGINT);
    let (status, log) = spawn_blocking(move || {
        let mut interrupted = interrupted;
        (interrupted.wait(Duration::from_secs(60)), interrupted.log())
    })
    .await
    .unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("run the same command again to go on"), "it does not say how to continue:\n{log}");
    let after_drain = setup.committed().await;
    assert!((after_kill..2_500).contains(&after_drain), "it was interrupted after it had finished: {after_drain}");
    assert_eq!(setup.database.store.audit().await.unwrap(), [""; 0]);
    let state = "SELECT count(*) FROM jobs WHERE state = 'partial' AND finished_at IS NOT NULL";
    assert_eq!(setup.count(state).await, 1, "the job is not stopped");

    let (code, report, stderr) = setup.backfill("echo").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!((&report["rows_done"], &report["ok"]), (&json!(2_500), &json!(5_000)), "lost or doubled: {report}");
    assert_eq!(report["rows_of_this_run"].as_i64(), Some(2_500 - after_drain), "committed rows were read again: {report}");
    setup.assert_echoed(2_500).await;
}

async fn a_corrupt_file_among_good_ones_leaves_it_partial() {
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..100), 100);
    write(&setup.path("data/c.parquet"), &documents(200..300), 100);
    std::fs::write(setup.path("data/b.parquet"), b"PAR1 this is no Parquet file PAR1").unwrap();
    let (code, report, stderr) = setup.backfill("echo").await;
    assert_eq!((code, &report["state"]), (Some(1), &json!("partial")), "{report} {stderr}");
    assert_eq!((&report["units_done"], &report["units_failed"]), (&json!(2), &json!(1)), "{report}");
    assert!(stderr.contains("1 of 3 units failed"), "stderr does not say why it ended so: {stderr}");
    setup.assert_echoed(200).await;
    let job = report["job"].as_str().unwrap();
    let shown = last_line(&setup.run(&["jobs", "show", job, "--json"]).await);
    assert_eq!(
        (&shown["faults"][0]["class"], &shown["faults"][0]["file"]),
        (&json!("corrupt_file"), &json!("b.parquet")),
        "{shown}"
    );
    assert_eq!(shown["spec"]["pipeline"], "echo", "the spec is an object: {shown}");
    let refused = setup.run(&["jobs", "retry", job]).await;
    assert!(!refused.status.success(), "a worker would take up a backfill of another process");

    write(&setup.path("data/b.parquet"), &documents(100..200), 100);
    let (code, report, stderr) = setup.backfill("echo").await;
    assert_eq!(
        (code, &report["state"], &report["rows_of_this_run"]),
        (Some(0), &json!("succeeded"), &json!(100)),
        "{report} {stderr}"
    );
    setup.assert_echoed(300).await;
}

async fn a_link_that_leads_nowhere_fails_alone_and_the_log_of_a_lake_is_no_data() {
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..100), 100);
    std::fs::create_dir_all(setup.path("data/_delta_log")).unwrap();
    std::fs::write(setup.path("data/_delta_log/1.checkpoint.parquet"), b"no rows of ours").unwrap();
    std::os::unix::fs::symlink("nowhere", setup.path("data/b.parquet")).unwrap();
    let (code, report, stderr) = setup.backfill("echo").await;
    assert_eq!((code, &report["state"]), (Some(1), &json!("partial")), "{report} {stderr}");
    assert!(stderr.contains("1 of 2 units failed"), "{stderr}");
    setup.assert_echoed(100).await;
    let shown = last_line(&setup.run(&["jobs", "show", report["job"].as_str().unwrap(), "--json"]).await);
    assert_eq!(
        (&shown["faults"][0]["class"], &shown["faults"][0]["file"]),
        (&json!("unreadable_file"), &json!("b.parquet")),
        "{shown}"
    );
    std::fs::remove_file(setup.path("data/b.parquet")).unwrap();
    write(&setup.path("data/b.parquet"), &documents(100..200), 100);
    let (code, report, stderr) = setup.backfill("echo").await;
    assert_eq!((code, &report["rows_of_this_run"]), (Some(0), &json!(100)), "{report} {stderr}");
    setup.assert_echoed(200).await;
}

async fn a_model_sees_every_row_once() {
    let setup = BackfillSetup::new().await;
    let mut rows: Vec<(String, String)> =
        (0..40).map(|n| (format!("d{n}"), format!("note {n}: the mill turns, and the kettle boils {n} times"))).collect();
    rows.push(("d40".into(), String::new()));
    write(&setup.path("data/a.parquet"), &rows, 16);
    let (code, report, stderr) = setup.backfill("vectors").await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!((&report["ok"], &report["dead"], &report["rows_done"]), (&json!(40), &json!(1), &json!(41)), "{report}");
    assert!(report["tokens"].as_i64() > Some(400) && report["device_seconds"].as_f64() > Some(0.0), "{report}");
    assert_eq!(setup.count("SELECT count(*) FROM embeddings").await, 40);
    assert_eq!(rows_below(&setup.path("out")), 40);
    assert_eq!(setup.database.store.audit().await.unwrap(), [""; 0]);
    let shown = last_line(&setup.run(&["jobs", "show", report["job"].as_str().unwrap(), "--json"]).await);
    assert_eq!(shown["dead_letters"]["classes"], json!([{ "class": "empty_text", "count": 1 }]), "{shown}");
    let (cost, seconds) = (shown["cost"].as_f64().unwrap(), shown["device_seconds"].as_f64().unwrap());
    assert!((cost - seconds).abs() < 1e-6, "an hour has a price of 3600, and a second of 1: {shown}");
}
