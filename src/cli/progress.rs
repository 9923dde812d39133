//! Progress of rows on stderr: a bar on a terminal, else a new line now and then.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::escaped;

/// Shows the progress of rows.
pub struct Progress {
    bar: ProgressBar,
    is_terminal: bool,
    /// The last line that was printed, and when.
    printed: Option<(String, Instant)>,
}

/// A state of progress.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RowProgress<'a> {
    pub state: &'a str,
    pub done: i64,
    pub rows: i64,
    /// In rows per second.
    pub rate: Option<f64>,
    pub left: Option<f64>,
}

/// The least time between lines that differ only in the count.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

impl Progress {
    /// A bar on stderr, or lines where stderr is no terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        let bar = match ProgressStyle::with_template("{bar:40} {msg}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, is_terminal: std::io::stderr().is_terminal(), printed: None }
    }

    /// Shows how far the rows are.
    pub fn show(&mut self, now: &RowProgress<'_>) {
        let words = now.words();
        if self.is_terminal {
            self.bar.set_length(now.rows.max(0) as u64);
            self.bar.set_position(now.done.max(0) as u64);
            self.bar.set_message(words);
            return;
        }
        let is_due = match &self.printed {
            None => true,
            Some((before, at)) => {
                let same_state = before.split(':').next() == words.split(':').next();
                *before != words && (!same_state || at.elapsed() >= LINE_INTERVAL)
            }
        };
        if is_due {
            eprintln!("{}", escaped(&words));
            self.printed = Some((words, Instant::now()));
        }
    }

    /// Removes the bar from the terminal.
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

/// A span of time in its two largest units.
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
        let now = RowProgress { state: "running", done: 40, rows: 100, rate: Some(2.0), left: Some(30.4) };
        assert_eq!(now.words(), "running: 40 of 100 rows, 2.0 rows/s, 30 s left");
        assert_eq!(RowProgress { rate: None, left: None, ..now }.words(), "running: 40 of 100 rows");
        assert_eq!([span(59.6), span(3_599.0), span(7_261.0)], ["1 min 00 s", "59 min 59 s", "2 h 01 min"]);
    }
}
