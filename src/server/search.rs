//! `POST /v1/search`: `{"query","pipeline","mode","limit","filter"}` to `{"hits":[…]}`.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Service;
use super::error::{ApiError, Problem};
use super::gate::Caller;
use crate::nearest::suggestion;
use crate::search::{Findings, Mode, Question, SearchError};

/// The keys of the body.
const KEYS: [&str; 5] = ["query", "pipeline", "mode", "limit", "filter"];

/// A search.
#[derive(Deserialize, ToSchema)]
#[schema(as = Search)]
pub struct Body {
    /// What to look for.
    #[schema(min_length = 1, max_length = 8192)]
    query: String,
    /// Where; may be left out where there is one pipeline.
    pipeline: Option<String>,
    /// How.
    #[serde(default)]
    mode: Mode,
    /// Most hits; 10 unless told.
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<usize>,
    #[serde(default)]
    filter: Filter,
}

/// What every hit must fulfil: `{"topic":"Sports"}`, or as on the command line `["topic=Sports"]`.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "`filter` must be an object of texts, numbers and truth values, or a list of `key=value`")]
enum Filter {
    Pairs(BTreeMap<String, Value>),
    Lines(Vec<String>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

/// Find documents by meaning, by words or by both
///
/// It changes nothing, so it can be sent again.
#[utoipa::path(post, path = "/v1/search", tag = "search", security(("token" = ["read"])), request_body = Body,
    responses((status = 200, description = "The documents, the best first", body = Findings),
              (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn answer(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Findings>, ApiError> {
    let question = question(&body?)?;
    Ok(Json(service.searcher.seen_by(caller.tenant.as_ref()).search(&question).await?))
}

fn question(body: &[u8]) -> Result<Question, ApiError> {
    let keys: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no JSON object: {e}")))?;
    if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown key `{key}`; {}", suggestion(key, KEYS))));
    }
    let body: Body = serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no search: {e}")))?;
    let filter = body.filter.conditions()?;
    Ok(Question { query: body.query, pipeline: body.pipeline, mode: body.mode, limit: body.limit, filter })
}

impl Filter {
    fn conditions(self) -> Result<Vec<(String, String)>, ApiError> {
        match self {
            Self::Pairs(pairs) => pairs.into_iter().map(condition).collect(),
            Self::Lines(lines) => lines.iter().map(|line| Question::condition(line).map_err(ApiError::from)).collect(),
        }
    }
}

fn condition((key, value): (String, Value)) -> Result<(String, String), ApiError> {
    let text = match value {
        Value::String(text) => text,
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return Err(ApiError::invalid(format!("the filter `{key}` must be a text, a number or a truth value"))),
    };
    Ok((key, text))
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        match error {
            SearchError::Invalid(message) => Self::invalid(message),
            SearchError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(body: &str) -> String {
        question(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn an_unknown_key_suggests_the_nearest_known_one() {
        assert_eq!(error_of(r#"{"query":"x","limt":3}"#), "unknown key `limt`; did you mean `limit`?");
    }

    #[test]
    fn both_spellings_of_a_filter_mean_the_same() {
        for filter in [r#"{"topic":"Sports"}"#, r#"["topic=Sports"]"#] {
            let question = question(format!(r#"{{"query":"x","filter":{filter}}}"#).as_bytes()).unwrap();
            assert_eq!(question.filter, [("topic".to_owned(), "Sports".to_owned())], "for {filter}");
        }
    }

    #[test]
    fn what_is_no_search_is_said_in_a_sentence() {
        assert!(error_of("[]").starts_with("the body is no JSON object: "), "{}", error_of("[]"));
        assert!(error_of("{}").contains("missing field `query`"), "{}", error_of("{}"));
        assert!(error_of(r#"{"query":"x","mode":"fuzzy"}"#).contains("`vector`, `text`, `hybrid`"));
        assert!(error_of(r#"{"query":"x","limit":-1}"#).contains("expected usize"));
        assert!(error_of(r#"{"query":"x","filter":3}"#).contains("`filter` must be an object"));
        assert!(error_of(r#"{"query":"x","filter":{"a":null}}"#).contains("the filter `a` must be"));
        assert!(error_of(r#"{"query":"x","filter":["a"]}"#).contains("key=value"));
    }
}
