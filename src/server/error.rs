//! Error responses: `application/problem+json` as in RFC 9457.

use axum::Json;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{ContentBuilder, Ref, Response as DescribedResponse, ResponseBuilder};

use crate::failure::Transient;

const CONTENT_TYPE: &str = "application/problem+json";

/// Every reason why a request is refused, for programs. The words are stable; more may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Code)]
pub enum ProblemCode {
    /// The request cannot be understood, or names something that does not exist.
    InvalidRequest,
    /// There is no token, or the token is not valid.
    Unauthorized,
    /// The token does not permit this.
    Forbidden,
    /// This path does not exist.
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
    /// The path exists, but not for this method.
    MethodNotAllowed,
    /// The request contradicts the current state.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The caller has sent too many requests in too short a time.
    TooManyRequests,
    /// An internal error of the server.
    Internal,
    /// A component that the request needs is unavailable.
    Unavailable,
    /// The request took too long.
    Timeout,
}

impl ProblemCode {
    /// Every code, for the description.
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

    /// The word for programs, the HTTP status, and the title for people.
    pub const fn meaning(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST, "the request is not valid"),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED, "a valid token is required"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "this is not permitted"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "this path does not exist"),
            Self::UnknownJob => ("unknown_job", StatusCode::NOT_FOUND, "there is no such job"),
            Self::UnknownDocument => ("unknown_document", StatusCode::NOT_FOUND, "there is no such document"),
            Self::UnknownLetter => ("unknown_letter", StatusCode::NOT_FOUND, "there is no such dead letter"),
            Self::UnknownLead => ("unknown_lead", StatusCode::NOT_FOUND, "there is no such lead"),
            Self::UnknownAccount => ("unknown_account", StatusCode::NOT_FOUND, "there is no such account"),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "this path does not support the method")
            }
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "the request contradicts the current state"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be declared as JSON")
            }
            Self::TooManyRequests => ("too_many_requests", StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "an internal error"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "temporarily unavailable"),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, "the request took too long"),
        }
    }
}

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDetails {
    /// The type of problem: `urn:tidemill:problem:` and the code.
    #[serde(rename = "type")]
    #[schema(example = "urn:tidemill:problem:invalid_request")]
    kind: String,
    /// The type of problem, for people.
    title: &'static str,
    /// The status of the response.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong in this request, where, and how to fix it.
    detail: String,
    /// The type of problem, for programs.
    code: ProblemCode,
}

impl ProblemDetails {
    /// The response as the description of the API gives it, for every operation.
    pub fn described() -> DescribedResponse {
        let schema = Ref::from_schema_name(Self::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        ResponseBuilder::new().description("The request was refused").content(CONTENT_TYPE, content).build()
    }
}

/// An error, as it is sent to callers.
#[derive(Debug)]
pub struct ApiError {
    pub code: ProblemCode,
    /// What is wrong, where, and how to fix it.
    pub message: String,
    /// The `Retry-After` header, in seconds.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error with this code.
    pub fn new(code: ProblemCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// An invalid request: the answer is a 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ProblemCode::InvalidRequest, message)
    }

    /// An unavailable component. The response names the component; the reason is only logged, because it may contain internal
    /// details.
    pub fn unavailable(transient: &Transient) -> Self {
        if transient.is_refusal {
            tracing::debug!(component = %transient.component, reason = transient.reason, "a value of a request is refused");
            return Self::invalid(
                "the request has a value that the database cannot compare: U+0000, or a number or time out of range",
            );
        }
        tracing::warn!(component = %transient.component, reason = transient.reason, "cannot answer a request");
        Self::new(ProblemCode::Unavailable, format!("the {} is unavailable; try again later", transient.component))
    }
}

impl From<Transient> for ApiError {
    fn from(transient: Transient) -> Self {
        Self::unavailable(&transient)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (word, status, title) = self.code.meaning();
        let kind = format!("urn:tidemill:problem:{word}");
        let problem = ProblemDetails { kind, title, status: status.as_u16(), detail: self.message, code: self.code };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
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

/// The response for a path that does not exist.
pub async fn no_route(uri: Uri) -> ApiError {
    ApiError::new(ProblemCode::NotFound, format!("there is no path {}", uri.path()))
}

/// The response for a path that does not have the method.
pub async fn no_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ProblemCode::MethodNotAllowed, format!("{} does not support {method}", uri.path()))
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
