//! Integration tests in one binary. They share one Kafka and one Postgres, which start when first needed and stop at the end.
//!
//! `cargo test --test it` runs all tests, `cargo test --test it faults` those whose name contains the word. Names are behaviours.
//! Where Java or Maven is missing, tests that need Kafka are reported as ignored; `TIDEMILL_REQUIRE_KAFKA=1` makes that a failure.
//! `TIDEMILL_REQUIRE_TOOLS=1` does the same for tests whose browser or other tool can be neither found nor fetched.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be; clippy takes only `#[test]` for one"
)]

mod access;
mod answers;
mod backfill;
mod bad_input;
mod bench;
mod bucket;
mod console;
mod copy;
mod dead_letters;
mod deletes;
mod demo;
mod deploy;
mod early_evaluation;
mod engine;
mod explain;
mod faults;
mod floors;
mod formats;
mod fuzz;
mod gpu;
mod harness;
mod indexes;
mod isolation;
mod job_service;
mod jobs;
mod leads;
mod ledger;
mod limits;
mod models;
mod outbox;
mod pipelines;
mod plan;
mod position_watcher;
mod properties;
mod queries;
mod readme;
mod recommend;
mod reembed;
mod remote;
mod schedules;
mod search;
mod search_quality;
mod secured;
mod stops;
mod summaries;
mod test_stream;
mod words;
mod writer;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Tests share two cores with a broker, a database and the workers they start.
const THREADS: usize = 2;

fn main() -> ExitCode {
    if let Some(code) = harness::parent_process::role().or_else(fuzz::role) {
        return code;
    }
    // The HTTP client is built without a cryptographic library of its own. Installing one twice fails and changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let trials = [
        floors::trials(),
        access::trials(),
        engine::trials(),
        harness::tests::trials(),
        leads::trials(),
        ledger::trials(),
        models::trials(),
        outbox::trials(),
        early_evaluation::trials(),
        pipelines::trials(),
        properties::trials(),
        schedules::trials(),
        search::trials(),
        words::trials(),
        answers::trials(),
        explain::trials(),
        recommend::trials(),
        search_quality::trials(),
        writer::trials(),
        copy::trials(),
        faults::trials(),
        jobs::trials(),
        limits::trials(),
        reembed::trials(),
        bucket::trials(),
        demo::trials(),
        console::trials(),
        deletes::trials(),
        deploy::trials(),
        bad_input::trials(),
        dead_letters::trials(),
        indexes::trials(),
        isolation::trials(),
        stops::trials(),
        summaries::trials(),
        backfill::trials(),
        plan::trials(),
        job_service::trials(),
        readme::trials(),
        remote::trials(),
        formats::trials(),
        fuzz::trials(),
        secured::trials(),
        queries::trials(),
        gpu::trials(),
        bench::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    harness::shut_down();
    conclusion.exit_code()
}
