//! Faults of the environment: processes are killed or frozen; the database, the broker, the model or the disk are unavailable for a
//! while; records are lost. After each, the same counts must agree
//! ([`TestStream::assert_exactly_once`](crate::test_stream::TestStream)).

mod broker;
mod database;
mod disk;
mod model;
mod processes;
mod soak;
mod topics;

use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::readiness::{assert_ready, listen, not_ready};
use crate::harness::trial::Needs;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let families = [
        broker::trials(),
        database::trials(),
        disk::trials(),
        model::trials(),
        processes::trials(),
        topics::trials(),
        soak::trials(),
    ];
    families.into_iter().flatten().collect()
}

/// Faults keep the whole machine busy, and some tests measure time.
const ALONE: Needs = Needs::KAFKA.alone().within(Duration::from_secs(300));

/// Longer than any single retry waits, so that the stream must recover by itself.
const OUTAGE: Duration = Duration::from_secs(20);
