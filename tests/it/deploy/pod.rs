//! A worker with the environment that a kubelet gives it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::harness::{eventually, kafka};
use crate::test_stream::TestStream;

/// The variables that a kubelet sets in every container of a namespace for the service `name` at that address.
fn variables_of_service(name: &str, host: &str, port: &str) -> Vec<(String, String)> {
    let address = format!("tcp://{host}:{port}");
    let named = |ending: &str, value: &str| (format!("{name}_{ending}"), value.to_owned());
    let link = |ending: &str, value: &str| named(&format!("PORT_{port}_TCP{ending}"), value);
    let of_service =
        [named("SERVICE_HOST", host), named("SERVICE_PORT", port), named("SERVICE_PORT_HTTP", port), named("PORT", &address)];
    of_service.into_iter().chain([link("", &address), link("_PROTO", "tcp"), link("_PORT", port), link("_ADDR", host)]).collect()
}

pub async fn a_worker_runs_among_the_variables_of_a_kubelet() {
    let stream = TestStream::new(kafka::shared().await, 1).await;
    let variables =
        [variables_of_service("TIDEMILL", "10.0.0.7", "8080"), variables_of_service("TIDEMILL_POSTGRES", "10.0.0.8", "5432")]
            .concat();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let worker = stream.worker_with("127.0.0.1:0", &variables);
    stream.send(0..3).await;
    eventually("three documents are committed", Duration::from_secs(60), async || {
        assert!(Path::new(&format!("/proc/{}", worker.process())).exists(), "the worker ended:\n{}", worker.log());
        stream.committed().await == 3
    })
    .await;
    assert!(
        worker.log().contains("TIDEMILL_SERVICE_HOST"),
        "the log does not name the variables that were ignored:\n{}",
        worker.log()
    );

    // Other accounts of the node have no business with documents.
    let files: Vec<_> = walk(&stream.path("data"));
    assert!(files.iter().any(|(path, _)| path.ends_with(".parquet")), "no file was written: {files:?}");
    for (path, mode) in files {
        assert_eq!(mode & 0o077, 0, "others may do {:o} with {path}", mode & 0o077);
    }
}

/// Every file and folder below the folder, with its mode.
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
