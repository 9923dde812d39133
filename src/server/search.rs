//! `POST /v1/search`: a query, and the documents that match it.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::body::read_object;
use super::error::ApiError;
use crate::search::{FilterClause, Mode, SearchError, SearchRequest, SearchResponse};
use crate::store::Fusion;

/// The keys of the body.
const KEYS: [&str; 8] = ["query", "pipeline", "mode", "fusion", "limit", "filter", "facets", "cursor"];

/// What to search for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Search)]
pub struct SearchBody {
    /// The query text.
    #[schema(min_length = 1, max_length = 8192)]
    pub query: String,
    /// The pipeline whose documents are searched; may be omitted if there is only one.
    pub pipeline: Option<String>,
    /// By meaning, by words or by both.
    #[serde(default)]
    pub mode: Mode,
    /// How mode `hybrid` joins its two lists: by scores (0.4 words, 0.6 vectors) or by reciprocal ranks.
    #[serde(default)]
    pub fusion: Fusion,
    /// The maximum number of hits, 1 to 100; the default is 10.
    #[schema(minimum = 1, maximum = 100)]
    pub limit: Option<usize>,
    /// The conditions that every hit must meet.
    #[serde(default)]
    pub filter: Filter,
    /// Classification tasks and metadata fields by which the whole match is counted.
    #[serde(default)]
    pub facets: Vec<String>,
    /// The `next` of the previous page.
    pub cursor: Option<String>,
}

/// `{"topic":"Sports","facts.price":{"lt":50}}`, or as on the command line `["topic=Sports","facts.price<50"]`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`filter` must be an object of names with values or operators, or a list of `key=value`")]
pub enum Filter {
    /// Names, each with a value or with operators and their values.
    Object(BTreeMap<String, Value>),
    /// Conditions as the command line takes them.
    Lines(Vec<String>),
}

impl Default for Filter {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

/// Find documents by meaning, by words or by both
///
/// The request changes nothing and can be sent again.
#[utoipa::path(post, path = "/v1/search", operation_id = "search", tag = "search", security(("token" = ["read"])),
    request_body = SearchBody, responses((status = 200, description = "The documents, the best first", body = SearchResponse)))]
pub async fn search(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<SearchResponse>, ApiError> {
    let request = read(&body?)?;
    Ok(Json(services.searcher.visible_to(caller.tenant.as_ref()).search(&request).await?))
}

fn read(body: &[u8]) -> Result<SearchRequest, ApiError> {
    let body: SearchBody = read_object(body, &KEYS, "search")?;
    let clauses = body.filter.clauses()?;
    let SearchBody { query, pipeline, mode, fusion, limit, facets, cursor, .. } = body;
    Ok(SearchRequest { query, pipeline, mode, fusion, limit, filter: clauses, facets, cursor })
}

impl Filter {
    fn clauses(&self) -> Result<Vec<FilterClause>, SearchError> {
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
        read(body.as_bytes()).unwrap_err().message
    }

    #[test]
    fn an_unknown_key_suggests_the_nearest_known_one() {
        assert_eq!(error_of(r#"{"query":"x","limt":3}"#), "unknown key `limt`; did you mean `limit`?");
    }

    #[test]
    fn both_spellings_of_a_filter_mean_the_same() {
        for filter in [r#"{"topic":"Sports"}"#, r#"["topic=Sports"]"#] {
            let request = read(format!(r#"{{"query":"x","filter":{filter}}}"#).as_bytes()).unwrap();
            assert_eq!(request.filter, [FilterClause::line("topic=Sports").unwrap()], "for {filter}");
        }
    }

    #[test]
    fn what_is_no_search_is_said_in_a_sentence() {
        assert!(error_of("[]").starts_with("the body is not a JSON object: "), "{}", error_of("[]"));
        assert!(error_of("{}").contains("missing field `query`"), "{}", error_of("{}"));
        assert!(error_of(r#"{"query":"x","mode":"fuzzy"}"#).contains("`vector`, `text`, `hybrid`"));
        assert!(error_of(r#"{"query":"x","fusion":"sum"}"#).contains("`scores` or `rrf`"));
        assert!(error_of(r#"{"query":"x","limit":-1}"#).contains("expected usize"));
        assert!(error_of(r#"{"query":"x","filter":3}"#).contains("`filter` must be an object"));
        assert!(error_of(r#"{"query":"x","filter":{"a":{"lss":3}}}"#).contains("the filter `a` has no operator `lss`"));
        assert!(error_of(r#"{"query":"x","filter":["a"]}"#).contains("key=value"));
    }
}
