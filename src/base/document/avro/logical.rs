//! LogicalType types: decimals, dates, times and UUIDs that are stored as bytes or integers.

use jiff::civil::Time;
use serde_json::Value;
use uuid::Uuid;

use super::plan::{LogicalType, MAX_DIGITS};
use crate::document::json_scalars::{self, EXACT_DIGITS, base64, pointed};

/// One day in seconds.
const DAY: i64 = 86_400;

/// The value of an integer of the logical type, or what is wrong with it.
pub(super) fn of_integer(logical: LogicalType, integer: i64) -> Result<Value, String> {
    match logical {
        LogicalType::Date => match json_scalars::date(integer) {
            Some(date) => Ok(date.into()),
            None => Err(format!("{integer} days from 1970 are not a date before the year 10000")),
        },
        LogicalType::Time(unit) => match time_of_day(integer, unit) {
            Some(time) => Ok(time.to_string().into()),
            None => Err(format!("{integer} is not a time of day")),
        },
        LogicalType::Timestamp { unit, local } => {
            let nanoseconds = i128::from(integer) * i128::from(unit);
            let text = if local { json_scalars::local_time(nanoseconds) } else { json_scalars::instant(nanoseconds) };
            text.map(Value::from).ok_or_else(|| format!("{integer} is not a time before the year 10000"))
        }
        _ => Ok(integer.into()),
    }
}

fn time_of_day(integer: i64, unit: i64) -> Option<Time> {
    let nanoseconds = integer.checked_mul(unit).filter(|nanoseconds| (0..DAY * 1_000_000_000).contains(nanoseconds))?;
    let part = |unit: i64, most: i64| i8::try_from(nanoseconds / unit % most).ok();
    let subsecond = i32::try_from(nanoseconds % 1_000_000_000).ok()?;
    Time::new(part(3_600_000_000_000, 24)?, part(60_000_000_000, 60)?, part(1_000_000_000, 60)?, subsecond).ok()
}

/// The value of bytes of the logical type, or what is wrong with them.
pub(super) fn of_bytes(logical: LogicalType, bytes: &[u8]) -> Result<Value, String> {
    match logical {
        LogicalType::Decimal { precision, scale } => {
            let digits = digits(bytes)?;
            let count = digits.trim_start_matches('-').len();
            if precision as usize <= EXACT_DIGITS && count > EXACT_DIGITS {
                return Err(format!("a decimal has {count} digits, but its schema allows at most {precision}"));
            }
            Ok(json_scalars::decimal(&digits, scale))
        }
        LogicalType::BigDecimal => big_decimal(bytes).map(Value::from),
        LogicalType::Uuid => Uuid::from_slice(bytes).map(|id| id.to_string().into()).map_err(|error| error.to_string()),
        LogicalType::Duration => match bytes {
            [a, b, c, d, e, f, g, h, i, j, k, l] => {
                Ok(duration([[a, b, c, d], [e, f, g, h], [i, j, k, l]].map(|part| u32::from_le_bytes(part.map(|byte| *byte))))
                    .into())
            }
            _ => Err(format!("a duration has 12 bytes, not {}", bytes.len())),
        },
        _ => Ok(base64(bytes).into()),
    }
}

fn duration([months, days, millis]: [u32; 3]) -> String {
    json_scalars::duration(months.into(), days.into(), i128::from(millis) * 1_000_000)
}

/// `big-decimal` as the Rust library `apache-avro` writes it: the length of the unscaled bytes, these bytes, and the scale.
fn big_decimal(bytes: &[u8]) -> Result<String, String> {
    let malformed = || "the big decimal is malformed".to_owned();
    let (length, rest) = integer(bytes).ok_or_else(malformed)?;
    let unscaled = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
    let (unscaled, rest) = unscaled.ok_or_else(malformed)?;
    let (scale, rest) = integer(rest).ok_or_else(malformed)?;
    if !rest.is_empty() {
        return Err(malformed());
    }
    let digits = digits(unscaled)?;
    let most = i64::from(MAX_DIGITS);
    match (u32::try_from(scale), u32::try_from(scale.saturating_neg())) {
        _ if scale < -most || scale > most => Err(format!("the scale {scale} of a big decimal is beyond {most}")),
        (Ok(scale), _) => Ok(pointed(&digits, scale)),
        (_, Ok(zeros)) if digits != "0" => Ok(digits + &"0".repeat(zeros as usize)),
        _ => Ok(digits),
    }
}

fn integer(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let length = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)? + 1;
    let (own, rest) = bytes.split_at(length);
    let bits = own.iter().rev().fold(0u64, |bits, byte| bits << 7 | u64::from(byte & 0x7f));
    Some(((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed(), rest))
}

/// The decimal digits of a big-endian two's complement number, with a minus sign if it is negative.
fn digits(bytes: &[u8]) -> Result<String, String> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let filler = if negative { 0xff } else { 0 };
    let significant = &bytes[bytes.iter().take_while(|byte| **byte == filler).count()..];
    // A byte has 2.4 digits. The length is checked first, because converting many bytes to digits takes long.
    if significant.len() > MAX_DIGITS as usize * 5 / 12 {
        return Err(format!("a decimal has more than {MAX_DIGITS} digits"));
    }
    let mut magnitude: Vec<u8> = significant.iter().map(|byte| byte ^ filler).collect();
    if negative {
        // The complement is one less than the magnitude.
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflows) = byte.overflowing_add(u8::from(carry));
            *byte = sum;
            carry = overflows;
        }
        if carry {
            magnitude.insert(0, 1);
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut remainder = 0u32;
        for byte in &mut magnitude {
            let dividend = remainder << 8 | u32::from(*byte);
            // Below 256, as the remainder is below 10.
            *byte = (dividend / 10) as u8;
            remainder = dividend % 10;
        }
        digits.push(char::from_digit(remainder, 10).unwrap_or('0'));
    }
    if digits.is_empty() {
        return Ok("0".into());
    }
    let sign = if negative { "-" } else { "" };
    Ok(sign.chars().chain(digits.into_iter().rev()).collect())
}
