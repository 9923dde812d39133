//! `POST /v1/search`: `{"query","pipeline","mode","fusion","limit","filter","facets","cursor"}` to `{"hits":[…],"next":…,"facets":{…}}`.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemDetails};
use crate::did_you_mean::suggestion;
use crate::search::{FilterClause, Mode, SearchError, SearchRequest, SearchResponse};
use crate::store::Fusion;

/// The keys of the body.
const KEYS: [&str; 8] = ["query", "pipeline", "mode", "fusion", "limit", "filter", "facets", "cursor"];

/// What is looked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Search)]
pub struct Body {
    /// The question, in words.
    #[schema(min_length = 1, max_length = 8192)]
    pub query: String,
    /// The pipeline whose documents are searched; may be left out where there is one.
    pub pipeline: Option<String>,
    /// By meaning, by words or by both.
    #[serde(default)]
    pub mode: Mode,
    /// How both lists become one, where the mode is `hybrid`: by scores (0.4 words, 0.6 vectors), or by reciprocal ranks.
    #[serde(default)]
    pub fusion: Fusion,
    /// Most hits, 1 to 100; 10 unless told.
    #[schema(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
    /// What every hit must fulfil.
    #[serde(default)]
    pub filter: Filter,
    /// Classification tasks and metadata fields to count the whole match by.
    #[serde(default)]
    pub facets: Vec<String>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
}

/// `{"topic":"Sports","facts.price":{"lt":50}}`, or as on the command line `["topic=Sports","facts.price<50"]`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`filter` must be an object of names with values or operators, or a list of `key=value`")]
pub enum Filter {
    /// Names with values, or with operators and theirs.
    Object(BTreeMap<String, Value>),
    /// Lines of the command line.
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
#[utoipa::path(post, path = "/v1/search", operation_id = "search", tag = "search", security(("token" = ["read"])), request_body = Body,
    responses((status = 200, description = "The documents, the best first", body = SearchResponse),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn answer(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<SearchResponse>, ApiError> {
    let question = question(&body?)?;
    Ok(Json(services.searcher.visible_to(caller.tenant.as_ref()).search(&question).await?))
}

fn question(body: &[u8]) -> Result<SearchRequest, ApiError> {
    let keys: Map<String, Value> =
        serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no JSON object: {e}")))?;
    if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown key `{key}`; {}", suggestion(key, KEYS))));
    }
    let body: Body = serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is no search: {e}")))?;
    let filter = body.filter.conditions()?;
    let Body { query, pipeline, mode, fusion, limit, facets, cursor, .. } = body;
    Ok(SearchRequest { query, pipeline, mode, fusion, limit, filter, facets, cursor })
}

impl Filter {
    /// The conditions that it is.
    fn conditions(&self) -> Result<Vec<FilterClause>, SearchError> {
        match self {
            Self::Object(object) => FilterClause::object(object.clone().into_iter().collect()),
            Self::Lines(lines) => lines.iter().map(|line| FilterClause::line(line)).collect(),
        }
    }
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
            assert_eq!(question.filter, [FilterClause::line("topic=Sports").unwrap()], "for {filter}");
        }
    }

    #[test]
    fn what_is_no_search_is_said_in_a_sentence() {
        assert!(error_of("[]").starts_with("the body is no JSON object: "), "{}", error_of("[]"));
        assert!(error_of("{}").contains("missing field `query`"), "{}", error_of("{}"));
        assert!(error_of(r#"{"query":"x","mode":"fuzzy"}"#).contains("`vector`, `text`, `hybrid`"));
        assert!(error_of(r#"{"query":"x","fusion":"sum"}"#).contains("`scores` or `rrf`"));
        assert!(error_of(r#"{"query":"x","limit":-1}"#).contains("expected usize"));
        assert!(error_of(r#"{"query":"x","filter":3}"#).contains("`filter` must be an object"));
        assert!(error_of(r#"{"query":"x","filter":{"a":{"lss":3}}}"#).contains("the filter `a` has no operator `lss`"));
        assert!(error_of(r#"{"query":"x","filter":["a"]}"#).contains("key=value"));
    }
}
