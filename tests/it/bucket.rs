//! A dataset in an S3 bucket. A server in this process answers the requests that reading takes.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use libtest_mimic::Trial;
use serde_json::json;
use tidemill::store::JobState;
use tokio::net::TcpListener;

use crate::harness::trial::{Needs, trial};
use crate::harness::worker::Worker;
use crate::jobs::JobSetup;
use crate::test_stream::PIPELINE;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    let needs = Needs::KAFKA.within(Duration::from_secs(200));
    vec![trial!(needs, a_backfill_reads_signed_and_conditionally_and_outlives_an_outage)]
}

/// An object's bytes and its entity tag.
type Object = (Vec<u8>, String);

/// Objects by key, and how many of the next requests are refused.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Object>>>,
    refusals: Arc<AtomicUsize>,
    unsigned: Arc<AtomicUsize>,
}

impl Bucket {
    fn put(&self, key: &str, bytes: Vec<u8>) {
        let tag = format!("\"{}\"", blake3::hash(&bytes).to_hex());
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), (bytes, tag));
    }

    /// Whether to refuse this request; counts it.
    fn refuses(&self, headers: &HeaderMap) -> Option<Response> {
        let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !signed.is_some_and(|value| value.starts_with("AWS4-HMAC-SHA256 Credential=the-key/")) {
            self.unsigned.fetch_add(1, Ordering::SeqCst);
            return Some(StatusCode::FORBIDDEN.into_response());
        }
        let left = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.is_ok().then(|| StatusCode::SERVICE_UNAVAILABLE.into_response())
    }
}

async fn list(State(bucket): State<Bucket>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    if let Some(refusal) = bucket.refuses(&headers) {
        return refusal;
    }
    let query = query.unwrap_or_default();
    let prefix = query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or("").replace("%2F", "/");
    let objects = bucket.objects.lock().unwrap_or_else(PoisonError::into_inner);
    let contents: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, (bytes, tag))| {
            let tag = tag.replace('"', "&quot;");
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{tag}</ETag>\
                 <Size>{}</Size></Contents>",
                bytes.len()
            )
        })
        .collect();
    format!("<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
        .into_response()
}

async fn object(State(bucket): State<Bucket>, Path(key): Path<String>, headers: HeaderMap) -> Response {
    if let Some(refusal) = bucket.refuses(&headers) {
        return refusal;
    }
    let objects = bucket.objects.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((bytes, tag)) = objects.get(&key) else { return StatusCode::NOT_FOUND.into_response() };
    let asked = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if asked(header::IF_MATCH).is_some_and(|wanted| wanted != tag) {
        return StatusCode::PRECONDITION_FAILED.into_response();
    }
    let common = [(header::ETAG, tag.clone()), (header::LAST_MODIFIED, "Fri, 02 Jan 2026 03:04:05 GMT".to_owned())];
    match asked(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        Some((from, to)) => {
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse::<usize>().unwrap().min(bytes.len() - 1));
            let place = format!("bytes {from}-{to}/{}", bytes.len());
            (StatusCode::PARTIAL_CONTENT, common, [(header::CONTENT_RANGE, place)], bytes[from..=to].to_vec()).into_response()
        }
        None => (common, bytes.clone()).into_response(),
    }
}

async fn a_backfill_reads_signed_and_conditionally_and_outlives_an_outage() {
    let bucket = Bucket::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/documents", get(list)).route("/documents/{*key}", get(object)).with_state(bucket.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });

    let setup = JobSetup::new().await;
    for (name, range) in [("one", 0..1_500), ("two", 1_500..2_500)] {
        setup.archive("scratch.parquet", range);
        bucket.put(&format!("base/2026/{name}.parquet"), fs::read(setup.file("scratch.parquet")).unwrap());
    }
    bucket.put("base/2026/notes.txt", b"no rows".to_vec());
    bucket.put("other/2026/three.parquet", b"of another dataset".to_vec());
    let config = setup.stream.path("tidemill.toml");
    let text = fs::read_to_string(&config).unwrap();
    let dataset = format!(
        "[datasets.bucket]\nurl = \"s3://documents/base\"\nendpoint = \"http://{address}\"\n\
         access_key_env = \"BUCKET_KEY\"\nsecret_key_env = \"BUCKET_SECRET\"\n"
    );
    fs::write(&config, text + &dataset).unwrap();
    let environment = [
        ("TIDEMILL_DATABASE__URL", setup.stream.database_url.as_str()),
        ("BUCKET_KEY", "the-key"),
        ("BUCKET_SECRET", "the-secret"),
    ];
    let arguments = ["run", "--config", "tidemill.toml", "--listen", "127.0.0.1:0"];
    let worker = Worker::start(config.parent().unwrap(), &arguments, &environment);
    bucket.refusals.store(5, Ordering::SeqCst);
    setup.ask(json!({ "version": 1, "id": "cloud", "kind": "backfill", "pipeline": PIPELINE, "dataset": "bucket", "prefix": "2026/" })).await;
    let job = setup.ended("cloud", &worker).await;
    assert_eq!((job.state, job.reason), (JobState::Succeeded, None), "{}", worker.log());
    setup.assert_once(2_500).await;
    assert_eq!(bucket.unsigned.load(Ordering::SeqCst), 0, "every request is signed");
    assert!(!worker.log().contains("the-secret"));
}
