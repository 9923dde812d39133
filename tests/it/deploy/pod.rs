//! A worker as a kubelet starts it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::harness::{eventually, kafka};
use crate::test_stream::TestStream;

/// What a kubelet sets in every container of a namespace with the services `tidemill` and `tidemill-postgres`.
const LINKS: [(&str, &str); 14] = [
    ("TIDEMILL_SERVICE_HOST", "10.0.0.7"),
    ("TIDEMILL_SERVICE_PORT", "8080"),
    ("TIDEMILL_SERVICE_PORT_HTTP", "8080"),
    ("TIDEMILL_PORT", "tcp://10.0.0.7:8080"),
    ("TIDEMILL_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
    ("TIDEMILL_PORT_8080_TCP_PROTO", "tcp"),
    ("TIDEMILL_PORT_8080_TCP_PORT", "8080"),
    ("TIDEMILL_PORT_8080_TCP_ADDR", "10.0.0.7"),
    ("TIDEMILL_POSTGRES_SERVICE_HOST", "10.0.0.8"),
    ("TIDEMILL_POSTGRES_SERVICE_PORT", "5432"),
    ("TIDEMILL_POSTGRES_PORT", "tcp://10.0.0.8:5432"),
    ("TIDEMILL_POSTGRES_PORT_5432_TCP", "tcp://10.0.0.8:5432"),
    ("TIDEMILL_POSTGRES_PORT_5432_TCP_PROTO", "tcp"),
    ("TIDEMILL_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.8"),
];

pub async fn a_worker_runs_among_the_variables_of_a_kubelet() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let worker = stream.worker_with("127.0.0.1:0", &LINKS);
    stream.send(0..3).await;
    eventually("three documents are committed", Duration::from_secs(60), async || {
        assert!(Path::new(&format!("/proc/{}", worker.process())).exists(), "the worker ended:\n{}", worker.log());
        stream.committed().await == 3
    })
    .await;
    assert!(worker.log().contains("TIDEMILL_SERVICE_HOST"), "what is ignored is told:\n{}", worker.log());

    // Other accounts of the node have no business with documents.
    let files: Vec<_> = walk(&stream.path("data"));
    assert!(files.iter().any(|(path, _)| path.ends_with(".parquet")), "no file was written: {files:?}");
    for (path, mode) in files {
        assert_eq!(mode & 0o077, 0, "others may do {:o} with {path}", mode & 0o077);
    }
}

/// Everything below the folder, and what may be done with it.
fn walk(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        found.push((entry.path().display().to_string(), metadata.permissions().mode()));
        if metadata.is_dir() {
            found.extend(walk(&entry.path()));
        }
    }
    found
}
