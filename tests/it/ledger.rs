//! Exactly-once processing when a worker crashes at each step of a commit.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tidemill::record::Partition;

use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main. The first go through the steps of a commit, before and after each.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::KAFKA, crash_before_stage_leaves_no_trace => crash_at("commit-before-stage")),
        trial!(Needs::KAFKA, crash_after_the_file_is_announced_leaves_no_rows => crash_at("commit-after-announce")),
        trial!(Needs::KAFKA, crash_between_stage_and_publish_leaves_no_rows => crash_at("commit-after-stage")),
        trial!(Needs::KAFKA, crash_after_the_position_moved_in_the_transaction_moves_nothing => crash_at("commit-after-position")),
        trial!(Needs::KAFKA, crash_after_the_results_are_written_in_the_transaction_shows_none => crash_at("commit-after-results")),
        trial!(Needs::KAFKA, crash_before_the_transaction_commits_leaves_no_rows => crash_at("commit-before-commit")),
        trial!(Needs::KAFKA, crash_after_the_transaction_committed_repeats_nothing => crash_at("commit-after-commit")),
        trial!(Needs::KAFKA, crash_before_the_hint_to_kafka_repeats_nothing => crash_at("commit-after-ledger")),
        trial!(Needs::KAFKA, crash_before_events_are_struck_out_publishes_them_again_under_the_same_ids => crash_at("relay-before-delete")),
        trial!(Needs::KAFKA, lost_commit_reply_is_resolved_by_the_batch_id),
        trial!(Needs::KAFKA, stale_consumer_cannot_commit),
        trial!(Needs::KAFKA, sigterm_drains_commits_the_finished_prefix_and_exits_0),
        trial!(Needs::KAFKA, redelivered_documents_are_reused_and_change_nothing),
        trial!(Needs::KAFKA, files_that_never_went_live_are_swept),
    ]
}

const DOCUMENTS: i64 = 120;

async fn crash_at(failpoint: &str) {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.send(0..DOCUMENTS as usize).await;
    let mut doomed = stream.worker(&format!("{failpoint}=return"));
    let status = doomed.wait(Duration::from_secs(60));
    assert!(!status.success(), "the worker should have aborted at {failpoint}, but ended with {status}");
    stream.audit(&format!("after the crash at {failpoint}")).await;
    let _worker = stream.worker("");
    stream.drained(DOCUMENTS, Duration::from_secs(60)).await;
    stream.assert_exactly_once(DOCUMENTS, 0).await;
}

async fn lost_commit_reply_is_resolved_by_the_batch_id() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.send(0..DOCUMENTS as usize).await;
    let _worker = stream.worker("commit-reply-lost=2*return");
    stream.drained(DOCUMENTS, Duration::from_secs(60)).await;
    stream.assert_exactly_once(DOCUMENTS, 0).await;
}

async fn stale_consumer_cannot_commit() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.send(0..10).await;
    let mut stale = stream.worker("");
    stream.drained(10, Duration::from_secs(60)).await;

    let partition = Partition { topic: stream.topic.as_str().into(), number: 0 };
    let claim = stream.store.claim(PIPELINE, &partition, "another worker").await.unwrap();
    assert_eq!((claim.epoch, claim.next_offset), (2, 10), "the new owner continues where the old one committed");
    stream.send(10..20).await;
    eventually("the old owner notices that it is fenced", Duration::from_secs(30), || async {
        stale.log().contains("fenced: another process owns the partition")
    })
    .await;
    assert_eq!(stream.committed().await, 10, "a fenced worker moved the position");
    let rows = postgres::count(&stream.database_url, "SELECT count(*) FROM results").await;
    assert_eq!(rows, 20, "a fenced worker made rows visible");
    stream.audit("after the fence").await;

    stale.kill();
    let _worker = stream.worker("");
    stream.drained(20, Duration::from_secs(60)).await;
    stream.assert_exactly_once(20, 0).await;
}

async fn sigterm_drains_commits_the_finished_prefix_and_exits_0() {
    let stream = TestStream::new(kafka::shared().await, 2).await;
    stream.send(0..400).await;
    let mut worker = stream.worker("commit-before-stage=sleep(150)");
    eventually("something is committed", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    worker.signal(Signal::SIGTERM);
    let status = worker.wait(Duration::from_secs(30));
    assert!(status.success(), "told to stop, the worker ended with {status}:\n{}", worker.log());
    stream.audit("after the drain").await;
    let staged = postgres::count(&stream.database_url, "SELECT count(*) FROM parquet_files WHERE state <> 'live'").await;
    assert_eq!(staged, 0, "a drained worker left a file that never went live");
    let _worker = stream.worker("");
    stream.drained(400, Duration::from_secs(60)).await;
    stream.assert_exactly_once(400, 0).await;
}

async fn redelivered_documents_are_reused_and_change_nothing() {
    let stream = TestStream::new(kafka::shared().await, 2).await;
    let _worker = stream.worker("");
    stream.send(0..100).await;
    stream.drained(100, Duration::from_secs(60)).await;
    stream.send(0..100).await;
    stream.drained(200, Duration::from_secs(60)).await;
    stream.assert_exactly_once(100, 100).await;
    let reused = postgres::count(&stream.database_url, "SELECT sum(units_reused)::bigint FROM batches").await;
    assert_eq!(reused, 200, "every output of the second delivery is reused");
}

async fn files_that_never_went_live_are_swept() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.send(0..10).await;
    let mut doomed = stream.worker("commit-after-stage=return");
    doomed.wait(Duration::from_secs(60));
    let orphans = stream.store.condemn_files("results", 0.0).await.unwrap();
    assert_eq!(orphans.len(), 1, "the crash left one staged file");
    assert!(std::path::Path::new(&orphans[0]).exists(), "the file was staged before the crash");
    let _worker = stream.worker("");
    stream.drained(10, Duration::from_secs(60)).await;
    stream.assert_exactly_once(10, 0).await;
    stream.store.forget_files(&orphans).await.unwrap();
    assert!(stream.store.condemn_files("results", 0.0).await.unwrap().is_empty(), "a live file was marked for deletion");
}
