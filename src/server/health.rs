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

/// Ready, or what is not: `{"status":"unready","problems":{"broker":"connection refused","pipeline news":"stopped: …"},"halted":{}}`.
/// What is stopped or halted waits for an operator; what else is wrong mends itself once the world does.
pub async fn ready(State(service): State<Service>) -> (StatusCode, Json<Value>) {
    let components = service.health.problems().into_iter().map(|(component, reason)| (component.to_string(), json!(reason)));
    let stops = service.health.stops().into_iter();
    let stops = stops.map(|(pipeline, reason)| (format!("pipeline {pipeline}"), json!(format!("stopped: {reason}"))));
    let (problems, halted): (Map<_, _>, _) = (components.chain(stops).collect(), service.health.halts());
    if problems.is_empty() && halted.is_empty() {
        return (StatusCode::OK, Json(json!({ "status": "ready" })));
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "problems": problems, "halted": halted })))
}
