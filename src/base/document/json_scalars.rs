//! The forms that dates, times, decimals and bytes have in JSON, whichever format they come in.
//!
//! Dates and times are ISO 8601; what ends with `Z` is one instant everywhere. The calendar ends with the years -9999 and 9999.

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;
use serde_json::{Number, Value};

/// Decimal digits that survive as binary floating point, whatever they are: a decimal of more is a string.
pub const EXACT_DIGITS: usize = f64::DIGITS as usize;

/// Nanoseconds of a second.
pub const SECOND: i128 = 1_000_000_000;
/// Nanoseconds of a day.
pub const DAY: i128 = 86_400 * SECOND;

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// The date so many days after 1970-01-01; none beyond the calendar.
pub fn date(days: i64) -> Option<String> {
    civil(i128::from(days) * DAY).map(|time| time.date().to_string())
}

/// The instant so many nanoseconds after 1970; none beyond the calendar.
pub fn instant(nanoseconds: i128) -> Option<String> {
    civil(nanoseconds).map(|time| format!("{time}Z"))
}

/// The same on a clock of which nobody says where it hangs.
pub fn local_time(nanoseconds: i128) -> Option<String> {
    civil(nanoseconds).map(|time| time.to_string())
}

/// The calendar of jiff's instants ends some hours before its year does, that of its civil times does not.
fn civil(nanoseconds: i128) -> Option<DateTime> {
    let seconds = i64::try_from(nanoseconds.div_euclid(SECOND)).ok()?;
    let rest = i32::try_from(nanoseconds.rem_euclid(SECOND)).ok()?;
    EPOCH.checked_add(SignedDuration::new(seconds, rest)).ok()
}

/// Microseconds since the Unix epoch. A date, or a time without an offset, is taken as UTC.
pub fn microseconds(text: &str) -> Option<i64> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_microsecond());
    }
    // An instant of the calendar's last hours, or a time that is no instant.
    let pieces = Pieces::parse(text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    let offset = pieces.to_numeric_offset().map_or(0, |offset| offset.seconds());
    let micros = civil.duration_since(EPOCH).as_micros() - i128::from(offset) * 1_000_000;
    i64::try_from(micros).ok()
}

/// A span of months, days and nanoseconds, which do not add up to each other.
pub fn duration(months: i64, days: i64, nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let (seconds, rest) =
        (nanoseconds.unsigned_abs() / SECOND.unsigned_abs(), nanoseconds.unsigned_abs() % SECOND.unsigned_abs());
    format!("P{months}M{days}DT{sign}{seconds}{}S", fraction(rest))
}

/// The decimals of a second, as far as there are any: none, or a point and 3, 6 or 9 digits.
pub fn fraction(nanoseconds: u128) -> String {
    match nanoseconds {
        0 => String::new(),
        n if n % 1_000_000 == 0 => format!(".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => format!(".{:06}", n / 1_000),
        n => format!(".{n:09}"),
    }
}

/// The digits, which may have a sign, with a point before the last `scale` of them.
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

/// A decimal: a number where it has at most 15 digits that count, for so many survive as binary floating point, else text.
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

/// Base64 with padding, in the alphabet of RFC 4648.
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
