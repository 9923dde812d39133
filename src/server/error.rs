//! What callers read when a request cannot be answered: `application/problem+json` after RFC 9457.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::failure::Transient;

/// Every reason for which a request is refused, for programs: the words are stable. Others may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// The request cannot be understood, or asks for what there is not.
    InvalidRequest,
    /// No token, or none that is valid.
    Unauthorized,
    /// The token is not good for this.
    Forbidden,
    /// Nothing is served under this path.
    NotFound,
    /// There is no such job.
    UnknownJob,
    /// There is no such document.
    UnknownDocument,
    /// There is no such dead letter.
    UnknownLetter,
    /// There is no such lead.
    UnknownLead,
    /// There is no such company.
    UnknownAccount,
    /// The path is served, but not by this method.
    MethodNotAllowed,
    /// It contradicts what is there.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// Too many requests in too short a time.
    TooManyRequests,
    /// A fault of the server.
    Internal,
    /// A part of the world is out of order for now.
    Unavailable,
    /// It took too long.
    Timeout,
}

impl ProblemCode {
    /// Every code.
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::UnknownJob,
        Self::UnknownDocument,
        Self::UnknownLetter,
        Self::UnknownLead,
        Self::UnknownAccount,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyRequests,
        Self::Internal,
        Self::Unavailable,
        Self::Timeout,
    ];

    /// The word for it, the status that goes with it, and what it says to people.
    pub const fn meaning(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST, "the request cannot be carried out"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "a valid token is needed"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "this is not allowed"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "nothing is served here"),
            Self::UnknownJob => ("unknown_job", StatusCode::NOT_FOUND, "there is no such job"),
            Self::UnknownDocument => ("unknown_document", StatusCode::NOT_FOUND, "there is no such document"),
            Self::UnknownLetter => ("unknown_letter", StatusCode::NOT_FOUND, "there is no such dead letter"),
            Self::UnknownLead => ("unknown_lead", StatusCode::NOT_FOUND, "there is no such lead"),
            Self::UnknownAccount => ("unknown_account", StatusCode::NOT_FOUND, "there is no such account"),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "another method is needed"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "it contradicts what is there"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be said to be JSON")
            }
            Self::TooManyRequests => ("too_many_requests", StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "a fault of the server"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "out of order for now"),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, "it took too long"),
        }
    }
}

/// Why a request is not answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// Names the kind of problem: `urn:tidemill:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:tidemill:problem:invalid_request")]
    kind: String,
    /// The kind of problem, for people.
    title: &'static str,
    /// The status of the response.
    #[schema(example = 400)]
    status: u16,
    /// This very problem: the thing, the place and the mend.
    detail: String,
    /// The kind of problem, for programs.
    code: ProblemCode,
}

/// A refusal or failure, as callers see it.
#[derive(Debug)]
pub struct ApiError {
    /// For programs.
    pub code: ProblemCode,
    /// For people: the thing, the place and the mend.
    pub message: String,
    /// Seconds after which asking again makes sense.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// A refusal.
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The request is at fault.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidRequest, message)
    }

    /// A part of the world is out of order. Which is said, why is logged: it may name what callers need not know.
    pub fn unavailable(transient: &Transient) -> Self {
        if transient.is_refusal {
            tracing::debug!(component = %transient.component, reason = transient.reason, "a value of a request is refused");
            return Self::invalid(
                "a value of the request cannot be looked for: it holds U+0000, or is no number or time that there can be",
            );
        }
        tracing::warn!(component = %transient.component, reason = transient.reason, "cannot answer a request");
        Self::new(ProblemCode::Unavailable, format!("the {} is out of order; try again later", transient.component))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (word, status, title) = self.code.meaning();
        let kind = format!("urn:tidemill:problem:{word}");
        let problem = ProblemDetails { kind, title, status: status.as_u16(), detail: self.message, code: self.code };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        let code = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ProblemCode::TooLarge,
            _ => ProblemCode::InvalidRequest,
        };
        Self::new(code, format!("the body cannot be read: {}", rejection.body_text().to_lowercase()))
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid(format!("the query cannot be read: {rejection}"))
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(format!("the path cannot be read: {rejection}"))
    }
}

/// Nothing is served under this path.
pub async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("there is no {}", uri.path()))
}

/// The path exists, the method does not.
pub async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ProblemCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_code_is_the_one_that_is_written() {
        for code in ProblemCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.meaning().0);
        }
    }
}
