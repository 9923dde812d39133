//! Finds dates in the notations that people use.
//!
//! | written | date |
//! |---|---|
//! | `2026-01-05`, `2026/1/5`, `2026.01.05`, `2026. 1. 5.` | 5 January 2026 |
//! | `5 January 2026`, `5th of Jan. 2026`, `January 5, 2026` | 5 January 2026 |
//! | `2026년 1월 5일` | 5 January 2026 |
//! | `5.1.2026`, `5-1-2026` | 5 January 2026 |
//! | `5/1/2026` | 5 January and 1 May 2026: both are possible |
//!
//! Days that the calendar does not have are no dates.

use std::ops::Range;
use std::sync::LazyLock;

use jiff::civil::Date;
use regex::{Captures, Regex};

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

const MONTH: &str = r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?";

/// The notations, for folded text. Groups `y`, `m`, `d` are numbers, and `month` is a name.
static NOTATIONS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let day = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?";
    [
        r"(?P<y>\d{4})(?P<mark>[-/.])\s?(?P<m>\d{1,2})[-/.]\s?(?P<d>\d{1,2})".to_owned(),
        r"(?P<y>\d{4})년\s?(?P<m>\d{1,2})월\s?(?P<d>\d{1,2})일".to_owned(),
        r"(?P<d>\d{1,2})(?P<mark>[-/.])(?P<m>\d{1,2})[-/.](?P<y>\d{4})".to_owned(),
        format!(r"{day}\s(?:of\s)?{MONTH},?\s(?P<y>\d{{4}})"),
        format!(r"{MONTH}\s{day},?\s(?P<y>\d{{4}})"),
    ]
    .iter()
    .filter_map(|notation| Regex::new(notation).ok())
    .collect()
});

/// Every date in the folded `text` with its place, in text order.
pub(in crate::task) fn all(text: &str) -> Vec<(Range<usize>, Date)> {
    let mut found: Vec<(Range<usize>, Date)> = Vec::new();
    for notation in NOTATIONS.iter() {
        for captures in notation.captures_iter(text) {
            let Some(whole) = captures.get(0) else { continue };
            if stands_alone(text, &whole.range()) {
                found.extend(readings(&captures).into_iter().map(|date| (whole.range(), date)));
            }
        }
    }
    found.sort_by_key(|(place, _)| place.start);
    found
}

/// Whether no letter or digit continues the date. A particle can follow a Korean date.
fn stands_alone(text: &str, place: &Range<usize>) -> bool {
    let continues = |letter: char| letter.is_ascii_alphanumeric();
    let before = text[..place.start].chars().next_back();
    let mut after = text[place.end..].chars();
    let is_longer = match after.next() {
        Some('-' | '/' | '.') => after.next().is_some_and(|letter| letter.is_ascii_digit()),
        // A time follows the T of a timestamp.
        Some('t') => !after.next().is_some_and(|letter| letter.is_ascii_digit()),
        next => next.is_some_and(continues),
    };
    !before.is_some_and(|letter| continues(letter) || matches!(letter, '/' | '.' | '-')) && !is_longer
}

fn readings(captures: &Captures<'_>) -> Vec<Date> {
    let number = |name: &str| captures.name(name).and_then(|group| group.as_str().parse::<i16>().ok());
    let (Some(year), Some(day)) = (number("y"), number("d")) else { return Vec::new() };
    let date = |month: i16, day: i16| Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok();
    if let Some(name) = captures.name("month") {
        let month = MONTHS.iter().position(|month| name.as_str().starts_with(month));
        return month.and_then(|month| date(month as i16 + 1, day)).into_iter().collect();
    }
    let Some(month) = number("m") else { return Vec::new() };
    let is_ambiguous = captures.name("mark").is_some_and(|mark| mark.as_str() == "/")
        && captures.name("d").is_some_and(|d| d.start() == 0 || d.start() < captures.name("y").map_or(0, |y| y.start()));
    let mut dates: Vec<Date> = date(month, day).into_iter().collect();
    if is_ambiguous && month != day {
        dates.extend(date(day, month));
    }
    dates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        all(text).into_iter().map(|(place, date)| format!("{} = {date}", &text[place])).collect()
    }

    #[test]
    fn a_date_is_found_in_every_notation() {
        for text in [
            "2026-01-05",
            "2026/1/5",
            "2026.01.05",
            "2026. 1. 5",
            "5 january 2026",
            "5th of jan. 2026",
            "january 5, 2026",
            "jan 5 2026",
            "2026년 1월 5일",
            "2026년1월5일",
            "5.1.2026",
            "05-01-2026",
        ] {
            assert_eq!(found(&format!("on {text}, or so")), [format!("{text} = 2026-01-05")], "{text}");
        }
        assert_eq!(found("2026년 1월 5일까지"), ["2026년 1월 5일 = 2026-01-05"]);
        assert_eq!(found("at 2026-01-05t08:00:00z"), ["2026-01-05 = 2026-01-05"]);
    }

    #[test]
    fn a_date_that_can_be_two_days_is_both() {
        assert_eq!(found("5/1/2026"), ["5/1/2026 = 2026-01-05", "5/1/2026 = 2026-05-01"]);
        assert_eq!(found("13/1/2026"), ["13/1/2026 = 2026-01-13"]);
        assert_eq!(found("1/13/2026"), ["1/13/2026 = 2026-01-13"]);
    }

    #[test]
    fn what_is_no_day_is_no_date() {
        for text in
            ["2026-02-30", "31 april 2026", "version 1.2.2026.4", "12026-01-05", "10.0.0.2026", "may 2026", "5 maybe 2026"]
        {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
