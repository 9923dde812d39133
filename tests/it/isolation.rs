//! A record that makes the process crash is found and becomes a dead letter. Workers that stop in good order make no record
//! suspect.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use sqlx::{Connection, PgConnection};
use tidemill::checkpoint::CheckpointDelta;
use tidemill::record::{Partition, RecordLocation};
use tidemill::store::SuspectRange;
use tokio::time::{Instant, sleep};

use crate::harness::kafka::{self, NewRecord};
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};
use crate::test_stream::{PIPELINE, TASKS, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // After each crash the broker waits for the session timeout.
    let deaths = Needs::KAFKA.within(Duration::from_secs(300));
    vec![
        trial!(deaths, a_record_that_kills_the_process_is_dead_lettered_after_three_attempts),
        trial!(deaths, workers_that_end_in_good_order_leave_nothing_in_doubt),
        trial!(deaths, a_worker_killed_from_outside_costs_its_successor_a_moment),
        trial!(Needs::NOTHING, attempts_are_fenced_bounded_and_taken_back),
        trial!(Needs::NOTHING, what_is_in_doubt_is_what_the_last_owner_had_begun),
    ]
}

const LETHAL: i64 = 100;

async fn a_record_that_kills_the_process_is_dead_lettered_after_three_attempts() {
    const RECORDS: i64 = 200;
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let record = |n: i64| NewRecord {
        partition: Some(0),
        key: if n == LETHAL { b"lethal".to_vec() } else { format!("d{n}").into_bytes() },
        payload: Some(format!(r#"{{"id":"d{n}","text":"text {n}"}}"#).into_bytes()),
    };
    stream.client.send(&stream.topic, (0..RECORDS).map(record).collect()).await;
    let mut deaths = 0;
    let deadline = Instant::now() + Duration::from_secs(240);
    let mut worker = stream.worker("evaluate-lethal=return");
    while stream.committed().await < RECORDS {
        assert!(Instant::now() < deadline, "the stream does not get past the record; the worker says:\n{}", worker.log());
        if let Some(status) = worker.ended() {
            assert!(!status.success(), "a worker ended by itself");
            deaths += 1;
            stream.audit(&format!("after death {deaths}")).await;
            worker = stream.worker("evaluate-lethal=return");
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(worker.ended().is_none(), "the worker that made the record a dead letter is gone");
    // One crash in a full batch, perhaps one in a small batch, and three with the record alone.
    assert!((4..=5).contains(&deaths), "{deaths} workers died of the record");
    stream.drained(RECORDS, Duration::from_secs(30)).await;
    stream.audit("at the end").await;
    let letters = format!(
        "SELECT count(*) FROM dead_letters WHERE class = 'killed_process' AND record_offset = {LETHAL} AND attempts = 3
         AND task = '' AND reason LIKE 'the process ended 3 times while this record alone was under way%'"
    );
    assert_eq!(postgres::count(&stream.database_url, &letters).await, 1, "the record is a dead letter that says why");
    assert_eq!(postgres::count(&stream.database_url, "SELECT count(*) FROM dead_letters").await, 1, "and the only one");
    assert_eq!(
        postgres::count(&stream.database_url, "SELECT count(*) FROM documents").await,
        RECORDS - 1,
        "all other documents are there"
    );
    let results = "SELECT count(*) FROM results";
    assert_eq!(postgres::count(&stream.database_url, results).await, (RECORDS - 1) * TASKS, "with their results");
    let ok = "SELECT sum(units_ok)::bigint FROM batches";
    assert_eq!(postgres::count(&stream.database_url, ok).await, (RECORDS - 1) * TASKS, "each computed once");
    assert_eq!(stream.events().await.len() as i64, (RECORDS - 1) * TASKS, "and told once");
    assert_eq!(
        postgres::count(&stream.database_url, "SELECT count(*) FROM attempts").await,
        0,
        "no attempt is recorded any more"
    );
}

async fn workers_that_end_in_good_order_leave_nothing_in_doubt() {
    let stream = TestStream::new(kafka::shared().await, 2).await;
    stream.send(0..400).await;
    let mut worker = stream.worker("commit-before-stage=sleep(100)");
    eventually("something is committed", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    assert!(
        postgres::count(&stream.database_url, "SELECT count(*) FROM under_way").await > 0,
        "records that were begun are recorded"
    );
    worker.signal(Signal::SIGTERM);
    assert!(worker.wait(Duration::from_secs(30)).success(), "the worker did not end in good order:\n{}", worker.log());
    let noted = postgres::count(&stream.database_url, "SELECT count(*) FROM under_way").await;
    assert_eq!(noted, 0, "a worker that ended in good order left its partitions in doubt");
    let next = stream.worker("");
    stream.drained(400, Duration::from_secs(60)).await;
    assert!(!next.log().contains("ended without releasing it"), "the next worker isolated records without need:\n{}", next.log());
    stream.assert_exactly_once(400, 0).await;
}

async fn a_worker_killed_from_outside_costs_its_successor_a_moment() {
    const RECORDS: i64 = 3_000;
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let pipeline = std::fs::read_to_string(stream.path("pipelines/echo.yaml")).unwrap();
    stream.write_pipeline(&pipeline.replace("max_wait: 50ms, max_records: 50", "max_wait: 2s, max_records: 600"));
    stream.send(0..RECORDS as usize).await;
    // Commits wait in the database: a failpoint that sleeps would block a thread of the worker.
    let mut ledger = PgConnection::connect(&stream.database_url).await.unwrap();
    let mut transaction = ledger.begin().await.unwrap();
    sqlx::query("LOCK TABLE batches IN SHARE MODE").execute(&mut *transaction).await.unwrap();
    let mut worker = stream.worker("");
    eventually("batches are in progress side by side", Duration::from_secs(60), || async {
        postgres::count(&stream.database_url, "SELECT coalesce(max(begun_to), 0)::bigint FROM under_way").await >= 1_500
    })
    .await;
    worker.kill();
    transaction.rollback().await.unwrap();
    let next = stream.worker("");
    eventually("the next worker isolates what was under way", Duration::from_secs(60), || async {
        next.log().contains("ended without releasing it")
    })
    .await;
    let careful = Instant::now();
    eventually("the isolation ends", Duration::from_secs(60), || async {
        next.log().contains("isolation of the partition ends")
    })
    .await;
    assert!(careful.elapsed() < Duration::from_secs(20), "isolation took {:?} for records that do not crash", careful.elapsed());
    stream.drained(RECORDS, Duration::from_secs(60)).await;
    stream.assert_exactly_once(RECORDS, 0).await;
    let batches = postgres::count(&stream.database_url, "SELECT count(*) FROM batches").await;
    assert!(batches < 150, "{batches} batches for {RECORDS} records");
}

fn partition() -> Partition {
    Partition { topic: "documents".into(), number: 0 }
}

async fn attempts_are_fenced_bounded_and_taken_back() {
    let (database, partition) = (postgres::database().await, partition());
    let store = &database.store;
    let epoch = store.claim(PIPELINE, &partition, "one").await.unwrap().epoch;
    let place = RecordLocation { partition: partition.clone(), offset: 7 };
    let attempt = |epoch| {
        let (store, place) = (store.clone(), place.clone());
        async move { store.begin_attempt(PIPELINE, &place, epoch, 3).await.unwrap().map(|attempts| attempts.earlier) }
    };
    assert_eq!(attempt(epoch).await, Some(0));
    assert_eq!(attempt(epoch).await, Some(1), "the first record was not finished");
    store.withdraw_attempt(PIPELINE, &place).await.unwrap();
    assert_eq!(attempt(epoch).await, Some(1), "one was taken back");
    let next = store.claim(PIPELINE, &partition, "another").await.unwrap().epoch;
    assert_eq!(attempt(epoch).await, None, "the old owner notes nothing any more");
    assert_eq!(attempt(next).await, Some(2));
    assert_eq!(attempt(next).await, Some(3), "three were not finished");
    assert_eq!(attempt(next).await, Some(3), "reading the range does not count as an attempt");
    assert_eq!(store.audit().await.unwrap(), [""; 0]);
}

async fn what_is_in_doubt_is_what_the_last_owner_had_begun() {
    let (database, partition) = (postgres::database().await, partition());
    let store = &database.store;
    let claim = || async { store.claim(PIPELINE, &partition, "someone").await.unwrap() };
    let begun = |epoch, to, narrowed| {
        let delta = CheckpointDelta { partition: partition.clone(), epoch, from: 0, to };
        async move { store.note_batch_started(PIPELINE, &delta, narrowed).await.unwrap() }
    };
    let first = claim().await;
    assert_eq!(store.suspect_range(PIPELINE, &first).await.unwrap(), None, "there was no owner before");
    begun(first.epoch, 100, false).await;
    begun(first.epoch, 50, false).await;
    let second = claim().await;
    assert_eq!(
        store.suspect_range(PIPELINE, &second).await.unwrap(),
        Some(SuspectRange { to: 100, narrowed: false }),
        "the furthest counts"
    );
    store.release_partition(PIPELINE, &partition, first.epoch).await.unwrap();
    assert!(store.suspect_range(PIPELINE, &second).await.unwrap().is_some(), "a zombie cannot vouch for what it left");
    store.release_partition(PIPELINE, &partition, second.epoch).await.unwrap();
    assert!(
        store.suspect_range(PIPELINE, &second).await.unwrap().is_some(),
        "an owner that did not finish the range did not either"
    );
    begun(second.epoch, 10, true).await;
    let third = claim().await;
    assert_eq!(
        store.suspect_range(PIPELINE, &third).await.unwrap(),
        Some(SuspectRange { to: 10, narrowed: true }),
        "the suspect range is narrower"
    );
    begun(second.epoch, 90, false).await;
    begun(third.epoch, 10, true).await;
    store.release_partition(PIPELINE, &partition, third.epoch).await.unwrap();
    let fourth = claim().await;
    assert_eq!(
        store.suspect_range(PIPELINE, &fourth).await.unwrap(),
        None,
        "the third owner stopped in good order and left no suspect range"
    );
    assert_eq!(store.audit().await.unwrap(), [""; 0]);
}
