//! The times of a cron expression in a time zone, including the days on which its clocks change.
//!
//! | clocks are set | a time with a given hour, `30 2 * * *`, fires | a time with hour `*`, `*/30 * * * *`, fires |
//! |---|---|---|
//! | forward over the time | once, right after the gap | not: the time does not exist, and the next one follows as usual |
//! | back over the time | once, at the first of the two | at both, so that no hour is left out |
//!
//! The cron library walks through the times of the zone itself: it skips times in a gap and repeats times in a fold. For
//! expressions with a given hour it is therefore used in UTC, where clocks never change, and the times that it returns are looked
//! up in the zone.

use cronexpr::{Crontab, parse_crontab};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub(super) struct CronClock {
    zone: TimeZone,
    tables: Vec<ZonedCrontab>,
    every_hour: bool,
}

/// The expression in UTC, and in the zone.
#[derive(Debug, Clone)]
struct ZonedCrontab {
    utc: Crontab,
    zoned: Crontab,
}

const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];

impl CronClock {
    /// Reads the expression.
    ///
    /// # Errors
    /// One sentence: the key, what is wrong with it, and how to fix it.
    pub(super) fn new(cron: &str, time_zone: &str) -> Result<Self, String> {
        let zone = TimeZone::get(time_zone).map_err(|_| match jiff::tz::db().is_definitively_empty() {
            true => format!("`time_zone` is `{time_zone}`, but this machine has no time zones; install tzdata, or write `UTC`"),
            false => {
                format!("`time_zone` is `{time_zone}`, which is not a time zone; write a name such as `Asia/Seoul` or `UTC`")
            }
        })?;
        let fields: Vec<&str> = cron.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            let message = format!("`cron` is `{cron}`, which has {} fields; write five: {}", fields.len(), FIELDS.join(", "));
            return Err(message);
        };
        if weekday.split(',').any(|item| item.ends_with(['L', 'l'])) {
            let message =
                format!("`cron` is `{cron}`: the last weekday of a month is not supported; write a day of month, or `5#4`");
            return Err(message);
        }
        let read = |fields: [&str; 5]| {
            let table = |zone: &str| parse_crontab(&format!("{} {zone}", fields.join(" ")));
            let zoned = table(time_zone).map_err(|error| message(cron, &error))?;
            table("UTC").map(|utc| ZonedCrontab { utc, zoned }).map_err(|error| message(cron, &error))
        };
        let mut tables = vec![read([minute, hour, day, month, weekday])?];
        // The library finds no last day of December.
        if day.split(',').any(|item| item == "L") && holds_december(month) {
            let days: Vec<&str> = day.split(',').map(|item| if item == "L" { "31" } else { item }).collect();
            tables.push(read([minute, hour, &days.join(","), "12", weekday])?);
        }
        Ok(Self { zone, tables, every_hour: hour == "*" })
    }

    pub(super) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after `time`, if there is one within the years that the library searches.
    pub(super) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.tables.iter().filter_map(|table| self.next_of(table, time)).min()
    }

    fn next_of(&self, table: &ZonedCrontab, time: Timestamp) -> Option<Timestamp> {
        if self.every_hour {
            return table.zoned.find_next(time).ok().map(|time| time.timestamp());
        }
        let mut shown = time.to_zoned(self.zone.clone()).datetime();
        loop {
            let utc = shown.to_zoned(TimeZone::UTC).ok()?.timestamp();
            shown = table.utc.find_next(utc).ok()?.datetime();
            // In the second of two equal hours, the times of the first have fired already.
            if let Some(time) = self.first(shown).filter(|first| *first > time) {
                return Some(time);
            }
        }
    }

    /// When the zone's clocks first show this time; for a time in a gap, the end of the gap.
    fn first(&self, shown: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(shown).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(shown).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset after the change, a time in the gap lies before the change.
                let before_the_change = after.to_timestamp(shown).ok()?;
                self.zone.following(before_the_change).next().map(|change| change.timestamp())
            }
        }
    }
}

fn holds_december(month: &str) -> bool {
    parse_crontab(&format!("0 0 1 {month} * UTC"))
        .and_then(|table| table.matches("2026-12-01T00:00:00Z"))
        .is_ok_and(|holds| holds)
}

/// The library's message, of which only the last line says what is wrong; the other lines draw an arrow under the place.
fn message(cron: &str, error: &cronexpr::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim_start().trim_start_matches('^').trim();
    format!("`cron` is `{cron}`: {reason}; its fields are {}", FIELDS.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first `count` times after `from`, as the zone shows them.
    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let clock = CronClock::new(cron, zone).expect("the expression is one");
        let mut time: Timestamp = from.parse().expect("the test writes a time");
        let mut found = Vec::new();
        for _ in 0..count {
            time = clock.next_after(time).expect("there is a next time");
            found.push(time.to_zoned(clock.zone().clone()).strftime("%m-%d %H:%M%z").to_string());
        }
        found
    }

    #[test]
    fn a_time_that_a_gap_swallows_comes_once_right_after_it() {
        let expected = ["03-28 02:30+0100", "03-29 03:00+0200", "03-30 02:30+0200"];
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3), expected);
        // Four of them are swallowed, and the first time after the gap is the expression's own.
        let expected = ["03-29 01:45+0100", "03-29 03:00+0200", "03-29 03:15+0200"];
        assert_eq!(times("*/15 1-3 * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", 3), expected);
        // The gap of half an hour.
        assert_eq!(times("15 2 4 10 *", "Australia/Lord_Howe", "2026-10-01T00:00:00Z", 1), ["10-04 02:30+1100"]);
    }

    #[test]
    fn a_time_in_a_fold_comes_once_at_the_first() {
        let expected = ["10-24 02:30+0200", "10-25 02:30+0200", "10-26 02:30+0100"];
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00:00Z", 3), expected);
        let expected = ["10-25 02:40+0200", "10-25 03:00+0100"];
        assert_eq!(times("*/20 2,3 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", 2), expected);
        // Asked within the second hour, too.
        assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26 02:30+0100"]);
    }

    #[test]
    fn a_schedule_of_every_hour_goes_on_through_both() {
        let expected = ["03-29 01:30+0100", "03-29 03:30+0200", "03-29 04:30+0200"];
        assert_eq!(times("30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3), expected);
        let expected = ["10-25 02:00+0200", "10-25 02:30+0200", "10-25 02:00+0100", "10-25 02:30+0100", "10-25 03:00+0100"];
        assert_eq!(times("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:50:00Z", 5), expected);
    }

    #[test]
    fn a_zone_whose_clocks_never_change_is_even() {
        let expected = ["03-29 02:30+0900", "03-30 02:30+0900"];
        assert_eq!(times("30 2 * * *", "Asia/Seoul", "2026-03-28T12:00:00Z", 2), expected);
        let clock = CronClock::new("30 2 * * *", "Asia/Seoul").unwrap();
        let mut time: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for _ in 0..365 {
            let next = clock.next_after(time).unwrap();
            assert_eq!(next.to_string()[11..], *"17:30:00Z", "{next}");
            time = next;
        }
        assert_eq!(time.to_string(), "2026-12-31T17:30:00Z");
    }

    #[test]
    fn every_month_has_a_last_day() {
        let expected = ["11-30 00:00+0000", "12-31 00:00+0000", "01-31 00:00+0000"];
        assert_eq!(times("0 0 L * *", "UTC", "2026-11-15T00:00:00Z", 3), expected);
        assert_eq!(times("0 0 L 10,11 *", "UTC", "2026-11-15T00:00:00Z", 2), ["11-30 00:00+0000", "10-31 00:00+0000"]);
        assert_eq!(times("0 0 1,L DEC *", "UTC", "2026-12-01T12:00:00Z", 2), ["12-31 00:00+0000", "12-01 00:00+0000"]);
    }

    #[test]
    fn either_kind_of_day_is_enough_unless_one_begins_with_an_asterisk() {
        let days = |cron: &str, from: &str, count: usize| -> Vec<String> {
            times(cron, "UTC", from, count).iter().map(|time| time[..5].to_owned()).collect()
        };
        assert_eq!(days("0 0 13 * 5", "2026-12-01T00:00:00Z", 4), ["12-04", "12-11", "12-13", "12-18"], "the 13th, or a Friday");
        assert_eq!(days("0 9 */2 * 1", "2026-12-01T12:00:00Z", 3), ["12-07", "12-21", "01-11"], "an odd Monday");
        assert_eq!(days("0 9 1-31 * 1", "2026-12-01T12:00:00Z", 3), ["12-02", "12-03", "12-04"], "any day");
        assert_eq!(days("0 6 * * 7", "2026-12-01T12:00:00Z", 2), ["12-06", "12-13"], "7 is Sunday");
        assert_eq!(
            days("0 6 L * 1", "2026-12-20T12:00:00Z", 4),
            ["12-21", "12-28", "12-31", "01-04"],
            "the last of a month, or a Monday"
        );
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_mend() {
        let cases = [
            (("0 3 * *", "UTC"), "has 4 fields; write five: minute, hour, day of month, month, day of week"),
            (("0 3 * * * *", "UTC"), "has 6 fields"),
            (("61 * * * *", "UTC"), "found 61"),
            (("0 3 * * MOO", "UTC"), "`cron` is `0 3 * * MOO`: "),
            (("0 3 * * 5L", "UTC"), "the last weekday of a month is not supported"),
            (("0 3 * * *", "Asia/Soul"), "`time_zone` is `Asia/Soul`, which is not a time zone"),
        ];
        for ((cron, zone), expected) in cases {
            let found = CronClock::new(cron, zone).unwrap_err();
            assert!(found.contains(expected) && !found.contains('\n'), "{cron} {zone}: {found}");
        }
    }

    #[test]
    fn a_day_that_never_comes_has_no_next_time() {
        assert_eq!(CronClock::new("0 0 30 2 *", "UTC").unwrap().next_after(Timestamp::UNIX_EPOCH), None);
    }
}
