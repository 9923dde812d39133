//! What callers read when a request cannot be answered: `{"error":{"code","message"}}`.

use axum::Json;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::failure::Transient;

/// A refusal or failure, as callers see it.
#[derive(Debug)]
pub struct ApiError {
    /// The status of the response.
    pub status: StatusCode,
    /// For programs: stable, `snake_case`.
    pub code: &'static str,
    /// For people: the thing, the place and the mend.
    pub message: String,
}

impl ApiError {
    /// The request is at fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: "invalid_request", message: message.into() }
    }

    /// A part of the world is out of order. Which is said, why is logged: it may name what callers need not know.
    pub fn unavailable(transient: &Transient) -> Self {
        tracing::warn!(component = %transient.component, reason = transient.reason, "cannot answer a request");
        let message = format!("the {} is out of order; try again later", transient.component);
        Self { status: StatusCode::SERVICE_UNAVAILABLE, code: "unavailable", message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Nothing is served under this path.
pub async fn no_route(uri: Uri) -> ApiError {
    ApiError { status: StatusCode::NOT_FOUND, code: "not_found", message: format!("there is no {}", uri.path()) }
}

/// The path exists, the method does not.
pub async fn no_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, code: "method_not_allowed", message }
}
