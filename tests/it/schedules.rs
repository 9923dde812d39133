//! Schedules: each scheduled time is decided exactly once, with several processes and after crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use libtest_mimic::Trial;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidemill::config::{Config, DatasetConfig, EngineConfig, JobsConfig};
use tidemill::engine::Engine;
use tidemill::jobs::schedules::Schedule;
use tidemill::jobs::{JobCoordinator, JobPipeline, JobTopics, UnitWorker};
use tidemill::pipeline::Dependencies;
use tidemill::pipeline::definition::Definition;
use tidemill::store::{JobState, SearchFilter, Store};
use tokio::sync::Semaphore;

use crate::harness::postgres::Database;
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let minutes = Needs::KAFKA.within(Duration::from_secs(300));
    vec![
        trial!(Needs::NOTHING, of_two_foremen_at_once_one_fires),
        trial!(Needs::NOTHING, a_time_beside_an_open_job_becomes_what_the_policy_says),
        trial!(Needs::NOTHING, after_a_pause_only_the_latest_time_is_caught_up),
        trial!(Needs::NOTHING, one_that_is_refused_stands_in_the_way_of_no_other),
        trial!(Needs::NOTHING, a_job_that_the_ledger_refuses_stands_in_the_way_of_no_other),
        trial!(Needs::NOTHING, its_commands_tell_and_ask),
        trial!(minutes, each_time_has_one_job_whichever_process_dies),
    ]
}

const PIPELINE: &str = "version: 1\nname: echo\nsource: { topic: none }\ntasks:\n  first: { render: { template: x } }\n";

/// A job coordinator without Kafka for a pipeline with these schedules. With `jobs_at_a_time` of 0 every job stays queued.
async fn coordinator(store: &Store, owner: &str, jobs_at_a_time: usize, schedules: &str) -> JobCoordinator {
    let definition = Definition::parse(Path::new("p.yaml"), &format!("{PIPELINE}schedules:\n{schedules}")).unwrap();
    let datasets: BTreeMap<_, _> = [("archive".to_owned(), DatasetConfig::local("archive"))].into();
    let config = Config { datasets: datasets.clone(), ..Config::default() };
    let schedules = Schedule::all(&config, std::slice::from_ref(&definition)).unwrap();
    let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
    let dependencies = Dependencies::alone(engine, store.clone(), Duration::from_secs(60));
    let health = dependencies.health.clone();
    let job_pipeline = JobPipeline::new(&definition, dependencies).await.unwrap();
    let worker = UnitWorker {
        store: store.clone(),
        job_pipelines: [(definition.name.clone(), Arc::new(job_pipeline))].into(),
        datasets,
        health,
        owner: owner.to_owned(),
        in_flight_bytes: 1 << 20,
    };
    let topics =
        JobTopics { worker, unit_permits: Semaphore::new(1), events_topic: "job-events".into(), price_per_device_hour: None };
    let config = JobsConfig { jobs_at_a_time, events_topic: topics.events_topic.clone(), ..JobsConfig::default() };
    JobCoordinator { topics: Arc::new(topics), config, publishes_units: false, schedules }
}

fn minute(number: i64) -> Timestamp {
    "2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(number)
}

/// The decision on each scheduled time, in order: `schedule time outcome job reason`.
async fn firings(database: &Database) -> Vec<String> {
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let query = "SELECT concat_ws(' ', schedule, to_char(fire_at AT TIME ZONE 'UTC', 'HH24:MI'), outcome, job_id, reason)
                 FROM firings ORDER BY schedule, fire_at";
    sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap()
}

async fn state(store: &Store, job: &str) -> JobState {
    store.job(job).await.unwrap().unwrap_or_else(|| panic!("there is no job {job}")).state
}

async fn of_two_foremen_at_once_one_fires() {
    let database = postgres::database().await;
    let text = "  often: { cron: '* * * * *', overlap: queue, job: { kind: rerun } }\n";
    let (first, second) =
        (coordinator(&database.store, "first", 0, text).await, coordinator(&database.store, "second", 0, text).await);
    let (first, second) = (Arc::new(first), Arc::new(second));
    for number in 0..=12 {
        let looks = [&first, &second].map(|coordinator| {
            let coordinator = coordinator.clone();
            tokio::spawn(async move { coordinator.run_once_at(minute(number)).await })
        });
        for look in looks {
            look.await.unwrap().unwrap();
        }
    }
    let expected: Vec<String> = (1..=12).map(|n| format!("echo.often 10:{n:02} fired echo.often@20261121T10{n:02}00Z")).collect();
    assert_eq!(firings(&database).await, expected, "every minute after the first look is fired once");
    let jobs = postgres::count(&database.url, "SELECT count(*) FROM jobs WHERE schedule = 'echo.often'").await;
    assert_eq!(jobs, 12, "each has one job");
    let events = postgres::count(&database.url, "SELECT count(*) FROM outbox WHERE topic = 'job-events'").await;
    assert_eq!(events, 12, "each is announced once");
}

async fn a_time_beside_an_open_job_becomes_what_the_policy_says() {
    let database = postgres::database().await;
    let text = "  skips: { cron: '* * * * *', overlap: skip, job: { kind: rerun } }
  queues: { cron: '* * * * *', overlap: queue, job: { kind: rerun } }
  cancels: { cron: '* * * * *', overlap: cancel_previous, job: { kind: rerun } }\n";
    let idle = coordinator(&database.store, "idle", 0, text).await;
    for number in 0..=2 {
        idle.run_once_at(minute(number)).await.unwrap();
    }
    let expected = [
        "echo.cancels 10:01 fired echo.cancels@20261121T100100Z",
        "echo.cancels 10:02 fired echo.cancels@20261121T100200Z",
        "echo.queues 10:01 fired echo.queues@20261121T100100Z",
        "echo.queues 10:02 fired echo.queues@20261121T100200Z",
        "echo.skips 10:01 fired echo.skips@20261121T100100Z",
        "echo.skips 10:02 skipped job echo.skips@20261121T100100Z was still open",
    ];
    assert_eq!(firings(&database).await, expected);
    let store = &database.store;
    assert_eq!(state(store, "echo.cancels@20261121T100100Z").await, JobState::Cancelling, "the earlier job is cancelled");
    assert_eq!(state(store, "echo.cancels@20261121T100200Z").await, JobState::Queued);

    let busy = coordinator(store, "busy", 9, text).await;
    busy.run_once_at(minute(2)).await.unwrap();
    assert_eq!(state(store, "echo.cancels@20261121T100100Z").await, JobState::Cancelled);
    assert_eq!(state(store, "echo.queues@20261121T100100Z").await, JobState::Running);
    assert_eq!(state(store, "echo.queues@20261121T100200Z").await, JobState::Queued, "one of a schedule at a time");
    busy.run_once_at(minute(2)).await.unwrap();
    assert_eq!(state(store, "echo.queues@20261121T100100Z").await, JobState::Succeeded);
    assert_eq!(state(store, "echo.queues@20261121T100200Z").await, JobState::Queued, "its turn comes once the other has ended");
    busy.run_once_at(minute(2)).await.unwrap();
    assert_eq!(state(store, "echo.queues@20261121T100200Z").await, JobState::Running);
    busy.run_once_at(minute(2)).await.unwrap();
    busy.run_once_at(minute(3)).await.unwrap();
    let last = firings(&database).await.pop().unwrap();
    assert_eq!(last, "echo.skips 10:03 fired echo.skips@20261121T100300Z", "nothing is open any more");
}

async fn after_a_pause_only_the_latest_time_is_caught_up() {
    let database = postgres::database().await;
    let text = "  often: { cron: '*/10 * * * *', job: { kind: rerun } }
  seldom: { cron: '5 10 * * *', catch_up: 20m, job: { kind: rerun } }\n";
    let before = coordinator(&database.store, "before", 4, text).await;
    before.run_once_at(minute(0)).await.unwrap();
    drop(before);
    let after = coordinator(&database.store, "after", 4, text).await;
    after.run_once_at(minute(33)).await.unwrap();
    let expected = [
        "echo.often 10:10 missed no coordinator was running to fire it before the next time, 2026-11-21T10:20:00Z",
        "echo.often 10:20 missed no coordinator was running to fire it before the next time, 2026-11-21T10:30:00Z",
        "echo.often 10:30 fired echo.often@20261121T103000Z",
        "echo.seldom 10:05 missed no coordinator was running to fire it within 20m of its start",
    ];
    assert_eq!(firings(&database).await, expected);
    after.run_once_at(minute(34)).await.unwrap();
    assert_eq!(firings(&database).await, expected, "and nothing is decided twice");

    let changed = text.replace("*/10 * * * *", "*/2 * * * *");
    let changed = coordinator(&database.store, "changed", 4, &changed).await;
    changed.run_once_at(minute(47)).await.unwrap();
    assert_eq!(firings(&database).await, expected, "a changed schedule begins anew: earlier times are not its own");
    changed.run_once_at(minute(48)).await.unwrap();
    assert_eq!(firings(&database).await[3], "echo.often 10:48 fired echo.often@20261121T104800Z");
}

async fn one_that_is_refused_stands_in_the_way_of_no_other() {
    let database = postgres::database().await;
    let text = "  broken: { cron: '* * * * *', job: { kind: backfill, dataset: archive, prefix: '{date}/' } }
  sound: { cron: '* * * * *', overlap: queue, job: { kind: rerun } }\n";
    let mut coordinator = coordinator(&database.store, "coordinator", 4, text).await;
    coordinator.run_once_at(minute(0)).await.unwrap();
    Arc::get_mut(&mut coordinator.topics).unwrap().worker.datasets.clear();
    coordinator.run_once_at(minute(1)).await.unwrap();
    let expected = [
        "echo.broken 10:01 refused dataset `archive` is not configured; there are none",
        "echo.sound 10:01 fired echo.sound@20261121T100100Z",
    ];
    assert_eq!(firings(&database).await, expected);
    // Another job has its id.
    postgres::execute(
        &database.url,
        "INSERT INTO jobs (id, kind, pipeline, spec, state) VALUES ('echo.sound@20261121T100200Z', 'delete', 'echo', '{}', 'failed')",
    )
    .await;
    coordinator.run_once_at(minute(2)).await.unwrap();
    let found = firings(&database).await;
    assert_eq!(found[3], "echo.sound 10:02 refused the id `echo.sound@20261121T100200Z` belongs to another job", "{found:?}");
}

async fn a_job_that_the_ledger_refuses_stands_in_the_way_of_no_other() {
    let database = postgres::database().await;
    let coordinator =
        coordinator(&database.store, "coordinator", 4, "  none: { cron: '0 0 1 1 *', job: { kind: rerun } }\n").await;
    for (id, tasks) in [("first", r#"["\u0000"]"#), ("second", r#"["first"]"#)] {
        let spec = format!(r#"{{"version":1,"id":"{id}","kind":"rerun","pipeline":"echo","tasks":{tasks}}}"#);
        postgres::execute(
            &database.url,
            &format!("INSERT INTO jobs (id, kind, pipeline, spec, state) VALUES ('{id}', 'rerun', 'echo', '{spec}', 'queued')"),
        )
        .await;
    }
    coordinator.run_once().await.unwrap();
    coordinator.run_once().await.unwrap();
    let state = async |id: &str| postgres::count(&database.url, &format!("SELECT count(*) FROM jobs WHERE id = '{id}'")).await;
    assert_eq!((state("first' AND state = 'failed").await, state("second' AND state = 'succeeded").await), (1, 1));
    let asked = ["a\0".to_owned()];
    let refused = database.store.reader(None).passing("echo", &asked, &SearchFilter::default()).await.unwrap_err();
    assert!(refused.is_refusal, "what is at fault is the value, not the database: {refused}");
}

async fn its_commands_tell_and_ask() {
    let database = postgres::database().await;
    let folder = crate::harness::open_folder();
    std::fs::create_dir(folder.path().join("pipelines")).unwrap();
    let pipeline =
        format!("{PIPELINE}schedules:\n  nightly: {{ cron: '30 2 * * *', time_zone: Europe/Berlin, job: {{ kind: rerun }} }}\n");
    std::fs::write(folder.path().join("pipelines/echo.yaml"), pipeline).unwrap();
    let weekly =
        "[schedules.weekly]\npipeline = \"echo\"\ncron = \"0 3 * * MON\"\nenabled = false\njob = { kind = \"reembed\" }\n";
    std::fs::write(folder.path().join("tidemill.toml"), weekly).unwrap();
    let tidemill = |url: Option<&str>, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(arguments).current_dir(folder.path()).env_remove("TIDEMILL_DATABASE__URL");
        url.map(|url| command.env("TIDEMILL_DATABASE__URL", url));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), told)
    };
    let object = |url: Option<&str>, arguments: &[&str]| -> Value {
        let (code, said, told) = tidemill(url, arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {told}");
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    };
    let url = Some(database.url.as_str());

    let listed = object(None, &["schedule", "list", "--json"]);
    assert_eq!(listed["schedules"][0]["schedule"], "echo.nightly");
    assert_eq!(listed["schedules"][1]["next"], Value::Null, "a disabled one has no next time");
    assert!(listed["last_unknown"].as_str().unwrap().contains("no database is configured"), "{listed}");
    let next = object(None, &["schedule", "next", "echo.nightly", "-n", "3", "--json"]);
    let times = next["schedules"][0]["times"].as_array().unwrap();
    assert_eq!(times.len(), 3);
    assert!(times.iter().all(|time| time["local"].as_str().unwrap().contains(" 02:30 +0")), "{times:?}");

    let asked = object(url, &["schedule", "run-now", "echo.nightly", "--json"]);
    let job = asked["job"].as_str().unwrap();
    assert!(job.starts_with("echo.nightly@now-"), "{job}");
    assert_eq!(state(&database.store, job).await, JobState::Queued);
    let again = object(url, &["schedule", "run-now", "echo.nightly", "--json"]);
    assert_eq!(again["waits_for"], serde_json::json!([job]));
    let listed = object(url, &["schedule", "list", "--json"]);
    assert_eq!(listed["schedules"][0]["last"]["outcome"], "fired");
    assert_eq!(listed["schedules"][0]["last"]["job_state"], "queued");
    let (_, said, _) = tidemill(url, &["schedule", "list"]);
    assert!(said.contains("30 2 * * *") && said.contains("disabled"), "{said}");

    let (code, _, told) = tidemill(url, &["schedule", "run-now", "echo.nighty"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("no schedule is named `echo.nighty`; did you mean `echo.nightly`?"), "{told}");
    std::fs::write(folder.path().join("tidemill.toml"), weekly.replace("MON", "MOON")).unwrap();
    let (code, _, told) = tidemill(None, &["schedule", "list"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("configuration: `schedules.weekly`: `cron` is `0 3 * * MOON`: "), "{told}");
}

async fn each_time_has_one_job_whichever_process_dies() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let (jobs, units, events) =
        (stream.client.topic("jobs", 1).await, stream.client.topic("units", 2).await, stream.client.topic("job-events", 1).await);
    let file = stream.path("tidemill.toml");
    let config = format!(
        "{}[jobs]\nenabled = true\ntopic = \"{jobs}\"\nunits_topic = \"{units}\"\nevents_topic = \"{events}\"\n\
         [schedules.often]\npipeline = \"echo\"\ncron = \"* * * * *\"\noverlap = \"queue\"\njob = {{ kind = \"rerun\" }}\n",
        std::fs::read_to_string(&file).unwrap()
    );
    std::fs::write(&file, config).unwrap();
    let count = |query: &'static str| postgres::count(&stream.database_url, query);
    let mut workers = [stream.worker(""), stream.worker("")];
    eventually("the schedule is known", Duration::from_secs(90), || async { count("SELECT count(*) FROM schedules").await == 1 })
        .await;
    // Moves the schedule back, as if no process had run for a while.
    postgres::execute(&stream.database_url, "UPDATE schedules SET decided_to = decided_to - interval '5 minutes'").await;
    eventually("the latest time is caught up", Duration::from_secs(60), || async {
        count("SELECT count(*) FROM firings WHERE outcome = 'fired'").await > 0
    })
    .await;
    assert!(
        count("SELECT count(*) FROM firings WHERE outcome = 'missed'").await >= 4,
        "the earlier times are recorded as missed"
    );

    let mut connection = PgConnection::connect(&stream.database_url).await.unwrap();
    let coordinator: String = sqlx::query_scalar("SELECT min(decided_by) FROM firings").fetch_one(&mut connection).await.unwrap();
    let process = coordinator.split('-').next().unwrap().to_owned();
    let doomed = workers.iter_mut().find(|worker| worker.process().to_string() == process);
    doomed.unwrap_or_else(|| panic!("{coordinator} is none of the workers")).kill();
    let others = format!("SELECT count(*) FROM firings WHERE decided_by <> '{coordinator}'");
    eventually("the other process fires", Duration::from_secs(100), || async {
        let fired: i64 = sqlx::query_scalar(AssertSqlSafe(others.clone()))
            .fetch_one(&mut PgConnection::connect(&stream.database_url).await.unwrap())
            .await
            .unwrap();
        fired > 0
    })
    .await;

    let gaps = "SELECT extract(epoch FROM max(fire_at) - min(fire_at))::bigint / 60 + 1 - count(*) FROM firings";
    assert_eq!(count(gaps).await, 0, "every minute has its row");
    let wrong = "SELECT count(*) FROM firings f LEFT JOIN jobs j ON j.id = f.job_id
                 WHERE (f.outcome = 'fired') <> (j.id IS NOT NULL)
                    OR j.id <> 'often@' || to_char(f.fire_at AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS\"Z\"')";
    assert_eq!(count(wrong).await, 0, "each fired time has its own job, and no other has one");
    let odd = "SELECT count(*) FROM jobs j WHERE NOT EXISTS (SELECT FROM firings f WHERE f.job_id = j.id)";
    assert_eq!(count(odd).await, 0, "there is no job without a time");
    eventually("the jobs are done", Duration::from_secs(30), || async {
        count("SELECT count(*) FROM jobs WHERE state <> 'succeeded'").await == 0
    })
    .await;
}
