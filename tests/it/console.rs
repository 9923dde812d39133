//! The console in a real browser, on the data of the demo: every page, on a desktop and on a phone, in both languages.

mod copy;

use std::collections::BTreeSet;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::deploy::tools::{chromium, fetched, run, runs};
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let alone =
        Needs::NOTHING.alone().within(Duration::from_secs(420)).using(|| chromium().map(drop)).using(|| driver().map(drop));
    vec![
        trial!(alone, every_page_shows_what_there_is_in_a_real_browser),
        trial!(alone, pages_of_other_sites_read_and_change_nothing_in_a_real_browser),
        trial!(alone, copy::copy_is_decided_on_by_keyboard),
        trial!(alone, leads_show_score_evidence_and_drafts_in_a_real_browser),
        trial!(Needs::NOTHING, every_word_is_said_in_both_languages),
    ]
}

/// The package that drives the browser. It has no dependencies and is pinned by hash.
const DRIVER: &str = "playwright-core@1.65.1";
const DRIVER_SHA256: &str = "6f5a60be62a4fddfbe7d10c448d8fbd54547da3358f2f8a04211440471ee863e";

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// A running demo for a browser to visit.
struct Demo {
    process: Worker,
    folder: TempDir,
    address: String,
}

impl Demo {
    /// Starts a demo on the contents of `folder`, and waits until it serves.
    async fn start(folder: TempDir, arguments: &[&str]) -> Self {
        let data = folder.path().join("data").display().to_string();
        let arguments = [&["demo", "--serve", "--json", "--data-dir", &data], arguments].concat();
        let mut process = Worker::start(Path::new(SOURCE), &arguments, &[]);
        eventually("the demo serves", Duration::from_secs(240), || {
            assert_eq!(process.ended(), None, "the demo ended early:\n{}", process.log());
            ready(process.log().contains("serving http"))
        })
        .await;
        let log = process.log();
        let report: Value = serde_json::from_str(log.lines().rfind(|line| line.starts_with('{')).unwrap()).unwrap();
        let address = report["http"].as_str().unwrap().to_owned();
        Self { process, folder, address }
    }

    /// Runs the script in a browser, then stops the demo.
    async fn shown_to(self, script: &'static str) {
        let Self { folder, mut process, address } = self;
        let pictures = std::env::var_os("TIDEMILL_PICTURES").map_or_else(|| folder.path().join("pictures"), PathBuf::from);
        let said = spawn_blocking(move || browse(script, &address, &pictures)).await.unwrap().unwrap_or_else(|e| panic!("{e:#}"));
        eprintln!("{}", said.trim());
        process.signal(Signal::SIGINT);
        let status = spawn_blocking(move || process.wait(Duration::from_secs(30))).await.unwrap();
        assert!(status.success(), "told to stop, the demo ended with {status}");
    }
}

async fn every_page_shows_what_there_is_in_a_real_browser() {
    let demo = Demo::start(open_folder(), &[]).await;
    // The demo runs no jobs, so that this one stays queued until it is cancelled.
    let job = json!({ "version": 1, "id": "to-be-called-off", "kind": "rerun", "pipeline": "products" });
    let submitted = reqwest::Client::new().post(format!("{}/v1/jobs", demo.address)).json(&job).send().await.unwrap();
    assert!(submitted.status().is_success(), "{}", submitted.text().await.unwrap());
    demo.shown_to("pages.mjs").await;
}

async fn pages_of_other_sites_read_and_change_nothing_in_a_real_browser() {
    Demo::start(open_folder(), &[]).await.shown_to("strangers.mjs").await;
}

async fn leads_show_score_evidence_and_drafts_in_a_real_browser() {
    Demo::start(open_folder(), &["--pipeline", "pipelines/sales.yaml"]).await.shown_to("leads.mjs").await;
}

fn browse(script: &str, address: &str, pictures: &Path) -> Result<String> {
    std::fs::create_dir_all(pictures)?;
    let (program, libraries) = chromium()?;
    let driver = driver()?;
    let mut node = Command::new("timeout");
    node.args(["--kill-after=5", "150", "node"]).arg(Path::new(SOURCE).join("tests/it/console").join(script));
    node.arg(driver).arg(program).arg(address).arg(pictures);
    let libraries: Vec<String> = libraries.iter().map(|folder| folder.display().to_string()).collect();
    run({
        node.env("BROWSER_LIBRARIES", libraries.join(":"));
        node
    })
    .context("the console does not do what it should")
}

fn driver() -> Result<PathBuf> {
    const SCRIPT: &str = "package/index.mjs";
    ensure!(runs(Path::new("node")), "the browser is driven by Node 20, which is not on the PATH");
    Ok(fetched((&DRIVER.replace('@', "-"), SCRIPT), fetch_driver)?.join(SCRIPT))
}

fn fetch_driver(partial: &Path) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", DRIVER]).current_dir(partial);
    let name = run(npm).context("the browser's driver cannot be fetched; it needs Node 20 with npm")?;
    let archive = partial.join(name.trim().lines().last().unwrap_or_default());
    let mut sum = Command::new("sha256sum");
    sum.arg(&archive);
    let sum = run(sum)?;
    ensure!(sum.starts_with(DRIVER_SHA256), "{DRIVER} is not what it was: {sum}");
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--gzip").arg("--file").arg(&archive).arg("--directory").arg(partial);
    run(unpack)?;
    std::fs::remove_file(archive)?;
    Ok(())
}

/// Both languages have the same words, and the pages use no others.
async fn every_word_is_said_in_both_languages() {
    let folder = Path::new(SOURCE).join("src/server/console");
    let words = std::fs::read_to_string(folder.join("translations.js")).unwrap();
    let (english, korean) = words.split_once("  ko: {").expect("the Korean words follow the English ones");
    let names = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| line.starts_with("    ")).flat_map(|line| line.split("\", ").map(str::trim));
        lines.filter_map(|word| Some(word.split_once(": \"")?.0.to_owned())).collect()
    };
    let known = names(english);
    assert_eq!(known, names(korean), "left: English, right: Korean");
    assert!(known.len() > 50, "the words were not read: {known:?}");
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("innerHTML") && !text.contains("outerHTML"), "{} makes HTML from text", path.display());
        for (_, rest) in text.match_indices("say(\"").map(|(at, found)| text[at..].split_at(found.len())) {
            let word = rest.split('"').next().unwrap();
            assert!(known.contains(word), "{} says `{word}`, which translations.js lacks", path.display());
        }
    }
}
