//! The model host hangs or panics. The process then ends, so that a supervisor starts another.

use std::time::Duration;

use libtest_mimic::Trial;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::ALONE;
use crate::harness::kafka::NewRecord;
use crate::harness::trial::trial;
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::TestStream;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-bert-classifier");

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // The first batches pass, so that the fault happens while others are being committed and computed.
    vec![
        trial!(ALONE, a_wedged_model_ends_the_process_and_the_next_goes_on => {
            model_fails("device-batch=3*off->sleep(600000)", "was not evaluated within")
        }),
        trial!(ALONE, a_model_that_panics_ends_the_process_and_the_next_goes_on => {
            model_fails("device-batch=3*off->panic(the model panics)", "the device thread stopped")
        }),
        trial!(ALONE, a_document_that_makes_a_model_abort_is_put_aside_and_no_other),
    ]
}

/// A stream whose second task uses a model.
async fn with_a_model(limits: &str) -> TestStream {
    let mut stream = TestStream::new(kafka::shared().await, 2).await;
    stream.settings = format!("[models.tiny]\npath = \"{MODEL}\"\n{limits}");
    stream.configure(&stream.path("data"));
    let second = "second: { render: { template: \"{{ first.text }}?\" } }";
    stream.amend("pipelines/echo.yaml", |text| {
        assert!(text.contains(second), "the stream's second task has changed:\n{text}");
        text.replace(second, "second: { classify: { model: tiny } }")
    });
    stream
}

async fn model_fails(failpoint: &str, says: &str) {
    const RECORDS: usize = 1000;
    let stream = with_a_model("[limits]\nwatchdog_seconds = 3\ndrain_seconds = 2\n").await;
    stream.send(0..RECORDS).await;
    let mut doomed = stream.worker(failpoint);
    let status = block_in_place(|| doomed.wait(Duration::from_secs(60)));
    assert!(!status.success(), "the worker should have ended with a failure, but ended with {status}");
    assert!(doomed.log().contains(says), "the log does not contain \"{says}\":\n{}", doomed.log());
    assert!(stream.committed().await < RECORDS as i64, "the model should have failed before the end");
    stream.audit("after the model failed").await;
    let _next = stream.worker("");
    eventually("the next goes on", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    stream.drained(RECORDS as i64, Duration::from_secs(60)).await;
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}

/// On the device texts of both partitions share a batch, so that the cause is found only by one document at a time.
async fn a_document_that_makes_a_model_abort_is_put_aside_and_no_other() {
    const RECORDS: usize = 400;
    let stream = with_a_model("").await;
    stream.send(0..RECORDS / 2).await;
    let stutter = format!(r#"{{"id":"stutter","text":"{}"}}"#, "mill ".repeat(20));
    stream
        .client
        .send(&stream.topic, vec![NewRecord { partition: Some(1), key: b"stutter".to_vec(), payload: Some(stutter.into()) }])
        .await;
    stream.send(RECORDS / 2..RECORDS).await;
    let start = || stream.worker("device-stutter=return");
    let (mut worker, mut deaths, deadline) = (start(), 0, Instant::now() + Duration::from_secs(240));
    while stream.committed().await <= RECORDS as i64 {
        assert!(Instant::now() < deadline, "the stream does not get past the document; the worker says:\n{}", worker.log());
        if let Some(status) = worker.ended() {
            assert!(!status.success(), "a worker ended by itself");
            deaths += 1;
            stream.audit(&format!("after death {deaths}")).await;
            worker = start();
        }
        sleep(Duration::from_millis(50)).await;
    }
    // One crash in a full batch, perhaps one in a small batch, and three with the document alone.
    assert!((4..=5).contains(&deaths), "{deaths} workers died of the document");
    stream.drained(RECORDS as i64 + 1, Duration::from_secs(60)).await;
    assert!(worker.ended().is_none(), "the worker that made the document a dead letter is gone");
    let letters = "SELECT count(*) FROM dead_letters WHERE class = 'killed_process' AND record_key = 'stutter' AND attempts = 3";
    assert_eq!(postgres::count(&stream.database_url, letters).await, 1, "the document is a dead letter that says why");
    assert_eq!(
        postgres::count(&stream.database_url, "SELECT count(*) FROM attempts").await,
        0,
        "no attempt is recorded any more"
    );
    stream.assert_exactly_once_except(RECORDS as i64, 0, 1).await;
}
