//! Middleware of every endpoint: a deadline, a response to panics, headers for browsers, and request metrics.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, ProblemCode};
use crate::metrics::METRICS;

/// Headers that forbid browsers to load or run anything from elsewhere, to guess content types, to show pages in frames, to send
/// referrers, and to cache.
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
            let message = format!("no response within {} s; try again later", limit.as_secs());
            ApiError::new(ProblemCode::Timeout, message).into_response()
        }
    }
}

/// Refuses an HTTP/1.1 request without exactly one `Host` header (RFC 9112, section 3.2), and a body that is not declared as JSON:
/// a browser lets a page of another site send any other body without a preflight request.
pub async fn well_formed(request: Request, next: Next) -> Result<Response, ApiError> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || hosts == 0 && request.version() >= Version::HTTP_11 {
        return Err(ApiError::invalid(format!("the request has {hosts} `Host` headers; send one")));
    }
    let types = request.headers().get_all(header::CONTENT_TYPE).iter().map(|value| value.to_str().unwrap_or("not text"));
    let types: Vec<&str> = types.collect();
    let is_json = |declared: &str| declared.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    let other = if types.is_empty() { Some("missing") } else { types.into_iter().find(|declared| !is_json(declared)) };
    if let Some(declared) = other.filter(|_| !request.body().is_end_stream()) {
        let message = format!("the header `Content-Type` is {declared}; send `Content-Type: application/json` and a JSON body");
        return Err(ApiError::new(ProblemCode::UnsupportedMediaType, message));
    }
    Ok(next.run(request).await)
}

/// Adds the headers that a response lacks.
pub async fn headers(mut response: Response) -> Response {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Turns a panic into a response, so that a bug in one request does not end the others.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(panic = text.unwrap_or("unknown"), "a request handler panicked");
    ApiError::new(ProblemCode::Internal, "the server has an internal error; its log has the details").into_response()
}

/// Counts a request and measures its duration, under its route.
pub async fn measure(State(route): State<&'static str>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let response = next.run(request).await;
    METRICS.http_requests.with_label_values(&[route, response.status().as_str()]).inc();
    METRICS.http_seconds.with_label_values(&[route]).observe(start.elapsed().as_secs_f64());
    response
}
