//! The `tidemill` command: parses the arguments, runs the command, and maps its error to an exit code.

use std::process::ExitCode;

use clap::Parser;
use tidemill::cli::Cli;

fn main() -> ExitCode {
    let _failpoints = tidemill::failpoint::from_environment();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", tidemill::terminal::escaped(&format!("{error:#}")));
            tidemill::cli::exit_code(&error)
        }
    }
}
