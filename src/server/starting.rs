//! What is served before there is a service: the process lives, is not ready, and can be measured.

use axum::http::StatusCode;
use axum::{Json, Router};

use super::contents::Contents;
use super::error::{ApiError, Code};
use super::gate::{Gate, Need};
use super::health::Readiness;
use super::{health, metrics};

/// The routes of a process that still loads its models.
pub fn router(gate: &Gate) -> Router {
    let contents = Contents::new(gate)
        .get("/metrics", Need::Metrics, metrics::render)
        .get("/healthz", Need::Probe, health::alive)
        .get("/readyz", Need::Probe, ready);
    contents.into_router().fallback(unavailable)
}

async fn ready() -> (StatusCode, Json<Readiness>) {
    let problems = [("model".to_owned(), "loading".to_owned())].into();
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::unready(problems, Default::default())))
}

async fn unavailable() -> ApiError {
    ApiError::new(Code::Unavailable, "the models are being loaded; try again later")
}
