//! The broker is unavailable, or the network to it is.

use std::time::Duration;

use libtest_mimic::Trial;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::sleep;

use super::{ALONE, OUTAGE, assert_ready, listen, not_ready};
use crate::harness::eventually;
use crate::harness::free_port;
use crate::harness::kafka::Broker;
use crate::harness::proxy::Proxy;
use crate::harness::trial::trial;
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(ALONE, a_broker_that_is_gone_for_20_seconds_pauses_the_stream),
        trial!(ALONE, a_worker_cut_off_from_the_broker_is_replaced_and_comes_back),
    ]
}

async fn a_broker_that_is_gone_for_20_seconds_pauses_the_stream() {
    let mut broker = spawn_blocking(Broker::start).await.unwrap();
    let stream = TestStream::new(broker.client(), 2).await;
    let url = listen();
    let worker = stream.worker_at(&url, "");
    stream.send(0..200).await;
    stream.drained(200, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    block_in_place(|| broker.stop());
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("broker"), "/readyz says {reason} while the broker is gone");
    sleep(OUTAGE).await;
    block_in_place(|| broker.resume());

    stream.send(200..400).await;
    stream.drained(400, Duration::from_secs(90)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(400, 0).await;
}

/// The worker that is cut off still reaches the ledger. Only the fence keeps it from committing partitions that the other took
/// over.
async fn a_worker_cut_off_from_the_broker_is_replaced_and_comes_back() {
    const RECORDS: usize = 2000;
    let behind = free_port();
    let proxy = Proxy::before(behind).await;
    let port = proxy.port();
    let broker = spawn_blocking(move || Broker::start_behind(behind, port)).await.unwrap();
    let mut stream = TestStream::new(broker.client(), 4).await;
    let slow = "commit-before-stage=sleep(100)";
    let _other = stream.worker(slow);
    stream.send(0..RECORDS / 2).await;
    eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    let claims = stream.claims().await;
    stream.route_to_broker = format!("127.0.0.1:{port}");
    stream.configure(&stream.path("data"));
    let url = listen();
    let worker = stream.worker_at(&url, slow);
    eventually("the second worker has partitions", Duration::from_secs(60), || async { stream.claims().await > claims }).await;
    assert_ready(&url, &worker).await;
    let claims = stream.claims().await;

    proxy.cut();
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("broker"), "/readyz says {reason} while the worker is cut off");
    stream.send(RECORDS / 2..RECORDS).await;
    // Longer than the session timeout of 6 s, after which the broker gives its partitions to the other worker.
    sleep(Duration::from_secs(9)).await;
    stream.audit("while a worker is cut off").await;
    assert!(stream.claims().await > claims, "the partitions of the worker that was cut off got no other owner");
    proxy.restore();

    stream.drained(RECORDS as i64, Duration::from_secs(90)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}
