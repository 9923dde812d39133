//! How late results are while the stream is far from its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use serde_json::json;
use tidemill::demo::download;
use tidemill::store::Store;
use tokio::time::{interval, sleep};

use super::rate;
use crate::harness::kafka::{self, Sent};
use crate::harness::readiness;
use crate::world::{PIPELINE, World};

/// How long the pipeline waits for a batch to fill.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// The part of what the stream can do that comes in.
const SHARE: f64 = 0.2;

/// For how long.
const SECONDS: f64 = 40.0;

/// From the moment before a record is sent to the moment after a reader has seen it committed.
pub(super) async fn at_a_fifth_of_capacity() {
    const RECORDS: usize = 3_000;
    let world = encoding().await;
    let listen = readiness::listen();
    let worker = world.worker_at(&listen, "");
    readiness::assert_ready(&listen, &worker).await;
    world.client.send(&world.topic, (0..RECORDS).map(letter).collect()).await;
    let capacity = rate(&world, RECORDS).await;
    world.drained(RECORDS as i64, Duration::from_secs(60)).await;
    let batch = model_batch(&listen).await;

    let over = Arc::new(AtomicBool::new(false));
    let looking = tokio::spawn(look(world.store.clone(), world.topic.clone(), over.clone()));
    let producer: FutureProducer = world.client.config().set("linger.ms", "0").create().unwrap();
    let sent = (capacity * SHARE * SECONDS) as usize;
    let mut ticks = interval(Duration::from_secs_f64(1.0 / (capacity * SHARE)));
    let mut times = Vec::with_capacity(sent);
    for n in RECORDS..RECORDS + sent {
        ticks.tick().await;
        let Sent { key, payload, .. } = letter(n);
        let (producer, topic) = (producer.clone(), world.topic.clone());
        times.push(Instant::now());
        tokio::spawn(async move {
            let record = FutureRecord::to(&topic).key(&key).payload(payload.as_deref().unwrap());
            producer.send(record, Timeout::Never).await.unwrap();
        });
    }
    world.drained((RECORDS + sent) as i64, Duration::from_secs(60)).await;
    sleep(Duration::from_millis(100)).await;
    over.store(true, Ordering::Relaxed);
    // Of one partition, the order of sending is the order of offsets.
    let seen = looking.await.unwrap();
    let committed = |offset: usize| seen.iter().find(|(next, _)| *next > offset as i64).expect("all is committed").1;
    let mut late: Vec<Duration> =
        times.iter().enumerate().map(|(place, sent)| committed(RECORDS + place).saturating_duration_since(*sent)).collect();
    late.sort();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let (median, late, bar) = (at(0.5), at(0.99), MAX_WAIT + batch.mul_f64(1.5));
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    println!(
        "{}",
        json!({ "bench": "latency", "capacity_records_per_second": capacity, "sent": sent, "model_batch_ms": millis(batch),
                "p50_ms": millis(median), "p99_ms": millis(late), "bar_ms": millis(bar) })
    );
    assert!(
        late <= bar,
        "p99 is {late:.0?}, which is to be {bar:.0?} at most: the longest wait and one and a half model batches"
    );
}

/// A world that embeds what comes in, of one partition.
async fn encoding() -> World {
    let folder = download::sentence_encoder(&|message| eprintln!("{message}")).unwrap();
    let mut world = World::new(kafka::shared().await, 1).await;
    world.write_pipeline(&format!(
        "version: 1\nname: {PIPELINE}\nsource: {{ topic: {}, id: id, text: \"{{{{ text }}}}\" }}\n\
         tasks:\n  vector: {{ embed: {{ model: minilm }} }}\nsinks: {{ postgres: {{}} }}\n\
         budget: {{ max_wait: {}ms, max_records: 512 }}\n",
        world.topic,
        MAX_WAIT.as_millis()
    ));
    world.settings = format!("[models.minilm]\npath = \"{}\"\n", folder.display());
    world.configure(&world.path("data"));
    world
}

/// Some sixty words, no two letters the same.
fn letter(n: usize) -> Sent {
    const WORDS: &[&str] =
        &["the", "river", "mill", "grinds", "what", "tide", "brings", "and", "seven", "wheels", "turn", "under", "oak"];
    let words: Vec<&str> = (0..60).map(|place| WORDS[(n * 31 + place * place * 7 + place * n) % WORDS.len()]).collect();
    let text = format!("Letter {n}: {}", words.join(" "));
    Sent {
        partition: Some(0),
        key: format!("d{n}").into_bytes(),
        payload: Some(json!({ "id": format!("d{n}"), "text": text }).to_string().into_bytes()),
    }
}

/// The time of one batch of the model under load, by its own account.
async fn model_batch(listen: &str) -> Duration {
    let metrics = reqwest::get(format!("http://{listen}/metrics")).await.unwrap().text().await.unwrap();
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} among the metrics")).parse().unwrap()
    };
    Duration::from_secs_f64(value("tidemill_engine_batch_seconds_sum") / value("tidemill_engine_batch_seconds_count"))
}

/// How far the ledger has come, and when that was seen.
async fn look(store: Store, topic: String, over: Arc<AtomicBool>) -> Vec<(i64, Instant)> {
    let mut seen: Vec<(i64, Instant)> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let next = store.positions(PIPELINE, &topic).await.unwrap().iter().map(|(_, next)| *next).max().unwrap_or(0);
        if seen.last().is_none_or(|(last, _)| next > *last) {
            seen.push((next, Instant::now()));
        }
        sleep(Duration::from_millis(5)).await;
    }
    seen
}
