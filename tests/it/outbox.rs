//! An event that a topic refuses delays no other: not those of other topics or keys, nor later ones.

use std::time::Duration;

use libtest_mimic::Trial;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::harness::kafka::{self, Client, NewRecord};
use crate::harness::readiness::{assert_ready, listen, readiness, says};
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(long, an_event_too_large_for_its_topic_is_parked_and_holds_nothing_up),
        trial!(long, a_dead_letter_too_large_for_its_topic_goes_without_its_payload),
        trial!(long, a_topic_that_is_missing_holds_up_no_other_and_is_told_all_the_while),
        trial!(long, an_event_refused_with_its_neighbours_takes_none_of_them_along),
    ]
}

/// The largest batch that the limited topics take, in bytes.
const LIMIT: usize = 65_536;

/// A text that hardly compresses.
fn noise(seed: &str, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 64);
    for n in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(blake3::hash(format!("{seed} {n}").as_bytes()).to_hex().as_str());
    }
    text
}

fn pipeline(name: &str, topic: &str, sinks: &str) -> String {
    format!(
        "version: 1\nname: {name}\nsource: {{ topic: {topic}, id: id, text: \"{{{{ text }}}}\" }}\n\
         tasks: {{ echo: {{ render: {{ template: \"{{{{ document.text }}}}\" }} }} }}\n\
         sinks: {{ {sinks} }}\nbudget: {{ max_wait: 50ms, max_records: 50 }}\n"
    )
}

async fn send(client: &Client, topic: &str, documents: &[(&str, &str)]) {
    let record = |(id, text): &(&str, &str)| NewRecord {
        partition: None,
        key: id.as_bytes().to_vec(),
        payload: Some(json!({ "id": id, "text": text }).to_string().into_bytes()),
    };
    client.send(topic, documents.iter().map(record).collect()).await;
}

/// The records of a topic of one partition.
async fn read(client: &Client, topic: &str) -> Vec<OwnedMessage> {
    let (mut config, topic) = (client.config(), topic.to_owned());
    let read = move || {
        let consumer: BaseConsumer = config.set("group.id", "none").create().unwrap();
        let (low, high) = consumer.fetch_watermarks(&topic, 0, Duration::from_secs(20)).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(low)).unwrap();
        consumer.assign(&list).unwrap();
        (low..high).map(|_| consumer.poll(Duration::from_secs(20)).expect("the topic ends early").unwrap().detach()).collect()
    };
    spawn_blocking(read).await.unwrap()
}

/// Document and text of each event, in order.
async fn results(client: &Client, topic: &str) -> Vec<(String, String)> {
    let event = |record: &OwnedMessage| {
        let body: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        (body["document_id"].as_str().unwrap().to_owned(), body["text"].as_str().unwrap().chars().take(20).collect())
    };
    read(client, topic).await.iter().map(event).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(id, text)| ((*id).to_owned(), text.chars().take(20).collect())).collect()
}

async fn eventually_results(client: &Client, topic: &str, expected: &[(&str, &str)]) {
    let expected = pairs(expected);
    let what = format!("{topic} holds {expected:?}");
    eventually(&what, Duration::from_secs(60), || async { results(client, topic).await == expected }).await;
}

async fn parked(stream: &TestStream, condition: &str) -> i64 {
    postgres::count(&stream.database_url, &format!("SELECT count(*) FROM parked_events WHERE {condition}")).await
}

async fn metrics(listen: &str) -> String {
    reqwest::get(format!("http://{listen}/metrics")).await.unwrap().text().await.unwrap()
}

/// A running worker with two pipelines: one whose events go to the test's topic, and one that works.
struct PairOfPipelines {
    /// The stream of the first pipeline.
    stream: TestStream,
    /// The topic that the second reads.
    documents: String,
    /// The topic that the second publishes to.
    wide: String,
    listen: String,
    worker: Worker,
}

impl PairOfPipelines {
    async fn start(name: &str, results: &str) -> Self {
        let client = kafka::shared().await;
        let stream = TestStream::new(client.clone(), 1).await;
        let (documents, wide) = (client.topic("documents", 1).await, client.topic("results", 1).await);
        stream.write_pipeline(&pipeline(name, &stream.topic, &format!("topic: {{ name: {results} }}")));
        let other = pipeline("other", &documents, &format!("topic: {{ name: {wide} }}"));
        std::fs::write(stream.path("pipelines").join("other.yaml"), other).unwrap();
        let listen = listen();
        let worker = stream.worker_at(&listen, "");
        assert_ready(&listen, &worker).await;
        Self { stream, documents, wide, listen, worker }
    }
}

async fn an_event_too_large_for_its_topic_is_parked_and_holds_nothing_up() {
    let client = kafka::shared().await;
    let narrow = client.topic_with_limit("results", LIMIT).await;
    let PairOfPipelines { stream, documents, wide, listen, worker: _worker } = PairOfPipelines::start("large", &narrow).await;

    let large = noise("large", 200_000);
    let small = [("before", "small"), ("large", "small"), ("after", "small")];
    send(&client, &stream.topic, &[("before", "small"), ("large", &large), ("after", "small")]).await;
    send(&client, &documents, &small).await;
    eventually_results(&client, &wide, &small).await;
    eventually_results(&client, &narrow, &[("before", "small"), ("after", "small")]).await;
    eventually("the event is parked", Duration::from_secs(30), || async { parked(&stream, "true").await == 1 }).await;

    let listed = stream.answer(&["outbox", "list"]);
    let [event] = listed["parked"].as_array().unwrap().as_slice() else { panic!("{listed}") };
    let reason = event["reason"].as_str().unwrap();
    for part in [&*format!("topic {narrow}"), "document `large`", "is 65536", "tidemill outbox drop"] {
        assert!(reason.contains(part), "{reason} does not say `{part}`");
    }
    assert_eq!(
        (&event["pipeline"], &event["state"], &listed["waiting"]),
        (&json!("large"), &json!("parked"), &json!({})),
        "{listed}"
    );
    let told: Value = reqwest::get(format!("http://{listen}/v1/parked-events")).await.unwrap().json().await.unwrap();
    assert_eq!((&told["events"][0]["id"], &told["events"][0]["overtaken"]), (&event["id"], &json!(false)), "{told}");
    let gauge = format!("tidemill_outbox_parked_rows{{topic=\"{narrow}\"}} 1");
    eventually("the metric reports it", Duration::from_secs(10), || async { metrics(&listen).await.contains(&gauge) }).await;
    for _ in 0..20 {
        let (status, said) = readiness(&listen).await.unwrap();
        assert_eq!(status, 200, "one parked event must not make the process unready: {said}");
        sleep(Duration::from_millis(100)).await;
    }

    // Once the topic takes it, the event is sent with the id that it had.
    let id = event["id"].as_i64().unwrap().to_string();
    client.allow(&narrow, 10_000_000).await;
    assert_eq!(stream.answer(&["outbox", "resend", &id]), json!({ "events": 1, "overtaken": 0 }));
    eventually_results(&client, &narrow, &[("before", "small"), ("after", "small"), ("large", &large)]).await;
    eventually("nothing is parked any more", Duration::from_secs(10), || async {
        parked(&stream, "true").await == 0
            && !metrics(&listen).await.contains(&format!("tidemill_outbox_parked_rows{{topic=\"{narrow}\"}}"))
    })
    .await;

    // An event that is sent after a later one of its key would look like the newer.
    client.allow(&narrow, LIMIT).await;
    send(&client, &stream.topic, &[("late", &noise("late", 200_000))]).await;
    eventually("the next is parked", Duration::from_secs(30), || async { parked(&stream, "NOT overtaken").await == 1 }).await;
    send(&client, &stream.topic, &[("late", "newer")]).await;
    eventually("it is overtaken", Duration::from_secs(30), || async { parked(&stream, "overtaken").await == 1 }).await;
    client.allow(&narrow, 10_000_000).await;
    assert_eq!(stream.answer(&["outbox", "resend", "--all"]), json!({ "events": 0, "overtaken": 1 }));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        results(&client, &narrow).await.pop().unwrap(),
        ("late".to_owned(), "newer".to_owned()),
        "an older event came after a newer"
    );
    assert_eq!(stream.answer(&["outbox", "drop", "--topic", &narrow]), json!({ "events": 1 }));
    assert_eq!(parked(&stream, "true").await, 0);
    stream.audit("at the end").await;
}

async fn a_dead_letter_too_large_for_its_topic_goes_without_its_payload() {
    let client = kafka::shared().await;
    let stream = TestStream::new(client.clone(), 1).await;
    let letters = client.topic_with_limit("dead-letters", LIMIT).await;
    stream.write_pipeline(&pipeline(PIPELINE, &stream.topic, &format!("dead_letters: {{ name: {letters} }}")));
    let _worker = stream.worker("");
    let dead = |key: &str, text: &str| NewRecord {
        partition: None,
        key: key.as_bytes().to_vec(),
        payload: Some(json!({ "title": text }).to_string().into_bytes()),
    };
    let large = noise("letter", 200_000);
    client.send(&stream.topic, vec![dead("a", "small"), dead("b", &large), dead("c", "small")]).await;
    let what = "all three dead letters are on their topic";
    eventually(what, Duration::from_secs(60), || async { read(&client, &letters).await.len() == 3 }).await;
    let records = read(&client, &letters).await;
    let bare = records.iter().find(|record| record.key() == Some(b"b")).unwrap();
    assert_eq!(bare.payload(), Some(b"".as_slice()), "without any payload it would delete the key's last record");
    let headers: Vec<(String, String)> = bare
        .headers()
        .unwrap()
        .iter()
        .map(|h| (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap()).into_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("tidemill-payload-topic"), Some(stream.topic.as_str()), "{headers:?}");
    assert_eq!((header("tidemill-payload-partition"), header("tidemill-payload-offset")), (Some("0"), Some("1")), "{headers:?}");
    assert_eq!(header("tidemill-payload-bytes"), Some((large.len() + 12).to_string().as_str()), "{headers:?}");
    assert_eq!(header("tidemill-class"), Some("missing_field"), "{headers:?}");
    assert!(records.iter().filter(|record| record.key() != Some(b"b")).all(|record| !record.payload().unwrap().is_empty()));
    assert_eq!(parked(&stream, "true").await, 0);
    stream.drained(3, Duration::from_secs(30)).await;
}

async fn a_topic_that_is_missing_holds_up_no_other_and_is_told_all_the_while() {
    let client = kafka::shared().await;
    let missing = Client::name("results");
    let PairOfPipelines { stream, documents, wide, listen, worker } = PairOfPipelines::start("lost", &missing).await;
    for (waiting, (id, text)) in (1..).zip([("a", "one"), ("b", "one"), ("a", "two")]) {
        send(&client, &stream.topic, &[(id, text)]).await;
        eventually("the result is committed", Duration::from_secs(30), || async {
            postgres::count(&stream.database_url, "SELECT count(*) FROM outbox").await == waiting
        })
        .await;
    }
    send(&client, &documents, &[("x", "one")]).await;
    eventually_results(&client, &wide, &[("x", "one")]).await;
    says(&listen, &worker, &format!("topic {missing}")).await;
    // The broker works, and other topics take events.
    for n in 0..30 {
        if n % 5 == 0 {
            send(&client, &documents, &[("y", &n.to_string())]).await;
        }
        let (status, said) = readiness(&listen).await.unwrap();
        assert!(status == 503 && said.contains(&missing), "/readyz forgets the topic: {status} {said}");
        sleep(Duration::from_millis(200)).await;
    }
    let blocked = format!("tidemill_topic_blocked{{topic=\"{missing}\"}} 1");
    assert!(metrics(&listen).await.contains(&blocked), "no metric reports the topic");
    assert_eq!(parked(&stream, "true").await, 0, "no event is parked");
    client.topic_named(&missing).await;
    assert_ready(&listen, &worker).await;
    let found = results(&client, &missing).await;
    assert_eq!(
        found.iter().filter(|(id, _)| id == "a").map(|(_, text)| text.as_str()).collect::<Vec<_>>(),
        ["one", "two"],
        "{found:?}"
    );
    assert!(!metrics(&listen).await.contains("tidemill_topic_blocked{"), "the metric stays");
}

/// Every event is small enough for the topic, but the batches that the client library makes of them are not, and are refused as a
/// whole.
async fn an_event_refused_with_its_neighbours_takes_none_of_them_along() {
    let client = kafka::shared().await;
    let stream = TestStream::new(client.clone(), 1).await;
    let narrow = client.topic_with_limit("results", 4_000).await;
    let text = pipeline(PIPELINE, &stream.topic, &format!("topic: {{ name: {narrow} }}"));
    // Each document comes in two batches, so that two events of its key may wait at the same time.
    stream.write_pipeline(&text.replace("max_records: 50", "max_records: 20"));
    let documents: Vec<(String, String)> = (0..40).map(|n| (format!("d{}", n % 20), noise(&n.to_string(), 1_500))).collect();
    let documents: Vec<(&str, &str)> = documents.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    send(&client, &stream.topic, &documents).await;
    let _worker = stream.worker("");
    stream.drained(40, Duration::from_secs(60)).await;
    assert_eq!(parked(&stream, "true").await, 0, "each of them is small enough alone");
    let found = results(&client, &narrow).await;
    for id in (0..20).map(|n| format!("d{n}")) {
        let last = found.iter().rfind(|(found, _)| *found == id).map(|(_, text)| text.as_str());
        let newest: String = documents.iter().rfind(|(known, _)| *known == id).unwrap().1.chars().take(20).collect();
        assert_eq!(last, Some(newest.as_str()), "the last event of {id} is not of its last version");
    }
}
