//! Printing to stdout.

use std::fmt;

use crate::terminal::escaped;

/// Prints a line to stdout, with control characters escaped.
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::say::line(format_args!($($argument)*)) };
}

/// What [`say`] expands to.
pub fn line(text: fmt::Arguments<'_>) {
    println!("{}", escaped(&text.to_string()));
}
