//! What arrives as text or as records: documents, Avro, pipeline files, jobs, filters.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apache_avro::types::Value as AvroValue;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidemill::config::SchemaRegistryConfig;
use tidemill::document::avro::{Schema, Schemas};
use tidemill::document::{DecodedRecord, Decoder, DocumentSpec, Format};
use tidemill::health::Health;
use tidemill::jobs::spec::JobSpec;
use tidemill::pipeline::definition::Definition;
use tidemill::record::{Partition, Record, RecordLocation};
use tidemill::search::FilterClause;
use tidemill::source::Registry;

use super::Session;
use super::mutations::{Input, Seed, damaged, edited, edited_text};
use crate::harness::readiness::listen;
use crate::harness::registry::RegistryServer;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What JSON and records are made of.
const JSON_WORDS: &[&str] =
    &["[", "{\"a\":", "\\u0000", "\\ud800", "1e999", "null", "\"id\":\"x\",", "\u{202e}", "\u{1f468}\u{200d}\u{1f469}"];

fn record(payload: Vec<u8>) -> Record {
    Record {
        place: RecordLocation { partition: Partition { topic: "documents".into(), number: 0 }, offset: 7 },
        timestamp_ms: Some(1_700_000_000_000),
        key: Some(Bytes::from_static(b"key")),
        payload: Some(Bytes::from(payload)),
        headers: Vec::new(),
    }
}

/// What must be true of every record, whatever is in it.
fn decode(decoder: &Decoder, payload: Vec<u8>, schemas: &Schemas) -> Result<(), TestCaseError> {
    match decoder.decode(&record(payload), schemas) {
        Ok(DecodedRecord::Document(document)) => {
            prop_assert!(!document.id.trim().is_empty() && !document.id.contains('\0'), "an id that is none");
            prop_assert!(!document.text.contains('\0'), "a text that Postgres cannot store");
        }
        Ok(DecodedRecord::Tombstone { .. }) => {}
        Err(poison) => prop_assert!(!poison.reason.is_empty(), "a record is refused without a reason"),
    }
    Ok(())
}

pub fn json_and_text_records(session: &mut Session) {
    let mut lines = Vec::new();
    for sample in files("pipelines/samples", "jsonl") {
        let text = fs::read_to_string(&sample).unwrap();
        lines.extend(text.lines().take(5).map(|line| (sample.display().to_string(), line.to_owned())));
    }
    assert!(!lines.is_empty(), "there are no samples");
    let documents = lines.iter().map(|(name, line)| (name.clone(), serde_json::from_str(line).unwrap())).collect();
    let seeds = lines.into_iter().map(|(name, line)| Seed::new(name, line)).collect();
    let inputs = prop_oneof![
        damaged(seeds, JSON_WORDS),
        edited_text(documents, &["id", "text", "title", "version", "a.b"]),
        // Nesting as deep as it gets.
        (1_usize..200_000, prop::sample::select(vec!["[", "{\"a\":", "[[[{\"id\":"])).prop_map(|(depth, opening)| Input {
            subject: "nesting".into(),
            bytes: opening.repeat(depth / opening.len() + 1).into_bytes()
        }),
    ];
    let named = DocumentSpec {
        id: Some("id".into()),
        version: Some("received_at".into()),
        text: Some("{{ title }} {{ text }}".into()),
        metadata: vec!["a.b".into(), "kind".into()],
        ..DocumentSpec::default()
    };
    let specs = [DocumentSpec::default(), DocumentSpec { format: Format::Text, ..DocumentSpec::default() }, named];
    let decoders = specs.map(|spec| Decoder::new(&spec).unwrap());
    session
        .explore(&inputs, |input| decoders.iter().try_for_each(|decoder| decode(decoder, input.bytes.clone(), &Schemas::none())));
}

/// A schema with every kind of type.
const WIDE: &str = r#"{"type":"record","name":"Wide","fields":[
    {"name":"id","type":"string"},{"name":"text","type":["null","string"]},{"name":"count","type":"long"},{"name":"price","type":"double"},
    {"name":"raw","type":"bytes"},{"name":"hash","type":{"type":"fixed","name":"Hash","size":16}},
    {"name":"tags","type":{"type":"array","items":"string"}},{"name":"links","type":{"type":"map","values":["null","long"]}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"]}},
    {"name":"cost","type":{"type":"bytes","logicalType":"decimal","precision":30,"scale":4}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"inner","type":["null","Wide"]}]}"#;

fn wide(inner: AvroValue) -> AvroValue {
    let text = |text: &str| AvroValue::String(text.to_owned());
    let fields = [
        ("id", text("a")),
        ("text", AvroValue::Union(1, Box::new(text("some text")))),
        ("count", AvroValue::Long(-70_000)),
        ("price", AvroValue::Double(1.5)),
        ("raw", AvroValue::Bytes(vec![0, 255, 7])),
        ("hash", AvroValue::Fixed(16, vec![9; 16])),
        ("tags", AvroValue::Array(vec![text("x"), text("y")])),
        ("links", AvroValue::Map([("a".to_owned(), AvroValue::Union(1, Box::new(AvroValue::Long(3))))].into())),
        ("kind", AvroValue::Enum(1, "B".into())),
        ("cost", AvroValue::Decimal(apache_avro::Decimal::from(vec![1, 2, 3]))),
        ("at", AvroValue::TimestampMicros(1_700_000_000_000_000)),
        ("day", AvroValue::Date(19_000)),
        ("inner", inner),
    ];
    AvroValue::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

pub fn avro_records_and_schemas(session: &mut Session) {
    let schema = apache_avro::Schema::parse_str(WIDE).unwrap();
    let leaf = AvroValue::Union(0, Box::new(AvroValue::Null));
    let value = wide(AvroValue::Union(1, Box::new(wide(leaf))));
    let payload = [&[0, 0, 0, 0, 7][..], &apache_avro::to_avro_datum(&schema, value).unwrap()].concat();
    let spec =
        DocumentSpec { format: Format::Avro, text: Some("{{ text }} {{ tags }} {{ inner }}".into()), ..DocumentSpec::default() };
    let decoder = Decoder::new(&spec).unwrap();
    let known: Schemas = [(7, Ok(Arc::new(Schema::parse(7, WIDE, &[]).unwrap())))].into_iter().collect();
    decode(&decoder, payload.clone(), &known).unwrap();

    let keys = &["type", "name", "items", "values", "size", "logicalType", "precision", "scale", "symbols", "fields", "Wide"];
    let schemas = edited_text(vec![("the schema".into(), serde_json::from_str(WIDE).unwrap())], keys);
    let inputs = prop_oneof![2 => damaged(vec![Seed::new("the payload", payload.clone())], &["\0"]), 1 => schemas];
    session.explore(&inputs, |input| {
        if input.subject == "the payload" {
            return decode(&decoder, input.bytes.clone(), &known);
        }
        let text = String::from_utf8_lossy(&input.bytes);
        match Schema::parse(7, &text, &[]) {
            Ok(schema) => decode(&decoder, payload.clone(), &[(7, Ok(Arc::new(schema)))].into_iter().collect()),
            Err(poison) => {
                prop_assert!(!poison.reason.is_empty(), "a schema is refused without a reason");
                Ok(())
            }
        }
    });
}

/// Answers of a registry that is broken or hostile, over HTTP.
pub fn registry_answers(session: &mut Session) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (server, address) = (RegistryServer::new(None), listen());
    let wide: Value = serde_json::from_str(WIDE).unwrap();
    server.register_version("shop", 1, json!({"schema": "{\"type\":\"enum\",\"name\":\"Kind\",\"symbols\":[\"A\"]}"}));
    runtime.block_on(server.listen(&address));
    let answer = json!({"schema": wide.to_string(), "schemaType": "AVRO", "references": [{"name": "Kind", "subject": "shop", "version": 1}]});
    let unknown = json!({"error_code": 40403, "message": "Schema not found"});
    let keys = &["schema", "schemaType", "references", "subject", "version", "error_code", "\"type\":", "\"fields\":["];
    let inputs = edited_text(vec![("a schema".into(), answer), ("an error".into(), unknown)], keys);
    let config = SchemaRegistryConfig { url: Some(format!("http://{address}")), ..SchemaRegistryConfig::default() };
    let registry = Registry::new(&config, Health::new()).unwrap().unwrap();
    // What an id stands for is kept, so that each input has one of its own.
    let last = Cell::new(100);
    session.explore(&inputs, |input| {
        let id = last.replace(last.get() + 1);
        server.register(id, serde_json::from_slice(&input.bytes).unwrap_or_default());
        if let Err(failure) = runtime.block_on(registry.schemas(&BTreeSet::from([id]))) {
            prop_assert!(!failure.reason.is_empty(), "an answer is refused without a reason");
        }
        Ok(())
    });
}

/// What YAML and templates are made of.
const YAML_WORDS: &[&str] = &[
    "&a ",
    "*a",
    "<<: *a\n",
    "!!binary ",
    "!!set ",
    "? ",
    "- - - - ",
    "{{ ",
    "{% for a in b %}",
    "\n---\n",
    "\t",
    "|+9\n",
    ">-\n",
    "%YAML 9\n",
    "9999999999999999999999",
    "1e999",
    "0x",
    ".inf",
    "~",
    "\u{feff}",
    "labels: {",
    "'",
    "\"\\x",
    "1000000d",
    "-1ms",
];

pub fn pipeline_files(session: &mut Session) {
    let shipped = files("pipelines", "yaml");
    let mut seeds: Vec<Seed> =
        shipped.iter().map(|path| Seed::new(path.display().to_string(), fs::read(path).unwrap())).collect();
    assert!(!seeds.is_empty(), "there are no pipelines");
    // Each list holds the one before it many times.
    let bomb: String = (1..40).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9))).collect();
    seeds.push(Seed::new(format!("{ROOT}/pipelines/bomb.yaml"), format!("a0: &a0 [x]\n{bomb}version: 1\nname: bomb\n")));
    session.explore(&damaged(seeds, YAML_WORDS), |input| {
        let text = String::from_utf8_lossy(&input.bytes);
        if let Err(error) = Definition::parse(Path::new(&input.subject), &text) {
            prop_assert!(error.problems.iter().all(|problem| !problem.message.is_empty()), "refused without a reason");
        }
        Ok(())
    });
}

pub fn jobs_and_search_filters(session: &mut Session) {
    let filters = json!({"topic": "Sports", "kind": ["a", "b"], "facts.price": {"lt": 50, "gte": 10.5}, "metadata.brand": {"exists": true},
                         "document.updated_at": {"gt": "2025-03-01T00:00:00Z"}, "label": {"in": ["x", 1, null]}, "other": {"ne": false}});
    let job = json!({"version": 1, "id": "a", "kind": "backfill", "pipeline": "news", "dataset": "archive", "prefix": "2025/",
                     "since": "2025-03-01", "until": "2025-04-01", "sample": 10, "seed": 7, "priority": 3,
                     "deadline": "2026-01-01T06:00:00Z", "budget": {"device_seconds": 600}});
    let documents = vec![("a filter".to_owned(), filters), ("a job".to_owned(), job)];
    let lines = ["facts.price<50", "topic in Sports,World", "brand missing", "topic!=Sports", "document.updated_at>=2025-03-01"];
    let lines = lines.map(|line| Seed::new("a line", line)).to_vec();
    let keys = &["eq", "ne", "lt", "in", "exists", "document.id", "metadata.", "id", "tasks", "documents", "budget", "cost"];
    let edited =
        edited(documents, keys).prop_map(|(subject, document)| Input { subject, bytes: document.to_string().into_bytes() });
    let inputs = prop_oneof![2 => edited, 1 => damaged(lines, &["<=", "=", " in ", ",", " exists", "."])];
    session.explore(&inputs, |input| {
        let text = String::from_utf8_lossy(&input.bytes);
        match &*input.subject {
            "a line" => drop(FilterClause::line(&text)),
            "a job" => {
                if let Err(refusal) = JobSpec::parse(&input.bytes, Some("given")) {
                    prop_assert!(!refusal.0.is_empty(), "a job is refused without a reason");
                }
            }
            _ => {
                if let Ok(Value::Object(object)) = serde_json::from_str(&text) {
                    drop(FilterClause::object(object));
                }
            }
        }
        Ok(())
    });
}

/// The files of a folder of this repository with that ending.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|extension| extension == ending)).collect();
    found.sort();
    found
}
