//! Any record from a stream and any text from an operator is accepted or refused with a reason, without a panic and in bounded
//! time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libtest_mimic::Trial;
use minijinja::value::Serde;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Map, Value, json};
use tidemill::document::avro::Schemas;
use tidemill::document::{DecodedRecord, Decoder, DocumentSpec, Format};
use tidemill::jobs::spec::JobSpec;
use tidemill::pipeline::definition::Definition;
use tidemill::record::{Header, Partition, Record, RecordLocation};
use tidemill::template::{Condition, PrintMode, Template};

use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, any_record_becomes_a_document_or_a_dead_letter),
        trial!(Needs::NOTHING, a_damaged_pipeline_file_is_read_or_refused_with_its_line),
        trial!(Needs::NOTHING, any_template_ends_within_its_fuel),
        trial!(Needs::NOTHING, any_job_is_taken_and_written_alike_or_refused),
    ]
}

const CASES: u32 = 300;

fn check<S: Strategy>(strategy: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&strategy, property).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Any JSON value; some objects have the keys that a pipeline reads.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "2025-0[1-9]-[0-3][0-9](T[0-9:]{8}Z)?".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = prop_oneof!["(id|text|title|version|a\\.b)", ".{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

async fn any_record_becomes_a_document_or_a_dead_letter() {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        any_json().prop_map(|value| value.to_string().into_bytes()),
        // JSON that is cut off, or has one wrong byte.
        (any_json(), any::<Index>(), any::<u8>()).prop_map(|(value, index, byte)| {
            let mut bytes = value.to_string().into_bytes();
            let at = index.index(bytes.len());
            if byte < 128 {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            bytes
        }),
    ];
    let header = (".{0,8}", prop::option::of(prop::collection::vec(any::<u8>(), 0..20)));
    let record = (prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), prop::option::of(payload), header);
    let specs = [
        DocumentSpec::default(),
        DocumentSpec { format: Format::Text, ..DocumentSpec::default() },
        DocumentSpec {
            id: Some("id".into()),
            version: Some("version".into()),
            text: Some("{{ title }} {{ text }}".into()),
            metadata: vec!["a.b".into(), "title".into()],
            ..DocumentSpec::default()
        },
    ];
    let decoders = specs.map(|spec| Decoder::new(&spec).unwrap());
    check(record, |(key, payload, (name, value))| {
        let record = Record {
            place: RecordLocation { partition: Partition { topic: "documents".into(), number: 0 }, offset: 7 },
            timestamp_ms: Some(1_700_000_000_000),
            key: key.map(Bytes::from),
            payload: payload.map(Bytes::from),
            headers: vec![Header { name, value: value.map(Bytes::from) }],
        };
        for decoder in &decoders {
            match decoder.decode(&record, &Schemas::none()) {
                Ok(DecodedRecord::Document(document)) => {
                    prop_assert!(!document.id.trim().is_empty() && !document.id.contains('\0'), "an id that is none");
                    prop_assert!(!document.text.contains('\0'), "a text that Postgres cannot store");
                }
                Ok(DecodedRecord::Tombstone { .. }) => prop_assert!(record.payload.is_none(), "a payload became a delete"),
                Err(poison) => prop_assert!(!poison.reason.is_empty(), "a record is refused without a reason"),
            }
        }
        Ok(())
    });
}

/// One thing that goes wrong with a text file.
#[derive(Debug, Clone)]
enum Damage {
    RemoveLine(Index),
    RepeatLine(Index),
    MoveLine(Index, Index),
    Insert(Index, String),
    RemoveCharacter(Index),
    CutOff(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<Index>().prop_map(Damage::RemoveLine),
        any::<Index>().prop_map(Damage::RepeatLine),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::MoveLine(from, to)),
        (any::<Index>(), prop_oneof!["[\\[\\]{}:,&*!|>'\"%@`#\n -]{1,3}", "\\PC{1,3}", "(9{1,25}|-1|true|null|~)"])
            .prop_map(|(at, text)| Damage::Insert(at, text)),
        any::<Index>().prop_map(Damage::RemoveCharacter),
        any::<Index>().prop_map(Damage::CutOff),
    ]
}

impl Damage {
    fn done_to(&self, text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        let characters: Vec<char> = text.chars().collect();
        if lines.is_empty() {
            return text.to_owned();
        }
        let (of_lines, of_characters) = (lines.len(), characters.len());
        match self {
            Self::RemoveLine(at) => drop(lines.remove(at.index(of_lines))),
            Self::RepeatLine(at) => lines.insert(at.index(of_lines), lines[at.index(of_lines)]),
            Self::MoveLine(from, to) => {
                let line = lines.remove(from.index(of_lines));
                lines.insert(to.index(of_lines), line);
            }
            Self::Insert(at, more) => {
                let (before, after) = characters.split_at(at.index(of_characters));
                return before.iter().copied().chain(more.chars()).chain(after.iter().copied()).collect();
            }
            Self::RemoveCharacter(at) => {
                let at = at.index(of_characters);
                return characters.iter().enumerate().filter(|(index, _)| *index != at).map(|(_, c)| c).collect();
            }
            Self::CutOff(at) => return characters[..at.index(of_characters)].iter().collect(),
        }
        lines.join("\n")
    }
}

async fn a_damaged_pipeline_file_is_read_or_refused_with_its_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let shipped: Vec<(PathBuf, String)> = ["accounts.yaml", "news.yaml", "products.yaml", "sales.yaml", "tickets.yaml"]
        .map(|name| (folder.join(name), std::fs::read_to_string(folder.join(name)).unwrap()))
        .into();
    for (path, text) in &shipped {
        Definition::parse(path, text).unwrap_or_else(|error| panic!("a shipped pipeline is refused: {error}"));
    }
    check((prop::sample::select(shipped), prop::collection::vec(damage(), 1..4)), |((path, text), damages)| {
        let text = damages.iter().fold(text, |text, damage| damage.done_to(&text));
        if let Err(error) = Definition::parse(&path, &text) {
            for problem in &error.problems {
                prop_assert!(problem.place.is_some(), "no line is named: {}\n{}", problem, text);
                prop_assert!(!problem.message.is_empty());
            }
        }
        Ok(())
    });
}

/// Most of these templates do not compile. Those that do are rendered.
async fn any_template_ends_within_its_fuel() {
    /// Far more than the fuel of one template takes on a busy machine.
    const LIMIT: Duration = Duration::from_secs(5);
    let part = prop_oneof![
        Just("{{ document.text }}"),
        Just("{{ document }}"),
        Just("{{ items | tojson }}"),
        Just("{{ items[0] }}"),
        Just("{{ items[-1:] }}"),
        Just("{{ document.text[2:5] | upper }}"),
        Just("{{ loop.index }}"),
        Just("{% for item in items %}"),
        Just("{% for i in range(9999) %}"),
        Just("{% for key in document recursive %}"),
        Just("{% endfor %}"),
        Just("{% if document.fields.a > 1 %}"),
        Just("{% else %}"),
        Just("{% endif %}"),
        Just("{% set x = items %}"),
        Just("{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(1) }}"),
        Just("{{ 1 / 0 }}"),
        Just("{{ 99999999999999999999 ** 9 }}"),
        Just("{{"),
        Just("%}"),
        Just("{#"),
        Just("words "),
    ];
    let part = prop_oneof![4 => part.prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    let context = (any_json(), any_json(), ".{0,20}");
    check((prop::collection::vec(part, 1..8), context), |(parts, (fields, items, text))| {
        let source = parts.concat();
        let context = minijinja::Value::from(Serde(json!({
            "document": { "text": text, "id": "a", "fields": fields }, "items": items
        })));
        let began = Instant::now();
        for prints in [PrintMode::Strings, PrintMode::Scalars] {
            if let Ok(template) = Template::new(&source, prints, 1 << 16) {
                match template.render(&context) {
                    Ok(output) => prop_assert!(output.len() <= 1 << 16, "the output passes its limit"),
                    Err(poison) => prop_assert!(!poison.reason.is_empty(), "a template fails without a reason"),
                }
            }
        }
        if let Ok(condition) = Condition::new(source.trim_start_matches("{{").trim_end_matches("}}")) {
            let _ = condition.holds(&context);
        }
        prop_assert!(began.elapsed() < LIMIT, "it took {:?}:\n{}", began.elapsed(), source);
        Ok(())
    });
}

async fn any_job_is_taken_and_written_alike_or_refused() {
    let good = prop::sample::select(vec![
        json!({"version": 1, "id": "a", "kind": "backfill", "pipeline": "news", "dataset": "archive", "prefix": "2025/",
               "since": "2025-03-01", "until": "2025-04-01", "sample": 10, "seed": 7, "priority": 3,
               "deadline": "2026-01-01T06:00:00Z", "budget": {"device_seconds": 600}}),
        json!({"version": 1, "id": "b", "kind": "rerun", "pipeline": "news", "tasks": ["topic"]}),
        json!({"version": 1, "id": "c", "kind": "reembed", "pipeline": "news", "budget": {"cost": 2}}),
        json!({"version": 1, "id": "d", "kind": "evaluate", "pipeline": "news", "dataset": "archive", "task": "topic",
               "expected": "label"}),
        json!({"version": 1, "id": "e", "kind": "delete", "pipeline": "news", "documents": ["x", "y"]}),
    ]);
    // A valid job with some keys changed or removed, or with one more.
    let changed = (good, prop::collection::vec((any::<Index>(), prop::option::of(any_json())), 0..3), prop::option::of(".{1,6}"));
    let changed = changed.prop_map(|(mut job, changes, more)| {
        let keys = job.as_object_mut().unwrap();
        for (at, value) in changes {
            let Some(key) = keys.keys().nth(at.index(keys.len().max(1))).cloned() else { continue };
            match value {
                Some(value) => drop(keys.insert(key, value)),
                None => drop(keys.remove(&key)),
            }
        }
        keys.extend(more.map(|key| (key, json!(1))));
        job.to_string().into_bytes()
    });
    let noise = prop::collection::vec(any::<u8>(), 0..100);
    let text = prop_oneof![4 => changed, 1 => any_json().prop_map(|value| value.to_string().into_bytes()), 1 => noise];
    check(text, |text| {
        match JobSpec::parse(&text, Some("given")) {
            Ok(spec) => {
                let written = spec.to_json().to_string();
                let again = JobSpec::parse(written.as_bytes(), None);
                prop_assert_eq!(again.as_ref(), Ok(&spec), "{} is not read as the job that wrote it", written);
            }
            Err(refusal) => prop_assert!(!refusal.0.is_empty(), "a job is refused without a reason"),
        }
        Ok(())
    });
}
