//! How dates, times, decimals and bytes of other formats are written in JSON.
//!
//! Dates and times are in ISO 8601. An instant ends with `Z`; a local time has no offset. Years range from -9999 to 9999.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde_json::{Number, Value};

/// A decimal of up to this many digits survives as a 64-bit floating-point number. A longer one is written as a string.
pub const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// One second in nanoseconds.
pub const SECOND: i128 = 1_000_000_000;
/// One day in nanoseconds.
pub const DAY: i128 = 86_400 * SECOND;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The date this many days after 1970-01-01; none outside the range of years.
pub fn date(days: i64) -> Option<String> {
    civil(i128::from(days) * DAY).map(|time| time.date().to_string())
}

/// The instant this many nanoseconds after 1970; none outside the range of years.
pub fn instant(nanoseconds: i128) -> Option<String> {
    civil(nanoseconds).map(|time| format!("{time}Z"))
}

/// The same as a local time, whose time zone is unknown.
pub fn local_time(nanoseconds: i128) -> Option<String> {
    civil(nanoseconds).map(|time| time.to_string())
}

/// A civil time is used even for instants, because jiff's instants end some hours before the end of year 9999.
fn civil(nanoseconds: i128) -> Option<DateTime> {
    let seconds = i64::try_from(nanoseconds.div_euclid(SECOND)).ok()?;
    let rest = i32::try_from(nanoseconds.rem_euclid(SECOND)).ok()?;
    EPOCH.checked_add(SignedDuration::new(seconds, rest)).ok()
}

/// The Unix microseconds of a date or time. A date, or a time without an offset, is taken as UTC.
pub fn microseconds(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_microsecond());
    }
    // An instant in the last hours of year 9999, or a date or time without an offset.
    let pieces = Pieces::parse(text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    let micros = civil.duration_since(EPOCH).as_micros() - i128::from(offset) * 1_000_000;
    i64::try_from(micros).ok()
}

/// A duration of months, days and nanoseconds. A month has no fixed number of days, nor a day of hours, so they are not added up.
pub fn duration(months: i64, days: i64, nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) =
        (nanoseconds.unsigned_abs() / SECOND.unsigned_abs(), nanoseconds.unsigned_abs() % SECOND.unsigned_abs());
    format!("P{months}M{days}DT{sign}{seconds}{}S", fraction(rest))
}

/// The fraction of a second: empty, or a point and 3, 6 or 9 digits.
pub fn fraction(nanoseconds: u128) -> String {
    match nanoseconds {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}

/// The digits, which may have a sign, with a decimal point before the last `scale` of them.
pub fn pointed(digits: &str, scale: u32) -> String {
    if scale == 0 {
        return digits.to_owned();
    }
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |digits| ("-", digits));
    let width = scale as usize + 1;
    let padded = format!("{digits:0>width$}");
    let (whole, fraction) = padded.split_at(padded.len() - scale as usize);
    format!("{sign}{whole}.{fraction}")
}

/// A decimal: a number if it has at most 15 significant digits, which survive as floating point, else a string.
pub fn decimal(digits: &str, scale: u32) -> Value {
    let text = pointed(digits, scale);
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let count = short.trim_start_matches(['-', '0', '.']).chars().filter(char::is_ascii_digit).count();
    let number = match (count <= EXACT_DIGITS, short.contains('.')) {
        (false, _) => None,
        (true, false) => short.parse::<i64>().ok().map(Number::from),
        (true, true) => short.parse().ok().and_then(Number::from_f64),
    };
    number.map_or_else(|| text.as_str().into(), Value::from)
}

/// Base64 with padding, in the standard alphabet of RFC 4648.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            match place <= chunk.len() {
                true => text.push(char::from(ALPHABET[(bits >> (18 - 6 * place) & 0x3f) as usize])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_holds_its_first_and_last_day() {
        assert_eq!(date(2_932_896).as_deref(), Some("9999-12-31"));
        assert_eq!(date(2_932_897), None);
        assert_eq!(instant(253_402_300_799 * SECOND).as_deref(), Some("9999-12-31T23:59:59Z"));
        assert_eq!(local_time(-30_610_224_000 * SECOND).as_deref(), Some("1000-01-01T00:00:00"));
        assert_eq!(local_time(i128::from(i64::MAX) * 1_000), None);
    }

    #[test]
    fn what_is_written_is_read_as_the_same_microsecond() {
        for micros in [0, -1, 1_767_259_800_000_001, 253_402_300_799_999_999, -30_610_224_000_000_000, -377_705_116_800_000_000] {
            let nanoseconds = i128::from(micros) * 1_000;
            assert_eq!(microseconds(&instant(nanoseconds).unwrap()), Some(micros));
            assert_eq!(microseconds(&local_time(nanoseconds).unwrap()), Some(micros));
        }
        assert_eq!(microseconds("9999-12-31T23:59:59-05:00"), Some(253_402_318_799_000_000));
        assert_eq!(microseconds("infinity"), None);
        assert_eq!(microseconds("12:30:00Z"), None);
    }

    #[test]
    fn spans_keep_their_parts_apart() {
        assert_eq!(duration(1, 2, 3_500_000_000), "P1M2DT3.500S");
        assert_eq!(duration(0, 0, -1_000), "P0M0DT-0.000001S");
    }
}
