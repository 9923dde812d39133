//! Models brought, listed and verified by the command, from disk and from a server that plays the hub.

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
        trial("models::a_pulled_model_runs_and_is_told_from_a_damaged_one", Needs::NOTHING, pulled_and_damaged),
        trial("models::a_hub_is_asked_for_what_is_used_and_nothing_else", Needs::NOTHING, from_a_hub),
        trial("models::what_cannot_be_pulled_is_the_callers_fault_or_the_worlds", Needs::NOTHING, refused),
    ]
}

const MODEL: &str = "tiny-xlm-roberta";
const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(MODEL)
}

/// What the command ends with, says on the last line of stdout, and tells on stderr.
struct CommandOutput {
    code: i32,
    last: String,
    told: String,
}

async fn tidemill(folder: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(arguments).current_dir(folder).env_remove("HF_ENDPOINT").env_remove("HF_TOKEN");
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    CommandOutput {
        code: output.status.code().unwrap_or(-1),
        last: said.lines().last().unwrap_or_default().to_owned(),
        told: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn told(folder: &Path, arguments: &[&str]) -> Value {
    let ran = tidemill(folder, arguments).await;
    assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.told);
    serde_json::from_str(&ran.last).unwrap_or_else(|e| panic!("{arguments:?} prints {:?}: {e}", ran.last))
}

async fn pulled_and_damaged() {
    let folder = open_folder();
    let home = folder.path();
    let fixture = fixture();
    let from = fixture.to_str().unwrap();
    let pulled = told(home, &["models", "pull", from, "--name", "encoder", "--json"]).await;
    let setting = pulled["setting"].as_str().unwrap();
    let weights = home.join(".tidemill/models/encoder/model-00001-of-00002.safetensors");
    assert!(weights.exists(), "{pulled}");

    // The built-in model is not fetched where one of its name is configured.
    let other = format!("[models.minilm]\npath = {from:?}\n");
    std::fs::write(home.join("tidemill.toml"), &other).unwrap();
    let listed = told(home, &["models", "list", "--json"]).await;
    assert_eq!(listed["pulled"][0]["name"], "encoder", "{listed}");
    std::fs::write(home.join("tidemill.toml"), format!("{other}{setting}\n")).unwrap();
    let listed = told(home, &["models", "list", "--json"]).await;
    let revisions: Vec<&Value> = listed["models"].as_array().unwrap().iter().map(|model| &model["revision"]).collect();
    assert_eq!((revisions.len(), listed["pulled"].as_array().unwrap().len()), (2, 0), "{listed}");
    assert_eq!(revisions[0], revisions[1], "the copy is the same model");

    let verified = told(home, &["models", "verify", "--load", "--json"]).await;
    let (minilm, encoder) = (&verified["models"][1], &verified["models"][0]);
    assert_eq!((&encoder["files"], &minilm["files"]), (&pulled["files"], &Value::Null), "{verified}");

    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let ran = tidemill(home, &["models", "verify", "encoder", "--json"]).await;
    assert_eq!(ran.code, 1, "{}", ran.told);
    let problem = "model-00001-of-00002.safetensors has other content than when it was pulled";
    assert_eq!(serde_json::from_str::<Value>(&ran.last).unwrap()["models"][0]["problems"], json!([problem]));
    let ran = tidemill(home, &["models", "verify", "encode"]).await;
    assert!(ran.code == 2 && ran.told.contains("did you mean `encoder`?"), "{}", ran.told);
}

/// Plays the hub with the fixture as its only model.
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

async fn from_a_hub() {
    let folder = open_folder();
    let endpoint = hub().await;
    let arguments = ["models", "pull", "tiny/encoder@v1.0", "--to", "here", "--endpoint", &endpoint, "--json"];
    let pulled = told(folder.path(), &arguments).await;
    assert_eq!((&pulled["revision"], &pulled["files"], &pulled["name"]), (&json!(COMMIT), &json!(6), &json!("encoder")));
    let setting = pulled["setting"].as_str().unwrap();
    std::fs::write(folder.path().join("tidemill.toml"), setting).unwrap();
    told(folder.path(), &["models", "verify", "encoder", "--load", "--json"]).await;
    assert_eq!(told(folder.path(), &arguments).await["kept"], 6, "a second pull fetches nothing");
}

async fn refused() {
    let folder = open_folder();
    let ran = tidemill(folder.path(), &["models", "pull", "no-such-folder"]).await;
    assert!(ran.code == 2 && ran.told.contains("neither an existing folder nor a model of the hub"), "{}", ran.told);
    let ran = tidemill(folder.path(), &["models", "pull", "tiny/encoder", "--name", "A b"]).await;
    assert!(ran.code == 2 && ran.told.contains("write \"a-b\""), "{}", ran.told);
    let endpoint = hub().await;
    let ran = tidemill(folder.path(), &["models", "pull", "tiny/encoder", "--endpoint", &endpoint]).await;
    assert!(ran.code == 1 && ran.told.contains("check the name and the revision"), "{}", ran.told);
    let text = "[models.writer]\nbase_url = \"http://127.0.0.1:9/v1\"\nserver_model = \"small\"\n";
    std::fs::write(folder.path().join("tidemill.toml"), text).unwrap();
    let ran = tidemill(folder.path(), &["models", "verify"]).await;
    assert!(ran.code == 2 && ran.told.contains("`models.writer.context` is missing"), "{}", ran.told);
}
