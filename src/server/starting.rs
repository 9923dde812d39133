//! What is served before there is a service: the process lives, is not ready, and can be measured.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::error::ApiError;
use super::{auth, guard, health, metrics};

/// The routes of a process that still loads its models.
pub fn router(token: Option<Arc<str>>) -> Router {
    Router::new()
        .route("/metrics", get(metrics::render).layer(from_fn_with_state("/metrics", guard::measure)))
        .route_layer(from_fn_with_state(token, auth::require))
        .route("/healthz", get(health::alive).layer(from_fn_with_state("/healthz", guard::measure)))
        .route("/readyz", get(ready).layer(from_fn_with_state("/readyz", guard::measure)))
        .fallback(unavailable)
        .layer(from_fn(guard::deadline))
}

async fn ready() -> (StatusCode, Json<Value>) {
    let problems = json!({ "model": "loading" });
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "unready", "problems": problems })))
}

async fn unavailable() -> ApiError {
    let message = "the models are being loaded; try again later".to_owned();
    ApiError { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", message }
}
