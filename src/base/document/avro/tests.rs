use apache_avro::types::Value as AvroValue;
use apache_avro::{BigDecimal, Days, Decimal, Duration, Millis, Months};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema(text: &str) -> Schema {
    Schema::parse(7, text, &[]).unwrap()
}

/// What comes of the value, written by a library.
#[track_caller]
fn written(text: &str, value: AvroValue) -> Value {
    let theirs = apache_avro::Schema::parse_str(text).unwrap();
    let bytes = apache_avro::to_avro_datum(&theirs, value).unwrap();
    schema(text).read(&bytes).unwrap()
}

/// The same value in a field of a record, where logical types are used in practice.
#[track_caller]
fn field(kind: &str, value: AvroValue) -> Value {
    let text = format!(r#"{{"type":"record","name":"r","fields":[{{"name":"f","type":{kind}}}]}}"#);
    written(&text, AvroValue::Record(vec![("f".into(), value)]))["f"].clone()
}

#[track_caller]
fn refused(text: &str, bytes: &[u8], class: FailureClass, says: &str) {
    let poison = schema(text).read(bytes).expect_err("the bytes are bad, but were read");
    assert_eq!(poison.class, class, "{poison}");
    assert!(poison.reason.contains(says), "the reason `{}` does not say `{says}`", poison.reason);
}

#[test]
fn plain_values_become_what_json_has_for_them() {
    assert_eq!(field(r#""null""#, AvroValue::Null), json!(null));
    assert_eq!(field(r#""boolean""#, AvroValue::Boolean(true)), json!(true));
    for number in [0, 1, -1, 63, 64, -65, i32::MAX, i32::MIN] {
        assert_eq!(field(r#""int""#, AvroValue::Int(number)), json!(number));
    }
    for number in [i64::MAX, i64::MIN, 1 << 53, -(1 << 40)] {
        assert_eq!(field(r#""long""#, AvroValue::Long(number)), json!(number));
    }
    assert_eq!(field(r#""float""#, AvroValue::Float(0.1)), json!(0.1), "the shortest number that it stands for");
    assert_eq!(field(r#""double""#, AvroValue::Double(1e300)), json!(1e300));
    assert_eq!(field(r#""double""#, AvroValue::Double(f64::NAN)), json!("NaN"));
    assert_eq!(field(r#""float""#, AvroValue::Float(f32::NEG_INFINITY)), json!("-Infinity"));
    assert_eq!(field(r#""string""#, AvroValue::String("물뿌리개 🜁".into())), json!("물뿌리개 🜁"));
    for (bytes, text) in [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xff\xfe\xfd\xfc", "//79/A==")] {
        assert_eq!(field(r#""bytes""#, AvroValue::Bytes(bytes.to_vec())), json!(text));
    }
    let fixed = r#"{"type":"fixed","name":"two","size":2}"#;
    assert_eq!(field(fixed, AvroValue::Fixed(2, vec![1, 2])), json!("AQI="));
    let suits = r#"{"type":"enum","name":"suit","symbols":["HEARTS","SPADES"]}"#;
    assert_eq!(field(suits, AvroValue::Enum(1, "SPADES".into())), json!("SPADES"));
}

#[test]
fn nested_values_become_objects_arrays_and_branches() {
    let longs = AvroValue::Array((0..200).map(AvroValue::Long).collect());
    assert_eq!(field(r#"{"type":"array","items":"long"}"#, longs), json!((0..200).collect::<Vec<_>>()));
    let map = AvroValue::Map([("a".to_owned(), AvroValue::Int(1)), ("b".to_owned(), AvroValue::Int(2))].into());
    assert_eq!(field(r#"{"type":"map","values":"int"}"#, map), json!({"a": 1, "b": 2}));
    let maybe = |value| field(r#"["null","string",{"type":"array","items":["null","int"]}]"#, value);
    assert_eq!(maybe(AvroValue::Union(0, Box::new(AvroValue::Null))), json!(null));
    assert_eq!(maybe(AvroValue::Union(1, Box::new(AvroValue::String("x".into())))), json!("x"));
    let item = |at, value| AvroValue::Union(at, Box::new(value));
    let items = AvroValue::Array(vec![item(0, AvroValue::Null), item(1, AvroValue::Int(5))]);
    assert_eq!(maybe(AvroValue::Union(2, Box::new(items))), json!([null, 5]));
}

#[test]
fn a_type_may_contain_itself_and_be_named_again() {
    let tree = r#"{"type":"record","name":"shop.Node","fields":[{"name":"label","type":"string"},
        {"name":"children","type":{"type":"array","items":"Node"}},{"name":"twin","type":["null","shop.Node"]}]}"#;
    let node = |label: &str, children: Vec<AvroValue>| {
        AvroValue::Record(vec![
            ("label".into(), AvroValue::String(label.into())),
            ("children".into(), AvroValue::Array(children)),
            ("twin".into(), AvroValue::Union(0, Box::new(AvroValue::Null))),
        ])
    };
    let found = written(tree, node("root", vec![node("leaf", vec![])]));
    let leaf = json!({"label": "leaf", "children": [], "twin": null});
    assert_eq!(found, json!({"label": "root", "children": [leaf], "twin": null}));
}

#[test]
fn logical_types_become_what_people_write() {
    let logical = |beneath: &str, name: &str| format!(r#"{{"type":"{beneath}","logicalType":"{name}"}}"#);
    assert_eq!(field(&logical("int", "date"), AvroValue::Date(20_000)), json!("2024-10-04"));
    assert_eq!(field(&logical("int", "date"), AvroValue::Date(-1)), json!("1969-12-31"));
    assert_eq!(field(&logical("int", "time-millis"), AvroValue::TimeMillis(45_296_789)), json!("12:34:56.789"));
    assert_eq!(field(&logical("long", "time-micros"), AvroValue::TimeMicros(45_296_000_001)), json!("12:34:56.000001"));
    let instant = |name, value| field(&logical("long", name), value);
    assert_eq!(instant("timestamp-millis", AvroValue::TimestampMillis(1_700_000_000_123)), json!("2023-11-14T22:13:20.123Z"));
    assert_eq!(instant("timestamp-micros", AvroValue::TimestampMicros(-1)), json!("1969-12-31T23:59:59.999999Z"));
    assert_eq!(instant("timestamp-nanos", AvroValue::TimestampNanos(1)), json!("1970-01-01T00:00:00.000000001Z"));
    assert_eq!(instant("local-timestamp-millis", AvroValue::LocalTimestampMillis(0)), json!("1970-01-01T00:00:00"));
    assert_eq!(instant("local-timestamp-micros", AvroValue::LocalTimestampMicros(1)), json!("1970-01-01T00:00:00.000001"));
    assert_eq!(instant("local-timestamp-nanos", AvroValue::LocalTimestampNanos(0)), json!("1970-01-01T00:00:00"));
    let id = "67e55044-10b1-426f-9247-bb680e5fe0c8";
    assert_eq!(field(&logical("string", "uuid"), AvroValue::Uuid(id.parse().unwrap())), json!(id));
    let duration = r#"{"type":{"type":"fixed","name":"d","size":12},"logicalType":"duration"}"#;
    let span = AvroValue::Duration(Duration::new(Months::new(1), Days::new(2), Millis::new(3_004)));
    assert_eq!(field(duration, span), json!("P1M2DT3.004S"));
    assert_eq!(field(&logical("long", "no-such-type"), AvroValue::Long(5)), json!(5), "read without it");
    assert_eq!(field(&logical("long", "date"), AvroValue::Long(5)), json!(5), "it does not fit, so it is as good as none");
}

#[test]
fn a_uuid_of_sixteen_bytes_is_one_too() {
    let text = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":{"type":"fixed","name":"id","size":16,"logicalType":"uuid"}},{"name":"b","type":"id"}]}"#;
    let found = schema(text).read(&[[0x67; 16], [0; 16]].concat()).unwrap();
    let (a, b) = ("67676767-6767-6767-6767-676767676767", "00000000-0000-0000-0000-000000000000");
    assert_eq!(found, json!({"a": a, "b": b}), "whoever names the type again means the logical one");
}

#[test]
fn decimals_are_numbers_as_long_as_numbers_can_say_them() {
    let decimal = |precision: u32, scale: u32, unscaled: &[u8]| {
        let kind = format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#);
        field(&kind, AvroValue::Decimal(Decimal::from(unscaled)))
    };
    assert_eq!(decimal(9, 2, &[0x04, 0xce]), json!(12.3));
    assert_eq!(decimal(9, 2, &[0xff, 0xff]), json!(-0.01));
    assert_eq!(decimal(9, 0, &[0x80]), json!(-128));
    assert_eq!(decimal(20, 2, &[0x04, 0xce]), json!(12.3));
    assert_eq!(decimal(20, 4, &[0xff]), json!(-0.0001));
    assert_eq!(decimal(20, 2, &[0]), json!(0));
    let huge = [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(decimal(40, 0, &huge), json!("2361183241434822606847"));
    assert_eq!(decimal(40, 0, &[0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0]), json!("-4722366482869645213696"));
    let short = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    refused(short, &[[18].as_slice(), &huge].concat(), FailureClass::MalformedAvro, "has 22 digits");
    let big = |digits: &str| {
        field(r#"{"type":"bytes","logicalType":"big-decimal"}"#, AvroValue::BigDecimal(digits.parse::<BigDecimal>().unwrap()))
    };
    assert_eq!([big("-12.30"), big("0.001"), big("7e3")], [json!("-12.30"), json!("0.001"), json!("7000")]);
}

#[test]
fn what_is_beyond_a_calendar_is_malformed() {
    let bytes = |number: i64| apache_avro::to_avro_datum(&apache_avro::Schema::Long, AvroValue::Long(number)).unwrap();
    for (kind, number) in [("timestamp-micros", i64::MAX), ("timestamp-millis", i64::MIN), ("time-micros", -1)] {
        let text = format!(r#"{{"type":"long","logicalType":"{kind}"}}"#);
        refused(&text, &bytes(number), FailureClass::MalformedAvro, "is not a time");
    }
    refused(r#"{"type":"int","logicalType":"date"}"#, &bytes(i32::MAX.into()), FailureClass::MalformedAvro, "are not a date");
}

const WIDE: &str = r#"{"type":"record","name":"r","fields":[{"name":"outer","type":{"type":"record","name":"s","fields":[
    {"name":"text","type":"string"},{"name":"flag","type":["null","boolean"]}]}}]}"#;

#[test]
fn a_fault_is_told_with_its_place() {
    let class = FailureClass::MalformedAvro;
    refused(WIDE, &[], class, "schema 7 at byte 0 in field `outer.text`: an integer of 1 bytes, but 0 are left");
    refused(WIDE, &[4, b'a'], class, "in field `outer.text`: a string of 2 bytes, but 1 are left");
    refused(WIDE, &[1], class, "a string of -1 bytes");
    refused(WIDE, &[2, b'a', 4], class, "in field `outer.flag`: branch 2 of a union that has 2");
    refused(WIDE, &[2, b'a', 2, 9], class, "9 is not a boolean");
    refused(WIDE, &[2, b'a', 0, 0, 0], class, "2 bytes are left over");
    refused(WIDE, &[2, 0xff, 0], FailureClass::InvalidUtf8, "in field `outer.text`: a string is not UTF-8");
    refused(r#""long""#, &[0xff; 12], class, "more than 64 bits");
    refused(r#""int""#, &[0xff, 0xff, 0xff, 0xff, 0x7f], class, "not a 32-bit integer");
    refused(r#"{"type":"enum","name":"e","symbols":["A"]}"#, &[2], class, "symbol 1 of an enum that has 1");
}

#[test]
fn lengths_are_not_believed_before_the_bytes_are_there() {
    let long = |number: i64| apache_avro::to_avro_datum(&apache_avro::Schema::Long, AvroValue::Long(number)).unwrap();
    let class = FailureClass::MalformedAvro;
    for kind in ["string", "bytes"] {
        refused(&format!("{kind:?}"), &long(i64::MAX), class, "9223372036854775807 bytes, but 0 are left");
    }
    refused(r#"{"type":"fixed","name":"f","size":18446744073709551615}"#, &[], class, "but 0 are left");
    refused(r#"{"type":"array","items":"int"}"#, &long(i64::MAX), class, "an integer");
    refused(r#"{"type":"array","items":"int"}"#, &long(i64::MIN), class, "an integer");
    refused(r#"{"type":"map","values":"int"}"#, &long(i64::MAX), class, "an integer");
}

/// None of these takes a byte of the payload for an item.
#[test]
fn what_takes_no_bytes_cannot_take_memory_without_end() {
    let class = FailureClass::TooLarge;
    let endless = apache_avro::to_avro_datum(&apache_avro::Schema::Long, AvroValue::Long(i64::MAX)).unwrap();
    for items in [r#""null""#, r#"{"type":"fixed","name":"f","size":0}"#, r#"{"type":"record","name":"r","fields":[]}"#] {
        refused(&format!(r#"{{"type":"array","items":{items}}}"#), &endless, class, "grow to more than 128 times");
    }
    let fields: Vec<_> = (0..500).map(|n| json!({"name": format!("{n}{}", "x".repeat(500)), "type": "null"})).collect();
    let wide = json!({"type": "array", "items": {"type": "record", "name": "r", "fields": fields}}).to_string();
    refused(&wide, &endless, class, "grow to more");
}

#[test]
fn an_honest_record_of_many_fields_is_not_taken_for_a_hostile_one() {
    let fields: Vec<_> =
        (0..1500).map(|n| json!({"name": format!("a_field_of_some_length_{n}"), "type": ["null", "string"]})).collect();
    let text = json!({"type": "record", "name": "r", "fields": fields}).to_string();
    let found = schema(&text).read(&[0; 1500]).unwrap();
    assert_eq!(found.as_object().unwrap().len(), 1500);
}

#[test]
fn a_schema_that_contains_itself_ends_at_the_depth_of_json() {
    let endless = r#"{"type":"record","name":"r","fields":[{"name":"next","type":"r"}]}"#;
    refused(endless, &[], FailureClass::TooDeep, "deeper than 127 levels");
    let list = r#"{"type":"record","name":"r","fields":[{"name":"next","type":["null","r"]}]}"#;
    refused(list, &[2; 100_000], FailureClass::TooDeep, "deeper than 127 levels");
    let mut deep = vec![2; 126];
    deep.push(0);
    assert!(schema(list).read(&deep).is_ok(), "as deep as JSON may be");
    refused(
        r#"{"type":"record","name":"r","fields":[{"name":"next","type":{"type":"array","items":"r"}}]}"#,
        &[2; 100_000],
        FailureClass::TooDeep,
        "deeper",
    );
}

#[test]
fn a_schema_may_name_types_of_others() {
    let address = r#"{"type":"record","name":"Address","namespace":"shop","fields":[{"name":"city","type":"City"}]}"#.to_owned();
    let city = r#"{"type":"enum","name":"shop.City","symbols":["ULM","BONN"]}"#.to_owned();
    let text = r#"{"type":"record","name":"Customer","namespace":"shop","fields":[{"name":"home","type":"Address"},{"name":"born","type":"shop.City"}]}"#;
    let found = Schema::parse(7, text, &[city, address]).unwrap().read(&[2, 0]).unwrap();
    assert_eq!(found, json!({"home": {"city": "BONN"}, "born": "ULM"}));
    let alone = Schema::parse(7, text, &[]).unwrap_err();
    assert_eq!(
        alone.to_string(),
        "malformed_avro: schema 7 is not an Avro schema: it names the type `Address`, which is not defined"
    );
}

#[test]
fn what_is_no_schema_is_told() {
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(5000), "}".repeat(5000));
    for (text, says) in [
        ("", "EOF"),
        ("7", "`7` is not a type"),
        ("{}", "has no `type`"),
        (r#""Nobody""#, "names the type `Nobody`"),
        (r#"["null",["int"]]"#, "a union is directly inside a union"),
        (r#"{"type":"record","name":"r"}"#, "no list of `fields`"),
        (r#"{"type":"record","fields":[]}"#, "has no `name`"),
        (r#"{"type":"record","name":"r","fields":[{"type":"int"}]}"#, "a field of `r` has no `name`"),
        (r#"{"type":"enum","name":"e","symbols":[1]}"#, "`1` is not a symbol"),
        (r#"{"type":"fixed","name":"f","size":-1}"#, "has no `size`"),
        (r#"[{"type":"fixed","name":"f","size":1},{"type":"fixed","name":"f","size":2}]"#, "defines the type `f` twice"),
        (&deep, "recursion limit"),
    ] {
        let poison = Schema::parse(7, text, &[]).unwrap_err();
        assert!(poison.class == FailureClass::MalformedAvro && poison.reason.contains(says), "{poison}");
    }
}

fn any_schema() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop::sample::select(vec![
        json!("null"),
        json!("boolean"),
        json!("int"),
        json!("long"),
        json!("float"),
        json!("double"),
        json!("bytes"),
        json!("string"),
        json!("root"),
        json!({"type": "int", "logicalType": "date"}),
        json!({"type": "long", "logicalType": "timestamp-micros"}),
        json!({"type": "int", "logicalType": "time-millis"}),
        json!({"type": "bytes", "logicalType": "big-decimal"}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 900, "scale": 3}),
        json!({"type": "string", "logicalType": "uuid"}),
    ]);
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({"type": "array", "items": items})),
            inner.clone().prop_map(|values| json!({"type": "map", "values": values})),
            prop::collection::vec(inner, 1..4).prop_map(|kinds| kinds
                .into_iter()
                .filter(|kind| !kind.is_array())
                .collect::<Vec<_>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_by_any_schema(kinds in prop::collection::vec(any_schema(), 1..5), bytes: Vec<u8>) {
        let fields: Vec<_> = kinds.iter().enumerate().map(|(n, kind)| json!({"name": format!("f{n}"), "type": kind})).collect();
        let text = json!({"type": "record", "name": "root", "fields": fields}).to_string();
        if let Ok(schema) = Schema::parse(7, &text, &[]) {
            let _ = schema.read(&bytes);
        }
    }

    #[test]
    fn any_framed_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let schemas: Schemas = [(0, Ok(Arc::new(schema(WIDE))))].into_iter().collect();
        let _ = schemas.read("the payload", &bytes);
        let framed = [&[0; 5], bytes.as_slice()].concat();
        let _ = schemas.read("the payload", &framed);
    }

    #[test]
    fn decimals_of_any_size_are_the_integers_that_they_are(number: i128) {
        let text = r#"{"type":"bytes","logicalType":"decimal","precision":40,"scale":0}"#;
        let found = written(text, AvroValue::Decimal(Decimal::from(number.to_be_bytes())));
        let is_exact = number.unsigned_abs() < 10_u128.pow(15);
        prop_assert_eq!(found, if is_exact { json!(number as i64) } else { json!(number.to_string()) });
    }

    #[test]
    fn what_a_library_writes_comes_back(id: String, price: f64, count: i64, tags: Vec<String>) {
        let text = r#"{"type":"record","name":"r","fields":[{"name":"id","type":"string"},{"name":"price","type":["null","double"]},
            {"name":"count","type":"long"},{"name":"tags","type":{"type":"array","items":"string"}}]}"#;
        let value = AvroValue::Record(vec![
            ("id".into(), AvroValue::String(id.clone())),
            ("price".into(), AvroValue::Union(1, Box::new(AvroValue::Double(price)))),
            ("count".into(), AvroValue::Long(count)),
            ("tags".into(), AvroValue::Array(tags.iter().cloned().map(AvroValue::String).collect())),
        ]);
        prop_assume!(price.is_finite());
        prop_assert_eq!(written(text, value), json!({"id": id, "price": price, "count": count, "tags": tags}));
    }
}
