//! Postgres is stopped, frozen or killed, or its network loses replies.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use reqwest::Url;
use tidemill::config::DatabaseConfig;
use tidemill::store::{NewJob, Store};
use tokio::spawn;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::{ALONE, OUTAGE, assert_ready, listen, not_ready};
use crate::harness::postgres::{self, Server};
use crate::harness::proxy::Proxy;
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, kafka};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(ALONE, a_database_that_is_gone_for_20_seconds_pauses_the_stream),
        trial!(ALONE, a_frozen_database_is_noticed_and_then_killed_and_costs_nothing),
        trial!(ALONE, sessions_ended_every_2_seconds_cost_nothing),
        trial!(ALONE, a_reply_to_a_commit_that_the_network_loses_is_looked_up),
        trial!(ALONE, connections_that_the_network_swallows_are_given_up),
        trial!(Needs::NOTHING, a_change_of_a_job_that_the_network_swallows_is_given_up),
    ]
}

/// A stream on a Postgres server of its own.
async fn alone(partitions: i32) -> (TestStream, Server) {
    let server = spawn_blocking(Server::start).await.unwrap();
    let config = DatabaseConfig { url: Some(server.url().to_owned()), ..DatabaseConfig::default() };
    let store = Store::connect(&config).unwrap();
    store.migrate().await.unwrap();
    let stream = TestStream::on(kafka::shared().await, partitions, (store, server.url().to_owned())).await;
    (stream, server)
}

/// A stream whose workers reach its Postgres only through a proxy.
async fn proxied(partitions: i32) -> (TestStream, Server, Proxy) {
    let (mut stream, server) = alone(partitions).await;
    let proxy = Proxy::before_postgres(server.port()).await;
    let (from, to) = (format!(":{}/", server.port()), format!(":{}/", proxy.port()));
    stream.route_to_database = stream.database_url.replace(&from, &to);
    assert_ne!(stream.route_to_database, stream.database_url);
    (stream, server, proxy)
}

async fn a_database_that_is_gone_for_20_seconds_pauses_the_stream() {
    let (stream, mut server) = alone(2).await;
    let url = listen();
    let worker = stream.worker_at(&url, "");
    stream.send(0..200).await;
    stream.drained(200, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    block_in_place(|| server.stop());
    stream.send(200..400).await;
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("database"), "/readyz says {reason} while the database is gone");
    sleep(OUTAGE).await;
    block_in_place(|| server.resume());

    stream.drained(400, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(400, 0).await;
}

/// First every process of the server is frozen, as on a host that swaps too much: connections stay open and nothing answers.
/// Then the server continues, freezes again, and is killed.
async fn a_frozen_database_is_noticed_and_then_killed_and_costs_nothing() {
    const RECORDS: usize = 3000;
    let (stream, mut server) = alone(2).await;
    let url = listen();
    let worker = stream.worker_at(&url, "commit-before-commit=sleep(50)");
    stream.send(0..RECORDS / 2).await;
    eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    assert_ready(&url, &worker).await;

    server.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let reason = not_ready(&url, &worker).await;
    let noticed = frozen.elapsed();
    assert!(reason.contains("database"), "/readyz says {reason} while the database is frozen");
    assert!(noticed < Duration::from_secs(30), "a frozen database was noticed only after {noticed:?}");
    server.signal(Signal::SIGCONT);
    assert_ready(&url, &worker).await;
    stream.send(RECORDS / 2..RECORDS).await;

    server.signal(Signal::SIGSTOP);
    sleep(Duration::from_secs(2)).await;
    // Every process must be killed: a frozen one does not notice that the first process is gone.
    server.signal(Signal::SIGKILL);
    block_in_place(|| {
        server.kill();
        server.resume();
    });
    stream.drained(RECORDS as i64, Duration::from_secs(90)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}

async fn sessions_ended_every_2_seconds_cost_nothing() {
    const RECORDS: usize = 4000;
    const ENDINGS: usize = 6;
    let stream = TestStream::new(kafka::shared().await, 4).await;
    let _workers = [stream.worker("commit-before-commit=sleep(100)"), stream.worker("commit-before-commit=sleep(100)")];
    stream.send(0..RECORDS).await;
    eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let mut ended = 0;
    for _ in 0..ENDINGS {
        ended += postgres::count(&stream.database_url, end).await;
        sleep(Duration::from_secs(2)).await;
    }
    assert!(ended >= ENDINGS as i64, "hardly any session was ended");
    stream.drained(RECORDS as i64, Duration::from_secs(90)).await;
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}

async fn a_reply_to_a_commit_that_the_network_loses_is_looked_up() {
    const RECORDS: usize = 1000;
    const LOST: usize = 3;
    let (stream, _server, proxy) = proxied(2).await;
    let _worker = stream.worker("");
    stream.send(0..RECORDS / 2).await;
    stream.drained(RECORDS as i64 / 2, Duration::from_secs(60)).await;
    proxy.lose_replies_to_commit(LOST);
    stream.send(RECORDS / 2..RECORDS).await;
    stream.drained(RECORDS as i64, Duration::from_secs(60)).await;
    assert_eq!(proxy.lost(), LOST, "the proxy was to lose replies");
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}

/// Like a firewall that forgets connections: in the middle of transactions nothing passes any more, and the sockets stay open.
async fn connections_that_the_network_swallows_are_given_up() {
    const RECORDS: usize = 3000;
    let (mut stream, _server, proxy) = proxied(2).await;
    stream.settings = "[database]\ndeadline_seconds = 4\n".to_owned();
    stream.configure(&stream.path("data"));
    let worker = stream.worker("commit-before-commit=sleep(50)");
    stream.send(0..RECORDS).await;
    for _ in 0..2 {
        let before = stream.committed().await;
        eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > before }).await;
        assert!(stream.committed().await < RECORDS as i64, "there was nothing left to do when the network swallowed it");
        proxy.swallow();
    }
    stream.drained(RECORDS as i64, Duration::from_secs(150)).await;
    assert!(worker.log().contains("no answer within 4 s"), "no connection was abandoned:\n{}", worker.log());
    stream.assert_exactly_once(RECORDS as i64, 0).await;
}

/// A change of a job waits for a row that another transaction holds, and the server's reply to it never arrives.
async fn a_change_of_a_job_that_the_network_swallows_is_given_up() {
    let database = postgres::database().await;
    let job = NewJob {
        id: "a".into(),
        kind: "rerun".into(),
        pipeline: "p".into(),
        spec: "{}".into(),
        priority: 0,
        deadline_ms: None,
        budget_micros: None,
        schedule: None,
    };
    database.store.submit_job(&job, "events").await.unwrap();
    let mut address = Url::parse(&database.url).unwrap();
    let proxy = Proxy::before_postgres(address.port().unwrap()).await;
    address.set_port(Some(proxy.port())).unwrap();
    let config = DatabaseConfig { url: Some(address.into()), deadline_seconds: Some(3), ..DatabaseConfig::default() };
    let store = Store::connect(&config).unwrap();

    let url = database.url.clone();
    let held = "BEGIN; UPDATE jobs SET priority = 1; SELECT pg_sleep(5); COMMIT";
    let holder = spawn(async move { postgres::execute(&url, held).await });
    sleep(Duration::from_millis(500)).await;
    let change = spawn({
        let store = store.clone();
        async move { store.cancel_job("a", "events").await }
    });
    sleep(Duration::from_millis(500)).await;
    proxy.swallow();
    let change = timeout(Duration::from_secs(20), change).await.expect("the change waits for ever").unwrap();
    let reason = change.expect_err("nobody can know what became of it").reason;
    assert!(reason.contains("no answer within 3 s"), "{reason}");
    holder.await.unwrap();
    assert!(store.cancel_job("a", "events").await.unwrap(), "another connection takes its place, and nothing had changed");
}
