//! Formats besides JSON: Avro with a schema registry, and batches that a producer compressed.

use std::collections::BTreeSet;
use std::time::Duration;

use apache_avro::types::Value as AvroValue;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tidemill::config::SchemaRegistryConfig;
use tidemill::document::avro::Schemas;
use tidemill::document::{Decoder, DocumentSpec, Format};
use tidemill::failure::FailureClass;
use tidemill::health::Health;
use tidemill::record::{Partition, Record, RecordLocation};
use tidemill::source::Registry;
use tokio::time::sleep;

use crate::harness::kafka::{self, NewRecord};
use crate::harness::readiness::{assert_ready, listen, says};
use crate::harness::registry::RegistryServer;
use crate::harness::trial::{Needs, trial};
use crate::harness::{eventually, postgres};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::KAFKA, a_registry_that_is_gone_for_a_while_pauses_the_stream),
        trial!(Needs::KAFKA, each_record_of_avro_ends_as_results_or_as_one_dead_letter),
        trial!(Needs::KAFKA, a_registry_is_asked_by_the_right_address_and_user_or_the_stream_pauses),
        trial!(Needs::NOTHING, an_id_is_asked_for_once_and_again_only_where_nothing_was_known),
        trial!(Needs::KAFKA, batches_are_read_whatever_compressed_them),
    ]
}

/// The first schema of the topic.
const PLAIN: &str = r#"{"type":"record","name":"Product","namespace":"shop","fields":[
    {"name":"id","type":"string"},{"name":"text","type":"string"}]}"#;
/// A later schema, with a further field in between.
const PRICED: &str = r#"{"type":"record","name":"Product","namespace":"shop","fields":[
    {"name":"id","type":"string"},{"name":"price","type":["null","double"],"default":null},{"name":"text","type":"string"}]}"#;

/// A value in Confluent's wire format.
fn framed(id: u32, schema: &str, value: AvroValue) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(schema).unwrap();
    [&[0], id.to_be_bytes().as_slice(), &apache_avro::to_avro_datum(&schema, value).unwrap()].concat()
}

fn plain(id: &str, text: &str) -> AvroValue {
    let string = |text: &str| AvroValue::String(text.to_owned());
    AvroValue::Record(vec![("id".into(), string(id)), ("text".into(), string(text))])
}

/// A product with a text of its own: the outputs of an equal one would be reused.
fn numbered(n: usize) -> AvroValue {
    plain(&format!("d{n}"), &format!("rake {n}"))
}

fn priced(id: &str, text: &str, price: f64) -> AvroValue {
    let AvroValue::Record(mut fields) = plain(id, text) else { unreachable!("the value is a record") };
    fields.insert(1, ("price".into(), AvroValue::Union(1, Box::new(AvroValue::Double(price)))));
    AvroValue::Record(fields)
}

fn sent(payload: Vec<u8>) -> NewRecord {
    NewRecord { partition: Some(0), key: b"key".to_vec(), payload: Some(payload) }
}

/// A stream whose pipeline reads Avro with the schemas of the registry at `address`.
async fn stream(address: &str, registry: &str) -> TestStream {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.amend("pipelines/echo.yaml", |text| text.replace("source: { ", "source: { format: avro, "));
    stream.amend("tidemill.toml", |text| {
        format!("{text}[schema_registry]\nurl = \"http://{address}\"\ntimeout_seconds = 2\n{registry}")
    });
    stream
}

async fn dead_letters(stream: &TestStream) -> i64 {
    postgres::count(&stream.database_url, "SELECT count(*) FROM dead_letters").await
}

async fn a_registry_that_is_gone_for_a_while_pauses_the_stream() {
    let (address, url) = (listen(), listen());
    let stream = stream(&address, "").await;
    let worker = stream.worker_at(&url, "");
    let first = (0..20).map(|n| sent(framed(1, PLAIN, numbered(n)))).collect();
    stream.client.send(&stream.topic, first).await;
    let told = says(&url, &worker, "the schema registry cannot be reached").await;
    assert!(told.contains("\"registry\""), "/readyz says {told}");
    assert_eq!(
        (stream.committed().await.max(0), dead_letters(&stream).await),
        (0, 0),
        "records without schemas are neither committed nor dead letters"
    );

    let registry = RegistryServer::new(None);
    registry.register(1, json!({"schema": PLAIN}));
    registry.register(2, json!({"schema": PRICED, "schemaType": "AVRO", "references": []}));
    registry.listen(&address).await;
    stream.drained(20, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    registry.set_down(true);
    let both = |n: usize| match n % 2 {
        0 => framed(1, PLAIN, numbered(n)),
        _ => framed(2, PRICED, priced(&format!("d{n}"), &format!("rake {n}"), 9.5)),
    };
    stream.client.send(&stream.topic, (20..60).map(|n| sent(both(n))).collect()).await;
    says(&url, &worker, "the schema registry answers 503").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((stream.committed().await, dead_letters(&stream).await), (20, 0), "an outage makes no dead letters");
    registry.set_down(false);
    stream.drained(60, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(60, 0).await;

    let calls = registry.calls();
    for path in ["/schemas/ids/1", "/schemas/ids/2"] {
        let answered = calls.iter().filter(|call| call.path == path && call.status == 200).count();
        assert_eq!(answered, 1, "{path} never changes and was asked for {answered} times: {calls:?}");
    }
    assert!(calls.iter().all(|call| call.authorization.is_none()), "no user is configured, and credentials were sent: {calls:?}");
}

/// A record with the class of its dead letter, or the id and first result of its document.
enum End {
    Dead(&'static str),
    Document(&'static str, &'static str),
    Deleted,
}

async fn each_record_of_avro_ends_as_results_or_as_one_dead_letter() {
    let address = listen();
    let registry = RegistryServer::new(None);
    registry.register(1, json!({"schema": PLAIN}));
    registry.register(2, json!({"schema": PRICED}));
    registry.register(3, json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}));
    registry.register(4, json!({"schema": "{\"type\":\"record\"}"}));
    registry.register(5, json!({"schema": "\"string\""}));
    let labelled = r#"{"type":"record","name":"Labelled","namespace":"shop","fields":[
        {"name":"id","type":"string"},{"name":"text","type":"Label"}]}"#;
    let label = json!({"type": "enum", "name": "shop.Label", "symbols": ["GARDEN", "KITCHEN"]}).to_string();
    let references = |subject: &str| json!([{"name": "shop.Label", "subject": subject, "version": 3}]);
    registry.register(6, json!({"schema": labelled, "references": references("labels")}));
    registry.register(7, json!({"schema": labelled, "references": references("nowhere")}));
    registry.register_version("labels", 3, json!({"subject": "labels", "version": 3, "id": 9, "schema": label}));
    registry.listen(&address).await;
    let stream = stream(&address, "").await;
    let _worker = stream.worker("");

    let good = framed(1, PLAIN, plain("first", "rake"));
    let key = framed(5, "\"string\"", AvroValue::String("gone".into()));
    let endless =
        [&framed(2, PRICED, priced("x", "x", 1.0))[..5], &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat();
    let cases: Vec<(NewRecord, End)> = vec![
        (sent(good.clone()), End::Document("first", "rake!")),
        (sent(framed(99, PLAIN, plain("a", "b"))), End::Dead("unknown_schema")),
        (sent(b"{\"id\": \"a\", \"text\": \"b\"}".to_vec()), End::Dead("malformed_avro")),
        (sent(Vec::new()), End::Dead("malformed_avro")),
        (sent(good[..good.len() - 1].to_vec()), End::Dead("malformed_avro")),
        (sent([&good[..], b"x"].concat()), End::Dead("malformed_avro")),
        (sent(endless), End::Dead("malformed_avro")),
        (sent(framed(3, PLAIN, plain("a", "b"))), End::Dead("malformed_avro")),
        (sent(framed(4, PLAIN, plain("a", "b"))), End::Dead("malformed_avro")),
        (sent(framed(5, "\"string\"", AvroValue::String("no record".into()))), End::Dead("wrong_type")),
        (sent([&[0, 0, 0, 0, 6][..], &[4, b'a', b'b', 2]].concat()), End::Document("ab", "KITCHEN!")),
        (sent([&[0, 0, 0, 0, 7][..], &[4, b'a', b'b', 2]].concat()), End::Dead("unknown_schema")),
        (sent(framed(1, PLAIN, plain("", "no id"))), End::Dead("missing_field")),
        (sent(framed(2, PRICED, priced("gone", "soon deleted", 1.0))), End::Document("gone", "")),
        (NewRecord { partition: Some(0), key, payload: None }, End::Deleted),
        (sent(framed(2, PRICED, priced("last", "the stream goes on", 1.0))), End::Document("last", "the stream goes on!")),
    ];
    let records = cases.iter().map(|(sent, _)| sent.clone()).collect();
    stream.client.send(&stream.topic, records).await;
    stream.drained(cases.len() as i64, Duration::from_secs(60)).await;
    stream.audit("after all that").await;

    let mut database = PgConnection::connect(&stream.database_url).await.unwrap();
    let letters: Vec<(i64, String, String, Option<Vec<u8>>)> =
        sqlx::query_as("SELECT record_offset, class, reason, payload FROM dead_letters ORDER BY record_offset")
            .fetch_all(&mut database)
            .await
            .unwrap();
    let mut expected = 0;
    for (offset, (record, end)) in (0i64..).zip(&cases) {
        match end {
            End::Dead(class) => {
                expected += 1;
                let letter = letters.iter().find(|letter| letter.0 == offset);
                let letter = letter.unwrap_or_else(|| panic!("record {offset} left no dead letter of class {class}"));
                assert_eq!(letter.1, *class, "record {offset}: {}", letter.2);
                assert_eq!(letter.3, record.payload, "record {offset}: the dead letter holds other bytes than were sent");
            }
            End::Document(id, text) => {
                let query = "SELECT text FROM results WHERE document_id = $1 AND task = 'first'";
                let found: Option<String> = sqlx::query_scalar(query).bind(id).fetch_optional(&mut database).await.unwrap();
                assert_eq!(found.as_deref(), Some(*text).filter(|text| !text.is_empty()), "the result of document {id}");
            }
            End::Deleted => {}
        }
    }
    assert_eq!(letters.len(), expected, "dead letters: {letters:?}");
}

async fn a_registry_is_asked_by_the_right_address_and_user_or_the_stream_pauses() {
    let address = listen();
    // User and password of the configuration below, encoded as RFC 7617 says.
    let registry = RegistryServer::new(Some("Basic dGlkZW1pbGw6Y29ycmVjdC03Nzc3Nw=="));
    registry.register(1, json!({"schema": PLAIN}));
    registry.listen(&address).await;
    let stream = stream(&address, "username = \"tidemill\"\npassword_file = \"password\"\n").await;
    let password = |password: &str| std::fs::write(stream.path("password"), password).unwrap();
    stream.client.send(&stream.topic, vec![sent(framed(1, PLAIN, plain("d0", "rake")))]).await;

    password("wrong-88888");
    let url = listen();
    let mut worker = stream.worker_at(&url, "");
    let told = says(&url, &worker, "refuses the user").await;
    assert!(told.contains("`schema_registry.username`"), "/readyz says {told}");
    assert!(!told.contains("88888") && !worker.log().contains("88888"), "the password is shown");
    worker.kill();

    password("correct-77777\n");
    let (right, wrong) = (format!("http://{address}\""), format!("http://{address}/nowhere\""));
    stream.amend("tidemill.toml", |text| text.replace(&right, &wrong));
    let url = listen();
    let mut worker = stream.worker_at(&url, "");
    let told = says(&url, &worker, "does not answer like a schema registry").await;
    assert!(told.contains("`schema_registry.url`"), "/readyz says {told}");
    assert_eq!(dead_letters(&stream).await, 0, "a wrong address makes no dead letters");
    worker.kill();

    stream.amend("tidemill.toml", |text| text.replace(&wrong, &right));
    let _worker = stream.worker("");
    stream.drained(1, Duration::from_secs(60)).await;
    stream.assert_exactly_once(1, 0).await;
}

async fn an_id_is_asked_for_once_and_again_only_where_nothing_was_known() {
    let address = listen();
    let server = RegistryServer::new(None);
    server.register(1, json!({"schema": PLAIN}));
    server.listen(&address).await;
    let config = SchemaRegistryConfig { url: Some(format!("http://{address}")), ..SchemaRegistryConfig::default() };
    let registry = Registry::new(&config, Health::new()).unwrap().unwrap();
    let calls = |id: u32| server.calls().iter().filter(|call| call.path == format!("/schemas/ids/{id}")).count();

    let ids = BTreeSet::from([1, 2]);
    let (one, other, third) = tokio::join!(registry.schemas(&ids), registry.schemas(&ids), registry.schemas(&ids));
    for schemas in [one, other, third] {
        let schemas = schemas.unwrap();
        assert_eq!((fault(&schemas, 1), fault(&schemas, 2)), (None, Some(FailureClass::UnknownSchema)));
    }
    assert_eq!((calls(1), calls(2)), (1, 1), "those who ask at the same time share an answer");

    // Far more ids than the registry client keeps.
    let random: BTreeSet<u32> = (1_000..4_000).collect();
    let schemas = registry.schemas(&random).await.unwrap();
    assert!(random.iter().all(|id| fault(&schemas, *id) == Some(FailureClass::UnknownSchema)));
    registry.schemas(&ids).await.unwrap();
    assert_eq!(calls(1), 1, "a known schema was dropped for unknown ids");

    server.register(2, json!({"schema": PLAIN}));
    let asked = calls(2);
    let late = async || fault(&registry.schemas(&ids).await.unwrap(), 2).is_none();
    eventually("a schema that is registered late is known", Duration::from_secs(20), late).await;
    assert!(calls(2) <= asked + 2, "the registry was asked {} times for what it did not know", calls(2));
}

/// The class of the dead letter that a record with the schema becomes; none where it becomes a document.
fn fault(schemas: &Schemas, id: u32) -> Option<FailureClass> {
    let partition = Partition { topic: "documents".into(), number: 0 };
    let payload = Some(framed(id, PLAIN, plain("d0", "rake")).into());
    let record =
        Record { place: RecordLocation { partition, offset: 0 }, timestamp_ms: None, key: None, payload, headers: Vec::new() };
    let decoder = Decoder::new(&DocumentSpec { format: Format::Avro, ..DocumentSpec::default() }).unwrap();
    decoder.decode(&record, schemas).err().map(|poison| poison.class)
}

async fn batches_are_read_whatever_compressed_them() {
    const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];
    const EACH: usize = 50;
    let stream = TestStream::new(kafka::shared().await, 1).await;
    for (index, codec) in CODECS.iter().enumerate() {
        let record = |n: usize| {
            let document = json!({"id": format!("d{n}"), "text": format!("{codec} {n} {}", "and again ".repeat(50))});
            sent(Value::to_string(&document).into_bytes())
        };
        let settings = [("compression.codec", *codec), ("linger.ms", "100")];
        let records = (index * EACH..(index + 1) * EACH).map(record).collect();
        stream.client.send_with(&stream.topic, records, &settings).await;
    }
    assert_eq!(
        codecs(&stream.client.segment(&stream.topic, 0)),
        BTreeSet::from([1, 2, 3, 4]),
        "the broker does not hold batches of exactly the four codecs"
    );
    let _worker = stream.worker("");
    let all = CODECS.len() * EACH;
    stream.drained(all as i64, Duration::from_secs(60)).await;
    stream.assert_exactly_once(all as i64, 0).await;
    eventually("every text came through whole", Duration::from_secs(1), || async {
        let query = "SELECT count(*) FROM results WHERE task = 'first' AND text LIKE '%and again and again !'";
        postgres::count(&stream.database_url, query).await == all as i64
    })
    .await;
}

/// The compression of each batch in a log segment: the lowest three bits of the attributes, 21 bytes after the batch's start.
fn codecs(segment: &[u8]) -> BTreeSet<u8> {
    let mut found = BTreeSet::new();
    let mut rest = segment;
    while rest.len() > 61 {
        found.insert(rest[22] & 7);
        let length = u32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize;
        rest = &rest[(12 + length).min(rest.len())..];
    }
    found
}
