//! Topics change while a pipeline reads them: partitions are added, records are deleted unread, topics are deleted and made again.

use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::{ALONE, assert_ready, listen, not_ready};
use crate::harness::trial::trial;
use crate::harness::worker::Worker;
use crate::harness::{kafka, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(ALONE, partitions_added_while_running_are_read_from_their_start),
        trial!(ALONE, records_deleted_unread_halt_the_pipeline_until_an_operator_records_the_gap),
        trial!(ALONE, a_topic_made_anew_halts_the_pipeline),
    ]
}

async fn partitions_added_while_running_are_read_from_their_start() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let _worker = stream.worker("");
    stream.send(0..300).await;
    stream.drained(300, Duration::from_secs(60)).await;
    stream.client.widen(&stream.topic, 4).await;
    // These come before the worker knows the new partitions, and none may be skipped.
    stream.send(300..900).await;
    stream.drained(900, Duration::from_secs(90)).await;
    let partitions = postgres::count(&stream.database_url, "SELECT count(*) FROM batches WHERE from_offset = 0").await;
    assert_eq!(partitions, 4, "every partition is read from 0");
    stream.assert_exactly_once(900, 0).await;
}

/// Retention deletes records while no worker runs. The next worker stays up, reports what is missing and what to do, and continues
/// after that.
async fn records_deleted_unread_halt_the_pipeline_until_an_operator_records_the_gap() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let mut first = stream.worker("");
    stream.send(0..100).await;
    stream.drained(100, Duration::from_secs(60)).await;
    first.kill();
    stream.send(100..300).await;
    stream.client.delete_before(&stream.topic, 0, 250).await;

    let url = listen();
    let mut worker = stream.worker_at(&url, "");
    let said: Value = serde_json::from_str(&halted(&url, &worker).await).unwrap();
    let reason = said["halted"][PIPELINE].as_str().unwrap_or_else(|| panic!("/readyz says {said}"));
    assert!(reason.contains("100..250") && reason.contains("tidemill positions skip"), "/readyz says {reason}");
    assert!(worker.ended().is_none(), "the process ended, but a new one would find the same");
    assert_eq!(stream.committed().await, 100, "records were skipped silently");

    let skip = ["positions", "skip", "--pipeline", PIPELINE, "--topic", &stream.topic, "--partition", "0"];
    let refused = stream.tidemill(&[&skip[..], &["--to", "50", "--reason", "x"]].concat()).await;
    assert!(!refused.0 && refused.1.contains("only moves it forward"), "a skip back was not refused: {}", refused.1);
    let refused = stream.tidemill(&[&skip[..], &["--to", "999", "--reason", "x"]].concat()).await;
    assert!(!refused.0 && refused.1.contains("after the end"), "a skip behind the end was not refused: {}", refused.1);
    let done =
        stream.tidemill(&[&skip[..], &["--to", "earliest", "--reason", "retention was too short", "--json"]].concat()).await;
    assert!(done.0, "the skip failed: {}", done.1);

    stream.drained(300, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    let listed = stream.tidemill(&["positions", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(listed.1.lines().last().unwrap()).unwrap();
    assert_eq!(listed["positions"][0]["given_up"], 150, "the list does not show the gap: {listed}");
    let why = "SELECT count(*) FROM gaps WHERE (from_offset, to_offset, reason) = (100, 250, 'retention was too short')";
    assert_eq!(postgres::count(&stream.database_url, why).await, 1, "the gap is recorded");
    // 150 of the 300 records were deleted before they were read.
    stream.assert_exactly_once(150, 0).await;
}

async fn a_topic_made_anew_halts_the_pipeline() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let mut first = stream.worker("");
    stream.send(0..100).await;
    stream.drained(100, Duration::from_secs(60)).await;
    first.kill();
    stream.client.recreate(&stream.topic, 1).await;
    stream.send(100..120).await;

    let url = listen();
    let worker = stream.worker_at(&url, "");
    let reason = halted(&url, &worker).await;
    assert!(reason.contains("created again") && reason.contains("another name"), "/readyz says {reason}");
    assert_eq!(stream.committed().await, 100, "the position moved");
    stream.assert_exactly_once(100, 0).await;
}

/// Waits until `/readyz` reports that the partition is halted.
async fn halted(url: &str, worker: &Worker) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let said = not_ready(url, worker).await;
        if said.contains("positions never go back") || said.contains("were deleted before they were read") {
            return said;
        }
        assert!(tokio::time::Instant::now() < deadline, "/readyz only ever said {said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
