//! `/healthz` and `/readyz`: restart me, and send me traffic.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::Service;

/// Alive: an outage of the database or the broker is no reason to restart the process.
pub async fn alive() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Ready, or what is not: `{"status":"unready","problems":{"broker":"connection refused"},"halted":{}}`. What is halted waits for an
/// operator; what else is wrong mends itself once the world does.
pub async fn ready(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let (problems, halted) = (service.health.problems(), service.health.halts());
    if problems.is_empty() && halted.is_empty() {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    }
    let problems: Map<_, _> = problems.into_iter().map(|(component, reason)| (component.to_string(), json!(reason))).collect();
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "problems": problems, "halted": halted })))
}
