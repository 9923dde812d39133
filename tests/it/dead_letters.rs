//! Replaying dead letters: each record goes back to its topic as it was, once, and not without end.

use std::time::Duration;

use libtest_mimic::Trial;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::json;
use tokio::task::spawn_blocking;

use crate::harness::trial::{Needs, trial};
use crate::harness::{kafka, postgres};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let long = Needs::KAFKA.within(Duration::from_secs(240));
    vec![
        trial!(long, a_replayed_record_comes_back_as_it_was_and_is_accepted_once_mended),
        trial!(long, one_record_is_sent_once_for_all_its_letters),
    ]
}

const TIMESTAMP: i64 = 1_700_000_000_000;

/// A pipeline without topic sinks; the relay must run nevertheless.
fn pipeline(topic: &str, text: &str) -> String {
    format!(
        "version: 1\nname: {PIPELINE}\nsource: {{ topic: {topic}, id: id, text: \"{{{{ {text} }}}}\" }}\n\
         tasks: {{ first: {{ render: {{ template: \"{{{{ document.text }}}}!\" }} }} }}\n\
         budget: {{ max_wait: 50ms, max_records: 50 }}\n"
    )
}

async fn dead_letters(stream: &TestStream, condition: &str) -> i64 {
    postgres::count(&stream.database_url, &format!("SELECT count(*) FROM dead_letters WHERE {condition}")).await
}

async fn a_replayed_record_comes_back_as_it_was_and_is_accepted_once_mended() {
    let stream = TestStream::new(kafka::shared().await, 3).await;
    stream.write_pipeline(&pipeline(&stream.topic, "text"));
    let (config, topic) = (stream.client.config(), stream.topic.clone());
    spawn_blocking(move || produce(config, &topic)).await.unwrap();
    let mut worker = stream.worker("");
    stream.drained(2, Duration::from_secs(60)).await;

    let listed = stream.answer(&["dead-letters", "list", "--class", "missing_field", "--since", "1h"]);
    assert_eq!(listed["counts"], json!([{ "pipeline": PIPELINE, "class": "missing_field", "letters": 2 }]), "{listed}");
    let id = listed["letters"][1]["id"].as_i64().unwrap().to_string();
    let shown = stream.answer(&["dead-letters", "show", &id]);
    assert_eq!(shown["payload"], json!({ "text": payload() }), "{shown}");
    assert_eq!(shown["headers"][1], json!({ "name": "bytes", "value": { "hex": "ff00" } }), "{shown}");
    assert!(stream.command(&["dead-letters", "show", &id]).contains("0xff00"), "the header is shown");

    let replay = |more: &[&str]| stream.answer(&[&["dead-letters", "replay", "--pipeline", PIPELINE], more].concat());
    let dry = replay(&["--dry-run"]);
    assert_eq!((&dry["records"], &dry["letters"]), (&json!(2), &json!(2)), "{dry}");
    assert_eq!(dead_letters(&stream, "replayed_at IS NULL").await, 2, "a dry run changed something");
    assert_eq!(replay(&[])["records"], 2);
    assert_eq!(replay(&[])["records"], 0, "a letter was replayed twice");
    stream.drained(4, Duration::from_secs(60)).await;
    assert_eq!(
        dead_letters(&stream, "replays = 1 AND replayed_at IS NULL").await,
        2,
        "without a fix the records became dead letters again"
    );
    assert_eq!(dead_letters(&stream, "replays = 0 AND replayed_at IS NOT NULL").await, 2, "the first letters stay");
    let refused = replay(&["--max-replays", "1"]);
    assert_eq!((&refused["records"], &refused["exhausted"]), (&json!(0), &json!(2)), "{refused}");

    worker.kill();
    stream.write_pipeline(&pipeline(&stream.topic, "title"));
    let _fixed = stream.worker("");
    assert_eq!(replay(&[])["records"], 2);
    stream.drained(6, Duration::from_secs(60)).await;
    stream.audit("after two rounds").await;
    assert_eq!(dead_letters(&stream, "true").await, 4, "the fixed pipeline refused a record");
    let results = "SELECT count(*) FROM results WHERE text = 'a title!'";
    assert_eq!(postgres::count(&stream.database_url, results).await, 1, "the fixed pipeline has no result");
    let version = "SELECT version FROM documents WHERE id = 'keyless'";
    assert_eq!(postgres::count(&stream.database_url, version).await, TIMESTAMP, "a replay is no newer version");

    let (config, topic) = (stream.client.config(), stream.topic.clone());
    let records = spawn_blocking(move || read(config, &topic, 1)).await.unwrap();
    let [first, _, again, _, third, _] = records.as_slice() else { panic!("{} records are in the topic", records.len()) };
    for (count, record) in [("1", again), ("2", third)] {
        assert_eq!((record.key(), record.payload()), (first.key(), first.payload()), "replay {count} has other bytes");
        assert_eq!(record.timestamp().to_millis(), Some(TIMESTAMP), "replay {count} has another time");
        let headers: Vec<(&str, Option<&[u8]>)> = record.headers().unwrap().iter().map(|h| (h.key, h.value)).collect();
        let [null, bytes, counted, of] = headers.as_slice() else { panic!("replay {count} has the headers {headers:?}") };
        assert_eq!((*null, *bytes), (("null", None), ("bytes", Some([0xff, 0x00].as_slice()))), "replay {count}");
        assert_eq!(*counted, ("tidemill-replay-count", Some(count.as_bytes())));
        assert_eq!(of.0, "tidemill-replay-of");
    }

    let purge = |more: &[&str]| stream.answer(&[&["dead-letters", "purge"], more].concat())["letters"].clone();
    assert_eq!(purge(&["--replayed", "--dry-run"]), 4);
    assert_eq!(purge(&["--class", "too_deep"]), 0);
    assert_eq!(purge(&["--replayed"]), 4);
    assert_eq!(dead_letters(&stream, "true").await, 0);
    stream.audit("after the purge").await;
}

async fn one_record_is_sent_once_for_all_its_letters() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let tasks = |with: &str| {
        format!(
            "version: 1\nname: {PIPELINE}\nsource: {{ topic: {}, id: id, text: \"{{{{ text }}}}\" }}\n\
             tasks:\n  one: {{ render: {{ template: \"{with}\" }} }}\n  two: {{ render: {{ template: \"{with}?\" }} }}\n\
             budget: {{ max_wait: 50ms, max_records: 50 }}\n",
            stream.topic
        )
    };
    stream.write_pipeline(&tasks("{{ document.text / 2 }}"));
    let mut worker = stream.worker("");
    stream.send(0..3).await;
    stream.drained(3, Duration::from_secs(60)).await;
    assert_eq!(dead_letters(&stream, "class = 'template' AND task <> ''").await, 6, "each task of each record died");
    worker.kill();
    stream.write_pipeline(&tasks("{{ document.text }}"));
    let _fixed = stream.worker("");
    let replayed = stream.answer(&["dead-letters", "replay", "--task", "one"]);
    assert_eq!((&replayed["records"], &replayed["letters"]), (&json!(3), &json!(6)), "{replayed}");
    assert_eq!(stream.answer(&["dead-letters", "replay", "--all"])["records"], 0, "the other letters went with them");
    stream.drained(6, Duration::from_secs(60)).await;
    assert_eq!(postgres::count(&stream.database_url, "SELECT count(*) FROM results").await, 6, "both tasks have results now");
    assert_eq!(dead_letters(&stream, "true").await, 6, "something died again");
    stream.audit("at the end").await;
}

fn payload() -> &'static str {
    r#"{"id":"keyless","title":"a title"}"#
}

/// A record without a key and with headers that are not UTF-8, and one that is a delete.
fn produce(config: ClientConfig, topic: &str) {
    let producer: BaseProducer = config.create().unwrap();
    let headers = OwnedHeaders::new()
        .insert(Header { key: "null", value: None::<&[u8]> })
        .insert(Header { key: "bytes", value: Some(&[0xff, 0x00]) });
    let keyless: BaseRecord<'_, [u8], str> =
        BaseRecord { key: None, ..BaseRecord::to(topic).partition(1).payload(payload()).timestamp(TIMESTAMP).headers(headers) };
    producer.send(keyless).map_err(|(error, _)| error).unwrap();
    let keyed: BaseRecord<'_, [u8], str> =
        BaseRecord::to(topic).partition(1).key(b"k\xff".as_slice()).payload(r#"{"id":"keyed","title":"another"}"#);
    producer.send(keyed).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// All records of the partition.
fn read(mut config: ClientConfig, topic: &str, partition: i32) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = config.set("group.id", "none").create().unwrap();
    let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
    consumer.assign(&list).unwrap();
    (low..high).map(|_| consumer.poll(Duration::from_secs(20)).expect("the topic ends early").unwrap().detach()).collect()
}
