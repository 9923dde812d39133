//! Tests pulling from a fake hub that redirects large files to another server, and from disk.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::*;
use crate::tests::server::{Play, Seen, Server};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONFIG: &[u8] = b"{\"model_type\": \"qwen2\"}";

fn weights() -> Vec<u8> {
    (0..200_000_u32).flat_map(|i| i.to_le_bytes()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    digest::digest(file.path(), true).unwrap().sha256.unwrap()
}

/// The file's bytes from the requested position on.
fn ranged(seen: &Seen, bytes: &[u8]) -> Play {
    let start = seen.headers.get("range").map(|range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap());
    match start {
        None => Play::ok(bytes),
        Some(start) => Play {
            headers: vec![("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))],
            ..Play::status(206, &bytes[start..])
        },
    }
}

/// A hub with one model of two files. The function `large` answers for its weights on another server.
async fn hub_and_store(large: impl Fn(&Seen, usize) -> Play + Send + Sync + 'static) -> (Server, Server) {
    let store = Server::start(large).await;
    let redirect_policy = format!("{}/blob?signature=x", store.address);
    let listing = json!({"id": "owner/model", "sha": COMMIT, "siblings": [
        {"rfilename": "README.md", "size": 4},
        {"rfilename": "config.json", "size": CONFIG.len(), "blobId": "a"},
        {"rfilename": "model.safetensors", "size": weights().len(), "lfs": {"sha256": sha256(&weights()), "size": weights().len()}},
        {"rfilename": "pytorch_model.bin", "size": 1},
    ]});
    let hub = Server::start(move |seen, _| match seen.path.as_str() {
        "/api/models/owner/model/revision/main?blobs=true" => Play::ok(listing.to_string()),
        path if path == format!("/owner/model/resolve/{COMMIT}/config.json") => Play::ok(CONFIG),
        path if path == format!("/owner/model/resolve/{COMMIT}/model.safetensors") => {
            Play { headers: vec![("location", redirect_policy.clone())], ..Play::status(302, "") }
        }
        _ => Play::status(404, ""),
    })
    .await;
    (hub, store)
}

fn impatient(server: &Server) -> Hub {
    let mut hub = Hub::new(&server.address, Some("hf_77777")).unwrap();
    hub.patience.first_wait = Duration::from_millis(2);
    hub
}

async fn pulled(hub: &Hub, source: &str, folder: &Path, gguf: Option<&str>) -> Result<PulledModel> {
    let source = ModelSource::parse(source)?;
    pull(hub, PullOptions { source: &source, folder, gguf, progress: &|_, _, _| {} }).await
}

#[tokio::test]
async fn a_model_comes_with_what_is_used_and_a_manifest_of_it() {
    let (server, store) = hub_and_store(|seen, _| ranged(seen, &weights())).await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("models/m");
    let hub = impatient(&server);
    let first = pulled(&hub, "owner/model", &folder, None).await.unwrap();
    assert_eq!((first.path.clone(), first.kept), (folder.canonicalize().unwrap(), 0));
    let names: Vec<&str> = first.manifest.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    assert_eq!(first.manifest.revision.as_deref(), Some(COMMIT));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), weights());
    assert_eq!(Manifest::read(&folder).unwrap(), Some(first.manifest.clone()));
    let mut left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["config.json", "model.safetensors", MANIFEST], "no other file is left");

    assert!(server.seen().iter().all(|seen| seen.headers["authorization"] == "Bearer hf_77777"));
    assert!(store.seen().iter().all(|seen| !seen.headers.contains_key("authorization")), "the token is sent only to the hub");
    assert!(!format!("{hub:?}").contains("77777"));

    let calls = store.seen().len();
    let second = pulled(&hub, "owner/model", &folder, None).await.unwrap();
    assert_eq!((second.kept, store.seen().len()), (2, calls), "intact files are not fetched again");

    std::fs::write(folder.join("model.safetensors"), "broken").unwrap();
    let damages = first.manifest.damaged_files(&folder);
    assert_eq!(damages.iter().map(ToString::to_string).collect::<Vec<_>>(), ["model.safetensors has 6 bytes and had 800000"]);
    assert_eq!(pulled(&hub, "owner/model", &folder, None).await.unwrap().kept, 1, "a damaged file is fetched again");
    assert_eq!(first.manifest.damaged_files(&folder), []);
}

#[tokio::test]
async fn a_broken_line_goes_on_where_it_broke() {
    let (server, store) = hub_and_store(|seen, number| match number {
        0 => Play { cut: Some(300_000), ..ranged(seen, &weights()) },
        1 => Play::status(503, ""),
        2 => Play { cut: Some(100_000), ..ranged(seen, &weights()) },
        _ => ranged(seen, &weights()),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let model = pulled(&impatient(&server), "owner/model", home.path(), None).await.unwrap();
    assert_eq!(std::fs::read(home.path().join("model.safetensors")).unwrap(), weights());
    assert!(model.manifest.complete);
    let ranges: Vec<Option<String>> = store.seen().iter().map(|seen| seen.headers.get("range").cloned()).collect();
    let from = |start: &str| Some(format!("bytes={start}-"));
    assert_eq!(ranges, [None, from("300000"), from("300000"), from("400000")]);
}

#[tokio::test]
async fn a_body_that_stays_short_is_refused_and_what_came_counts_later() {
    let short = Arc::new(AtomicUsize::new(1000));
    let allowed = short.clone();
    let (server, store) = hub_and_store(move |seen, _| {
        let mut play = ranged(seen, &weights());
        let start = weights().len() - play.body.len();
        play.cut = Some(allowed.load(Ordering::SeqCst).saturating_sub(start));
        play
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let hub = impatient(&server);
    let error = pulled(&hub, "owner/model", home.path(), None).await.unwrap_err();
    assert!(format!("{error:#}").contains("(5 attempts)"), "{error:#}");
    assert!(!home.path().join("model.safetensors").exists(), "a partial file does not get its final name");
    assert!(!Manifest::read(home.path()).unwrap().unwrap().complete);

    short.store(usize::MAX, Ordering::SeqCst);
    let calls = store.seen().len();
    pulled(&hub, "owner/model", home.path(), None).await.unwrap();
    assert_eq!(store.seen()[calls].headers["range"], "bytes=1000-");
    assert_eq!(std::fs::read(home.path().join("model.safetensors")).unwrap(), weights());
}

#[tokio::test]
async fn another_content_than_promised_is_refused_and_removed() {
    let (server, _store) = hub_and_store(|seen, _| {
        let mut bytes = weights();
        bytes[70_000] ^= 1;
        ranged(seen, &bytes)
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    let error = pulled(&impatient(&server), "owner/model", home.path(), None).await.unwrap_err().to_string();
    assert!(error.contains("model.safetensors of owner/model arrived with other content"), "{error}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("safetensors")), "{left:?}");
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let (server, _store) = hub_and_store(|_, number| match number {
        0 => Play { cut: Some(300_000), ..Play::ok(weights()) },
        _ => Play::ok(weights()),
    })
    .await;
    let home = tempfile::tempdir().unwrap();
    pulled(&impatient(&server), "owner/model", home.path(), None).await.unwrap();
    assert_eq!(std::fs::read(home.path().join("model.safetensors")).unwrap(), weights());
}

#[tokio::test]
async fn what_the_hub_does_not_give_is_said_with_the_mend() {
    let (server, _store) = hub_and_store(|_, _| Play::status(404, "")).await;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("m");
    let error = format!("{:#}", pulled(&impatient(&server), "owner/absent", &folder, None).await.unwrap_err());
    assert!(error.contains("404 Not Found for owner/absent at main; it does not exist"), "{error}");
    let error = format!("{:#}", pulled(&impatient(&server), "owner/model", &folder, Some("q8")).await.unwrap_err());
    assert!(error.contains("has no GGUF file"), "{error}");

    let gated = Server::start(|_, _| Play::status(401, "")).await;
    let hub = Hub::new(&gated.address, None).unwrap();
    let error = format!("{:#}", pulled(&hub, "owner/model", &folder, None).await.unwrap_err());
    assert!(error.contains("set HF_TOKEN"), "{error}");
    let other = Server::start(|_, _| Play::ok("<html>")).await;
    let error = format!("{:#}", pulled(&impatient(&other), "owner/model", &folder, None).await.unwrap_err());
    assert!(error.contains("not that of a model hub"), "{error}");
    assert!(Hub::new("huggingface.co", None).unwrap_err().to_string().contains("HF_ENDPOINT"));
}

#[tokio::test]
async fn a_folder_is_copied_with_its_hashes_and_somebody_elses_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    std::fs::create_dir_all(from.join("1_Pooling")).unwrap();
    for (name, text) in [("config.json", "{}"), ("model.safetensors", "w"), ("1_Pooling/config.json", "{}"), ("notes.txt", "n")] {
        std::fs::write(from.join(name), text).unwrap();
    }
    let reported = Mutex::new(Vec::new());
    let hub = Hub::new(ENDPOINT, None).unwrap();
    let source = ModelSource::parse(from.to_str().unwrap()).unwrap();
    let progress = |name: &str, done: u64, _: Option<u64>| reported.lock().unwrap().push((name.to_owned(), done));
    let model = pull(&hub, PullOptions { source: &source, folder: &to, gguf: None, progress: &progress }).await.unwrap();
    assert_eq!(model.manifest.bytes(), 5);
    assert_eq!(reported.lock().unwrap().len(), 3);
    assert!(to.join("1_Pooling/config.json").exists() && !to.join("notes.txt").exists());
    assert_eq!(model.manifest.damaged_files(&to), []);
    std::fs::write(to.join("model.safetensors"), "v").unwrap();
    std::fs::remove_file(to.join("config.json")).unwrap();
    let mut damages: Vec<String> = model.manifest.damaged_files(&to).iter().map(ToString::to_string).collect();
    damages.sort();
    assert_eq!(damages, ["config.json is missing", "model.safetensors has other content than when it was pulled"]);

    let gguf = home.path().join("m-q8_0.gguf");
    std::fs::write(&gguf, "GGUF").unwrap();
    let error = pulled(&hub, gguf.to_str().unwrap(), &from, None).await.unwrap_err().to_string();
    assert!(error.contains("it was not filled by a pull"), "{error}");
    let replaced = pulled(&hub, gguf.to_str().unwrap(), &to, None).await.unwrap();
    assert_eq!(replaced.path, to.canonicalize().unwrap().join("m-q8_0.gguf"));
    assert!(!to.join("model.safetensors").exists(), "the other model's files are gone");
}

#[tokio::test]
async fn a_folder_can_get_its_manifest_where_it_is() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("model.safetensors"), "w").unwrap();
    std::fs::write(home.path().join("notes.txt"), "n").unwrap();
    let hub = Hub::new(ENDPOINT, None).unwrap();
    let model = pulled(&hub, home.path().to_str().unwrap(), home.path(), None).await.unwrap();
    assert_eq!(model.manifest.files.len(), 1);
    assert!(home.path().join("notes.txt").exists());
}
