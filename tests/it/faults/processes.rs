//! Worker processes are killed, frozen and replaced.

use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::ALONE;
use crate::harness::trial::trial;
use crate::harness::worker::Worker;
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(ALONE, workers_killed_and_frozen_at_random_lose_and_repeat_nothing),
        trial!(ALONE, a_zombie_frozen_in_mid_commit_and_its_heir_commit_each_batch_once),
        trial!(ALONE, a_rolling_restart_under_load_pauses_no_longer_than_a_rebalance),
    ]
}

async fn workers_killed_and_frozen_at_random_lose_and_repeat_nothing() {
    const RECORDS: usize = 20_000;
    const KILLS: usize = 12;
    const FREEZES: [usize; 2] = [4, 8];
    /// Longer than the session timeout, so that the frozen worker no longer owns its partitions when it continues.
    const FROZEN: Duration = Duration::from_secs(9);

    let seed = rand::rng().random();
    eprintln!("killed_and_frozen: seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stream = TestStream::new(kafka::shared().await, 6).await;
    // Commits are slow, so that a kill always interrupts some work.
    let start = || stream.worker("commit-before-stage=sleep(120)");
    let mut workers: Vec<Worker> = (0..3).map(|_| start()).collect();
    let mut thaws: Vec<(usize, Instant)> = Vec::new();
    stream.send(0..RECORDS / 4).await;
    eventually("the stream flows", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    for round in 0..KILLS {
        let quarter = RECORDS / 4;
        if round % 4 == 1 {
            let sent = (round / 4 + 1) * quarter;
            stream.send(sent..sent + quarter).await;
        }
        if FREEZES.contains(&round) {
            let frozen = thaws.len();
            workers[frozen].signal(Signal::SIGSTOP);
            thaws.push((frozen, Instant::now() + FROZEN));
        }
        sleep(Duration::from_millis(random.random_range(700..2500))).await;
        thaw(&mut thaws, &workers);
        let running: Vec<usize> = (0..workers.len()).filter(|w| thaws.iter().all(|(frozen, _)| frozen != w)).collect();
        let victim = running[random.random_range(0..running.len())];
        workers[victim].kill();
        stream.audit(&format!("after kill {round}")).await;
        workers[victim] = start();
    }
    while !thaws.is_empty() {
        sleep(Duration::from_millis(200)).await;
        thaw(&mut thaws, &workers);
    }
    stream.drained(RECORDS as i64, Duration::from_secs(150)).await;
    stream.assert_exactly_once(RECORDS as i64, 0).await;
    let epochs = postgres::count(&stream.database_url, "SELECT sum(epoch)::bigint FROM positions").await;
    assert!(epochs > 6, "no partition ever got another owner: the kills had no effect");
}

fn thaw(thaws: &mut Vec<(usize, Instant)>, workers: &[Worker]) {
    thaws.retain(|(worker, at)| {
        let due = Instant::now() >= *at;
        if due {
            workers[*worker].signal(Signal::SIGCONT);
        }
        !due
    });
}

/// The worker is frozen between its statements and its COMMIT until long after it lost its partition. The position's row stays
/// locked, and the claim of the next owner waits for it.
async fn a_zombie_frozen_in_mid_commit_and_its_heir_commit_each_batch_once() {
    const RECORDS: usize = 600;
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.send(0..RECORDS).await;
    // The worker sleeps before the COMMIT of every batch, so that it is frozen there.
    let zombie = stream.worker("commit-before-commit=sleep(400)");
    eventually("something is committed", Duration::from_secs(60), || async { stream.committed().await > 0 }).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'";
    eventually("a commit is in progress", Duration::from_secs(20), || async {
        postgres::count(&stream.database_url, open).await > 0
    })
    .await;
    zombie.signal(Signal::SIGSTOP);
    let frozen_at = stream.committed().await;
    let _heir = stream.worker("");
    // Longer than the session timeout of 6 s, after which the group gives the partition to the other worker.
    sleep(Duration::from_secs(9)).await;
    zombie.signal(Signal::SIGCONT);
    stream.drained(RECORDS as i64, Duration::from_secs(90)).await;
    assert!(frozen_at < RECORDS as i64, "the worker had nothing left to do when it was frozen");
    stream.assert_exactly_once(RECORDS as i64, 0).await;
    assert!(stream.claims().await > 1, "the partition never changed hands");
}

async fn a_rolling_restart_under_load_pauses_no_longer_than_a_rebalance() {
    /// A worker that gets SIGTERM finishes its batches and leaves; the others take over at their next heartbeat. On a machine
    /// that does nothing else this takes about a second.
    const PAUSE: Duration = Duration::from_secs(8);
    const PARTS: usize = 40;
    const PART: usize = 150;
    let stream = TestStream::new(kafka::shared().await, 6).await;
    let start = || stream.worker("commit-before-stage=sleep(20)");
    let mut workers: Vec<Worker> = (0..3).map(|_| start()).collect();
    stream.send(0..PART).await;
    stream.drained(PART as i64, Duration::from_secs(60)).await;
    let began = std::time::Instant::now();
    let load = async {
        for part in 1..PARTS {
            stream.send(part * PART..(part + 1) * PART).await;
            sleep(Duration::from_millis(400)).await;
        }
    };
    let roll = async {
        for worker in &mut workers {
            sleep(Duration::from_secs(2)).await;
            worker.signal(Signal::SIGTERM);
            // `wait` would block the thread that sends the load.
            let status = loop {
                match worker.ended() {
                    Some(status) => break status,
                    None => sleep(Duration::from_millis(20)).await,
                }
            };
            assert!(status.success(), "told to stop, a worker ended with {status}:\n{}", worker.log());
            *worker = start();
        }
    };
    tokio::join!(load, roll);
    let pause = stream.positions.longest_pause(began);
    eprintln!("rolling restart: the longest pause was {pause:?}");
    stream.drained((PARTS * PART) as i64, Duration::from_secs(60)).await;
    assert!(pause < PAUSE, "the stream stood still for {pause:?} while its workers were replaced");
    stream.assert_exactly_once((PARTS * PART) as i64, 0).await;
}
