//! What the world does to a stream: processes killed and frozen, the database, the broker, the model and the disk gone for a while,
//! records gone for good. After each, the same books must balance ([`World::assert_exactly_once`](crate::world::World)).

mod broker;
mod database;
mod disk;
mod model;
mod processes;
mod soak;
mod topics;

use std::time::Duration;

use libtest_mimic::Trial;
use tidemill::demo::postgres::free_port;
use tokio::time::{Instant, sleep};

use crate::harness::eventually;
use crate::harness::trial::Needs;
use crate::harness::worker::Worker;

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

/// An address that nobody listens on.
fn listen() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

async fn readiness(listen: &str) -> Option<(u16, String)> {
    let response = reqwest::get(format!("http://{listen}/readyz")).await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

/// Waits for 200.
async fn assert_ready(listen: &str, worker: &Worker) {
    eventually(&format!("/readyz is 200; the worker says:\n{}", worker.log()), Duration::from_secs(60), || async {
        readiness(listen).await.is_some_and(|(status, _)| status == 200)
    })
    .await;
}

/// Waits for 503 and answers with its body.
async fn not_ready(listen: &str, worker: &Worker) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match readiness(listen).await {
            Some((503, reason)) => return reason,
            _ if Instant::now() > deadline => panic!("/readyz never said 503; the worker says:\n{}", worker.log()),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}
