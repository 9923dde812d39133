//! `POST /v1/answer`: `{"question","pipeline","model"}` to an answer from the documents, each sentence with its citations.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemDetails};
use crate::did_you_mean::suggestion;
use crate::search::{AnswerRequest, AnswerResponse, ModelChoice};

/// The keys of the body.
const KEYS: [&str; 3] = ["question", "pipeline", "model"];

/// Answer a question from the documents alone
///
/// Each sentence names the passages that say it. It changes nothing, so it can be sent again.
#[utoipa::path(post, path = "/v1/answer", operation_id = "answer", tag = "search", security(("token" = ["read"])), request_body = AnswerRequest,
    responses((status = 200, description = "The answer, or why there is none", body = AnswerResponse),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn answer(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AnswerResponse>, ApiError> {
    let asked = asked(&body?)?;
    Ok(Json(services.searcher.visible_to(caller.tenant.as_ref()).answer(&asked, ModelChoice::Named).await?))
}

fn asked(body: &[u8]) -> Result<AnswerRequest, ApiError> {
    let keys: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no JSON object: {e}")))?;
    if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown key `{key}`; {}", suggestion(key, KEYS))));
    }
    serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no question: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_question_is_refused_with_the_mend() {
        let refused = |body: &str| asked(body.as_bytes()).unwrap_err().message;
        assert_eq!(refused(r#"{"qestion":"x"}"#), "unknown key `qestion`; did you mean `question`?");
        assert!(refused(r#"{"pipeline":"news"}"#).contains("missing field `question`"));
        assert!(refused("3").starts_with("the body is no JSON object"));
        assert_eq!(asked(br#"{"question":"Who won?"}"#).unwrap().question, "Who won?");
    }
}
