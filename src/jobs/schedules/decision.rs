//! Decides which times of a schedule fire. Nothing here reads a clock or a database.
//!
//! | the time | is |
//! |---|---|
//! | is decided together with a later one, because no coordinator was running | missed: only the latest time is caught up |
//! | came longer ago than `catch_up` | missed |
//! | comes while a job of the schedule is open, with `overlap: skip` | skipped |
//! | any other | fired |

use jiff::Timestamp;

use super::Schedule;
use crate::config::OverlapPolicy;

/// A time of a schedule, and what is done at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::jobs) struct FiringDecision {
    pub time: Timestamp,
    pub action: FiringAction,
}

/// What is done at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::jobs) enum FiringAction {
    /// Its job is submitted.
    Fire {
        /// Open jobs of earlier times, which are cancelled.
        cancel: Vec<String>,
    },
    /// No job, because of the schedule's overlap policy; with the reason.
    Skip(String),
    /// No job, because no coordinator was running; with the reason.
    Miss(String),
}

/// Times decided at once, because one transaction writes all of them.
const AT_A_TIME: usize = 500;

/// Decides the times after `decided_to` that have come by `now`, the earliest first. `open` are jobs of the schedule that have not
/// ended.
pub(in crate::jobs) fn decide(schedule: &Schedule, decided_to: Timestamp, now: Timestamp, open: &[&str]) -> Vec<FiringDecision> {
    let mut decisions: Vec<FiringDecision> = Vec::new();
    let mut time = decided_to;
    while let Some(next) = schedule.next_after(time).filter(|next| *next <= now && schedule.start_of(*next) <= now) {
        time = next;
        if let Some(earlier) = decisions.last_mut() {
            let reason = format!("no coordinator was running to fire it before the next time, {next}");
            earlier.action = FiringAction::Miss(reason);
        }
        if decisions.len() == AT_A_TIME {
            return decisions;
        }
        decisions.push(FiringDecision { time, action: FiringAction::Fire { cancel: Vec::new() } });
    }
    if let Some(latest) = decisions.last_mut() {
        latest.action = action(schedule, latest.time, now, open);
    }
    decisions
}

fn action(schedule: &Schedule, time: Timestamp, now: Timestamp, open: &[&str]) -> FiringAction {
    let late = now.duration_since(schedule.start_of(time));
    if late > schedule.catch_up {
        return FiringAction::Miss(format!("no coordinator was running to fire it within {:#} of its start", schedule.catch_up));
    }
    match (schedule.overlap, open) {
        (OverlapPolicy::Skip, [first, ..]) => FiringAction::Skip(format!("job {first} was still open")),
        (OverlapPolicy::CancelPrevious, open) => FiringAction::Fire { cancel: open.iter().map(|id| (*id).to_owned()).collect() },
        (OverlapPolicy::Skip | OverlapPolicy::Queue, _) => FiringAction::Fire { cancel: Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::schedules::tests::{schedule, time};

    fn shown(decisions: &[FiringDecision]) -> Vec<String> {
        let shown = |decision: &FiringDecision| match &decision.action {
            FiringAction::Fire { cancel } if cancel.is_empty() => format!("{} fire", decision.time),
            FiringAction::Fire { cancel } => format!("{} fire, cancel {}", decision.time, cancel.join(" ")),
            FiringAction::Skip(reason) => format!("{} skip: {reason}", decision.time),
            FiringAction::Miss(reason) => format!("{} miss: {reason}", decision.time),
        };
        decisions.iter().map(shown).collect()
    }

    #[test]
    fn a_time_fires_when_it_comes_and_not_again() {
        let hourly = schedule("cron: 0 * * * *");
        assert_eq!(decide(&hourly, time("10:00:00"), time("10:59:59"), &[]), []);
        assert_eq!(shown(&decide(&hourly, time("10:00:00"), time("11:00:00"), &[])), ["2026-11-21T11:00:00Z fire"]);
        assert_eq!(decide(&hourly, time("11:00:00"), time("11:00:01"), &[]), []);
    }

    #[test]
    fn of_what_was_missed_only_the_latest_is_caught_up() {
        let hourly = schedule("cron: 0 * * * *");
        let found = shown(&decide(&hourly, time("10:00:00"), time("13:30:00"), &[]));
        let expected = [
            "2026-11-21T11:00:00Z miss: no coordinator was running to fire it before the next time, 2026-11-21T12:00:00Z",
            "2026-11-21T12:00:00Z miss: no coordinator was running to fire it before the next time, 2026-11-21T13:00:00Z",
            "2026-11-21T13:00:00Z fire",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn beyond_the_window_nothing_is_caught_up() {
        let strict = schedule("cron: 0 3 * * *\ncatch_up: 6h");
        assert_eq!(shown(&decide(&strict, time("02:00:00"), time("09:00:00"), &[])), ["2026-11-21T03:00:00Z fire"]);
        let found = shown(&decide(&strict, time("02:00:00"), time("09:00:01"), &[]));
        assert_eq!(found, ["2026-11-21T03:00:00Z miss: no coordinator was running to fire it within 6h of its start"]);
    }

    #[test]
    fn the_policy_says_what_becomes_of_a_time_beside_an_open_job() {
        let now = |overlap: &str, open: &[&str]| {
            let schedule = schedule(&format!("cron: 0 * * * *\noverlap: {overlap}"));
            shown(&decide(&schedule, time("10:00:00"), time("11:00:00"), open)).remove(0)
        };
        assert_eq!(now("skip", &["a", "b"]), "2026-11-21T11:00:00Z skip: job a was still open");
        assert_eq!(now("queue", &["a", "b"]), "2026-11-21T11:00:00Z fire");
        assert_eq!(now("cancel_previous", &["a", "b"]), "2026-11-21T11:00:00Z fire, cancel a b");
        for overlap in ["skip", "queue", "cancel_previous"] {
            assert_eq!(now(overlap, &[]), "2026-11-21T11:00:00Z fire");
        }
    }

    #[test]
    fn jitter_delays_the_start_and_not_the_time() {
        let spread = schedule("cron: 0 * * * *\njitter: 10m");
        let start = spread.start_of(time("11:00:00"));
        assert!(start > time("11:00:00") && start < time("11:10:00"), "{start}");
        assert_eq!(decide(&spread, time("10:00:00"), start - jiff::SignedDuration::from_millis(1), &[]), []);
        assert_eq!(shown(&decide(&spread, time("10:00:00"), start, &[])), ["2026-11-21T11:00:00Z fire"]);
    }

    #[test]
    fn a_long_absence_is_decided_piece_by_piece_and_no_time_twice() {
        let every_minute = schedule("cron: '* * * * *'");
        let (mut decided_to, now) = (time("00:00:00"), time("20:00:00"));
        let (mut missed, mut fired) = (0, 0);
        loop {
            let decisions = decide(&every_minute, decided_to, now, &[]);
            let Some(last) = decisions.last() else { break };
            for decision in &decisions {
                assert_eq!(decision.time, decided_to + jiff::SignedDuration::from_mins(1), "one after the other");
                decided_to = decision.time;
                match decision.action {
                    FiringAction::Miss(_) => missed += 1,
                    _ => fired += 1,
                }
            }
            assert!(decisions.len() <= AT_A_TIME && last.time == decided_to);
        }
        assert_eq!((missed, fired), (1199, 1));
    }
}
