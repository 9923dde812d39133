//! The bearer token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::ApiError;

/// Lets a request pass that carries the token, or any where no token is set (the server then listens on loopback only).
pub async fn require(State(token): State<Option<Arc<str>>>, request: Request, next: Next) -> Result<Response, ApiError> {
    let Some(token) = token else { return Ok(next.run(request).await) };
    let carried = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let carried = carried.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    // Hashes compare in constant time, so that the time taken says nothing about how much of a guess was right.
    if carried.is_some_and(|(_, carried)| blake3::hash(carried.trim().as_bytes()) == blake3::hash(token.as_bytes())) {
        return Ok(next.run(request).await);
    }
    let message = "this needs the header `Authorization: Bearer` with the token of server.token".to_owned();
    Err(ApiError { status: StatusCode::UNAUTHORIZED, code: "unauthorized", message })
}
