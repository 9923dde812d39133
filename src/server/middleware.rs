//! What surrounds every endpoint: a deadline, a net under panics, headers for browsers, and the request metrics.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, ProblemCode};
use crate::metrics::METRICS;

/// What browsers must not do with an answer: run or load what is not ours, guess a type, show it in a frame, or tell others of it.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// Ends a request that takes too long, however slowly its body arrives.
pub async fn deadline(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no answer within {} s; try again later", limit.as_secs());
            ApiError::new(ProblemCode::Timeout, message).into_response()
        }
    }
}

/// Refuses a request of HTTP/1.1 without exactly one host (RFC 9112, section 3.2), and a body that is not said to be JSON: a page of
/// another site can send anything else without the browser's asking first.
pub async fn well_formed(request: Request, next: Next) -> Result<Response, ApiError> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() >= Version::HTTP_11 {
        return Err(ApiError::invalid(format!("the request has {hosts} `Host` headers; send one")));
    }
    let types = request.headers().get_all(header::CONTENT_TYPE).iter().map(|value| value.to_str().unwrap_or("no text"));
    let types: Vec<&str> = types.collect();
    let is_json = |said: &str| said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    let other = if types.is_empty() { Some("missing") } else { types.into_iter().find(|said| !is_json(said)) };
    if let Some(said) = other.filter(|_| !request.body().is_end_stream()) {
        let message = format!("the header `Content-Type` is {said}; send `Content-Type: application/json`, and JSON as the body");
        return Err(ApiError::new(ProblemCode::UnsupportedMediaType, message));
    }
    Ok(next.run(request).await)
}

/// Adds the headers that an answer does not have yet.
pub async fn headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A bug in one request must not end the others.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("unknown"), "a request handler panicked");
    ApiError::new(ProblemCode::Internal, "this is a fault of the server; its log says more").into_response()
}

/// Counts and times a request under its route.
pub async fn measure(State(route): State<&'static str>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    METRICS.http_requests.with_label_values(&[route, response.status().as_str()]).inc();
    METRICS.http_seconds.with_label_values(&[route]).observe(start.elapsed().as_secs_f64());
    response
}
