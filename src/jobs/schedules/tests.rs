use serde_json::json;

use super::*;
use crate::config::DatasetConfig;

const PIPELINE: &str =
    "version: 1\nname: news\nsource: { topic: docs }\ntasks:\n  topic: { render: { template: x } }\nschedules:\n  nightly:\n";

fn config() -> Config {
    let datasets = [("archive".to_owned(), DatasetConfig::local("archive"))].into();
    Config { datasets, ..Config::default() }
}

fn all(text: &str) -> Result<Vec<Schedule>, String> {
    let lines: String = text.lines().map(|line| format!("    {line}\n")).collect();
    let definition = Definition::parse(Path::new("p.yaml"), &format!("{PIPELINE}{lines}")).map_err(|error| error.to_string())?;
    Schedule::all(&config(), &[definition]).map_err(|error| error.to_string())
}

/// The schedule `news.nightly`. Its job is a `rerun` unless the text has another.
pub(super) fn schedule(text: &str) -> Schedule {
    let text = if text.contains("job:") { text.to_owned() } else { format!("{text}\njob: {{ kind: rerun }}") };
    all(&text).expect("the schedule is one").remove(0)
}

/// A time of 21 November 2026.
pub(super) fn time(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().expect("the test writes a time")
}

#[test]
fn a_schedule_says_the_job_of_each_time() {
    let schedule = schedule(
        "cron: 30  0 * * *\ntime_zone: Asia/Seoul\ncatch_up: 6h\njitter: 2m\noverlap: queue\n\
         job: { kind: backfill, dataset: archive, prefix: 'daily/{yesterday}/{hour}-{date}/', sample: 10 }",
    );
    assert_eq!((schedule.id.as_str(), schedule.cron.as_str()), ("news.nightly", "30 0 * * *"));
    assert_eq!((schedule.overlap, schedule.enabled), (OverlapPolicy::Queue, true));
    let next = schedule.next_after(time("00:00:00")).unwrap();
    assert_eq!(next.to_string(), "2026-11-21T15:30:00Z");
    let job = schedule.job_at(next).unwrap();
    let expected = json!({
        "version": 1, "id": "news.nightly@20261121T153000Z", "kind": "backfill", "pipeline": "news", "dataset": "archive",
        "prefix": "daily/2026-11-21/00-2026-11-22/", "sample": 10,
    });
    assert_eq!(job.to_json(), expected);
}

#[test]
fn a_job_without_a_time_has_an_id_of_its_own() {
    let schedule = schedule("cron: 0 3 * * *");
    let (first, second) = (schedule.job_now(time("10:00:00")).unwrap(), schedule.job_now(time("10:00:00")).unwrap());
    assert!(first.id.starts_with("news.nightly@now-"), "{}", first.id);
    assert_ne!(first.id, second.id);
}

#[test]
fn the_longest_names_still_make_an_id() {
    let pipeline = PIPELINE.replace("name: news", &format!("name: {}", "p".repeat(63)));
    let name = "n".repeat(NAME_CHARACTERS);
    let text = format!("{}    cron: 0 3 * * *\n    job: {{ kind: reembed }}\n", pipeline.replace("nightly", &name));
    let definition = Definition::parse(Path::new("p.yaml"), &text).unwrap();
    let schedules = Schedule::all(&config(), &[definition]).unwrap();
    assert_eq!(schedules[0].job_now(time("10:00:00")).unwrap().id.len(), 120);
}

#[test]
fn what_is_no_schedule_is_refused_with_its_place_and_the_mend() {
    let backfill = |rest: &str| format!("cron: 0 3 * * *\njob: {{ kind: backfill, dataset: archive, {rest} }}");
    let with = |rest: &str| format!("cron: 0 3 * * *\njob: {{ kind: rerun }}\n{rest}");
    let cases = [
        ("job: { kind: rerun }".to_owned(), "the key `cron` is missing"),
        ("cron: 0 3 * * *".to_owned(), "the key `job` is missing"),
        (with("jiter: 2m"), "p.yaml:10:5: unknown key `jiter`; did you mean `jitter`?"),
        (with("overlap: skipp"), "unknown value `skipp`; did you mean `skip`?"),
        (with("jitter: soon"), "p.yaml:8:5: schedule `nightly`: `jitter` is `soon`; write a duration"),
        (with("jitter: -2m"), "`jitter` is `-2m`"),
        (with("catch_up: 0s"), "`catch_up` is less than a minute"),
        (with("time_zone: Asia/Soul"), "`time_zone` is `Asia/Soul`, which is not a time zone"),
        (with("pipeline: news"), "`pipeline` is always the pipeline of this file; remove the key"),
        ("cron: 0 3 * *\njob: { kind: rerun }".to_owned(), "`cron` is `0 3 * *`, which has 4 fields"),
        ("cron: 0 0 30 2 *\njob: { kind: rerun }".to_owned(), "which never occurs"),
        ("cron: 0 3 * * *\njob: { kind: rerunn }".to_owned(), "did you mean `rerun`?"),
        (
            "cron: 0 3 * * *\njob: { kind: rerun, tasks: [topik] }".to_owned(),
            "its job: pipeline `news` has no task `topik`; did you mean `topic`?",
        ),
        ("cron: 0 3 * * *\njob: { kind: reembed, budget: { cost: 3 } }".to_owned(), "needs a price"),
        (
            "cron: 0 3 * * *\njob: { kind: backfill, dataset: archiv }".to_owned(),
            "its job: dataset `archiv` is not configured; did you mean `archive`?",
        ),
        (backfill("sample: 0"), "`sample` is 0"),
        (backfill("prefix: 'a/{dat}'"), "`{dat}`; did you mean `date`?"),
        (backfill("prefix: 'a/{date'"), "a `{` is not closed"),
        (backfill("prefix: '../{date}'"), "holds `.` or `..`"),
        (backfill("id: x"), "its job has the key `id`; remove it: each time has an id of its own"),
        (backfill("deadline: 2026-01-01"), "its job has the key `deadline`"),
    ];
    for (text, expected) in cases {
        let error = all(&text).expect_err(&text);
        assert!(error.contains(expected), "expected to read `{expected}` in: {error}");
    }
}

#[test]
fn an_operators_schedule_names_its_pipeline() {
    let definition = Definition::parse(Path::new("p.yaml"), PIPELINE.trim_end_matches("schedules:\n  nightly:\n")).unwrap();
    let read = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidemill.toml");
        std::fs::write(&file, format!("[datasets.archive]\npath = \"a\"\n{text}")).unwrap();
        let config = Config::layered(Some(&file), [], &[]).map_err(|error| error.to_string())?;
        Schedule::all(&config, std::slice::from_ref(&definition)).map_err(|error| error.to_string())
    };
    let job = "job = { kind = \"backfill\", dataset = \"archive\", prefix = \"{date}/\", sample = 5 }";
    let text = format!("[schedules.weekly]\npipeline = \"news\"\ncron = \"0 3 * * MON\"\ntime_zone = \"Europe/Berlin\"\n{job}\n");
    let schedules = read(&text).unwrap();
    assert_eq!(schedules[0].id, "weekly");
    let time = schedules[0].next_after(time("00:00:00")).unwrap();
    assert_eq!(schedules[0].job_at(time).unwrap().id, "weekly@20261123T020000Z");
    let cases = [
        (text.replace("news", "nws"), "configuration: `schedules.weekly`: no pipeline is named `nws` here; did you mean `news`?"),
        (text.replace("pipeline = \"news\"\n", ""), "`schedules.weekly`: `pipeline` is missing"),
        (text.replace("time_zone", "timezone"), "unknown setting `timezone` in `schedules.weekly`; did you mean `time_zone`?"),
        (text.replace("cron = \"0 3 * * MON\"\n", ""), "lacks `cron`"),
        (text.replace("weekly", "Weekly"), "`Weekly` is not a schedule name"),
        (text.replace("MON", "MOON"), "`cron` is `0 3 * * MOON`: "),
    ];
    for (text, expected) in cases {
        let error = read(&text).expect_err(&text);
        assert!(error.contains(expected), "expected to read `{expected}` in: {error}");
    }
}

#[test]
fn starts_are_spread_and_stay_before_the_next_time() {
    let close = schedule("cron: '* * * * *'\njitter: 1h");
    let mut seconds = std::collections::BTreeSet::new();
    let mut at = time("00:00:00");
    for _ in 0..200 {
        at = close.next_after(at).unwrap();
        let start = close.start_of(at);
        assert_eq!(start, close.start_of(at), "the same on every call");
        let delay = start.duration_since(at);
        assert!(!delay.is_negative() && delay < SignedDuration::from_mins(1), "{delay:#}");
        seconds.insert(delay.as_secs());
    }
    assert!(seconds.len() > 40, "200 starts fall on {} of 60 seconds", seconds.len());
}

#[test]
fn what_decides_the_times_begins_them_anew() {
    let timing = |text: &str| schedule(text).timing();
    let usual = timing("cron: 0 3 * * *");
    assert_eq!(usual, timing("cron: 0  3 * * *\ntime_zone: UTC\njitter: 5m\noverlap: queue"));
    for other in ["cron: 0 4 * * *", "cron: 0 3 * * *\ntime_zone: Asia/Seoul", "cron: 0 3 * * *\nenabled: false"] {
        assert_ne!(usual, timing(other), "{other}");
    }
}
