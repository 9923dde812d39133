//! The latency of results while the load is far below what the stream can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tidemill::demo::download;
use tokio::time::{interval, sleep};

use super::{median, rate};
use crate::harness::kafka::{self, NewRecord};
use crate::harness::readiness;
use crate::test_stream::{PIPELINE, TestStream};

/// The pipeline's `max_wait`: the default, which most shipped pipelines have, and a shorter one.
const MAX_WAITS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(200)];

/// The load, as a share of what the stream can do.
const SHARE: f64 = 0.2;

/// Rounds, of which the median counts, and the seconds for which each sends records.
const ROUNDS: usize = 5;
const SECONDS: f64 = 10.0;

/// The time from before a record is sent until after a reader has seen it committed, next to the time that the model computes for
/// one micro-batch in the same seconds.
pub(super) async fn latency_at_a_fifth_of_capacity() {
    for max_wait in MAX_WAITS {
        with(max_wait).await;
    }
}

async fn with(max_wait: Duration) {
    const RECORDS: usize = 3_000;
    let stream = encoding(max_wait).await;
    let listen = readiness::listen();
    let worker = stream.worker_at(&listen, "");
    readiness::assert_ready(&listen, &worker).await;
    stream.client.send(&stream.topic, (0..RECORDS).map(letter).collect()).await;
    let capacity = rate(&stream, RECORDS).await;
    stream.drained(RECORDS as i64, Duration::from_secs(60)).await;
    let [busy, _, token_batches] = account(&listen).await;

    let count = (capacity * SHARE * SECONDS) as usize;
    let (mut medians, mut lates, mut batches, mut bars) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = account(&listen).await;
        let delays = trickle(&stream, RECORDS + round * count, count).await;
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
        medians.push(at(0.5));
        lates.push(at(0.99));
        let batch = batch_between(before, account(&listen).await);
        batches.push(batch);
        bars.push(max_wait.as_secs_f64() * 1e3 + 1.5 * batch);
    }
    println!(
        "{}",
        json!({ "bench": "latency", "max_wait_ms": max_wait.as_millis(), "capacity_records_per_second": capacity,
                "token_batch_ms_at_capacity": busy / token_batches, "sent_per_round": count, "batch_ms": batches,
                "p50_ms": medians, "p99_ms": lates, "bar_ms": bars })
    );
    let (late, bar) = (median(&mut lates), median(&mut bars));
    assert!(
        late <= bar,
        "p99 is {late:.0} ms, and may be {bar:.0} ms at most: the longest wait and one and a half model batches"
    );
}

/// Sends the records from `first` on evenly over [`SECONDS`], and returns the milliseconds until each was seen committed, sorted.
async fn trickle(stream: &TestStream, first: usize, count: usize) -> Vec<f64> {
    let over = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn(look(stream.database_url.clone(), over.clone()));
    let producer: FutureProducer = stream.client.config().set("linger.ms", "0").create().unwrap();
    let mut ticks = interval(Duration::from_secs_f64(SECONDS / count as f64));
    let mut times = Vec::with_capacity(count);
    for n in first..first + count {
        ticks.tick().await;
        let NewRecord { key, payload, .. } = letter(n);
        let (producer, topic) = (producer.clone(), stream.topic.clone());
        times.push(Instant::now());
        tokio::spawn(async move {
            let record = FutureRecord::to(&topic).key(&key).payload(payload.as_deref().unwrap());
            producer.send(record, Timeout::Never).await.unwrap();
        });
    }
    stream.drained((first + count) as i64, Duration::from_secs(60)).await;
    sleep(Duration::from_millis(100)).await;
    over.store(true, Ordering::Relaxed);
    // With one partition the order of sending is the order of offsets.
    let seen = looking.await.unwrap();
    let committed = |offset: usize| seen.iter().find(|(next, _)| *next > offset as i64).expect("all is committed").1;
    let delay = |(place, sent): (usize, &Instant)| committed(first + place).saturating_duration_since(*sent).as_secs_f64() * 1e3;
    let mut delays: Vec<f64> = times.iter().enumerate().map(delay).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// A stream of one partition whose task embeds each document.
async fn encoding(max_wait: Duration) -> TestStream {
    let folder = download::sentence_encoder(&|message| eprintln!("{message}")).unwrap();
    let mut stream = TestStream::new(kafka::shared().await, 1).await;
    stream.write_pipeline(&format!(
        "version: 1\nname: {PIPELINE}\nsource: {{ topic: {}, id: id, text: \"{{{{ text }}}}\" }}\n\
         tasks:\n  vector: {{ embed: {{ model: minilm }} }}\nsinks: {{ postgres: {{}} }}\n\
         budget: {{ max_wait: {}ms, max_records: 512 }}\n",
        stream.topic,
        max_wait.as_millis()
    ));
    stream.settings = format!("[models.minilm]\npath = \"{}\"\n", folder.display());
    stream.configure(&stream.path("data"));
    stream
}

/// Some sixty words, different for each number.
fn letter(n: usize) -> NewRecord {
    const WORDS: &[&str] =
        &["the", "river", "mill", "grinds", "what", "tide", "brings", "and", "seven", "wheels", "turn", "under", "oak"];
    let words: Vec<&str> = (0..60).map(|place| WORDS[(n * 31 + place * place * 7 + place * n) % WORDS.len()]).collect();
    let text = format!("Letter {n}: {}", words.join(" "));
    NewRecord {
        partition: Some(0),
        key: format!("d{n}").into_bytes(),
        payload: Some(json!({ "id": format!("d{n}"), "text": text }).to_string().into_bytes()),
    }
}

/// Milliseconds that the model has computed so far, micro-batches that were committed, and token batches that were computed.
async fn account(listen: &str) -> [f64; 3] {
    let metrics = reqwest::get(format!("http://{listen}/metrics")).await.unwrap().text().await.unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} among the metrics")).parse().unwrap()
    };
    let batches = format!("tidemill_batches_total{{pipeline=\"{PIPELINE}\"}}");
    [value("tidemill_engine_batch_seconds_sum") * 1e3, value(&batches), value("tidemill_engine_batch_seconds_count")]
}

/// The model's milliseconds for a micro-batch between two such counts.
fn batch_between(before: [f64; 3], after: [f64; 3]) -> f64 {
    (after[0] - before[0]) / (after[1] - before[1])
}

/// The ledger's position, and when it was seen.
async fn look(database: String, over: Arc<AtomicBool>) -> Vec<(i64, Instant)> {
    // A connection of its own costs less than one from a pool, which is checked at each query.
    let mut connection = PgConnection::connect(&database).await.unwrap();
    let mut seen: Vec<(i64, Instant)> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let next: Option<i64> = sqlx::query_scalar("SELECT max(next_offset) FROM positions WHERE pipeline = $1")
            .bind(PIPELINE)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let next = next.unwrap_or(0);
        if seen.last().is_none_or(|(last, _)| next > *last) {
            seen.push((next, Instant::now()));
        }
        sleep(Duration::from_millis(3)).await;
    }
    seen
}
