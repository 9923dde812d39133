//! A registry of Avro schemas, small and obedient: it knows what it was told, and is out of order when it is told to be.

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
    /// What was asked and answered, with the header that tells who asked.
    calls: Mutex<Vec<Call>>,
    /// The only `Authorization` that is let in, where there is one.
    wanted: Option<String>,
    down: AtomicBool,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The path.
    pub path: String,
    /// The status that was answered.
    pub status: u16,
    /// The header that tells who asked.
    pub authorization: Option<String>,
}

impl RegistryServer {
    /// A registry that lets in everyone, or only those with this `Authorization`. It does not listen yet.
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

    /// Listens at the address from now on.
    pub async fn listen(&self, address: &str) {
        let listener = TcpListener::bind(address).await.unwrap();
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    }

    /// Whether it answers that it is out of order.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// The calls so far.
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
        _ if shared.down.load(Ordering::SeqCst) => (StatusCode::SERVICE_UNAVAILABLE, json!("out of order")),
        _ if shared.wanted.is_some() && authorization != shared.wanted => (StatusCode::UNAUTHORIZED, json!({"error_code": 401})),
        Some(answer) => (StatusCode::OK, answer),
        None if is_api => (StatusCode::NOT_FOUND, json!({"error_code": 40403, "message": "Schema not found"})),
        None => (StatusCode::NOT_FOUND, json!("no such page")),
    };
    shared.calls.lock().unwrap().push(Call { path, status: status.as_u16(), authorization });
    (status, Json(body)).into_response()
}
