//! Any record that a producer may send ends as results or as one complete dead letter, and the stream continues.

use std::time::Duration;

use libtest_mimic::Trial;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use sqlx::{Connection, PgConnection};
use tokio::task::spawn_blocking;

use crate::harness::kafka;
use crate::harness::trial::{Needs, trial};
use crate::test_stream::{PIPELINE, TestStream};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![trial!(Needs::KAFKA, each_record_ends_as_results_or_as_one_dead_letter)]
}

/// A record and its expected outcome.
struct Case {
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    end: End,
}

enum End {
    /// A document with this id and text.
    Document(&'static str, String),
    /// A dead letter of this class.
    Dead(&'static str),
    /// A delete.
    Deleted,
}

fn dead(class: &'static str, payload: impl Into<Vec<u8>>) -> Case {
    Case { key: Some(b"key".to_vec()), payload: Some(payload.into()), end: End::Dead(class) }
}

fn document(id: &'static str, text: &str) -> Case {
    let payload = serde_json::json!({"id": id, "text": text}).to_string().into_bytes();
    Case { key: None, payload: Some(payload), end: End::Document(id, text.to_owned()) }
}

fn cases() -> Vec<Case> {
    let deep = format!(r#"{{"id":"deep","text":"t","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let large = format!(r#"{{"id":"large","text":"{}"}}"#, "x".repeat(10_000_000));
    vec![
        document("first", "the stream starts"),
        dead("malformed_json", r#"{"id": "#),
        dead("malformed_json", ""),
        dead("malformed_json", r#"{"id":"a","text":"b"} trailing"#),
        dead("wrong_type", "[]"),
        dead("missing_field", r#"{"text":"no id"}"#),
        dead("missing_field", r#"{"id":"no text"}"#),
        dead("missing_field", r#"{"id":null,"text":"null id"}"#),
        dead("wrong_type", r#"{"id":["list"],"text":"t"}"#),
        dead("invalid_utf8", b"{\"id\":\"u\",\"text\":\"\xff\xfe\"}".to_vec()),
        dead("nul_character", r#"{"id":"nul","text":"a\u0000b"}"#),
        dead("nul_character", r#"{"id":"n\u0000l","text":"t"}"#),
        dead("empty_text", r#"{"id":"empty","text":" \n "}"#),
        dead("too_deep", deep),
        dead("too_large", large),
        Case { key: None, payload: None, end: End::Dead("missing_key") },
        Case { key: Some(b"\xff".to_vec()), payload: None, end: End::Dead("invalid_utf8") },
        document("unicode", "한국어 · العربية · हिन्दी · 🜁 e\u{301} \u{202e}txet"),
        document("'; DROP TABLE documents; --", "'); DELETE FROM results; --"),
        document("template", "{{ 7 * 7 }} {% for x in range(10) %}{{ document.id }}{% endfor %}"),
        Case { key: Some(b"\xff\x00".to_vec()), ..document("odd key", "the key of a JSON record is not read") },
        document("gone", "soon deleted"),
        Case { key: Some(b"gone".to_vec()), payload: None, end: End::Deleted },
        document("twice", "the same"),
        document("twice", "the same"),
        document("last", "the stream goes on"),
    ]
}

async fn each_record_ends_as_results_or_as_one_dead_letter() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let _worker = stream.worker("");
    let (config, topic) = (stream.client.config(), stream.topic.clone());
    let cases = spawn_blocking(move || {
        let cases = cases();
        send(config, &topic, &cases);
        cases
    })
    .await
    .unwrap();
    stream.drained(cases.len() as i64, Duration::from_secs(90)).await;
    stream.audit("after all that").await;

    let mut database = PgConnection::connect(&stream.database_url).await.unwrap();
    type DeadLetterRow = (i64, String, String, Option<Vec<u8>>, Vec<String>, Vec<Option<Vec<u8>>>);
    let letters: Vec<DeadLetterRow> = sqlx::query_as(
        "SELECT record_offset, class, reason, payload, header_names, header_values FROM dead_letters
         WHERE pipeline = $1 AND topic = $2 AND partition = 0 ORDER BY record_offset",
    )
    .bind(PIPELINE)
    .bind(&stream.topic)
    .fetch_all(&mut database)
    .await
    .unwrap();
    let mut expected = 0;
    for (offset, case) in (0i64..).zip(&cases) {
        let End::Dead(class) = case.end else { continue };
        expected += 1;
        let shown = String::from_utf8_lossy(case.payload.as_deref().unwrap_or_default()).chars().take(60).collect::<String>();
        let letter = letters.iter().find(|letter| letter.0 == offset);
        let letter =
            letter.unwrap_or_else(|| panic!("record {offset} ({shown}) left no dead letter; class {class} was expected"));
        assert_eq!(letter.1, class, "record {offset} ({shown}): {}", letter.2);
        assert!(!letter.2.is_empty(), "record {offset} ({shown}) is dead without a reason");
        assert_eq!(letter.3, case.payload, "record {offset} ({shown}): the dead letter holds other bytes than were sent");
        assert_eq!(letter.4, ["null", "bytes"], "record {offset} ({shown}): headers");
        assert_eq!(letter.5, [None, Some(vec![0xff, 0x00])], "record {offset} ({shown}): values of headers");
    }
    assert_eq!(letters.len(), expected, "dead letters: {:?}", letters.iter().map(|l| (l.0, &l.1, &l.2)).collect::<Vec<_>>());

    for case in &cases {
        let End::Document(id, text) = &case.end else { continue };
        let found: Vec<(String,)> = sqlx::query_as("SELECT text FROM results WHERE document_id = $1 ORDER BY task")
            .bind(id)
            .fetch_all(&mut database)
            .await
            .unwrap();
        let expected = if *id == "gone" { vec![] } else { vec![(format!("{text}!"),), (format!("{text}!?"),)] };
        assert_eq!(found, expected, "results of document {id}");
    }
}

/// Sends the records with one header that is null and one that is not UTF-8.
fn send(mut config: rdkafka::ClientConfig, topic: &str, cases: &[Case]) {
    let producer: BaseProducer = config.set("message.max.bytes", "25000000").create().unwrap();
    for Case { key, payload, .. } in cases {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "null", value: None::<&[u8]> })
            .insert(Header { key: "bytes", value: Some(&[0xff, 0x00]) });
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).headers(headers);
        record.key = key.as_deref();
        record.payload = payload.as_deref();
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}
