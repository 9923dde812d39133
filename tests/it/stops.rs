//! A pipeline stops on every worker when too many records become dead letters, and continues at its position once it is resumed.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::harness::free_port;
use crate::harness::kafka::{self, NewRecord};
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};
use crate::test_stream::{PIPELINE, TASKS, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(long, too_many_dead_letters_stop_the_pipeline_until_it_is_resumed),
        trial!(long, a_pipeline_stopped_by_hand_stands_still_on_every_worker),
        trial!(Needs::KAFKA, a_few_dead_letters_stop_nothing),
    ]
}

/// Sends records, of which those that `poison` chooses are no JSON.
async fn send(stream: &TestStream, records: std::ops::Range<usize>, poison: impl Fn(usize) -> bool) {
    let record = |n: usize| {
        let payload = if poison(n) { "{".to_owned() } else { format!(r#"{{"id":"d{n}","text":"text {n}"}}"#) };
        NewRecord { partition: None, key: format!("d{n}").into_bytes(), payload: Some(payload.into_bytes()) }
    };
    stream.client.send(&stream.topic, records.map(record).collect()).await;
}

async fn get(listen: &str, path: &str) -> Option<(u16, String)> {
    let response = reqwest::get(format!("http://{listen}{path}")).await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

async fn is_stopped(stream: &TestStream) -> bool {
    stream.store.pipeline_stop(PIPELINE).await.unwrap().is_some()
}

/// Checks that the position does not move for longer than a worker takes to notice a change.
async fn assert_still(stream: &TestStream, when: &str) {
    let before = stream.committed().await;
    sleep(Duration::from_secs(4)).await;
    assert_eq!(stream.committed().await, before, "the position moved {when}");
    stream.audit(when).await;
}

async fn too_many_dead_letters_stop_the_pipeline_until_it_is_resumed() {
    const RECORDS: i64 = 1_700;
    const POISON: std::ops::Range<usize> = 600..1_100;
    let stream = TestStream::new(kafka::shared().await, 2).await;
    let listen = format!("127.0.0.1:{}", free_port());
    // Every other record is poison; the keys spread them over both partitions.
    let is_poison = |n: usize| POISON.contains(&n) && n.is_multiple_of(2);
    send(&stream, 0..600, is_poison).await;
    let mut worker = stream.worker_at(&listen, "");
    eventually("the valid records are committed", Duration::from_secs(60), || async { stream.committed().await == 600 }).await;
    assert!(!is_stopped(&stream).await, "sound records stopped the pipeline");
    send(&stream, 600..RECORDS as usize, is_poison).await;

    eventually("the pipeline stops", Duration::from_secs(60), || async { is_stopped(&stream).await }).await;
    let dead = "SELECT coalesce(sum(records), 0)::bigint FROM faults";
    let dead = postgres::count(&stream.database_url, dead).await;
    assert!(dead > 200, "it stopped at {dead} dead letters, no more than a fifth of 1,000");
    eventually("/readyz says so", Duration::from_secs(20), || async {
        matches!(get(&listen, "/readyz").await, Some((503, text)) if text.contains("pipeline echo"))
    })
    .await;
    let (_, text) = get(&listen, "/readyz").await.unwrap();
    for word in ["malformed_json", "%", "tidemill pipelines resume echo", "the latest: "] {
        assert!(text.contains(word), "/readyz says {text}, which lacks {word}");
    }
    let (_, metrics) = get(&listen, "/metrics").await.unwrap();
    assert!(metrics.contains(r#"tidemill_pipeline_stopped{class="malformed_json",pipeline="echo"} 1"#), "{metrics}");
    assert_eq!(get(&listen, "/healthz").await.unwrap().0, 200, "the process is not alive");
    let committed = stream.committed().await;
    // If one partition is finished before the other begins, its valid records come before the other's poison.
    assert!(committed < 1_450, "{committed} records were committed before the stop");
    let mut second = stream.worker("");
    assert_still(&stream, "while the pipeline was stopped, and another worker had started").await;
    second.signal(Signal::SIGTERM);
    assert!(second.wait(Duration::from_secs(20)).success(), "a worker with a stopped pipeline did not stop in good order");
    worker.kill();
    let worker = stream.worker_at(&listen, "");
    assert_still(&stream, "after a restart").await;

    let listed = &stream.answer(&["pipelines", "list"])["pipelines"][0];
    assert_eq!((listed["state"].as_str(), listed["class"].as_str()), (Some("stopped"), Some("malformed_json")), "{listed}");
    let mut resumed = 0;
    while stream.committed().await < RECORDS {
        if is_stopped(&stream).await {
            let before = stream.committed().await;
            stream.command(&["pipelines", "resume", PIPELINE]);
            resumed += 1;
            assert!(resumed <= 3, "the pipeline stopped again after every resume");
            eventually("the pipeline goes on", Duration::from_secs(60), || async {
                stream.committed().await >= (before + 100).min(RECORDS)
            })
            .await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(resumed > 0, "the pipeline was never resumed");
    eventually("/readyz is 200", Duration::from_secs(30), || async { matches!(get(&listen, "/readyz").await, Some((200, _))) })
        .await;
    let (_, metrics) = get(&listen, "/metrics").await.unwrap();
    assert!(!metrics.contains("tidemill_pipeline_stopped{"), "a pipeline that runs is reported as stopped:\n{}", worker.log());
    stream.drained(RECORDS, Duration::from_secs(60)).await;
    stream.audit("at the end").await;
    let count = |query: &'static str| postgres::count(&stream.database_url, query);
    let poison = (0..RECORDS as usize).filter(|&n| is_poison(n)).count() as i64;
    assert_eq!(count("SELECT count(*) FROM dead_letters").await, poison, "a dead letter for each");
    assert_eq!(count("SELECT count(*) FROM documents").await, RECORDS - poison, "all other documents are there");
    let units = count("SELECT sum(units_ok + units_dead)::bigint FROM batches").await;
    assert_eq!(units, RECORDS * TASKS, "each task ran once for each record");
}

async fn a_pipeline_stopped_by_hand_stands_still_on_every_worker() {
    let stream = TestStream::new(kafka::shared().await, 2).await;
    let _workers = [stream.worker("commit-before-stage=sleep(50)"), stream.worker("commit-before-stage=sleep(50)")];
    stream.send(0..2_000).await;
    eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    stream.command(&["pipelines", "stop", PIPELINE, "--reason", "the index is rebuilt"]);
    // A commit that was in progress still succeeds.
    sleep(Duration::from_secs(1)).await;
    let stopped = stream.committed().await;
    assert!(stopped < 2_000, "it was stopped after it had finished");
    assert_still(&stream, "while the pipeline was stopped by hand").await;
    let stop = stream.store.pipeline_stop(PIPELINE).await.unwrap().unwrap();
    assert!(stop.class.is_none() && stop.reason.starts_with("the index is rebuilt; resume it with"), "{stop:?}");
    let noted = postgres::count(&stream.database_url, "SELECT count(*) FROM under_way").await;
    assert_eq!(noted, 0, "the workers left suspect ranges behind");
    stream.command(&["pipelines", "resume", PIPELINE]);
    stream.drained(2_000, Duration::from_secs(60)).await;
    stream.assert_exactly_once(2_000, 0).await;
}

async fn a_few_dead_letters_stop_nothing() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    // The first ten records are poison, then one in ten: never more than a fifth of a window of at least a hundred.
    send(&stream, 0..400, |n| n < 10 || n.is_multiple_of(10)).await;
    let _worker = stream.worker("");
    stream.drained(400, Duration::from_secs(60)).await;
    assert!(!is_stopped(&stream).await, "the pipeline stopped");
    stream.audit("at the end").await;
}
