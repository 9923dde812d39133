//! `/metrics`.

use axum::http::header;
use axum::response::IntoResponse;

use crate::metrics::METRICS;

/// Every metric of the process, in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "service", security(("token" = ["read"])),
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")))]
pub async fn render() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], METRICS.render())
}
