//! Writes values of a Parquet file as JSON. Each type has one JSON form, the same as in Avro records.
//!
//! | Parquet | JSON |
//! |---|---|
//! | null, a column with only nulls | `null` |
//! | booleans, integers, floats | the same; floats that are not finite: `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | text, enumerations, JSON | a string |
//! | bytes | a string in base64 |
//! | UUID | a string with hyphens |
//! | decimal of at most 15 significant digits | a number, because binary floating point preserves 15 digits |
//! | decimal of more digits | a string |
//! | dates, times, timestamps, intervals | a string in ISO 8601; a timestamp adjusted to UTC ends with `Z`, regardless of the time zone of the column |
//! | a date or timestamp beyond four-digit years | `"infinity"` or `"-infinity"` for the largest or smallest value, otherwise a year with more digits |
//! | list | an array |
//! | struct, map | an object |

use std::io::Write;

use arrow::array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use uuid::Uuid;

use crate::document::json_scalars::{self, DAY, SECOND};

/// How the values of a column are written, as far as its type does not determine it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonForm {
    /// As determined by the type.
    Plain,
    /// 16 bytes as a UUID.
    Uuid,
    /// A struct: its fields, in column order.
    Object(Vec<(String, JsonForm)>),
    /// A list: the form of its items.
    Array(Box<JsonForm>),
    /// A map: the forms of keys and values.
    Map(Box<(JsonForm, JsonForm)>),
}

/// Whether values of this type, which must not be nested, can be written as JSON.
pub(super) fn has_form(kind: &DataType) -> bool {
    match kind {
        DataType::Null | DataType::Boolean | DataType::Date32 | DataType::Date64 => true,
        DataType::Timestamp(..) | DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_) => {
            true
        }
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => true,
        kind => is_text(kind) || is_bytes(kind) || kind.is_integer() || kind.is_floating(),
    }
}

pub(super) fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(super) fn is_bytes(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

/// Bytes after which no further item of a list is written, because a few bytes of dictionary indexes can repeat large values. No
/// pipeline accepts such a large payload, so a truncated value is rejected for its size.
const MOST_BYTES: usize = 64 << 20;

/// Writes the values of the columns in `row` as one object.
pub(super) fn object(columns: &[ArrayRef], fields: &[(String, JsonForm)], row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    separated(columns.len().min(fields.len()), usize::MAX, out, |index, out| {
        let (name, form) = &fields[index];
        string(name, out);
        out.push(b':');
        value(&columns[index], form, row, out);
    });
    out.push(b'}');
}

/// Writes `count` items with commas between them. Writes no further item once `out` is longer than `most_bytes`.
fn separated(count: usize, most_bytes: usize, out: &mut Vec<u8>, write: impl Fn(usize, &mut Vec<u8>)) {
    for index in 0..count {
        if out.len() > most_bytes {
            break;
        }
        if index > 0 {
            out.push(b',');
        }
        write(index, out);
    }
}

fn value(array: &dyn Array, form: &JsonForm, row: usize, out: &mut Vec<u8>) {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return out.extend_from_slice(b"null");
    }
    match form {
        JsonForm::Object(fields) => object(array.as_struct().columns(), fields, row, out),
        JsonForm::Array(item) => {
            let items = match array.data_type() {
                DataType::LargeList(_) => array.as_list::<i64>().value(row),
                DataType::ListView(_) => array.as_list_view::<i32>().value(row),
                DataType::LargeListView(_) => array.as_list_view::<i64>().value(row),
                DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
                _ => array.as_list::<i32>().value(row),
            };
            out.push(b'[');
            separated(items.len(), MOST_BYTES, out, |at, out| value(&items, item, at, out));
            out.push(b']');
        }
        JsonForm::Map(forms) => {
            let entries = array.as_map().value(row);
            out.push(b'{');
            separated(entries.len(), MOST_BYTES, out, |at, out| {
                name(entries.column(0), &forms.0, at, out);
                out.push(b':');
                value(entries.column(1), &forms.1, at, out);
            });
            out.push(b'}');
        }
        JsonForm::Uuid => match Uuid::from_slice(bytes(array, row)) {
            Ok(id) => quoted(&id.to_string(), out),
            Err(_) => quoted(&json_scalars::base64(bytes(array, row)), out),
        },
        JsonForm::Plain => plain(array, row, out),
    }
}

/// Writes a key of a map, which must be a string in JSON.
fn name(keys: &dyn Array, form: &JsonForm, row: usize, out: &mut Vec<u8>) {
    let mut key = Vec::new();
    value(keys, form, row, &mut key);
    if key.first() == Some(&b'"') {
        out.extend(key);
    } else {
        string(&String::from_utf8_lossy(&key), out);
    }
}

fn plain(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    match array.data_type() {
        DataType::Boolean => out.extend_from_slice(if array.as_boolean().value(row) { b"true" } else { b"false" }),
        DataType::Int8 => shown(of::<Int8Type>(array, row), out),
        DataType::Int16 => shown(of::<Int16Type>(array, row), out),
        DataType::Int32 => shown(of::<Int32Type>(array, row), out),
        DataType::Int64 => shown(of::<Int64Type>(array, row), out),
        DataType::UInt8 => shown(of::<UInt8Type>(array, row), out),
        DataType::UInt16 => shown(of::<UInt16Type>(array, row), out),
        DataType::UInt32 => shown(of::<UInt32Type>(array, row), out),
        DataType::UInt64 => shown(of::<UInt64Type>(array, row), out),
        DataType::Float16 => float(of::<Float16Type>(array, row).to_f32(), out),
        DataType::Float32 => float(of::<Float32Type>(array, row), out),
        DataType::Float64 => double(of::<Float64Type>(array, row), out),
        DataType::Utf8 => string(array.as_string::<i32>().value(row), out),
        DataType::LargeUtf8 => string(array.as_string::<i64>().value(row), out),
        DataType::Utf8View => string(array.as_string_view().value(row), out),
        DataType::Date32 => date(of::<Date32Type>(array, row).into(), [i32::MIN.into(), i32::MAX.into()], DAY, out),
        DataType::Date64 => date(of::<Date64Type>(array, row), [i64::MIN, i64::MAX], SECOND / 1_000, out),
        DataType::Timestamp(unit, zone) => timestamp(ticks(array, *unit, row), *unit, zone.is_some(), out),
        DataType::Time32(TimeUnit::Second) => time(i128::from(of::<Time32SecondType>(array, row)) * SECOND, out),
        DataType::Time32(_) => time(i128::from(of::<Time32MillisecondType>(array, row)) * 1_000_000, out),
        DataType::Time64(TimeUnit::Microsecond) => time(i128::from(of::<Time64MicrosecondType>(array, row)) * 1_000, out),
        DataType::Time64(_) => time(of::<Time64NanosecondType>(array, row).into(), out),
        DataType::Duration(unit) => {
            let span = match unit {
                TimeUnit::Second => of::<DurationSecondType>(array, row),
                TimeUnit::Millisecond => of::<DurationMillisecondType>(array, row),
                TimeUnit::Microsecond => of::<DurationMicrosecondType>(array, row),
                TimeUnit::Nanosecond => of::<DurationNanosecondType>(array, row),
            };
            quoted(&json_scalars::duration(0, 0, i128::from(span) * nanoseconds(*unit)), out);
        }
        DataType::Interval(IntervalUnit::YearMonth) => {
            quoted(&json_scalars::duration(of::<IntervalYearMonthType>(array, row).into(), 0, 0), out);
        }
        DataType::Interval(IntervalUnit::DayTime) => {
            let span = of::<IntervalDayTimeType>(array, row);
            quoted(&json_scalars::duration(0, span.days.into(), i128::from(span.milliseconds) * 1_000_000), out);
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let span = of::<IntervalMonthDayNanoType>(array, row);
            quoted(&json_scalars::duration(span.months.into(), span.days.into(), span.nanoseconds.into()), out);
        }
        DataType::Decimal32(_, scale) => decimal(&of::<Decimal32Type>(array, row), *scale, out),
        DataType::Decimal64(_, scale) => decimal(&of::<Decimal64Type>(array, row), *scale, out),
        DataType::Decimal128(_, scale) => decimal(&of::<Decimal128Type>(array, row), *scale, out),
        DataType::Decimal256(_, scale) => decimal(&of::<Decimal256Type>(array, row), *scale, out),
        // Columns of other types are not read.
        _ => quoted(&json_scalars::base64(bytes(array, row)), out),
    }
}

fn of<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

fn bytes(array: &dyn Array, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => array.as_fixed_size_binary().value(row),
    }
}

fn ticks(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => of::<TimestampSecondType>(array, row),
        TimeUnit::Millisecond => of::<TimestampMillisecondType>(array, row),
        TimeUnit::Microsecond => of::<TimestampMicrosecondType>(array, row),
        TimeUnit::Nanosecond => of::<TimestampNanosecondType>(array, row),
    }
}

fn nanoseconds(unit: TimeUnit) -> i128 {
    match unit {
        TimeUnit::Second => SECOND,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

fn timestamp(ticks: i64, unit: TimeUnit, is_instant: bool, out: &mut Vec<u8>) {
    let since_epoch = i128::from(ticks) * nanoseconds(unit);
    let text = if is_instant { json_scalars::instant(since_epoch) } else { json_scalars::local_time(since_epoch) };
    match text.or_else(|| infinite(ticks, [i64::MIN, i64::MAX])) {
        Some(text) => quoted(&text, out),
        None => {
            let zone = if is_instant { "Z" } else { "" };
            quoted(&format!("{}T{}{zone}", far_date(since_epoch), clock(since_epoch.rem_euclid(DAY))), out);
        }
    }
}

fn date(ticks: i64, ends: [i64; 2], unit: i128, out: &mut Vec<u8>) {
    let since_epoch = i128::from(ticks) * unit;
    let days = i64::try_from(since_epoch.div_euclid(DAY)).ok();
    let text = days.and_then(json_scalars::date).or_else(|| infinite(ticks, ends)).unwrap_or_else(|| far_date(since_epoch));
    quoted(&text, out);
}

/// Databases with infinite times write them as the largest and smallest integer. Some reserve the smallest one for `null`.
fn infinite(ticks: i64, [least, greatest]: [i64; 2]) -> Option<String> {
    match ticks {
        _ if ticks == greatest => Some("infinity".into()),
        _ if ticks == least || ticks == least + 1 => Some("-infinity".into()),
        _ => None,
    }
}

/// A date with a year of more than four digits, by the algorithm `civil_from_days` of Howard Hinnant.
fn far_date(since_epoch: i128) -> String {
    let days = since_epoch.div_euclid(DAY) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!("{year:+07}-{month:02}-{day:02}")
}

/// Writes a time of day. Some databases use 24:00:00, and longer times have more hours.
fn time(nanoseconds: i128, out: &mut Vec<u8>) {
    quoted(&clock(nanoseconds), out);
}

fn clock(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) =
        (nanoseconds.unsigned_abs() / SECOND.unsigned_abs(), nanoseconds.unsigned_abs() % SECOND.unsigned_abs());
    format!("{sign}{:02}:{:02}:{:02}{}", seconds / 3600, seconds / 60 % 60, seconds % 60, json_scalars::fraction(rest))
}

fn decimal(unscaled: &dyn std::fmt::Display, scale: i8, out: &mut Vec<u8>) {
    let mut digits = unscaled.to_string();
    if scale < 0 && digits != "0" {
        digits.push_str(&"0".repeat(scale.unsigned_abs().into()));
    }
    let _ = serde_json::to_writer(out, &json_scalars::decimal(&digits, u32::try_from(scale).unwrap_or(0)));
}

fn float(number: f32, out: &mut Vec<u8>) {
    match number.is_finite() {
        // The shortest digits that represent the `f32`, not those of its value as `f64`.
        true => drop(serde_json::to_writer(out, &number)),
        false => double(number.into(), out),
    }
}

fn double(number: f64, out: &mut Vec<u8>) {
    match number {
        _ if number.is_finite() => drop(serde_json::to_writer(out, &number)),
        _ if number.is_nan() => quoted("NaN", out),
        _ if number > 0.0 => quoted("Infinity", out),
        _ => quoted("-Infinity", out),
    }
}

fn shown(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to memory cannot fail. This also applies below.
    let _ = write!(out, "{number}");
}

fn string(text: &str, out: &mut Vec<u8>) {
    let _ = serde_json::to_writer(out, text);
}

/// Writes text without characters that need escaping.
fn quoted(text: &str, out: &mut Vec<u8>) {
    let _ = write!(out, "\"{text}\"");
}
