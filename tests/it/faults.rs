//! What the world does to a stream: processes killed and frozen, the database, the broker and the disk gone for a while.
//! After each, the same books must balance.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use rand::RngExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tidemill::config::DatabaseConfig;
use tidemill::store::Store;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{Instant, sleep};

use crate::harness::kafka::{self, Broker};
use crate::harness::postgres::{self, Server};
use crate::harness::readiness::{assert_ready, listen, not_ready};
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{eventually, open_folder};
use crate::world::World;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let alone = Needs::KAFKA.alone().within(Duration::from_secs(300));
    vec![
        trial("faults::workers_killed_and_frozen_at_random_lose_and_repeat_nothing", alone, killed_and_frozen),
        trial("faults::a_database_that_is_gone_for_20_seconds_pauses_the_stream", alone, database_gone),
        trial("faults::a_broker_that_is_gone_for_20_seconds_pauses_the_stream", alone, broker_gone),
        trial("faults::a_full_disk_pauses_the_stream", alone, full_disk),
    ]
}

/// Longer than any one retry waits, so that the stream must come back by itself.
const OUTAGE: Duration = Duration::from_secs(20);

async fn killed_and_frozen() {
    const RECORDS: usize = 20_000;
    const KILLS: usize = 12;
    const FREEZES: [usize; 2] = [4, 8];
    /// Longer than the session timeout, so that the frozen worker comes back as a zombie.
    const FROZEN: Duration = Duration::from_secs(9);

    let seed = rand::rng().random();
    eprintln!("killed_and_frozen: seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new(kafka::shared().await, 6).await;
    // Slow commits, so that a kill always finds something under way.
    let start = || world.worker("commit-before-stage=sleep(120)");
    let mut workers: Vec<Worker> = (0..3).map(|_| start()).collect();
    let mut thaws: Vec<(usize, Instant)> = Vec::new();
    world.send(0..RECORDS / 4).await;
    eventually("the stream flows", Duration::from_secs(60), || async { world.committed().await > 0 }).await;
    for round in 0..KILLS {
        let quarter = RECORDS / 4;
        if round % 4 == 1 {
            let sent = (round / 4 + 1) * quarter;
            world.send(sent..sent + quarter).await;
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
        world.audit(&format!("after kill {round}")).await;
        workers[victim] = start();
    }
    while !thaws.is_empty() {
        sleep(Duration::from_millis(200)).await;
        thaw(&mut thaws, &workers);
    }
    world.drained(RECORDS as i64, Duration::from_secs(150)).await;
    world.assert_exactly_once(RECORDS as i64, 0).await;
    let epochs = postgres::count(&world.database_url, "SELECT sum(epoch)::bigint FROM positions").await;
    assert!(epochs > 6, "no partition ever changed hands: the kills did not bite");
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

async fn database_gone() {
    let mut server = spawn_blocking(Server::start).await.unwrap();
    let config = DatabaseConfig { url: Some(server.url().to_owned()), ..DatabaseConfig::default() };
    let store = Store::connect(&config).unwrap();
    store.migrate().await.unwrap();
    let world = World::on(kafka::shared().await, 2, (store, server.url().to_owned())).await;
    let url = listen();
    let worker = world.worker_at(&url, "");
    world.send(0..200).await;
    world.drained(200, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    block_in_place(|| server.stop());
    world.send(200..400).await;
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("database"), "/readyz says {reason} while the database is gone");
    sleep(OUTAGE).await;
    block_in_place(|| server.resume());

    world.drained(400, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    world.assert_exactly_once(400, 0).await;
}

async fn broker_gone() {
    let mut broker = spawn_blocking(Broker::start).await.unwrap();
    let world = World::new(broker.client(), 2).await;
    let url = listen();
    let worker = world.worker_at(&url, "");
    world.send(0..200).await;
    world.drained(200, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    block_in_place(|| broker.stop());
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("broker"), "/readyz says {reason} while the broker is gone");
    sleep(OUTAGE).await;
    block_in_place(|| broker.resume());

    world.send(200..400).await;
    world.drained(400, Duration::from_secs(90)).await;
    assert_ready(&url, &worker).await;
    world.assert_exactly_once(400, 0).await;
}

async fn full_disk() {
    let disk = SmallDisk::mount();
    let world = World::new(kafka::shared().await, 1).await;
    world.configure(&disk.path().join("data"));
    let url = listen();
    let worker = world.worker_at(&url, "");
    world.send(0..100).await;
    world.drained(100, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    disk.fill();
    world.send(100..300).await;
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("storage"), "/readyz says {reason} while the disk is full");
    sleep(Duration::from_secs(3)).await;
    let committed = world.committed().await;
    assert!(committed < 300, "batches were committed without their files");
    world.audit("on a full disk").await;
    disk.relieve();

    world.drained(300, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    world.assert_exactly_once(300, 0).await;
}

/// A file system of one megabyte in memory.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let folder = open_folder();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        let output = mounted.expect("this test needs `mount`");
        let reason = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this test mounts a tmpfs, which takes root: {reason}");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn relieve(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a worker that is just ending may still hold a file.
        Command::new("umount").arg("-l").arg(self.folder.path()).status().ok();
    }
}
