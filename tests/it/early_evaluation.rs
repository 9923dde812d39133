//! Early evaluation: while a batch waits for more records, its first records are evaluated already. The outcome is the same as
//! without.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::harness::kafka::{self, NewRecord};
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::KAFKA, a_batch_is_begun_with_while_it_waits_and_is_committed_as_one),
        trial!(Needs::KAFKA, a_delete_without_a_version_ends_what_the_batch_before_it_brings),
    ]
}

/// A stream of one partition whose pipeline has that budget.
async fn stream(budget: &str) -> TestStream {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let (topic, results) = (&stream.topic, &stream.results);
    stream.write_pipeline(&format!(
        "version: 1\nname: {PIPELINE}\n\
         source: {{ topic: {topic}, id: id, version: revision, text: \"{{{{ text }}}}\" }}\n\
         tasks: {{ only: {{ render: {{ template: \"{{{{ document.text }}}}!\" }} }} }}\n\
         sinks: {{ postgres: {{}}, parquet: {{ dataset: results }}, topic: {{ name: {results} }} }}\n\
         budget: {{ {budget} }}\n"
    ));
    stream
}

fn revision(document: usize, revision: usize) -> NewRecord {
    let payload = format!(r#"{{"id":"d{document}","revision":{revision},"text":"text {revision}"}}"#);
    NewRecord { partition: None, key: format!("d{document}").into_bytes(), payload: Some(payload.into_bytes()) }
}

fn delete(document: usize) -> NewRecord {
    NewRecord { partition: None, key: format!("d{document}").into_bytes(), payload: None }
}

async fn evaluated(stream: &TestStream, to: i64) {
    let position = async || postgres::count(&stream.database_url, "SELECT coalesce(max(begun_to), 0) FROM under_way").await;
    eventually(&format!("the worker evaluates what comes before {to}"), Duration::from_secs(60), || async {
        position().await == to
    })
    .await;
}

async fn a_batch_is_begun_with_while_it_waits_and_is_committed_as_one() {
    // Long enough that a slow machine sees the early evaluation before the commit.
    let stream = stream("max_wait: 8s").await;
    let count = |query: &'static str| postgres::count(&stream.database_url, query);
    let mut worker = stream.worker("");
    let first = [revision(0, 1), revision(1, 1), revision(2, 1), revision(3, 5), revision(4, 1)];
    stream.client.send(&stream.topic, first.into()).await;
    evaluated(&stream, 4).await;
    assert_eq!(stream.committed().await, 0, "what was evaluated early is not committed before the rest");
    // A newer version, a delete and an older version of documents that were evaluated early, and a new document.
    stream.client.send(&stream.topic, vec![revision(1, 2), delete(2), revision(3, 4), revision(5, 1)]).await;
    stream.drained(9, Duration::from_secs(60)).await;
    assert_eq!(count("SELECT count(*) FROM batches").await, 1, "the early part and the rest are committed as one batch");
    assert_eq!(count("SELECT sum(units_ok)::bigint FROM batches").await, 6, "d0, d1, the delete of d2, d3, d4 and d5");
    assert_eq!(count("SELECT sum(units_skipped)::bigint FROM batches").await, 3, "both of d1 and d2, one of d3");
    let rows =
        "SELECT count(*) FROM results WHERE (document_id, version) IN (('d0', 1), ('d1', 2), ('d3', 5), ('d4', 1), ('d5', 1))";
    assert_eq!((count(rows).await, count("SELECT count(*) FROM results").await), (5, 5));

    stream.client.send(&stream.topic, (6..11).map(|n| revision(n, 1)).collect()).await;
    evaluated(&stream, 13).await;
    worker.signal(Signal::SIGTERM);
    worker.wait(Duration::from_secs(30));
    assert_eq!(stream.committed().await, 13, "a worker that stops commits what it has evaluated, and evaluates nothing more");
    let _second = stream.worker("");
    stream.drained(14, Duration::from_secs(60)).await;
    assert_eq!(count("SELECT count(*) FROM results").await, 10);
    stream.audit("at the end").await;
    stream.positions.assert_nothing_fell();
}

async fn a_delete_without_a_version_ends_what_the_batch_before_it_brings() {
    const DOCUMENTS: usize = 20;
    let stream = stream("max_wait: 50ms, max_records: 1").await;
    let count = |query: &'static str| postgres::count(&stream.database_url, query);
    let _worker = stream.worker("");
    stream.client.send(&stream.topic, (0..DOCUMENTS).map(|n| revision(n, 1)).collect()).await;
    stream.drained(DOCUMENTS as i64, Duration::from_secs(60)).await;
    // The delete is evaluated while the batch with the document's second version is not committed, and the ledger has the first
    // version.
    stream.client.send(&stream.topic, (0..DOCUMENTS).flat_map(|n| [revision(n, 2), delete(n)]).collect()).await;
    stream.drained(3 * DOCUMENTS as i64, Duration::from_secs(60)).await;
    let deleted = "SELECT count(*) FROM documents WHERE deleted AND version = 2";
    assert_eq!(count(deleted).await, DOCUMENTS as i64, "a delete is lost, or forgets what version it ended");
    assert_eq!(count("SELECT count(*) FROM results").await, 0);
    stream.audit("at the end").await;
}
