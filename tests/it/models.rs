//! The commands that pull, list and verify models, on local files and with a server in place of the hub.

use std::path::{Path, PathBuf};
use std::process::Command;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

use crate::harness::open_folder;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![
        trial!(Needs::NOTHING, a_pulled_model_runs_and_is_told_from_a_damaged_one),
        trial!(Needs::NOTHING, a_hub_is_asked_for_what_is_used_and_nothing_else),
        trial!(Needs::NOTHING, what_cannot_be_pulled_is_the_callers_fault_or_the_worlds),
    ]
}

const MODEL: &str = "tiny-xlm-roberta";
const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(MODEL)
}

/// A command's exit code, the last line of its stdout, and its stderr.
struct CommandOutput {
    code: i32,
    last_line: String,
    stderr: String,
}

async fn tidemill(folder: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(folder).env_remove("HF_ENDPOINT").env_remove("HF_TOKEN");
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    CommandOutput {
        code: output.status.code().unwrap_or(-1),
        last_line: said.lines().last().unwrap_or_default().to_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    let ran = tidemill(folder, arguments).await;
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
    serde_json::from_str(&ran.last_line).unwrap_or_else(|e| panic!("{arguments:?} prints {:?}: {e}", ran.last_line))
}

async fn a_pulled_model_runs_and_is_told_from_a_damaged_one() {
    let folder = open_folder();
    let home = folder.path();
    let fixture = fixture();
    let from = fixture.to_str().unwrap();
    let pulled = json_of(home, &["models", "pull", from, "--name", "encoder", "--json"]).await;
    let setting = pulled["setting"].as_str().unwrap();
    let weights = home.join(".tidemill/models/encoder/model-00001-of-00002.safetensors");
    assert!(weights.exists(), "{pulled}");

    // The built-in model is not fetched where a model with its name is configured.
    let other = format!("[models.minilm]\npath = {from:?}\n");
    std::fs::write(home.join("tidemill.toml"), &other).unwrap();
    let listed = json_of(home, &["models", "list", "--json"]).await;
    assert_eq!(listed["pulled"][0]["name"], "encoder", "{listed}");
    std::fs::write(home.join("tidemill.toml"), format!("{other}{setting}\n")).unwrap();
    let listed = json_of(home, &["models", "list", "--json"]).await;
    let revisions: Vec<&Value> = listed["models"].as_array().unwrap().iter().map(|model| &model["revision"]).collect();
    assert_eq!((revisions.len(), listed["pulled"].as_array().unwrap().len()), (2, 0), "{listed}");
    assert_eq!(revisions[0], revisions[1], "the copy is the same model");

    let verified = json_of(home, &["models", "verify", "--load", "--json"]).await;
    let (minilm, encoder) = (&verified["models"][1], &verified["models"][0]);
    assert_eq!((&encoder["files"], &minilm["files"]), (&pulled["files"], &Value::Null), "{verified}");

    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let ran = tidemill(home, &["models", "verify", "encoder", "--json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    let problem = "model-00001-of-00002.safetensors has other content than when it was pulled";
    assert_eq!(serde_json::from_str::<Value>(&ran.last_line).unwrap()["models"][0]["problems"], json!([problem]));
    let ran = tidemill(home, &["models", "verify", "encode"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("did you mean `encoder`?"), "{}", ran.stderr);
}

/// A server in place of the hub, with the fixture as its only model.
async fn hub() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(|request: Request| async move {
        let path = request.uri().path();
        if path == "/api/models/tiny/encoder/revision/v1.0" {
            let names = ["config.json", "tokenizer.json", "model.safetensors.index.json", "1_Pooling/config.json", "README.md"];
            let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
            let files: Vec<Value> = names.iter().chain(&shards).map(|name| json!({"rfilename": name})).collect();
            return axum::Json(json!({"sha": COMMIT, "siblings": files})).into_response();
        }
        match path.strip_prefix(&format!("/tiny/encoder/resolve/{COMMIT}/")) {
            Some(name) if name != "README.md" => std::fs::read(fixture().join(name)).unwrap().into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

async fn a_hub_is_asked_for_what_is_used_and_nothing_else() {
    let folder = open_folder();
    let endpoint = hub().await;
    let arguments = ["models", "pull", "tiny/encoder@v1.0", "--to", "here", "--endpoint", &endpoint, "--json"];
    let pulled = json_of(folder.path(), &arguments).await;
    assert_eq!((&pulled["revision"], &pulled["files"], &pulled["name"]), (&json!(COMMIT), &json!(6), &json!("encoder")));
    let setting = pulled["setting"].as_str().unwrap();
    std::fs::write(folder.path().join("tidemill.toml"), setting).unwrap();
    json_of(folder.path(), &["models", "verify", "encoder", "--load", "--json"]).await;
    assert_eq!(json_of(folder.path(), &arguments).await["kept"], 6, "a second pull fetches nothing");
}

async fn what_cannot_be_pulled_is_the_callers_fault_or_the_worlds() {
    let folder = open_folder();
    let ran = tidemill(folder.path(), &["models", "pull", "no-such-folder"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("neither an existing folder nor a model of the hub"), "{}", ran.stderr);
    let ran = tidemill(folder.path(), &["models", "pull", "tiny/encoder", "--name", "A b"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("write \"a-b\""), "{}", ran.stderr);
    let endpoint = hub().await;
    let ran = tidemill(folder.path(), &["models", "pull", "tiny/encoder", "--endpoint", &endpoint]).await;
    assert!(ran.code == 1 && ran.stderr.contains("check the name and the revision"), "{}", ran.stderr);
    let text = "[models.writer]\nbase_url = \"http://127.0.0.1:9/v1\"\nserver_model = \"small\"\n";
    std::fs::write(folder.path().join("tidemill.toml"), text).unwrap();
    let ran = tidemill(folder.path(), &["models", "verify"]).await;
    assert!(ran.code == 2 && ran.stderr.contains("`models.writer.context` is missing"), "{}", ran.stderr);
}
