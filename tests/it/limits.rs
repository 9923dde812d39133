//! Limits of jobs: they pause while live records are late, and stop when their budget is spent.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use tidemill::store::JobState;
use tokio::time::{Instant, sleep};

use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};
use crate::jobs::{JobSetup, backfill};
use crate::test_stream::{PIPELINE, read_topic};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-bert-classifier");

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let needs = Needs::KAFKA.within(Duration::from_secs(300));
    vec![
        trial!(needs.alone(), a_backfill_stands_still_while_live_records_are_late_and_goes_on_afterwards),
        trial!(needs, a_job_stops_at_its_budget_and_a_retry_goes_on_with_another),
    ]
}

/// Rows that units have committed.
async fn of_units(setup: &JobSetup) -> i64 {
    let rows = "SELECT coalesce(sum(records), 0)::bigint FROM batches WHERE pipeline = 'echo' AND topic LIKE 'job:%'";
    postgres::count(&setup.stream.database_url, rows).await
}

async fn a_backfill_stands_still_while_live_records_are_late_and_goes_on_afterwards() {
    const LIMIT: i64 = 300;
    const ROWS: i64 = 8_000;
    const FLOOD: i64 = 12_000;
    /// The topic's end is measured every second and checked every half second, and batches in progress are finished.
    const NOTICED: Duration = Duration::from_secs(4);
    let setup = JobSetup::new().await;
    let stream = &setup.stream;
    stream.amend("pipelines/echo.yaml", |text| text + &format!("backfill: {{ yield_at_lag: {LIMIT} }}\n"));
    for file in 0..4 {
        setup.archive(&format!("part-{file}.parquet"), 50_000 + file * 2_000..52_000 + file * 2_000);
    }
    let worker = stream.worker("commit-before-stage=sleep(100)");
    setup.ask(backfill("old")).await;
    eventually("the backfill gets on", Duration::from_secs(90), || async { of_units(&setup).await >= 200 }).await;
    stream.send(0..FLOOD as usize).await;

    // Samples the committed rows of units while the lag is above the limit.
    let (flooded, mut noticed) = (Instant::now(), None);
    let (before, mut looks) = (of_units(&setup).await, 0);
    assert!(before < ROWS / 2, "the backfill had nearly finished: {before} of {ROWS}");
    loop {
        let rows = of_units(&setup).await;
        let lag = FLOOD - stream.committed().await;
        if lag <= LIMIT {
            break;
        }
        assert!(
            flooded.elapsed() < Duration::from_secs(120),
            "the live records get no further; the worker says:\n{}",
            worker.log()
        );
        if flooded.elapsed() >= NOTICED {
            let at = *noticed.get_or_insert(rows);
            assert_eq!(rows, at, "a unit committed while {lag} live records waited; the worker says:\n{}", worker.log());
            looks += 1;
        }
        sleep(Duration::from_millis(50)).await;
    }
    let still = flooded.elapsed().saturating_sub(NOTICED);
    assert!(
        looks >= 20 && still > Duration::from_secs(2),
        "the lag was above the limit for too short a time: {looks} looks, {still:?}"
    );
    let kept = noticed.unwrap_or_default();
    assert!(kept < ROWS, "the backfill ended before it could wait");
    // Rows that were read already are still processed: in each of two units the batches in progress, the next one, and a few in
    // between.
    assert!(kept - before < 3_000, "{} rows went on before live ones", kept - before);

    let job = setup.ended("old", &worker).await;
    assert_eq!((job.state, job.reason), (JobState::Succeeded, None));
    setup.assert_once(ROWS + FLOOD).await;
}

async fn a_job_stops_at_its_budget_and_a_retry_goes_on_with_another() {
    const ROWS: i64 = 6_000;
    const KNOWN: i64 = 600;
    let setup = JobSetup::new().await;
    let stream = &setup.stream;
    stream.amend("tidemill.toml", |text| text + &format!("[models.tiny]\npath = \"{MODEL}\"\n"));
    stream.amend("pipelines/echo.yaml", |text| {
        let render = "render: { template: \"{{ first.text }}?\" }";
        assert!(text.contains(render), "the stream's second task has changed:\n{text}");
        text.replace(render, "classify: { model: tiny }")
    });
    setup.archive("known.parquet", 50_000..50_000 + KNOWN as usize);
    for file in 0..3 {
        setup.archive(&format!("part-{file}.parquet"), file * 2_000..(file + 1) * 2_000);
    }
    let slow = stream.worker("commit-before-stage=sleep(200)");
    let mut known = backfill("known");
    known["prefix"] = json!("known");
    setup.ask(known).await;
    let known = setup.ended("known", &slow).await;
    let spent = stream.store.job_progress(&known).await.unwrap().work.device_micros;
    assert!(spent > 0, "the model took no time");

    // A quarter of what the remaining rows cost.
    let allowed = spent * ROWS / KNOWN / 4;
    let flags = ["submit", "--pipeline", PIPELINE, "--dataset", "archive", "--prefix", "part-", "--id", "tight"];
    stream.command(&[&flags[..], &["--budget", &format!("{allowed}us")]].concat());
    let job = setup.ended("tight", &slow).await;
    let reason = job.reason.unwrap();
    assert_eq!(job.state, JobState::Partial, "{reason}");
    let shown = stream.answer(&["jobs", "show", "tight"]);
    let progress = |of: &Value, key: &str| of["progress"][key].as_i64().unwrap();
    let done = progress(&shown, "rows_done");
    assert!((1..ROWS).contains(&done), "{done} of {ROWS} rows: {shown}");
    assert!(progress(&shown, "device_micros") >= allowed, "it stopped before its budget was spent: {shown}");
    let (stopped, units) = (progress(&shown, "units_stopped"), progress(&shown, "units"));
    assert!(stopped > 0, "{shown}");
    let expected = format!(
        "its budget of {:?} of device time is spent; {stopped} of {units} units are left to do, with about {} rows",
        Duration::from_micros(allowed.unsigned_abs()),
        ROWS - done
    );
    assert_eq!((reason.as_str(), shown["reason"].as_str()), (expected.as_str(), Some(expected.as_str())), "{shown}");
    assert_eq!(shown["budget_device_seconds"], json!(allowed as f64 / 1e6), "{shown}");
    stream.audit("at the end of the budget").await;
    eventually("the outbox is empty", Duration::from_secs(30), || async {
        postgres::count(&stream.database_url, "SELECT count(*) FROM outbox").await == 0
    })
    .await;
    let events: Vec<Value> = read_topic(&stream.client, setup.events()).await.into_values().collect();
    let told: Vec<(&str, bool)> = events
        .iter()
        .filter(|event| event["job"] == "tight")
        .map(|event| (event["state"].as_str().unwrap(), event["stopping"] == true))
        .collect();
    let once = [("queued", false), ("planning", false), ("running", false), ("running", true), ("partial", true)];
    assert_eq!(told, once, "each change causes one event");
    assert_eq!(events.last().unwrap()["reason"], json!(expected), "the event says why, too");
    drop(slow);

    // Each retry gets the budget again and continues where the one before stopped.
    let quick = stream.worker("");
    let (mut retries, mut before) = (0, done);
    loop {
        retries += 1;
        let again = stream.answer(&["jobs", "retry", "tight"]);
        assert_eq!((&again["state"], &again["reason"]), (&json!("running"), &Value::Null), "{again}");
        let granted = again["budget_device_seconds"].as_f64().unwrap() - again["device_seconds"].as_f64().unwrap();
        assert!((granted - allowed as f64 / 1e6).abs() < 1e-6, "its new budget is {granted} s: {again}");
        let job = setup.ended("tight", &quick).await;
        let shown = stream.answer(&["jobs", "show", "tight"]);
        if job.state == JobState::Succeeded {
            assert_eq!((&shown["reason"], progress(&shown, "rows_done")), (&Value::Null, ROWS), "{shown}");
            break;
        }
        assert!(progress(&shown, "rows_done") > before && retries < 10, "retry {retries} got no further: {shown}");
        before = progress(&shown, "rows_done");
    }
    setup.assert_once(ROWS + KNOWN).await;
}
