//! `POST /v1/answer`: `{"question","pipeline","model"}` to an answer from the documents, each sentence with its citations.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use serde_json::{Map, Value};

use super::Service;
use super::error::{ApiError, Problem};
use super::gate::Caller;
use crate::nearest::suggestion;
use crate::search::{Answered, Asked, Choice};

/// The keys of the body.
const KEYS: [&str; 3] = ["question", "pipeline", "model"];

/// Answer a question from the documents alone
///
/// Each sentence names the passages that say it. It changes nothing, so it can be sent again.
#[utoipa::path(post, path = "/v1/answer", operation_id = "answer", tag = "search", security(("token" = ["read"])), request_body = Asked,
    responses((status = 200, description = "The answer, or why there is none", body = Answered),
              (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn answer(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answered>, ApiError> {
    let asked = asked(&body?)?;
    Ok(Json(service.searcher.seen_by(caller.tenant.as_ref()).answer(&asked, Choice::Named).await?))
}

fn asked(body: &[u8]) -> Result<Asked, ApiError> {
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
