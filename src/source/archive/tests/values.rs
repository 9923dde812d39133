//! The JSON form of each column type.

use arrow::array::types::{Int32Type, TimestampMicrosecondType};
use arrow::array::{
    Array, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float32Array,
    Int32Array, ListArray, MapBuilder, NullArray, PrimitiveArray, StringBuilder, StructArray, Time64MicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field};
use parquet::data_type::{ByteArray, ByteArrayType, FixedLenByteArrayType, Int96, Int96Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use super::*;

fn ids(count: usize) -> (&'static str, ArrayRef) {
    ("id", Arc::new(StringArray::from_iter_values((0..count).map(|n| format!("d{n}")))))
}

fn texts(count: usize) -> (&'static str, ArrayRef) {
    ("text", Arc::new(StringArray::from(vec!["t"; count])))
}

/// The JSON objects of the rows, for a pipeline with these metadata columns.
async fn objects(bytes: &[u8], metadata: &[&str]) -> Result<Vec<Value>, ArchiveError> {
    let (_folder, archive) = archive(&[("x.parquet", bytes)]);
    let file = archive.list("").await.unwrap().remove(0);
    let needs = RequestedColumns { metadata: metadata.iter().map(|name| (*name).to_owned()).collect(), ..needs() };
    let rows = archive.layout(&file, &needs).await?.rows();
    let records = read(&archive, &RowRange { needs, ..range(file, 0, rows) }).await?;
    Ok(records.iter().map(|record| serde_json::from_slice(record.payload.as_ref().unwrap()).unwrap()).collect())
}

/// The JSON values of a column.
async fn column(values: ArrayRef) -> Vec<Value> {
    let rows = values.len();
    let objects = objects(&bytes(vec![ids(rows), texts(rows), ("v", values)]), &["v"]).await.unwrap();
    objects.iter().map(|object| object["v"].clone()).collect()
}

fn micros(values: Vec<Option<i64>>, zone: Option<&str>) -> ArrayRef {
    let array: PrimitiveArray<TimestampMicrosecondType> = values.into_iter().collect();
    Arc::new(array.with_timezone_opt(zone))
}

#[tokio::test]
async fn a_timestamp_is_one_instant_whatever_zone_its_column_names() {
    for zone in ["UTC", "Asia/Seoul", "+09:00", "Etc/Nowhere"] {
        assert_eq!(
            column(micros(vec![Some(1_767_259_800_000_000)], Some(zone))).await,
            [json!("2026-01-01T09:30:00Z")],
            "{zone}"
        );
    }
    assert_eq!(column(micros(vec![Some(1_767_259_800_000_000), None], None)).await, [json!("2026-01-01T09:30:00"), Value::Null]);
    let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_767_259_800_001]));
    assert_eq!(column(millis).await, [json!("2026-01-01T09:30:00.001")]);
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_767_259_800_000_000_001]));
    assert_eq!(column(nanos).await, [json!("2026-01-01T09:30:00.000000001")]);
}

#[tokio::test]
async fn times_without_end_are_words_and_no_text_of_an_error() {
    let far = 253_402_300_800_000_000;
    let values = micros(vec![Some(i64::MAX), Some(i64::MIN), Some(-i64::MAX), Some(far), Some(far - 1)], None);
    let expected = ["infinity", "-infinity", "-infinity", "+010000-01-01T00:00:00", "9999-12-31T23:59:59.999999"];
    assert_eq!(column(values).await, expected.map(Value::from));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MAX, i32::MIN, 2_932_896, 2_932_897, -719_529]));
    let expected = ["infinity", "-infinity", "9999-12-31", "+010000-01-01", "-000001-12-31"];
    assert_eq!(column(days).await, expected.map(Value::from));
    let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![34_201_000_000, 86_400_000_000, 1]));
    assert_eq!(column(times).await, ["09:30:01", "24:00:00", "00:00:00.000001"].map(Value::from));
}

#[tokio::test]
async fn timestamps_of_96_bits_keep_their_year() {
    let schema = "message m { required binary id (UTF8); required binary text (UTF8); optional int96 at; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for _ in 0..2 {
        let mut text = group.next_column().unwrap().unwrap();
        text.typed::<ByteArrayType>().write_batch(&[ByteArray::from("a"), ByteArray::from("b")], None, None).unwrap();
        text.close().unwrap();
    }
    let mut at = group.next_column().unwrap().unwrap();
    // Two halves of the nanoseconds of the day come first, then the Julian day. 5,373,484 is the last day of the year 9999.
    let instant = |nanoseconds: u64, day: u32| Int96::from(vec![nanoseconds as u32, (nanoseconds >> 32) as u32, day]);
    let instants = [instant(86_399_000_000_000, 5_373_484), instant(0, 2_086_303)];
    at.typed::<Int96Type>().write_batch(&instants, Some(&[1, 1]), None).unwrap();
    at.close().unwrap();
    group.close().unwrap();
    let objects = objects(&writer.into_inner().unwrap(), &["at"]).await.unwrap();
    assert_eq!(objects[0]["at"], "9999-12-31T23:59:59");
    assert_eq!(objects[1]["at"], "1000-01-01T00:00:00");
}

#[tokio::test]
async fn a_decimal_is_a_number_as_far_as_numbers_are_exact() {
    let decimals = |precision| {
        let values = vec![Some(1990), Some(-5), None];
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, 2).unwrap()) as ArrayRef
    };
    assert_eq!(column(decimals(12)).await, [json!(19.9), json!(-0.05), Value::Null]);
    assert_eq!(
        column(decimals(38)).await,
        [json!(19.9), json!(-0.05), Value::Null],
        "the digits of the value count, not those of the type"
    );
    let large = Decimal128Array::from(vec![1_234_567_890_123_456_789_012_345]).with_precision_and_scale(38, 2).unwrap();
    assert_eq!(column(Arc::new(large)).await, [json!("12345678901234567890123.45")]);
}

#[tokio::test]
async fn every_plain_type_has_a_form() {
    assert_eq!(
        column(Arc::new(Float32Array::from(vec![0.1, f32::NAN, f32::NEG_INFINITY]))).await,
        [json!(0.1), json!("NaN"), json!("-Infinity")]
    );
    assert_eq!(column(Arc::new(UInt64Array::from(vec![u64::MAX]))).await, [json!(u64::MAX)]);
    assert_eq!(column(Arc::new(BooleanArray::from(vec![Some(true), None]))).await, [json!(true), Value::Null]);
    assert_eq!(column(Arc::new(NullArray::new(2))).await, [Value::Null, Value::Null]);
    assert_eq!(column(Arc::new(BinaryArray::from(vec![&b"abc"[..]]))).await, [json!("YWJj")]);
    let words: DictionaryArray<Int32Type> = vec![Some("p"), None, Some("p\n\"")].into_iter().collect();
    assert_eq!(column(Arc::new(words)).await, [json!("p"), Value::Null, json!("p\n\"")]);
}

#[tokio::test]
async fn lists_structs_and_maps_are_arrays_and_objects() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
    assert_eq!(column(Arc::new(list)).await, [json!([1, null]), Value::Null, json!([])]);
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k\"");
    map.values().append_value("v");
    map.keys().append_value("q");
    map.values().append_null();
    map.append(true).unwrap();
    map.append(false).unwrap();
    assert_eq!(column(Arc::new(map.finish())).await, [json!({"k\"": "v", "q": null}), Value::Null]);
    let inner = StructArray::from(vec![
        (Arc::new(Field::new("b", DataType::Utf8, true)), Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef),
        (Arc::new(Field::new("n", DataType::Int32, true)), Arc::new(Int32Array::from(vec![None, Some(7)])) as ArrayRef),
    ]);
    assert_eq!(column(Arc::new(inner)).await, [json!({"b": "x", "n": null}), json!({"b": null, "n": 7})]);
}

#[tokio::test]
async fn ids_of_16_bytes_are_read_as_ids() {
    let schema = "message m { required fixed_len_byte_array(16) id (UUID); required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut id = group.next_column().unwrap().unwrap();
    let bytes: Vec<u8> = (0..16).collect();
    id.typed::<FixedLenByteArrayType>().write_batch(&[ByteArray::from(bytes).into()], None, None).unwrap();
    id.close().unwrap();
    let mut text = group.next_column().unwrap().unwrap();
    text.typed::<ByteArrayType>().write_batch(&[ByteArray::from("a")], None, None).unwrap();
    text.close().unwrap();
    group.close().unwrap();
    let objects = objects(&writer.into_inner().unwrap(), &[]).await.unwrap();
    assert_eq!(objects[0]["id"], "00010203-0405-0607-0809-0a0b0c0d0e0f");
}

#[tokio::test]
async fn bytes_that_nobody_names_hide_nothing_beside_them() {
    let field = |name, kind| Arc::new(Field::new(name, kind, true));
    let raw = || Arc::new(BinaryArray::from(vec![&b"\0"[..]])) as ArrayRef;
    let inner = StructArray::from(vec![
        (field("key", DataType::Utf8), Arc::new(StringArray::from(vec!["k1"])) as ArrayRef),
        (field("raw", DataType::Binary), raw()),
        (field("none", DataType::Null), Arc::new(NullArray::new(1)) as ArrayRef),
    ]);
    let hashes = FixedSizeBinaryArray::try_from_iter([[7_u8; 3]].iter()).unwrap();
    let file = bytes(vec![ids(1), texts(1), ("v", Arc::new(inner)), ("raw", raw()), ("hash", Arc::new(hashes))]);
    assert_eq!(objects(&file, &[]).await.unwrap(), [json!({"id": "d0", "text": "t", "v": {"key": "k1", "none": null}})]);
    assert_eq!(
        objects(&file, &["v.raw", "hash"]).await.unwrap(),
        [json!({"id": "d0", "text": "t", "v": {"key": "k1", "raw": "AA==", "none": null}, "hash": "BwcH"})]
    );
}

#[tokio::test]
async fn a_column_that_the_template_asks_about_may_be_missing_and_one_of_nulls_has_any_type() {
    let needs = |optional: &[&str]| RequestedColumns {
        text: BTreeSet::from(["text".to_owned(), "sub".to_owned()]),
        optional: optional.iter().map(|name| (*name).to_owned()).collect(),
        ..needs()
    };
    let (_folder, archive) = archive(&[
        ("without.parquet", &bytes(vec![ids(1), texts(1)])),
        ("nulls.parquet", &bytes(vec![ids(1), texts(1), ("sub", Arc::new(NullArray::new(1)))])),
    ]);
    let files = archive.list("").await.unwrap();
    for file in &files {
        assert!(archive.layout(file, &needs(&["sub"])).await.is_ok(), "{}", file.key);
    }
    assert!(archive.layout(&files[0], &needs(&[])).await.is_ok(), "a column of nulls may be text");
    assert_eq!(class(archive.layout(&files[1], &needs(&[])).await.unwrap_err()), "schema_mismatch");
}

#[tokio::test]
async fn a_column_within_a_struct_is_looked_for_there() {
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("key", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec!["k1"])) as ArrayRef,
    )]);
    let (_folder, archive) = archive(&[("x.parquet", &bytes(vec![("v", Arc::new(inner)), texts(1)]))]);
    let file = archive.list("").await.unwrap().remove(0);
    let shape = async |id: &str| archive.layout(&file, &RequestedColumns { id: id.into(), ..needs() }).await;
    assert!(shape("v.key").await.is_ok());
    let fault = fault(shape("v.other").await.unwrap_err());
    assert!(fault.reason.contains("column `v.other`, which the pipeline needs, is missing; there are v, text"), "{fault}");
    assert_eq!(class(shape("v").await.unwrap_err()), "schema_mismatch");
}
