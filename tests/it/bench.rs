//! Performance of the stream, as ratios within one run: `TIDEMILL_BENCH=1 cargo test --release --test it bench`. Each test prints
//! one JSON object and fails where a figure misses its limit.

mod latency;

use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::harness::kafka::NewRecord;
use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::harness::{kafka, postgres};
use crate::test_stream::TestStream;

/// The tests, where `TIDEMILL_BENCH` is set.
pub fn trials() -> Vec<Trial> {
    if std::env::var_os("TIDEMILL_BENCH").is_none() {
        return Vec::new();
    }
    let alone = Needs::KAFKA.alone().within(Duration::from_secs(1800));
    vec![
        trial!(alone, workers_scale_while_the_model_is_the_bottleneck),
        trial!(alone, the_ledger_against_a_consumer_that_repeats),
        trial!(alone, a_backlog_of_a_million_records_in_flat_memory),
        trial!(alone, recovery_after_a_kill),
        trial!(alone, latency::latency_at_a_fifth_of_capacity),
    ]
}

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-bert-classifier");

/// A stream whose pipeline is one task and whose only sink is Postgres.
async fn stream(partitions: i32, task: &str, max_records: usize) -> TestStream {
    let stream = TestStream::new(kafka::shared().await, partitions).await;
    let text = format!(
        "version: 1\nname: echo\nsource: {{ topic: {}, id: id, text: \"{{{{ text }}}}\" }}\ntasks:\n  only: {{ {task} }}\n\
         sinks: {{ postgres: {{}} }}\nbudget: {{ max_wait: 50ms, max_records: {max_records} }}\n",
        stream.topic
    );
    std::fs::write(stream.path("pipelines/echo.yaml"), text).unwrap();
    stream
}

const RENDER: &str = "render: { template: \"{{ document.text }}!\" }";

async fn send(stream: &TestStream, records: usize) {
    const PART: usize = 50_000;
    for from in (0..records).step_by(PART) {
        stream.send(from..(from + PART).min(records)).await;
    }
}

/// Records a second between the first and the ninth tenth of the records, as the ledger has them.
async fn rate(stream: &TestStream, records: usize) -> f64 {
    let reached = async |share: f64| {
        loop {
            let committed = stream.committed().await;
            if committed as f64 >= records as f64 * share {
                return (committed, Instant::now());
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let ((from, began), (to, ended)) = (reached(0.1).await, reached(0.9).await);
    (to - from) as f64 / (ended - began).as_secs_f64()
}

/// Each worker has one device, which a failpoint makes take 100 ms for three dozen records on any machine.
async fn workers_scale_while_the_model_is_the_bottleneck() {
    const RECORDS: usize = 6_000;
    const BAR: f64 = 0.85;
    let mut rates = Vec::new();
    for workers in [1, 2, 4] {
        let mut stream = stream(8, "classify: { model: tiny }", 50).await;
        stream.settings = format!("[engine]\nbatch_tokens = 256\nthreads = 1\n[models.tiny]\npath = \"{MODEL}\"\n");
        stream.configure(&stream.path("data"));
        stream.client.send(&stream.topic, (0..RECORDS).map(spelled).collect()).await;
        let _workers: Vec<Worker> = (0..workers).map(|_| stream.worker("device-batch=sleep(100)")).collect();
        rates.push(rate(&stream, RECORDS).await);
    }
    let linear = [rates[1] / rates[0] / 2.0, rates[2] / rates[0] / 4.0];
    println!("{}", json!({ "bench": "scaling", "workers": [1, 2, 4], "records_per_second": rates, "of_linear": linear }));
    assert!(
        linear.iter().all(|ratio| *ratio >= BAR),
        "2 and 4 workers reach {linear:.2?} of linear scaling, and must reach {BAR}"
    );
}

/// A text whose tokens in the tiny vocabulary are unlike those of every other. Texts with the same tokens are computed only once.
fn spelled(n: usize) -> NewRecord {
    let word: String = (0..5).map(|place| char::from(b'a' + (n >> (3 * place) & 7) as u8)).collect();
    NewRecord {
        partition: None,
        key: word.clone().into_bytes(),
        payload: Some(json!({ "id": word, "text": word }).to_string().into_bytes()),
    }
}

/// The same documents and results by a plain consumer: it upserts them batch by batch and commits offsets afterwards, so that a
/// crash repeats work.
async fn the_ledger_against_a_consumer_that_repeats() {
    const RECORDS: usize = 150_000;
    const RUNS: usize = 3;
    const BAR: f64 = 0.8;
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let stream = stream(8, RENDER, 512).await;
        send(&stream, RECORDS).await;
        let worker = stream.worker("");
        ours.push(rate(&stream, RECORDS).await);
        drop(worker);
        plain.push(by_hand(&stream, RECORDS).await);
    }
    let (ours, plain) = (median(&mut ours), median(&mut plain));
    let ratio = ours / plain;
    println!("{}", json!({ "bench": "ledger", "records_per_second": ours, "by_hand": plain, "ratio": ratio }));
    assert!(ratio >= BAR, "the pipeline reaches {ratio:.2} of a plain consumer, and must reach {BAR}");
}

async fn by_hand(stream: &TestStream, records: usize) -> f64 {
    let tables =
        "CREATE TABLE plain_documents (LIKE documents INCLUDING ALL); CREATE TABLE plain_results (LIKE results INCLUDING ALL)";
    postgres::execute(&stream.database_url, tables).await;
    let mut connection = PgConnection::connect(&stream.database_url).await.unwrap();
    let mut config = stream.client.config();
    config
        .set("group.id", format!("plain-{}", stream.topic))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&[&stream.topic]).unwrap();
    let (mut done, mut began, mut ended) = (0, None, None);
    while done < records {
        let batch = block_in_place(|| poll(&consumer));
        if batch.is_empty() {
            continue;
        }
        upsert(&mut connection, &batch).await;
        consumer.commit_consumer_state(CommitMode::Async).unwrap();
        done += batch.len();
        if began.is_none() && done >= records / 10 {
            began = Some((done, Instant::now()));
        }
        if ended.is_none() && done >= records / 10 * 9 {
            ended = Some((done, Instant::now()));
        }
    }
    let ((from, began), (to, ended)) = (began.unwrap(), ended.unwrap());
    (to - from) as f64 / (ended - began).as_secs_f64()
}

/// Up to 512 documents, each with id, text and the record's time.
fn poll(consumer: &BaseConsumer) -> Vec<(String, String, i64)> {
    let mut batch = Vec::new();
    while batch.len() < 512 {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { break };
        let message = message.unwrap();
        let document: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let word = |key: &str| document[key].as_str().unwrap().to_owned();
        batch.push((word("id"), word("text"), message.timestamp().to_millis().unwrap()));
    }
    batch
}

async fn upsert(connection: &mut PgConnection, batch: &[(String, String, i64)]) {
    let ids: Vec<&str> = batch.iter().map(|(id, _, _)| id.as_str()).collect();
    let texts: Vec<&str> = batch.iter().map(|(_, text, _)| text.as_str()).collect();
    let outputs: Vec<String> = texts.iter().map(|text| format!("{text}!")).collect();
    let versions: Vec<i64> = batch.iter().map(|(_, _, version)| *version).collect();
    let mut transaction = connection.begin().await.unwrap();
    let documents = "INSERT INTO plain_documents (pipeline, id, version, deleted, text, metadata, batch_id)
         SELECT 'echo', id, version, false, text, '{}'::jsonb, gen_random_uuid()
         FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (id, text, version)
         ON CONFLICT (pipeline, id) DO UPDATE SET version = excluded.version, text = excluded.text, updated_at = now()";
    sqlx::query(documents).bind(&ids).bind(&texts).bind(&versions).execute(&mut *transaction).await.unwrap();
    let results = "INSERT INTO plain_results (pipeline, document_id, task, kind, version, text, fields, fingerprint, tokens,
                                              device_micros, batch_id)
         SELECT 'echo', id, 'only', 'render', version, output, '{}'::jsonb, sha256(output::bytea), 0, 0, gen_random_uuid()
         FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n (id, output, version)
         ON CONFLICT (pipeline, document_id, task) DO UPDATE SET version = excluded.version, text = excluded.text, updated_at = now()";
    sqlx::query(results).bind(&ids).bind(&outputs).bind(&versions).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

fn median(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Memory during the backlog, once a second, after the first tenth of it.
async fn a_backlog_of_a_million_records_in_flat_memory() {
    const RECORDS: usize = 1_000_000;
    const BAR: f64 = 1.05;
    let stream = stream(8, RENDER, 512).await;
    send(&stream, RECORDS).await;
    let began = Instant::now();
    let worker = stream.worker("");
    let mut held = Vec::new();
    loop {
        let committed = stream.committed().await;
        if committed >= RECORDS as i64 / 10 {
            held.push(worker.memory("VmRSS").expect("the worker runs"));
        }
        if committed >= RECORDS as i64 {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let peak = worker.memory("VmHWM").expect("the worker runs");
    let part = held.len().div_ceil(5);
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len() as f64;
    let growth = mean(&held[held.len() - part..]) / mean(&held[..part]);
    let figures = json!({
        "bench": "backlog", "records": RECORDS, "records_per_second": RECORDS as f64 / seconds, "peak_kib": peak,
        "samples": held.len(), "least_kib": held.iter().min(), "most_kib": held.iter().max(), "last_fifth_to_first": growth
    });
    println!("{figures}");
    stream.audit("after the backlog").await;
    assert!(growth <= BAR, "memory grew {growth:.3}-fold over the backlog, and must stay below {BAR}");
}

/// The time from the kill of the only worker to the next commit. Another worker starts at once, and waits until the broker notices.
async fn recovery_after_a_kill() {
    const RUNS: usize = 3;
    const BAR: Duration = Duration::from_secs(6 + 15);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let stream = stream(4, RENDER, 50).await;
        send(&stream, 20_000).await;
        let mut doomed = stream.worker("commit-before-stage=sleep(100)");
        while stream.committed().await <= 0 {
            sleep(Duration::from_millis(20)).await;
        }
        doomed.kill();
        let (killed, before) = (Instant::now(), stream.committed().await);
        let _heir = stream.worker("");
        while stream.committed().await <= before {
            sleep(Duration::from_millis(20)).await;
        }
        times.push(killed.elapsed().as_secs_f64());
    }
    println!("{}", json!({ "bench": "recovery", "session_timeout_seconds": 6, "seconds": times }));
    assert!(
        times.iter().all(|seconds| *seconds < BAR.as_secs_f64()),
        "recovery took {times:.1?} s, and may take {BAR:?} at most"
    );
}
