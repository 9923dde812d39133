//! What the world does to a stream: processes killed and frozen, the database, the broker, the model and the disk gone for a while,
//! records gone for good. After each, the same books must balance ([`TestStream::assert_exactly_once`](crate::test_stream::TestStream)).

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

/// Faults keep the whole machine busy, and some are about time.
const ALONE: Needs = Needs::KAFKA.alone().within(Duration::from_secs(300));

/// Longer than any one retry waits, so that the stream must come back by itself.
const OUTAGE: Duration = Duration::from_secs(20);
