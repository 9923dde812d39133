//! Plans of jobs: the estimated rows, time and cost against what the data really holds.

use std::collections::BTreeMap;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::backfill::{BackfillSetup, documents, last_line, write};
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::NOTHING.within(Duration::from_secs(300));
    vec![
        trial!(long, what_is_predicted_is_what_there_is),
        trial!(long, a_budget_says_what_it_leaves_undone),
        trial!(long, a_rerun_counts_what_is_outdated_and_takes_over_the_rest),
        trial!(long, an_evaluation_takes_nothing_over),
    ]
}

/// The plan of a job, as JSON.
async fn plan(setup: &BackfillSetup, job: &Value, arguments: &[&str]) -> Value {
    std::fs::write(setup.path("job.json"), job.to_string()).unwrap();
    let output = setup.run(&[&["plan", "--job", "job.json", "--json"], arguments].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    last_line(&output)
}

fn assert_holds(plan: &Value, name: &str, truth: f64) {
    let (low, high) = (plan[name]["low"].as_f64().unwrap(), plan[name]["high"].as_f64().unwrap());
    assert!((low - 1e-9..=high + 1e-9).contains(&truth), "{name} is {truth}, not within {low}..{high}: {plan}");
}

/// The number of rows in every table that a job could write to.
const KEPT: &str = "SELECT (SELECT count(*) FROM documents) + (SELECT count(*) FROM results) + (SELECT count(*) FROM batches)
    + (SELECT count(*) FROM positions) + (SELECT count(*) FROM jobs) + (SELECT count(*) FROM units)
    + (SELECT count(*) FROM outbox) + (SELECT count(*) FROM parquet_files) + (SELECT count(*) FROM dead_letters)";

/// A dataset with known contents: of 3,000 rows 105 have no text, and 900 repeat the text of 300 others, three of each.
fn known_rows() -> Vec<(String, String)> {
    let text = |n: usize| if n % 20 == 7 { String::new() } else { format!("text {n}") };
    let mut rows: Vec<(String, String)> = (0..2_100).map(|n| (format!("d{n}"), text(n))).collect();
    let sources: Vec<String> = rows.iter().filter(|row| !row.1.is_empty()).take(300).map(|row| row.1.clone()).collect();
    for (n, text) in sources.iter().cycle().take(900).enumerate() {
        rows.push((format!("r{n}"), text.clone()));
    }
    rows
}

async fn what_is_predicted_is_what_there_is() {
    const SEEDS: usize = 10;
    let setup = BackfillSetup::new().await;
    let rows = known_rows();
    write(&setup.path("data/a.parquet"), &rows[..1_000], 300);
    write(&setup.path("data/b.parquet"), &rows[1_000..], 300);
    std::fs::write(setup.path("job.json"), r#"{"version":1,"id":"p","kind":"backfill","pipeline":"echo","dataset":"archive"}"#)
        .unwrap();
    let dead = rows.iter().filter(|row| row.1.is_empty()).count();
    let truths = [
        ("documents", (rows.len() - dead) as f64),
        ("dead_letters", dead as f64),
        ("dead_share", dead as f64 / rows.len() as f64),
        ("reused_share", 900.0 / rows.len() as f64),
    ];
    let mut misses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for seed in 0..SEEDS {
        let output = setup.run(&["plan", "--job", "job.json", "--seed", &seed.to_string(), "--json"]).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let plan = last_line(&output);
        assert_eq!((&plan["rows"], &plan["sampled"], &plan["read_share"]), (&json!(3_000), &json!(200), &json!(1.0)), "{plan}");
        for (name, truth) in truths {
            let (low, high) = (plan[name]["low"].as_f64().unwrap(), plan[name]["high"].as_f64().unwrap());
            assert!(low < high, "{name} of seed {seed} has no interval: {plan}");
            if !(low..=high).contains(&truth) {
                misses.entry(name).or_default().push(format!("seed {seed}: {name} is {truth}, not within {low}..{high}"));
            }
        }
    }
    // Of ten intervals of 95 % one may well miss. Three or more miss in one of a hundred cases.
    for misses in misses.values() {
        assert!(misses.len() <= 2, "{} of {SEEDS} intervals miss:\n{}", misses.len(), misses.join("\n"));
    }
    assert_eq!(setup.count(KEPT).await, 0, "a plan left something behind");

    let (code, report, told) = setup.backfill("echo").await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!((&report["rows_done"], &report["dead"]), (&json!(3_000), &json!(2 * dead)), "{report}");
    let plan = last_line(&setup.run(&["plan", "--job", "job.json", "--json"]).await);
    assert!(plan["reused_share"]["expected"].as_f64() > Some(0.9), "the ledger has all outputs now: {plan}");
}

async fn a_budget_says_what_it_leaves_undone() {
    let setup = BackfillSetup::new().await;
    let rows: Vec<(String, String)> =
        (0..400).map(|n| (format!("d{n}"), format!("note {n}: the mill turns, and the kettle boils {n} times"))).collect();
    write(&setup.path("data/a.parquet"), &rows, 100);
    let job = |budget: f64| {
        json!({ "version": 1, "id": "p", "kind": "backfill", "pipeline": "vectors", "dataset": "archive",
                "budget": { "cost": budget }, "deadline": "2100-01-01" })
    };
    std::fs::write(setup.path("job.json"), job(0.001).to_string()).unwrap();
    let tight = last_line(&setup.run(&["plan", "--job", "job.json", "--sample", "50", "--json"]).await);
    let limits = tight["limits"].as_array().unwrap();
    assert_eq!((&limits[0]["limit"], &limits[1]["limit"]), (&json!("budget"), &json!("deadline")), "{tight}");
    assert!(limits[0]["documents_left"]["low"].as_f64() > Some(0.0), "a budget of a millisecond suffices: {tight}");
    assert_eq!(limits[1]["documents_left"]["high"], 0.0, "the deadline is generations away: {tight}");
    assert!(tight["tokens"]["low"].as_f64() > Some(4_000.0) && tight["cost"]["low"].as_f64() > Some(0.0), "{tight}");
    std::fs::write(setup.path("job.json"), job(1e6).to_string()).unwrap();
    let ample = last_line(&setup.run(&["plan", "--job", "job.json", "--sample", "50", "--json"]).await);
    assert_eq!(ample["limits"][0]["documents_left"]["high"], 0.0, "{ample}");
    assert_eq!(tight["documents"], ample["documents"], "the same seed chooses the same rows");
}

async fn a_rerun_counts_what_is_outdated_and_takes_over_the_rest() {
    const DOCUMENTS: usize = 900;
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..DOCUMENTS), 300);
    let (code, _, told) = setup.backfill("echo").await;
    assert_eq!(code, Some(0), "{told}");
    let job = |tasks: Value| json!({ "version": 1, "id": "p", "kind": "rerun", "pipeline": "echo", "tasks": tasks });
    let idle = plan(&setup, &job(json!([])), &[]).await;
    assert_eq!(
        (&idle["rows"], &idle["units"], &idle["sampled"]),
        (&json!(0), &json!(0), &json!(0)),
        "nothing is outdated: {idle}"
    );
    for figure in ["documents", "device_seconds", "reused_share", "dead_letters"] {
        assert_eq!(idle[figure], json!({ "expected": 0.0, "low": 0.0, "high": 0.0 }), "{figure} of nothing: {idle}");
    }

    // A new task: its outputs are missing, and those of the two others are reused.
    let file = setup.path("pipelines/echo.yaml");
    let third = "  third: { render: { template: \"{{ document.id }}\" } }\nsinks:\n";
    let text = std::fs::read_to_string(&file).unwrap().replacen("sinks:\n", third, 1);
    std::fs::write(&file, text).unwrap();
    let before = setup.count(KEPT).await;
    let missing = plan(&setup, &job(json!([])), &["--sample", "100"]).await;
    assert_eq!((&missing["rows"], &missing["units"]), (&json!(DOCUMENTS), &json!(2)), "{missing}");
    assert_eq!((&missing["sampled"], &missing["faults"]), (&json!(100), &json!([])), "{missing}");
    assert_holds(&missing, "documents", DOCUMENTS as f64);
    assert_holds(&missing, "reused_share", 2.0 / 3.0);
    assert_eq!(missing["reused_share"]["expected"].as_f64().map(|share| (share * 300.0).round()), Some(200.0), "{missing}");
    assert_eq!(missing["tokens"]["expected"], 0.0, "no model is asked: {missing}");
    let one = plan(&setup, &job(json!(["first"])), &[]).await;
    assert_eq!(one["rows"], 0, "of the first task nothing is outdated: {one}");

    // A third of the documents lack the second output.
    let mut connection = PgConnection::connect(setup.database_url()).await.unwrap();
    let gone = "DELETE FROM results WHERE task = 'second' AND document_id IN (SELECT id FROM documents ORDER BY id LIMIT 300)";
    assert_eq!(sqlx::query(gone).execute(&mut connection).await.unwrap().rows_affected(), 300);
    let some = plan(&setup, &job(json!(["second"])), &["--sample", "1000"]).await;
    assert_eq!((&some["rows"], &some["sampled"]), (&json!(300), &json!(300)), "{some}");
    assert_holds(&some, "reused_share", 1.0 / 3.0);
    assert_eq!(setup.count(KEPT).await, before - 300, "a plan left something behind");

    std::fs::write(setup.path("job.json"), job(json!(["fourth"])).to_string()).unwrap();
    let refused = setup.run(&["plan", "--job", "job.json"]).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("pipeline `echo` has no task `fourth`"), "{told}");
}

async fn an_evaluation_takes_nothing_over() {
    let setup = BackfillSetup::new().await;
    write(&setup.path("data/a.parquet"), &documents(0..500), 300);
    let (code, _, told) = setup.backfill("echo").await;
    assert_eq!(code, Some(0), "{told}");
    let rows = json!({ "version": 1, "id": "p", "pipeline": "echo", "dataset": "archive" });
    let mut evaluate = rows.clone();
    (evaluate["kind"], evaluate["task"], evaluate["expected"]) = (json!("evaluate"), json!("first"), json!("text"));
    let measured = plan(&setup, &evaluate, &[]).await;
    assert_eq!((&measured["rows"], &measured["sampled"]), (&json!(500), &json!(200)), "{measured}");
    assert_holds(&measured, "documents", 500.0);
    assert_eq!(measured["reused_share"]["expected"], 0.0, "it measures the tasks as they are now: {measured}");
    evaluate["expected"] = json!("txt");
    std::fs::write(setup.path("job.json"), evaluate.to_string()).unwrap();
    let refused = setup.run(&["plan", "--job", "job.json"]).await;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{told}");
    assert!(told.contains("has a column `txt`, which `expected` names; did you mean `text`?"), "{told}");
    let mut backfill = rows;
    backfill["kind"] = json!("backfill");
    assert_eq!(plan(&setup, &backfill, &[]).await["reused_share"]["expected"], 1.0, "a backfill takes all of it over");
}
