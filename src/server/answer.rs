//! `POST /v1/answer`: a question, and an answer from the documents, each sentence with its citations.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};

use super::Services;
use super::auth::Caller;
use super::body::read_object;
use super::error::ApiError;
use crate::search::{AnswerRequest, AnswerResponse, ModelChoice};

/// The keys of the body.
const KEYS: [&str; 3] = ["question", "pipeline", "model"];

/// Answer a question from the documents
///
/// Each sentence names the passages that support it. The request changes nothing and can be sent again.
#[utoipa::path(post, path = "/v1/answer", operation_id = "answer", tag = "search", security(("token" = ["read"])),
    request_body = AnswerRequest,
    responses((status = 200, description = "The answer, or why there is none", body = AnswerResponse)))]
pub async fn answer(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<AnswerResponse>, ApiError> {
    let request = read(&body?)?;
    Ok(Json(services.searcher.visible_to(caller.tenant.as_ref()).answer(&request, ModelChoice::Named).await?))
}

fn read(body: &[u8]) -> Result<AnswerRequest, ApiError> {
    read_object(body, &KEYS, "question")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_no_question_is_refused_with_the_mend() {
        let refused = |body: &str| read(body.as_bytes()).unwrap_err().message;
        assert_eq!(refused(r#"{"qestion":"x"}"#), "unknown key `qestion`; did you mean `question`?");
        assert!(refused(r#"{"pipeline":"news"}"#).contains("missing field `question`"));
        assert!(refused("3").starts_with("the body is not a JSON object"));
        assert_eq!(read(br#"{"question":"Who won?"}"#).unwrap().question, "Who won?");
    }
}
