//! How far rows are, on stderr: a line that redraws itself on a terminal, and a new line now and then where there is none.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far rows are.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    /// What was said last, and when.
    said: Option<(String, Instant)>,
}

/// How far something is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowProgress<'a> {
    /// What it is doing.
    pub state: &'a str,
    /// Rows that are done.
    pub done: i64,
    /// Rows that there are.
    pub rows: i64,
    /// Rows a second.
    pub rate: Option<f64>,
    /// Seconds that the rest will take.
    pub left: Option<f64>,
}

/// How often lines are written where nothing but the count changes.
const LINES: Duration = Duration::from_secs(5);

impl Progress {
    /// On stderr.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let bar = match ProgressStyle::with_template("{bar:40} {msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, is_terminal: std::io::stderr().is_terminal(), said: None }
    }

    /// Shows it.
    pub fn show(&mut self, reached: &RowProgress<'_>) {
        let words = reached.words();
        if self.is_terminal {
            self.bar.set_length(reached.rows.max(0) as u64);
            self.bar.set_position(reached.done.max(0) as u64);
            self.bar.set_message(words);
            return;
        }
        let is_due = match &self.said {
            None => true,
            Some((before, at)) => {
                let same_state = before.split(':').next() == words.split(':').next();
                *before != words && (!same_state || at.elapsed() >= LINES)
            }
        };
        if is_due {
            eprintln!("{}", super::visible(&words));
            self.said = Some((words, Instant::now()));
        }
    }

    /// Leaves the terminal to what comes next.
    pub fn clear(self) {
        self.bar.finish_and_clear();
    }
}

impl RowProgress<'_> {
    fn words(&self) -> String {
        let Self { state, done, rows, rate, left } = *self;
        let rate = rate.map(|rate| format!(", {rate:.1} rows/s")).unwrap_or_default();
        let left = left.map(|left| format!(", {} left", span(left))).unwrap_or_default();
        format!("{state}: {done} of {rows} rows{rate}{left}")
    }
}

/// A span of time in the two units that matter.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_said_in_a_line() {
        let reached = RowProgress { state: "running", done: 40, rows: 100, rate: Some(2.0), left: Some(30.4) };
        assert_eq!(reached.words(), "running: 40 of 100 rows, 2.0 rows/s, 30 s left");
        assert_eq!(RowProgress { rate: None, left: None, ..reached }.words(), "running: 40 of 100 rows");
        assert_eq!([span(59.6), span(3_599.0), span(7_261.0)], ["1 min 00 s", "59 min 59 s", "2 h 01 min"]);
    }
}
