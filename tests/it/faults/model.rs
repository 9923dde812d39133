//! The model host hangs or dies, and the process with it, for a supervisor to start another.

use std::time::Duration;

use libtest_mimic::Trial;
use tokio::task::block_in_place;

use super::ALONE;
use crate::harness::trial::trial;
use crate::harness::{eventually, kafka};
use crate::world::World;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-bert-classifier");

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    // The first batches pass, so that the fault finds commits and batches under way.
    vec![
        trial("faults::a_wedged_model_ends_the_process_and_the_next_goes_on", ALONE, || {
            falls_out("device-batch=3*off->sleep(600000)", "was not evaluated within")
        }),
        trial("faults::a_model_that_panics_ends_the_process_and_the_next_goes_on", ALONE, || {
            falls_out("device-batch=3*off->panic(the model panics)", "the device thread stopped")
        }),
    ]
}

async fn falls_out(failpoint: &str, says: &str) {
    const RECORDS: usize = 1000;
    let mut world = World::new(kafka::shared().await, 2).await;
    world.settings = format!("[models.tiny]\npath = \"{MODEL}\"\n[limits]\nwatchdog_seconds = 3\ndrain_seconds = 2\n");
    world.configure(&world.path("data"));
    let echo = world.path("pipelines/echo.yaml");
    let second = "second: { render: { template: \"{{ first.text }}?\" } }";
    let text = std::fs::read_to_string(&echo).unwrap();
    assert!(text.contains(second), "the world's second task is another by now:\n{text}");
    std::fs::write(&echo, text.replace(second, "second: { classify: { model: tiny } }")).unwrap();

    world.send(0..RECORDS).await;
    let mut doomed = world.worker(failpoint);
    let status = block_in_place(|| doomed.wait(Duration::from_secs(60)));
    assert!(!status.success(), "the worker was to give itself up, but ended with {status}");
    assert!(doomed.log().contains(says), "its last words are not \"{says}\":\n{}", doomed.log());
    assert!(world.committed().await < RECORDS as i64, "the model was to fail before the end");
    world.audit("after the model failed").await;
    let _next = world.worker("");
    eventually("the next goes on", Duration::from_secs(60), || async { world.committed().await > 0 }).await;
    world.drained(RECORDS as i64, Duration::from_secs(60)).await;
    world.assert_exactly_once(RECORDS as i64, 0).await;
}
