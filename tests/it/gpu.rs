//! The script that measures GPUs, as far as it can run without one: its commands exist on the command line, it computes the
//! fixtures' values, and its backfill without a ledger loses no row.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use clap::Parser;
use libtest_mimic::Trial;
use parquet::file::reader::SerializedFileReader;
use serde_json::Value;
use tidemill::cli::Cli;
use tokio::task::spawn_blocking;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};
use crate::jobs::write_parquet;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::NOTHING.within(Duration::from_secs(300));
    vec![
        trial!(Needs::NOTHING, every_command_of_the_script_is_one_of_the_command_line),
        trial!(long, fixtures_hold_and_files_are_written_through_the_script),
        trial!(long, the_walk_without_a_ledger_writes_every_row_once),
    ]
}

const BINARY: &str = env!("CARGO_BIN_EXE_tidemill");

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The last line of the script's stdout.
async fn run_script(arguments: &[&str]) -> Value {
    let mut python = Command::new("python3");
    python.arg(in_repository("tests/bench/gpu.py")).args(["--binary", BINARY, "--device", "cpu"]).args(arguments);
    let output = spawn_blocking(move || python.output().expect("python3 is there")).await.unwrap();
    let (said, told) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "gpu.py {arguments:?} ends with {}: {said}\n{told}", output.status);
    serde_json::from_str(told.lines().last().expect("the script reports")).unwrap()
}

async fn every_command_of_the_script_is_one_of_the_command_line() {
    let parts = run_script(&["--dry-run"]).await;
    let names: Vec<&str> = parts.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        BTreeSet::from_iter(names),
        BTreeSet::from(["setup", "parity", "encoder", "classification", "extraction", "walk"])
    );
    let mut ours = 0;
    for (part, commands) in parts.as_object().unwrap() {
        for (name, command) in commands.as_object().unwrap() {
            let words: Vec<&str> = command.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            if words[0] == BINARY {
                Cli::try_parse_from(&words).unwrap_or_else(|e| panic!("{part}, {name}: {e}"));
                ours += 1;
            } else {
                assert!(Path::new(words[1]).is_file(), "{part}, {name} runs {}, which is not there", words[1]);
            }
        }
    }
    assert!(
        ours >= 13,
        "the script has seven commands for parity, three for encoders, two for generators and one backfill of ours, and {ours} were found"
    );
}

async fn fixtures_hold_and_files_are_written_through_the_script() {
    let fixtures = ["--only", "parity", "--only", "walk", "--no-peers", "--json", "--scale", "0.25"];
    let path = |path: &str| in_repository(path).display().to_string();
    let (encoder, generator) = (path("tests/fixtures/models/tiny-xlm-roberta"), path("tests/fixtures/generators/qwen2"));
    let models = ["--model", encoder.as_str(), "--shape", generator.as_str()];
    let report = run_script(&fixtures.into_iter().chain(models).collect::<Vec<_>>()).await;
    let part = |name: &str| report["parts"].as_array().unwrap().iter().find(|part| part["part"] == name).unwrap().clone();
    let parity = part("parity");
    let checks = parity["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["held"] == true), "{checks:#?}");
    let held: BTreeSet<&str> = checks.iter().map(|check| check["what"].as_str().unwrap()).collect();
    let models =
        ["llama", "mistral", "qwen2", "qwen3", "tiny-bert-classifier", "tiny-xlm-roberta", "tiny-xlm-roberta-classifier"];
    assert_eq!(held, BTreeSet::from(models));
    let ours = part("walk")["rows"][0]["ours"].clone();
    assert_eq!((&ours["documents"], &ours["rows_written"], &ours["dead"]), (&32.into(), &64.into(), &0.into()), "{ours}");
}

const ECHO: &str = "version: 1\nname: echo\nsource: { topic: t, id: id, text: \"{{ text }}\" }\ntasks:\n  \
     first: { render: { template: \"{{ document.text }}!\" } }\n  second: { render: { template: \"{{ first.text }}?\" } }\n\
     sinks:\n  parquet: { dataset: nowhere }\nbudget: { max_wait: 50ms, max_records: 50 }\n";

async fn the_walk_without_a_ledger_writes_every_row_once() {
    const ROWS: usize = 333;
    let folder = open_folder();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("echo.yaml"), ECHO).unwrap();
    std::fs::write(path("tidemill.toml"), "[jobs]\nunits_at_a_time = 3\n").unwrap();
    let text = |column: Vec<Option<String>>| Arc::new(StringArray::from(column)) as ArrayRef;
    let ids = (0..ROWS).map(|n| Some(format!("d-{n}"))).collect();
    // One row has no text and becomes a dead letter.
    let texts = (0..ROWS).map(|n| (n != 100).then(|| format!("text {n}"))).collect();
    write_parquet(path("in.parquet"), vec![("id", text(ids)), ("text", text(texts))]);
    let mut bench = Command::new(BINARY);
    bench.args([
        "--config",
        "tidemill.toml",
        "bench",
        "--pipeline",
        "echo.yaml",
        "--input",
        "in.parquet",
        "--output",
        "out",
        "--json",
    ]);
    bench.current_dir(folder.path());
    let output = spawn_blocking(move || bench.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "bench ends with {}: {said}", output.status);
    let report: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((&report["documents"], &report["dead"], &report["ledger"]), (&ROWS.into(), &1.into(), &false.into()), "{report}");

    let mut written = Vec::new();
    let mut files = 0;
    for day in std::fs::read_dir(path("out/echo")).unwrap() {
        for file in std::fs::read_dir(day.unwrap().path()).unwrap() {
            let reader = SerializedFileReader::new(File::open(file.unwrap().path()).unwrap()).unwrap();
            written.extend(reader.into_iter().map(|row| row.unwrap().to_json_value()));
            files += 1;
        }
    }
    assert_eq!((&report["files"], &report["rows_written"]), (&files.into(), &written.len().into()), "{report}");
    assert!(files >= ROWS / 50, "a batch has 50 records at most, {files} files are there");
    let rows: BTreeSet<String> =
        written.iter().map(|row| format!("{} {} {}", row["document_id"], row["task"], row["text"])).collect();
    let expected: BTreeSet<String> = (0..ROWS)
        .filter(|n| *n != 100)
        .flat_map(|n| [format!("\"d-{n}\" \"first\" \"text {n}!\""), format!("\"d-{n}\" \"second\" \"text {n}!?\"")])
        .collect();
    assert_eq!((rows.len(), written.len()), (expected.len(), expected.len()), "every row once");
    assert_eq!(rows, expected);
}
