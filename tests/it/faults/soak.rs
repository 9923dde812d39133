//! Random faults for a given number of seconds: `TIDEMILL_SOAK=3600 cargo test --test it soak`. The seed is printed, and
//! `TIDEMILL_SOAK_SEED` repeats the same faults.

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

use super::ALONE;
use crate::harness::free_port;
use crate::harness::kafka::Broker;
use crate::harness::postgres::Server;
use crate::harness::proxy::Proxy;
use crate::harness::trial::trial;
use crate::harness::worker::Worker;
use crate::test_stream::{PIPELINE, TestStream};

/// The test, where `TIDEMILL_SOAK` is set.
pub fn trials() -> Vec<Trial> {
    let seconds = std::env::var("TIDEMILL_SOAK").ok().map(|text| text.parse().expect("TIDEMILL_SOAK is a number of seconds"));
    seconds
        .map(|seconds: u64| {
            let needs = ALONE.within(Duration::from_secs(seconds + 600));
            trial!(needs, soak => soak(Duration::from_secs(seconds)))
        })
        .into_iter()
        .collect()
}

/// How many documents are sent between two faults.
const PART: usize = 400;
const WORKERS: usize = 3;

/// A stream with everything that can fail.
struct Site {
    stream: TestStream,
    workers: Vec<Worker>,
    server: Server,
    broker: Broker,
    to_database: Proxy,
    to_broker: Proxy,
}

async fn soak(length: Duration) {
    let seed = std::env::var("TIDEMILL_SOAK_SEED").map_or_else(|_| rand::rng().random(), |text| text.parse().unwrap());
    eprintln!("soak: TIDEMILL_SOAK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::build().await;
    let (end, mut sent, mut faults) = (Instant::now() + length, 0, 0);
    while Instant::now() < end {
        site.stream.send(sent..sent + PART).await;
        sent += PART;
        let fault = site.strike(&mut random).await;
        faults += 1;
        eprintln!("soak: fault {faults}, {fault}; {sent} documents sent, {} committed", site.stream.committed().await);
        sleep(Duration::from_millis(random.random_range(500..3000))).await;
        site.stream.audit(fault).await;
        site.replace_ended();
    }
    let limit = Instant::now() + Duration::from_secs(240);
    while site.stream.committed().await != sent as i64 && Instant::now() < limit {
        sleep(Duration::from_millis(200)).await;
    }
    // A higher count means that the producer sent records twice; a partition far behind the others is stuck.
    eprintln!("soak: {sent} documents sent, positions {:?}", site.stream.store.positions(PIPELINE, &site.stream.topic).await);
    site.stream.drained(sent as i64, Duration::from_secs(1)).await;
    site.stream.assert_exactly_once(sent as i64, 0).await;
    eprintln!("soak: {faults} faults, {sent} documents, exactly once");
}

impl Site {
    async fn build() -> Self {
        let server = spawn_blocking(Server::start).await.unwrap();
        let behind = free_port();
        let (to_database, to_broker) = (Proxy::before_postgres(server.port()).await, Proxy::before(behind).await);
        let port = to_broker.port();
        let broker = spawn_blocking(move || Broker::start_behind(behind, port)).await.unwrap();
        let config = DatabaseConfig { url: Some(server.url().to_owned()), ..DatabaseConfig::default() };
        let store = Store::connect(&config).unwrap();
        store.migrate().await.unwrap();
        let mut stream = TestStream::on(broker.client(), 6, (store, server.url().to_owned())).await;
        stream.route_to_broker = format!("127.0.0.1:{port}");
        let (from, to) = (format!(":{}/", server.port()), format!(":{}/", to_database.port()));
        stream.route_to_database = stream.database_url.replace(&from, &to);
        stream.settings = "[database]\ndeadline_seconds = 10\n".to_owned();
        stream.configure(&stream.path("data"));
        let workers = (0..WORKERS).map(|_| worker(&stream)).collect();
        Self { stream, workers, server, broker, to_database, to_broker }
    }

    /// Causes one fault and ends it.
    async fn strike(&mut self, random: &mut StdRng) -> &'static str {
        let victim = random.random_range(0..WORKERS);
        let moment = Duration::from_millis(random.random_range(200..9000));
        match random.random_range(0..10) {
            0 | 1 => {
                self.workers[victim].kill();
                "a worker killed"
            }
            2 => {
                self.workers[victim].signal(Signal::SIGSTOP);
                sleep(moment).await;
                self.workers[victim].signal(Signal::SIGCONT);
                "a worker frozen"
            }
            3 => {
                self.to_database.cut();
                sleep(moment).await;
                self.to_database.restore();
                "the network to the database cut"
            }
            4 => {
                self.to_database.swallow();
                "connections to the database swallowed"
            }
            5 => {
                self.to_database.lose_replies_to_commit(3);
                "replies to commits lost"
            }
            6 => {
                self.server.signal(Signal::SIGSTOP);
                sleep(moment).await;
                self.server.signal(Signal::SIGCONT);
                "the database frozen"
            }
            7 => {
                block_in_place(|| {
                    self.server.kill();
                    self.server.resume();
                });
                "the database killed"
            }
            8 => {
                self.to_broker.cut();
                sleep(moment).await;
                self.to_broker.restore();
                "the network to the broker cut"
            }
            _ => {
                block_in_place(|| {
                    self.broker.stop();
                    self.broker.resume();
                });
                "the broker killed"
            }
        }
    }

    fn replace_ended(&mut self) {
        for worker_of_now in &mut self.workers {
            if worker_of_now.ended().is_some() {
                *worker_of_now = worker(&self.stream);
            }
        }
    }
}

fn worker(stream: &TestStream) -> Worker {
    stream.worker("commit-before-commit=sleep(20)")
}
