//! Finds numbers in the notations that people use.
//!
//! | written | value |
//! |---|---|
//! | `1299`, `1,299`, `1.299`, `1 299`, `1'299` | 1299 |
//! | `1,299.00`, `1.299,00`, `1 299,00` | 1299 |
//! | `12.5`, `12,5` | 12.5 |
//! | `1.299` | also 1.299: both are tried |
//! | `3 million`, `1.5 thousand` | 3000000, 1500 |
//! | `3만`, `3만 5천`, `1억 2000만`, `1.5천` | 30000, 35000, 120000000, 1500 |
//! | `nine`, `twenty-five`, `두 시간` | number words, see `number_words.rs` |

use std::ops::Range;

use super::number_words;
use crate::task::units;
use crate::task::words::{is_hangul, is_particles};

/// Multipliers. If one is a prefix of another, the longer one comes first.
const UNITS: &[(&str, f64)] = &[
    ("억", 1e8),
    ("천만", 1e7),
    ("백만", 1e6),
    ("십만", 1e5),
    ("만", 1e4),
    ("천", 1e3),
    ("백", 1e2),
    ("trillion", 1e12),
    ("billion", 1e9),
    ("million", 1e6),
    ("thousand", 1e3),
    ("hundred", 1e2),
    ("dozen", 12.0),
];

/// Groups of digits and the marks between them.
struct DigitRun {
    place: Range<usize>,
    groups: Vec<Range<usize>>,
    marks: Vec<u8>,
}

/// The first place where the folded `text` states `number`.
pub(in crate::task) fn find(text: &str, number: f64) -> Option<Range<usize>> {
    let mut at = 0;
    while let Some(run) = next_run(text, at) {
        at = run.place.end;
        if let Some(place) = in_run(text, &run, number) {
            return Some(place);
        }
        if let Some((total, end)) = with_units(text, &run)
            && same(total, number.abs())
        {
            return signed(text, run.place.start..end, number);
        }
    }
    let sign = |place: &Range<usize>| number >= 0.0 || text[..place.start].ends_with("minus ");
    let spoken = number_words::all(text).into_iter().filter(|spoken| same(spoken.value, number.abs()));
    spoken.map(|spoken| spoken.place).find(sign)
}

/// Every possible number in the folded `text`: its place, and its value if it can be parsed.
pub(in crate::task) fn all(text: &str) -> Vec<(Range<usize>, Option<f64>)> {
    with_words(text, |_| true)
}

/// Like [`all`], without ambiguous number words.
pub(in crate::task) fn claimed(text: &str) -> Vec<(Range<usize>, Option<f64>)> {
    with_words(text, |spoken| !spoken.is_ambiguous)
}

fn with_words(text: &str, take: impl Fn(&number_words::NumberWords) -> bool) -> Vec<(Range<usize>, Option<f64>)> {
    let mut found = in_digits(text);
    let words = number_words::all(text).into_iter().filter(take);
    found.extend(words.map(|spoken| (spoken.place, Some(spoken.value))));
    found.sort_by_key(|(place, _)| place.start);
    found
}

fn in_digits(text: &str) -> Vec<(Range<usize>, Option<f64>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(run) = next_run(text, at) {
        let (value, end) = match with_units(text, &run) {
            Some((total, end)) => (Some(total), end),
            None => (readings(text, &run.groups, &run.marks).first().copied(), run.place.end),
        };
        at = end;
        found.push((run.place.start..end, value));
    }
    found
}

/// Every value that the number at `place` of the folded text can have: `1.299` is 1299 or 1.299.
pub(in crate::task) fn values(text: &str, place: &Range<usize>) -> Vec<f64> {
    let run = next_run(text, place.start).filter(|run| run.place == *place);
    match run.map(|run| readings(text, &run.groups, &run.marks)) {
        Some(values) if !values.is_empty() => values,
        // A number in words, or with a multiplier such as million.
        _ => all(&text[place.clone()]).into_iter().filter_map(|(_, value)| value).collect(),
    }
}

/// Whether the number after `before` is negative: a sign that no word and no number precedes.
pub(in crate::task) fn is_negative(before: &str) -> bool {
    if before.ends_with("minus ") {
        return true;
    }
    before
        .strip_suffix('-')
        .is_some_and(|rest| !rest.chars().next_back().is_some_and(|letter| letter.is_alphanumeric() || letter == '-'))
}

/// The value if all of `text` is one number in digits.
pub(in crate::task) fn written(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let run = next_run(digits, 0).filter(|run| run.place == (0..digits.len()))?;
    let value = *readings(digits, &run.groups, &run.marks).first()?;
    Some(if digits.len() < text.len() { -value } else { value })
}

fn in_run(text: &str, run: &DigitRun, number: f64) -> Option<Range<usize>> {
    let says =
        |groups: &[Range<usize>], marks: &[u8]| readings(text, groups, marks).into_iter().any(|value| same(value, number.abs()));
    if says(&run.groups, &run.marks) {
        return signed(text, run.place.clone(), number);
    }
    // A date, a list or an address is not one number; its parts are compared one by one.
    let mut first = 0;
    for last in 0..run.groups.len() {
        let ends = run.marks.get(last).is_none_or(|mark| *mark == b' ');
        if !ends {
            continue;
        }
        let (groups, marks) = (&run.groups[first..=last], &run.marks[first..last]);
        let whole = run.groups[first].start..run.groups[last].end;
        if says(groups, marks) {
            return signed(text, whole, number);
        }
        if readings(text, groups, marks).is_empty() {
            let found = groups.iter().find(|group| says(std::slice::from_ref(group), &[]));
            if let Some(group) = found {
                return signed(text, group.clone(), number);
            }
        }
        first = last + 1;
    }
    None
}

/// The place including the sign, if the sign matches `number`. A dash before a positive number is not a sign.
fn signed(text: &str, place: Range<usize>, number: f64) -> Option<Range<usize>> {
    if number >= 0.0 {
        return Some(place);
    }
    text[..place.start].ends_with('-').then(|| place.start - 1..place.end)
}

/// Equal numbers can differ in the last bit after multiplication with a unit.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

fn next_run(text: &str, from: usize) -> Option<DigitRun> {
    let bytes = text.as_bytes();
    let start = from + bytes[from..].iter().position(u8::is_ascii_digit)?;
    let digits_end = |start: usize| start + bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut groups = Vec::from([Range { start, end: digits_end(start) }]);
    let mut marks = Vec::new();
    loop {
        let end = groups[groups.len() - 1].end;
        let Some(mark) = bytes.get(end).copied().filter(|mark| matches!(mark, b'.' | b',' | b'\'' | b' ')) else { break };
        if !bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            break;
        }
        let next = end + 1..digits_end(end + 1);
        // A space separates thousands only before three digits. Otherwise it separates numbers.
        if mark == b' ' && next.len() != 3 {
            break;
        }
        marks.push(mark);
        groups.push(next);
    }
    let end = groups[groups.len() - 1].end;
    Some(DigitRun { place: start..end, groups, marks })
}

/// Every value that these groups of digits can have as one number.
fn readings(text: &str, groups: &[Range<usize>], marks: &[u8]) -> Vec<f64> {
    let joined = |groups: &[Range<usize>]| groups.iter().map(|group| &text[group.clone()]).collect::<String>();
    let thousands = |groups: &[Range<usize>], marks: &[u8]| {
        groups.len() == 1
            || (groups[0].len() <= 3
                && groups[1..].iter().all(|group| group.len() == 3)
                && marks.iter().all(|mark| *mark == marks[0]))
    };
    let mut all = Vec::new();
    if thousands(groups, marks) {
        all.extend(joined(groups).parse::<f64>());
    }
    if let (Some((fraction, whole)), Some((point @ (b'.' | b','), before))) = (groups.split_last(), marks.split_last())
        && !before.contains(point)
        && thousands(whole, before)
    {
        all.extend(format!("{}.{}", joined(whole), &text[fraction.clone()]).parse::<f64>());
    }
    all
}

/// The total value of a run with its units and following runs, and where it ends.
fn with_units(text: &str, run: &DigitRun) -> Option<(f64, usize)> {
    let unit_at = |at: usize| {
        let rest = &text[at..];
        let skipped = usize::from(rest.starts_with(' '));
        let whole = |name: &str| {
            let Some(behind) = rest[skipped..].strip_prefix(name) else { return false };
            match name.is_ascii() {
                true => !behind.starts_with(char::is_alphanumeric),
                // After a space, the multiplier may be the beginning of a word: 3 만년필.
                false => skipped == 0 || ends_word(behind),
            }
        };
        let unit = UNITS.iter().find(|(name, _)| whole(name))?;
        Some((unit.1, at + skipped + unit.0.len()))
    };
    let mut number = *readings(text, &run.groups, &run.marks).first()?;
    let (mut smallest, mut end) = unit_at(run.place.end)?;
    let mut total = number * smallest;
    while let Some(next) = next_run(text, end) {
        if !matches!(&text[end..next.place.start], "" | " ") {
            break;
        }
        number = match readings(text, &next.groups, &next.marks).first() {
            Some(number) => *number,
            None => break,
        };
        match unit_at(next.place.end) {
            Some((unit, after)) if unit < smallest => {
                total += number * unit;
                (smallest, end) = (unit, after);
            }
            None if number < smallest && next.place.start == end => {
                total += number;
                end = next.place.end;
                break;
            }
            _ => break,
        }
    }
    Some((total, end))
}

/// Whether a word ends at the start of `text`, apart from a unit and particles.
fn ends_word(text: &str) -> bool {
    let hangul = |text: &str| text.chars().take_while(|letter| is_hangul(*letter)).map(char::len_utf8).sum::<usize>();
    let unit = units::after(text, 0).map_or(0, |(_, end)| end);
    [0, unit].into_iter().any(|start| is_particles(&text[start..start + hangul(&text[start..])]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, number: f64) -> Option<&str> {
        find(text, number).map(|place| &text[place])
    }

    #[test]
    fn a_number_is_found_however_it_is_written() {
        for (text, number) in [
            ("1299", 1299.0),
            ("1,299.00", 1299.0),
            ("1.299,00", 1299.0),
            ("1 299,00", 1299.0),
            ("1'299", 1299.0),
            ("1.299", 1299.0),
            ("1.299", 1.299),
            ("12,5", 12.5),
            ("0.07", 0.07),
            ("007", 7.0),
            ("1,234,567.89", 1_234_567.89),
            ("-4", -4.0),
        ] {
            let sentence = format!("costs {text}, now");
            assert_eq!(found(&sentence, number), Some(text), "{number} in `{sentence}`");
        }
    }

    #[test]
    fn korean_units_are_added_up() {
        assert_eq!(found("가격은 3만 5천원", 35_000.0), Some("3만 5천"));
        assert_eq!(found("3만5000원", 35_000.0), Some("3만5000"));
        assert_eq!(found("약 1억 2000만 원", 120_000_000.0), Some("1억 2000만"));
        assert_eq!(found("2.5만 명", 25_000.0), Some("2.5만"));
        assert_eq!(found("3천만원", 30_000_000.0), Some("3천만"));
        assert_eq!(found("3 만원에", 30_000.0), Some("3 만"));
        assert_eq!(found("은하 3 만년필", 30_000.0), None, "만년필 is a fountain pen");
        assert_eq!(found("은하 3 만년필", 3.0), Some("3"));
    }

    #[test]
    fn all_numbers_of_a_text_are_told_with_what_they_mean() {
        let text = "40 x 25.5 cm, 3만 5천원, 2026.01.05";
        let found: Vec<(&str, Option<f64>)> = all(text).into_iter().map(|(place, value)| (&text[place], value)).collect();
        let expected = [("40", Some(40.0)), ("25.5", Some(25.5)), ("3만 5천", Some(35_000.0)), ("2026.01.05", None)];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_number_is_found_in_words() {
        assert_eq!(found("boils in two minutes", 2.0), Some("two"));
        assert_eq!(found("boils in two minutes", 9.0), None);
        assert_eq!(found("one of twenty-five", 1.0), Some("one"), "an ambiguous word counts in a document");
        assert_eq!(found("minus four degrees", -4.0), Some("four"));
        assert_eq!(found("four degrees", -4.0), None);
        assert_eq!(found("about 3 million people", 3e6), Some("3 million"));
        assert_eq!(found("3 millionaires", 3e6), None);
        assert_eq!(found("두 시간", 2.0), Some("두"));
        let claims = |text: &str| claimed(text).into_iter().filter_map(|(_, value)| value).collect::<Vec<_>>();
        assert_eq!(claims("one of the two, in 3 thousand"), [2.0, 3_000.0]);
    }

    #[test]
    fn parts_of_a_number_are_not_it() {
        assert_eq!(found("1,299.00", 299.0), None);
        assert_eq!(found("1.5 l", 5.0), None);
        assert_eq!(found("1299", 12.0), None);
        assert_eq!(found("4 left", -4.0), None, "the sign matters");
    }

    #[test]
    fn lists_dates_and_numbers_side_by_side_are_looked_at_in_parts() {
        assert_eq!(found("2026.01.05", 2026.0), Some("2026"));
        assert_eq!(found("sizes 1,2,3", 2.0), Some("2"));
        assert_eq!(found("pack of 5 100 g", 5.0), Some("5"));
        assert_eq!(found("pack of 5 100 g", 100.0), Some("100"));
        assert_eq!(found("model-5", 5.0), Some("5"));
    }

    #[test]
    fn what_is_no_number_is_not_written_as_one() {
        assert_eq!(written("1,299.00"), Some(1299.0));
        assert_eq!(written("-3"), Some(-3.0));
        assert_eq!(written("3 kg"), None);
        assert_eq!(written(""), None);
        assert_eq!(written("1,2,3"), None);
    }
}
