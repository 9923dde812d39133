//! What surrounds every endpoint: a deadline, a net under panics, and the request metrics.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::metrics::METRICS;

/// A search takes milliseconds; behind a busy model or database it may take seconds.
const DEADLINE: Duration = Duration::from_secs(30);

/// Ends a request that takes too long, however slowly its body arrives.
pub async fn deadline(request: Request, next: Next) -> Response {
    match tokio::time::timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s; try again later", DEADLINE.as_secs());
            ApiError { status: StatusCode::GATEWAY_TIMEOUT, code: "timeout", message }.into_response()
        }
    }
}

/// A bug in one request must not end the others.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("unknown"), "a request handler panicked");
    let message = "this is a fault of the server; its log says more".to_owned();
    ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, code: "internal", message }.into_response()
}

/// Counts and times a request under its route.
pub async fn measure(State(route): State<&'static str>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    METRICS.http_requests.with_label_values(&[route, response.status().as_str()]).inc();
    METRICS.http_seconds.with_label_values(&[route]).observe(start.elapsed().as_secs_f64());
    response
}
