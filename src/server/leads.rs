//! `/v1/leads` and `/v1/accounts`: which documents promise most and why, as JSON, and all of them as CSV.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::TryStreamExt;
use serde::Deserialize;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::did_you_mean::suggestion;
use crate::leads::{AccountView, LeadError, LeadPage, LeadQuery, LeadService, LeadView};

/// The keys of a query.
const KEYS: [&str; 7] = ["pipeline", "sort", "min_score", "company", "stage", "limit", "cursor"];

type Parameters = Result<Query<BTreeMap<String, String>>, QueryRejection>;

/// Which of the pipelines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The pipeline; may be left out where there is one that makes leads.
    pub pipeline: Option<String>,
}

fn book(services: &Services, caller: &Caller) -> LeadService {
    services.leads.visible_to(caller.tenant.as_ref())
}

/// The leads of a pipeline
///
/// `sort` is `score` (or `-score`), the highest first; `-updated`, what changed last first; or `updated`, what changed longest ago
/// first. Pages over leads that do not change never repeat or skip one.
#[utoipa::path(get, path = "/v1/leads", operation_id = "list_leads", tag = "leads", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one that makes leads"),
           ("sort" = Option<String>, Query, description = "`score` unless told; or `-updated`, `updated`"),
           ("min_score" = Option<f64>, Query, description = "Only with at least this score"),
           ("company" = Option<String>, Query, description = "Only of this company, however its name is written"),
           ("stage" = Option<String>, Query, description = "Only in this stage"),
           ("limit" = Option<i64>, Query, description = "Most leads; 50 unless told", minimum = 1, maximum = 500),
           ("cursor" = Option<String>, Query, description = "The `next` of the page before")),
    responses((status = 200, description = "The leads", body = LeadPage), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
) -> Result<Json<LeadPage>, ApiError> {
    let question = question(parameters?.0)?;
    Ok(Json(book(&services, &caller).list(&question).await?))
}

/// All leads of a pipeline as CSV
///
/// A row a lead, in UTF-8 with a byte order mark, with a column for each part of the score. Cells that a spreadsheet would take for a
/// formula begin with an apostrophe.
#[utoipa::path(get, path = "/v1/leads/export", operation_id = "export_leads", tag = "leads", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one that makes leads"),
           ("sort" = Option<String>, Query, description = "As for the list"),
           ("min_score" = Option<f64>, Query, description = "Only with at least this score"),
           ("company" = Option<String>, Query, description = "Only of this company, however its name is written"),
           ("stage" = Option<String>, Query, description = "Only in this stage")),
    responses((status = 200, description = "The leads", body = String, content_type = "text/csv"), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn export(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let question = question(parameters?.0)?;
    // What cannot be read any more breaks the answer off, so that nobody takes a part for the whole.
    let rows = book(&services, &caller).export(&question)?.inspect_err(|failure| {
        tracing::warn!(component = %failure.component, reason = failure.reason, "an export of leads breaks off");
    });
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"leads.csv\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(rows)).into_response())
}

/// Everything about one lead
///
/// Its score with the parts, the facts with the places in the text that say them, drafts of answers, who was told, and its company.
#[utoipa::path(get, path = "/v1/leads/{id}", operation_id = "show_lead", tag = "leads", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one that makes leads")),
    responses((status = 200, description = "The lead", body = LeadView), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<LeadView>, ApiError> {
    let (Path(id), Query(which)) = (id?, which?);
    Ok(Json(book(&services, &caller).lead(which.pipeline.as_deref(), &id).await?))
}

/// Everything about a company
///
/// The key, or the company's name however it is written.
#[utoipa::path(get, path = "/v1/accounts/{key}", operation_id = "show_account", tag = "leads", security(("token" = ["read"])),
    params(("key" = String, Path, description = "The company"),
           ("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one that makes leads")),
    responses((status = 200, description = "The company", body = AccountView), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn account(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    key: Result<Path<String>, PathRejection>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<AccountView>, ApiError> {
    let (Path(key), Query(which)) = (key?, which?);
    Ok(Json(book(&services, &caller).account(which.pipeline.as_deref(), &key).await?))
}

fn question(mut parameters: BTreeMap<String, String>) -> Result<LeadQuery, ApiError> {
    if let Some(key) = parameters.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown parameter `{key}`; {}", suggestion(key, KEYS))));
    }
    // A form sends what nobody filled in as nothing.
    parameters.retain(|_, value| !value.is_empty());
    let mut take = |key: &str| parameters.remove(key);
    let number = |key: &str, text: Option<String>| {
        let read = |text: String| text.parse::<f64>().map_err(|_| ApiError::invalid(format!("`{key}` is no number")));
        text.map(read).transpose()
    };
    Ok(LeadQuery {
        pipeline: take("pipeline"),
        sort: take("sort"),
        min_score: number("min_score", take("min_score"))?,
        company: take("company"),
        stage: take("stage"),
        limit: match take("limit") {
            Some(text) => Some(text.parse().map_err(|_| ApiError::invalid("`limit` is no number from 1 to 500"))?),
            None => None,
        },
        cursor: take("cursor"),
    })
}

impl From<LeadError> for ApiError {
    fn from(error: LeadError) -> Self {
        let message = error.to_string();
        match error {
            LeadError::Invalid(_) => Self::invalid(message),
            LeadError::UnknownLead { .. } => Self::new(ProblemCode::UnknownLead, message),
            LeadError::UnknownAccount { .. } => Self::new(ProblemCode::UnknownAccount, message),
            LeadError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly_and_an_empty_field_is_none() {
        let read = |pairs: &[(&str, &str)]| {
            question(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let asked = read(&[("company", ""), ("min_score", "12.5"), ("limit", "7")]).unwrap();
        assert_eq!((asked.company, asked.min_score, asked.limit), (None, Some(12.5), Some(7)));
        for (key, value, says) in [
            ("minscore", "1", "did you mean `min_score`?"),
            ("min_score", "many", "`min_score` is no number"),
            ("limit", "ten", "`limit` is no number"),
        ] {
            let refused = read(&[(key, value)]).unwrap_err().message;
            assert!(refused.contains(says), "{refused}");
        }
    }
}
