//! The routes of a process that still loads its models: it is alive, not ready, and has metrics.

use axum::http::StatusCode;
use axum::{Json, Router};

use super::auth::{Authenticator, RequiredAccess};
use super::error::{ApiError, ProblemCode};
use super::health::Readiness;
use super::routes::RouteTable;
use super::{health, metrics};

/// The router that answers while the service starts.
pub fn router(auth: &Authenticator) -> Router {
    let routes = RouteTable::new(auth)
        .get("/metrics", RequiredAccess::Metrics, metrics::render)
        .get("/healthz", RequiredAccess::Probe, health::alive)
        .get("/readyz", RequiredAccess::Probe, ready);
    routes.into_router().fallback(unavailable)
}

async fn ready() -> (StatusCode, Json<Readiness>) {
    let problems = [("model".to_owned(), "loading".to_owned())].into();
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::unready(problems, Default::default())))
}

async fn unavailable() -> ApiError {
    ApiError::new(ProblemCode::Unavailable, "the models are still loading; try again later")
}
