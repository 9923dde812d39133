use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::record::{Partition, RecordLocation};

fn record(key: Option<&[u8]>, payload: Option<&[u8]>) -> Record {
    Record {
        place: RecordLocation { partition: Partition { topic: "documents".into(), number: 0 }, offset: 7 },
        timestamp_ms: Some(1_700_000_000_000),
        key: key.map(Bytes::copy_from_slice),
        payload: payload.map(Bytes::copy_from_slice),
        headers: Vec::new(),
    }
}

fn spec(text: &str) -> DocumentSpec {
    DocumentSpec { text: Some(text.into()), ..DocumentSpec::default() }
}

fn decode(spec: &DocumentSpec, payload: impl AsRef<[u8]>) -> Result<Document, Poison> {
    match Decoder::new(spec).unwrap().decode(&record(Some(b"key"), Some(payload.as_ref())), &Schemas::none())? {
        DecodedRecord::Document(document) => Ok(document),
        DecodedRecord::Tombstone { id, .. } => panic!("a payload became a tombstone for {id}"),
    }
}

#[track_caller]
fn refused(spec: &DocumentSpec, payload: impl AsRef<[u8]>, class: FailureClass, says: &str) {
    let poison = decode(spec, payload).expect_err("the payload is bad, but was decoded");
    assert_eq!(poison.class, class, "{poison}");
    assert!(poison.reason.contains(says), "the reason `{}` does not say `{says}`", poison.reason);
}

#[test]
fn fields_become_id_text_and_metadata() {
    let spec = DocumentSpec {
        id: Some("meta.sku".into()),
        text: Some("{{ title }}\n\n{{ body.main }}".into()),
        metadata: vec!["brand".into(), "meta.price".into(), "absent".into()],
        ..DocumentSpec::default()
    };
    let payload =
        json!({"title": "Giesskanne", "body": {"main": "물뿌리개"}, "brand": "Haws", "meta": {"sku": 42, "price": 9.5}});
    let document = decode(&spec, payload.to_string()).unwrap();
    assert_eq!(&*document.id, "42");
    assert_eq!(&*document.text, "Giesskanne\n\n물뿌리개");
    assert_eq!(Value::Object(document.metadata), json!({"brand": "Haws", "meta.price": 9.5}));
    assert_eq!(document.version, 1_700_000_000_000);
}

#[test]
fn a_field_whose_name_holds_a_dot_is_found_before_a_nested_one() {
    let fields = json!({"a.b": 1, "a": {"b": 2, "c.d": 3}});
    let fields = fields.as_object().unwrap();
    assert_eq!(look_up(fields, "a.b"), Some(&json!(1)));
    assert_eq!(look_up(fields, "a.c.d"), Some(&json!(3)));
    assert_eq!(look_up(fields, "a.x"), None);
    assert_eq!(look_up(fields, "a.b.c"), None);
}

#[test]
fn broken_json_is_malformed() {
    for payload in ["", "{", "not json", r#"{"id": 1,}"#, r#"{"id": "1", "text": "\ud800"}"#, r#"{"id": 1e999, "text": "x"}"#] {
        refused(&spec("{{ text }}"), payload, FailureClass::MalformedJson, "not JSON");
    }
    refused(&spec("{{ text }}"), "[1]", FailureClass::WrongType, "an array, not a JSON object");
    refused(&spec("{{ text }}"), "null", FailureClass::WrongType, "null, not a JSON object");
}

#[test]
fn deep_nesting_is_refused_by_name_and_without_a_stack_overflow() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let payload = format!(r#"{{"id": "1", "text": "x", "deep": {}1{}}}"#, open.repeat(100_000), close.repeat(100_000));
        refused(&spec("{{ text }}"), payload, FailureClass::TooDeep, "nested deeper than 127 levels at line 1 column");
    }
    refused(&spec("{{ text }}"), "[".repeat(100_000), FailureClass::TooDeep, "nested deeper");
}

#[test]
fn missing_and_null_fields_are_named() {
    refused(&spec("{{ text }}"), r#"{"text": "x"}"#, FailureClass::MissingField, "`id` is absent");
    refused(&spec("{{ text }}"), r#"{"id": null, "text": "x"}"#, FailureClass::MissingField, "`id` is null");
    refused(&spec("{{ text }}"), r#"{"id": " ", "text": "x"}"#, FailureClass::MissingField, "`id` is empty");
    let both = spec("{{ title }}: {{ text }}");
    refused(&both, r#"{"id": "1", "title": "x"}"#, FailureClass::MissingField, "`text` is absent");
    refused(&both, r#"{"id": "1", "title": null, "text": "x"}"#, FailureClass::MissingField, "`title` is null");
    let nested = spec("{{ body.main.text }}");
    refused(&nested, r#"{"id": "1"}"#, FailureClass::MissingField, "`body.main.text` is absent");
    refused(&nested, r#"{"id": "1", "body": {}}"#, FailureClass::MissingField, "`body.main.text` is absent");
    let joined = spec("{{ title ~ text }}");
    refused(&joined, r#"{"id": "1", "title": "x"}"#, FailureClass::MissingField, "`text` is absent");
}

#[test]
fn optional_fields_may_be_absent() {
    let spec = spec("{{ title | default('untitled') }}: {{ text }}{% if note is defined %} ({{ note }}){% endif %}");
    assert_eq!(&*decode(&spec, r#"{"id": 1, "text": "x"}"#).unwrap().text, "untitled: x");
    assert_eq!(&*decode(&spec, r#"{"id": 1, "text": "x", "note": "y"}"#).unwrap().text, "untitled: x (y)");
}

#[test]
fn text_must_be_text_and_ids_strings_or_integers() {
    for (value, kind) in [("42", "number"), ("true", "bool"), ("[\"x\"]", "sequence"), ("{\"a\": 1}", "map")] {
        refused(&spec("{{ text }}"), format!(r#"{{"id": 1, "text": {value}}}"#), FailureClass::WrongType, kind);
    }
    let id = |id: &str| format!(r#"{{"id": {id}, "text": "x"}}"#);
    for bad in ["1.5", "true", "[1]", "{}", "99999999999999999999"] {
        refused(&spec("{{ text }}"), id(bad), FailureClass::WrongType, "an id is a string or an integer");
    }
    assert_eq!(&*decode(&spec("{{ text }}"), id("-7")).unwrap().id, "-7");
    assert_eq!(&*decode(&spec("{{ text }}"), id("18446744073709551615")).unwrap().id, "18446744073709551615");
    let long = format!("{:?}", "x".repeat(MAX_ID_BYTES + 1));
    refused(&spec("{{ text }}"), id(&long), FailureClass::TooLarge, "1025 bytes");
}

#[test]
fn what_postgres_cannot_store_is_refused() {
    let nul = "\\u0000";
    refused(&spec("{{ text }}"), format!(r#"{{"id": "a{nul}", "text": "x"}}"#), FailureClass::NulCharacter, "`id`");
    refused(&spec("{{ text }}"), format!(r#"{{"id": "a", "text": "x{nul}"}}"#), FailureClass::NulCharacter, "at byte 1");
    let kept = DocumentSpec { metadata: vec!["m".into()], ..spec("{{ text }}") };
    for m in [format!(r#""{nul}""#), format!(r#"[{{"k": "{nul}"}}]"#), format!(r#"{{"{nul}": 1}}"#)] {
        refused(&kept, format!(r#"{{"id": "a", "text": "x", "m": {m}}}"#), FailureClass::NulCharacter, "`m`");
    }
    let unused = format!(r#"{{"id": "a", "text": "x", "unused": "{nul}"}}"#);
    assert!(decode(&kept, unused).is_ok(), "a field that is not kept may hold anything");
}

#[test]
fn bytes_that_are_no_utf8_are_refused_with_their_place() {
    refused(&spec("{{ text }}"), b"{\"id\": \"\xff\"}", FailureClass::InvalidUtf8, "at byte 8");
    let decoder = Decoder::new(&DocumentSpec { format: Format::Text, ..DocumentSpec::default() }).unwrap();
    let poison = decoder.decode(&record(Some(b"\xc3\x28"), Some(b"x")), &Schemas::none()).unwrap_err();
    assert_eq!(poison.class, FailureClass::InvalidUtf8, "{poison}");
}

#[test]
fn size_is_bounded_and_the_bound_can_be_raised() {
    let large = json!({"id": 1, "text": "x".repeat(10 << 20)}).to_string();
    refused(&spec("{{ text }}"), &large, FailureClass::TooLarge, "raise `max_bytes`");
    let raised = DocumentSpec { max_bytes: Some(11 << 20), ..spec("{{ text }}") };
    assert_eq!(decode(&raised, &large).unwrap().text.len(), 10 << 20);
}

#[test]
fn a_document_cannot_make_a_template_run_away() {
    let looping = spec("{% for item in items %}{{ text }}{% endfor %}");
    let payload = json!({"id": 1, "text": "x".repeat(1000), "items": vec![0; 2000]}).to_string();
    refused(&looping, payload, FailureClass::TooLarge, "output is longer than the limit of 1048576 bytes");
    let endless = spec("{% for a in items %}{% for b in items %}{% endfor %}{% endfor %}{{ text }}");
    let payload = json!({"id": 1, "text": "x", "items": vec![0; 2000]}).to_string();
    refused(&endless, payload, FailureClass::Template, "more than 200000 steps");
}

#[test]
fn a_document_without_text_is_refused() {
    for text in ["", " \\n\\t", "\\u3000"] {
        refused(&spec("{{ text }}"), format!(r#"{{"id": 1, "text": "{text}"}}"#), FailureClass::EmptyText, "has no text");
    }
}

#[test]
fn what_a_document_says_is_never_a_template_nor_markup() {
    for text in ["{{ id }} {% for x in y %}", "{{ 7 * 7 }}{#", "<b>&amp;'\"</b>", "'; DROP TABLE results; --", "\u{202e}مرحبا"]
    {
        let payload = json!({"id": text, "title": "{{ text }}", "text": text}).to_string();
        let document = decode(&spec("{{ title }} {{ text }}"), payload).unwrap();
        assert_eq!(*document.text, format!("{{{{ text }}}} {text}"));
        assert_eq!(&*document.id, text);
    }
}

#[test]
fn of_a_repeated_key_the_last_counts() {
    assert_eq!(&*decode(&spec("{{ text }}"), r#"{"id": 1, "id": 2, "text": "a", "text": "b"}"#).unwrap().id, "2");
}

#[test]
fn versions_are_integers_or_times() {
    let spec = DocumentSpec { version: Some("v".into()), ..spec("{{ text }}") };
    let version = |v: &str| decode(&spec, format!(r#"{{"id": 1, "text": "x", "v": {v}}}"#)).map(|d| d.version);
    assert_eq!(version("7"), Ok(7));
    assert_eq!(version("-7"), Ok(-7));
    assert_eq!(version(r#""1970-01-01T00:00:01Z""#), Ok(1_000_000));
    assert_eq!(version(r#""1970-01-01T01:00:01.5+01:00""#), Ok(1_500_000));
    assert_eq!(version(r#""1970-01-02""#), Ok(86_400_000_000));
    assert_eq!(version(r#""1970-01-01 00:00:02""#), Ok(2_000_000));
    for bad in ["1.5", "true", r#""soon""#, r#""2026-02-30""#, "9223372036854775808", "[]"] {
        assert_eq!(version(bad).unwrap_err().class, FailureClass::WrongType, "{bad}");
    }
    assert_eq!(version("null").unwrap_err().class, FailureClass::MissingField);
}

#[test]
fn a_record_without_a_time_is_versioned_by_its_offset() {
    let decoder = Decoder::new(&DocumentSpec::default()).unwrap();
    let timeless = Record { timestamp_ms: None, ..record(None, Some(br#"{"id": 1, "text": "x"}"#)) };
    assert!(matches!(decoder.decode(&timeless, &Schemas::none()), Ok(DecodedRecord::Document(Document { version: 7, .. }))));
}

#[test]
fn a_null_payload_deletes_what_the_key_names() {
    let decoder = Decoder::new(&DocumentSpec::default()).unwrap();
    let deleted = DecodedRecord::Tombstone { id: "p-1".into(), version: Some(1_700_000_000_000) };
    assert_eq!(decoder.decode(&record(Some(b"p-1"), None), &Schemas::none()), Ok(deleted));
    for key in [None, Some(b"".as_slice())] {
        assert_eq!(decoder.decode(&record(key, None), &Schemas::none()).unwrap_err().class, FailureClass::MissingKey);
    }
    assert_eq!(decoder.decode(&record(Some(b"\xff"), None), &Schemas::none()).unwrap_err().class, FailureClass::InvalidUtf8);
    assert_eq!(decoder.decode(&record(Some(b"a\0"), None), &Schemas::none()).unwrap_err().class, FailureClass::NulCharacter);
    let by_field = Decoder::new(&DocumentSpec { version: Some("v".into()), ..DocumentSpec::default() }).unwrap();
    assert_eq!(
        by_field.decode(&record(Some(b"p"), None), &Schemas::none()),
        Ok(DecodedRecord::Tombstone { id: "p".into(), version: None })
    );
}

#[test]
fn a_text_source_takes_the_payload_as_it_is() {
    let decoder = Decoder::new(&DocumentSpec { format: Format::Text, ..DocumentSpec::default() }).unwrap();
    let Ok(DecodedRecord::Document(document)) =
        decoder.decode(&record(Some(b"k"), Some("{{ x }} 안녕".as_bytes())), &Schemas::none())
    else {
        panic!("plain text was refused");
    };
    assert_eq!((&*document.id, &*document.text), ("k", "{{ x }} 안녕"));
    assert_eq!(decoder.decode(&record(None, Some(b"x")), &Schemas::none()).unwrap_err().class, FailureClass::MissingKey);
    assert_eq!(
        decoder.decode(&record(Some(b"k"), Some(b"a\0")), &Schemas::none()).unwrap_err().class,
        FailureClass::NulCharacter
    );
    let mixed = DocumentSpec { format: Format::Text, id: Some("id".into()), ..DocumentSpec::default() };
    assert!(Decoder::new(&mixed).unwrap_err().to_string().contains("leave out `id`"));
}

#[test]
fn a_byte_order_mark_is_passed_over_and_other_encodings_are_named() {
    let decoder = Decoder::new(&spec("{{ text }}")).unwrap();
    let decode = |payload: &[u8]| decoder.decode(&record(None, Some(payload)), &Schemas::none());
    let marked = decode("\u{feff}{\"id\": \"a\", \"text\": \"t\"}".as_bytes());
    assert!(matches!(marked, Ok(DecodedRecord::Document(document)) if &*document.id == "a"));
    let text = r#"{"id": "a", "text": "t"}"#;
    let wide = |mark: bool| -> Vec<u8> {
        let mark = mark.then_some(0xfeff);
        mark.into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    for payload in [wide(true), wide(false)] {
        assert_eq!(decode(&payload).unwrap_err().to_string(), "invalid_utf8: the payload is UTF-16: send it as UTF-8");
    }
}

#[test]
fn a_bad_template_is_refused_before_any_document() {
    for bad in ["{{ text", "{% for %}", "{{ text | nosuchfilter }}"] {
        let outcome = Decoder::new(&spec(bad));
        assert!(outcome.is_err(), "`{bad}` was accepted");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(payload: Vec<u8>, key: Option<Vec<u8>>) {
        for format in [Format::Json, Format::Text, Format::Avro] {
            let decoder = Decoder::new(&DocumentSpec { format, ..DocumentSpec::default() }).unwrap();
            let _ = decoder.decode(&record(key.as_deref(), Some(&payload)), &Schemas::none());
            let _ = decoder.decode(&record(key.as_deref(), None), &Schemas::none());
        }
    }

    #[test]
    fn any_two_strings_come_through_whole_or_are_refused(id: String, text: String) {
        let payload = json!({"id": id, "text": text}).to_string();
        match decode(&spec("{{ text }}"), payload) {
            Ok(document) => prop_assert_eq!((&*document.id, &*document.text), (id.as_str(), text.as_str())),
            Err(poison) => prop_assert!(
                text.contains('\0') || id.contains('\0') || text.trim().is_empty() || id.trim().is_empty() || id.len() > MAX_ID_BYTES,
                "refused without a reason: {}", poison
            ),
        }
    }
}

const PRODUCT: &str = r#"{"type":"record","name":"p","fields":[{"name":"id","type":"string"},{"name":"text","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}}]}"#;

fn schemas(texts: &[(u32, &str)]) -> Schemas {
    texts.iter().map(|(id, text)| (*id, avro::Schema::parse(*id, text, &[]).map(Arc::new))).collect()
}

fn framed(id: u32, value: &[u8]) -> Vec<u8> {
    [&[0], id.to_be_bytes().as_slice(), value].concat()
}

#[test]
fn a_record_of_avro_is_the_document_that_json_would_make() {
    let spec =
        DocumentSpec { format: Format::Avro, version: Some("at".into()), metadata: vec!["price".into()], ..spec("A {{ text }}") };
    let payload = framed(258, b"\x06p-1\x08rake\xd0\x0f\x04\x04\xce");
    let decoder = Decoder::new(&spec).unwrap();
    let avro = record(None, Some(&payload));
    assert_eq!(decoder.schema_ids(std::slice::from_ref(&avro)), BTreeSet::from([258]));
    let decoded = decoder.decode(&avro, &schemas(&[(258, PRODUCT)])).unwrap();
    let json = json!({"id": "p-1", "text": "rake", "at": "1970-01-01T00:00:01Z", "price": 12.3}).to_string();
    let twin = Decoder::new(&spec.in_json()).unwrap().decode(&record(None, Some(json.as_bytes())), &Schemas::none()).unwrap();
    assert_eq!(decoded, twin);
    let DecodedRecord::Document(document) = decoded else { panic!("a payload became a tombstone") };
    assert_eq!((&*document.id, &*document.text, document.version), ("p-1", "A rake", 1_000_000));
    assert_eq!(Value::Object(document.metadata), json!({"price": 12.3}));
}

#[test]
fn what_is_no_avro_of_a_known_schema_is_refused_by_name() {
    let decoder = Decoder::new(&DocumentSpec { format: Format::Avro, ..DocumentSpec::default() }).unwrap();
    let unknown = Poison { class: FailureClass::UnknownSchema, reason: "the registry knows no schema 9".into() };
    let known: Schemas = [(7, avro::Schema::parse(7, PRODUCT, &[]).map(Arc::new)), (9, Err(unknown))].into_iter().collect();
    let class = |payload: &[u8]| decoder.decode(&record(None, Some(payload)), &known).unwrap_err().class;
    for payload in [&b""[..], b"\0\0\0", b"{\"id\": 1}", b"\x01\0\0\0\x07"] {
        assert_eq!(class(payload), FailureClass::MalformedAvro, "{payload:?}");
    }
    assert_eq!(class(&framed(9, b"")), FailureClass::UnknownSchema);
    assert_eq!(class(&framed(7, b"\x06p-")), FailureClass::MalformedAvro);
    assert_eq!(class(&framed(7, &vec![0; DEFAULT_MAX_BYTES])), FailureClass::TooLarge);
    let large = record(None, Some(&framed(7, &vec![0; DEFAULT_MAX_BYTES])));
    assert_eq!(decoder.schema_ids(&[large]), BTreeSet::new(), "what is refused anyway asks for no schema");
    let list = schemas(&[(7, r#"{"type":"array","items":"int"}"#)]);
    let poison = decoder.decode(&record(None, Some(&framed(7, b"\0"))), &list).unwrap_err();
    assert_eq!(poison.to_string(), "wrong_type: the payload is an array, not a record");
}

#[test]
fn a_delete_in_a_topic_of_avro_has_a_key_of_text_or_of_avro() {
    let decoder = Decoder::new(&DocumentSpec { format: Format::Avro, ..DocumentSpec::default() }).unwrap();
    let known = schemas(&[
        (1, r#""string""#),
        (2, r#"{"type":"record","name":"k","fields":[{"name":"id","type":"long"}]}"#),
        (3, r#""double""#),
    ]);
    let deleted = |key: &[u8]| match decoder.decode(&record(Some(key), None), &known) {
        Ok(DecodedRecord::Tombstone { id, .. }) => Ok(id.to_string()),
        Ok(other) => panic!("{other:?} is no delete"),
        Err(poison) => Err(poison.class),
    };
    assert_eq!(decoder.schema_ids(&[record(Some(&framed(1, b"\x06p-1")), None)]), BTreeSet::from([1]));
    assert_eq!(deleted(b"p-1"), Ok("p-1".into()));
    assert_eq!(deleted(&framed(1, b"\x06p-1")), Ok("p-1".into()));
    assert_eq!(deleted(&framed(2, b"\x0e")), Ok("7".into()));
    assert_eq!(deleted(&framed(1, b"\0")), Err(FailureClass::MissingKey), "an empty id");
    assert_eq!(deleted(&framed(3, &1.5f64.to_le_bytes())), Err(FailureClass::WrongType));
    assert_eq!(deleted(&framed(4, b"")), Err(FailureClass::UnknownSchema));
    assert_eq!(deleted(b"\0\0"), Err(FailureClass::NulCharacter), "too short to be framed");
}
