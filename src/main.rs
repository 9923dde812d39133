//! The `tidemill` command.

use std::process::ExitCode;

use clap::Parser;
use tidemill::cli::Cli;

fn main() -> ExitCode {
    // Reads FAILPOINTS. Without the feature that the tests turn on, no failpoint exists to be set.
    let _failpoints = fail::FailScenario::setup();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            tidemill::cli::exit_code(&error)
        }
    }
}
