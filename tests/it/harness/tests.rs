//! Tests of the harness itself: what it starts works and ends with the tests.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tidemill::demo::postgres::{PostgresOptions, PrivatePostgres};

use crate::harness::kafka::{self, Broker, NewRecord};
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, open_folder, parent_process, postgres};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, each_test_has_a_migrated_database_with_vectors),
        trial!(Needs::NOTHING, a_postgres_that_was_killed_comes_back_with_its_rows),
        trial!(Needs::NOTHING, a_data_folder_serves_one_process_at_a_time),
        trial!(Needs::NOTHING, a_data_folder_that_only_root_enters_still_holds_a_database),
        trial!(Needs::NOTHING, children_end_when_their_parent_is_killed),
        trial!(Needs::KAFKA, kafka_gives_back_what_was_sent),
        trial!(Needs::KAFKA.alone(), a_kafka_that_was_stopped_resumes_with_its_records),
    ]
}

async fn each_test_has_a_migrated_database_with_vectors() {
    let (one, other) = (postgres::database().await, postgres::database().await);
    one.store.ping().await.unwrap();
    postgres::execute(&one.url, "CREATE TABLE mine (); INSERT INTO mine DEFAULT VALUES").await;
    let vectors = postgres::count(&one.url, "SELECT count(*) FROM pg_extension WHERE extname = 'vector'").await;
    assert_eq!(vectors, 1, "pgvector is not there");
    let distance = postgres::count(&one.url, "SELECT ('[3,4]'::vector <-> '[0,0]'::vector)::bigint").await;
    assert_eq!(distance, 5, "pgvector cannot count");
    let seen = postgres::count(&other.url, "SELECT count(*) FROM pg_tables WHERE tablename = 'mine'").await;
    assert_eq!(seen, 0, "two tests share a database");
}

async fn a_postgres_that_was_killed_comes_back_with_its_rows() {
    let mut server = tokio::task::spawn_blocking(postgres::Server::start).await.unwrap();
    postgres::execute(server.url(), "CREATE TABLE kept (); INSERT INTO kept DEFAULT VALUES").await;
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.resume();
        server
    })
    .await
    .unwrap();
    assert_eq!(postgres::count(server.url(), "SELECT count(*) FROM kept").await, 1, "a committed row is gone after a crash");
}

async fn a_data_folder_serves_one_process_at_a_time() {
    let folder = open_folder();
    let options = PostgresOptions { data_dir: folder.path().to_owned(), port: None, durable: false };
    let second = tokio::task::spawn_blocking(move || {
        let _first = PrivatePostgres::start(&options, &|_| {}).unwrap();
        PrivatePostgres::start(&options, &|_| {}).map(drop)
    });
    let error = second.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("in use by another tidemill"), "the second process reads: {error}");
}

/// `mktemp -d` makes folders with these permissions, and root's home has them too.
async fn a_data_folder_that_only_root_enters_still_holds_a_database() {
    let closed = std::fs::Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().permissions(closed).tempdir().unwrap();
    let options = PostgresOptions { data_dir: folder.path().join("data"), port: None, durable: false };
    let server = tokio::task::spawn_blocking({
        let options = options.clone();
        move || PrivatePostgres::start(&options, &|_| {}).unwrap()
    });
    let server = server.await.unwrap();
    postgres::execute(server.url(), "CREATE TABLE kept ()").await;
    let again = tokio::task::spawn_blocking(move || {
        server.stop();
        PrivatePostgres::start(&options, &|_| {}).unwrap()
    });
    let again = again.await.unwrap();
    let kept = postgres::count(again.url(), "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'").await;
    assert_eq!(kept, 1, "the second start found another database");
    assert!(folder.path().join("data/postgres").exists(), "the data folder does not lead to its database");
}

async fn children_end_when_their_parent_is_killed() {
    let folder = open_folder();
    let report = folder.path().join("child");
    let mut parent = Command::new(std::env::current_exe().unwrap()).env(parent_process::ROLE, &report).spawn().unwrap();
    eventually("the parent reports a child", Duration::from_secs(10), async || report_of(&report).is_some()).await;
    let child = format!("/proc/{}", report_of(&report).unwrap());
    assert!(Path::new(&child).exists(), "the child does not run while its parent does");
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the child ends after its parent was killed", Duration::from_secs(5), async || !Path::new(&child).exists()).await;
}

fn report_of(file: &Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}

async fn kafka_gives_back_what_was_sent() {
    let client = kafka::shared().await;
    let topic = client.topic("smoke", 1).await;
    let send = |n: usize| NewRecord {
        partition: Some(0),
        key: vec![b'k'],
        payload: (n > 0).then(|| format!("record {n}").into_bytes()),
    };
    client.send(&topic, (0..3).map(send).collect()).await;
    let read = tokio::task::spawn_blocking(move || read(&client, &topic, 3)).await.unwrap();
    assert_eq!(read, [None, Some("record 1".to_owned()), Some("record 2".to_owned())]);
}

async fn a_kafka_that_was_stopped_resumes_with_its_records() {
    let mut broker = tokio::task::spawn_blocking(Broker::start).await.unwrap();
    let client = broker.client();
    let topic = client.topic("outage", 1).await;
    client.send(&topic, vec![NewRecord { partition: Some(0), key: vec![], payload: Some(b"before".to_vec()) }]).await;
    let read = tokio::task::spawn_blocking(move || {
        broker.stop();
        broker.resume();
        read(&client, &topic, 1)
    });
    assert_eq!(read.await.unwrap(), [Some("before".to_owned())], "a record is gone after the broker was stopped");
}

/// The first `count` payloads of the topic's partition 0.
fn read(client: &kafka::Client, topic: &str, count: usize) -> Vec<Option<String>> {
    let consumer: BaseConsumer = client.config().set("group.id", "smoke").create().unwrap();
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&start).unwrap();
    let next = || {
        let message = consumer.poll(Duration::from_secs(20)).expect("no record within 20 s").unwrap();
        message.payload().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    };
    (0..count).map(|_| next()).collect()
}
