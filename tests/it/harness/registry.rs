//! A registry of Avro schemas in this process: it answers with the schemas that a test registers, and can be made unavailable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A running registry. It ends with the test's runtime.
#[derive(Clone)]
pub struct RegistryServer {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What to answer, by path.
    answers: Mutex<HashMap<String, Value>>,
    /// Every call so far.
    calls: Mutex<Vec<Call>>,
    /// The only `Authorization` header that is accepted; none accepts every call.
    wanted: Option<String>,
    down: AtomicBool,
}

/// A call that the registry has answered.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The `Authorization` header of the call.
    pub authorization: Option<String>,
}

impl RegistryServer {
    /// A registry that accepts every call, or only those with this `Authorization` header. It does not listen yet.
    pub fn new(wanted: Option<&str>) -> Self {
        Self { shared: Arc::new(Shared { wanted: wanted.map(str::to_owned), ..Shared::default() }) }
    }

    /// Registers a schema under the id.
    pub fn register(&self, id: u32, schema: Value) {
        self.answer(format!("/schemas/ids/{id}"), schema);
    }

    /// Registers a schema as a version of the subject.
    pub fn register_version(&self, subject: &str, version: u32, schema: Value) {
        self.answer(format!("/subjects/{subject}/versions/{version}"), schema);
    }

    fn answer(&self, path: String, answer: Value) {
        self.shared.answers.lock().unwrap().insert(path, answer);
    }

    /// Starts to listen at the address.
    pub async fn listen(&self, address: &str) {
        let listener = TcpListener::bind(address).await.unwrap();
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }

    /// Sets whether it answers every call with 503.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().to_owned();
    let authorization = headers.get(AUTHORIZATION).map(|header| header.to_str().unwrap().to_owned());
    let known = shared.answers.lock().unwrap().get(&path).cloned();
    let is_api = path.starts_with("/schemas/ids/") || path.starts_with("/subjects/");
    let (status, body) = match known {
        _ if shared.down.load(Ordering::SeqCst) => (StatusCode::SERVICE_UNAVAILABLE, json!("unavailable")),
        _ if shared.wanted.is_some() && authorization != shared.wanted => (StatusCode::UNAUTHORIZED, json!({"error_code": 401})),
        Some(answer) => (StatusCode::OK, answer),
        None if is_api => (StatusCode::NOT_FOUND, json!({"error_code": 40403, "message": "Schema not found"})),
        None => (StatusCode::NOT_FOUND, json!("no such page")),
    };
    shared.calls.lock().unwrap().push(Call { path, status: status.as_u16(), authorization });
    (status, Json(body)).into_response()
}
