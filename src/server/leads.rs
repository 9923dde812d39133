//! `/v1/leads` and `/v1/accounts`: leads by their scores as JSON, all leads as CSV, and the companies that leads belong to.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::TryStreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::leads::{AccountView, LeadError, LeadPage, LeadQuery, LeadService, LeadView};

/// The query parameters of one lead or company.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LeadParameters {
    /// The pipeline; may be omitted if only one pipeline has leads
    pipeline: Option<String>,
}

impl QueryParameters for LeadParameters {}

/// The query parameters of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// The pipeline; may be omitted if only one pipeline has leads
    pipeline: Option<String>,
    /// The order: `score` (the default), `-updated` or `updated`
    sort: Option<String>,
    /// Only leads with at least this score
    min_score: Option<f64>,
    /// Only leads of this company, in any spelling of its name
    company: Option<String>,
    /// Only leads in this stage
    stage: Option<String>,
    /// The maximum number of leads; the default is 50
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// The `next` of the previous page
    cursor: Option<String>,
}

impl QueryParameters for ListParameters {
    const EMPTY_IS_ABSENT: bool = true;
}

/// The query parameters of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    /// The pipeline; may be omitted if only one pipeline has leads
    pipeline: Option<String>,
    /// The order, as for the list
    sort: Option<String>,
    /// Only leads with at least this score
    min_score: Option<f64>,
    /// Only leads of this company, in any spelling of its name
    company: Option<String>,
    /// Only leads in this stage
    stage: Option<String>,
}

impl QueryParameters for ExportParameters {
    const EMPTY_IS_ABSENT: bool = true;
}

impl From<ListParameters> for LeadQuery {
    fn from(parameters: ListParameters) -> Self {
        let ListParameters { pipeline, sort, min_score, company, stage, limit, cursor } = parameters;
        Self { pipeline, sort, min_score, company, stage, limit, cursor }
    }
}

impl From<ExportParameters> for LeadQuery {
    fn from(parameters: ExportParameters) -> Self {
        let ExportParameters { pipeline, sort, min_score, company, stage } = parameters;
        Self { pipeline, sort, min_score, company, stage, limit: None, cursor: None }
    }
}

fn visible(services: &Services, caller: &Caller) -> LeadService {
    services.leads.visible_to(caller.tenant.as_ref())
}

/// The leads of a pipeline
///
/// `sort` is `score` (or `-score`), the highest first; `-updated`, the latest change first; or `updated`, the oldest change first.
/// While no lead changes, pages neither repeat nor skip one.
#[utoipa::path(get, path = "/v1/leads", operation_id = "list_leads", tag = "leads", security(("token" = ["read"])),
    params(ListParameters), responses((status = 200, description = "The leads", body = LeadPage)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ListParameters>,
) -> Result<Json<LeadPage>, ApiError> {
    Ok(Json(visible(&services, &caller).list(&parameters.into()).await?))
}

/// All leads of a pipeline as CSV
///
/// One row a lead and one column for each part of the score, in UTF-8 with a byte order mark. A cell that a spreadsheet would read
/// as a formula begins with an apostrophe.
#[utoipa::path(get, path = "/v1/leads/export", operation_id = "export_leads", tag = "leads", security(("token" = ["read"])),
    params(ExportParameters), responses((status = 200, description = "The leads", body = String, content_type = "text/csv")))]
pub async fn export(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ExportParameters>,
) -> Result<Response, ApiError> {
    // A failure on the way breaks the response off, so that nobody takes an incomplete file for a complete one.
    let rows = visible(&services, &caller).export(&parameters.into())?.inspect_err(|failure| {
        tracing::warn!(component = %failure.component, reason = failure.reason, "an export of leads was broken off");
    });
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"leads.csv\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(rows)).into_response())
}

/// One lead with all details
///
/// Its score and the parts of it, extracted facts with their places in the text, drafted replies, deliveries, and its company.
#[utoipa::path(get, path = "/v1/leads/{id}", operation_id = "show_lead", tag = "leads", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The document's id"), LeadParameters),
    responses((status = 200, description = "The lead", body = LeadView)))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    ApiQuery(parameters): ApiQuery<LeadParameters>,
) -> Result<Json<LeadView>, ApiError> {
    Ok(Json(visible(&services, &caller).lead(parameters.pipeline.as_deref(), &id?).await?))
}

/// One company with its leads
#[utoipa::path(get, path = "/v1/accounts/{key}", operation_id = "show_account", tag = "leads", security(("token" = ["read"])),
    params(("key" = String, Path, description = "The company's key, or its name in any spelling"), LeadParameters),
    responses((status = 200, description = "The company", body = AccountView)))]
pub async fn account(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    key: Result<Path<String>, PathRejection>,
    ApiQuery(parameters): ApiQuery<LeadParameters>,
) -> Result<Json<AccountView>, ApiError> {
    Ok(Json(visible(&services, &caller).account(parameters.pipeline.as_deref(), &key?).await?))
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
    use super::super::query::read;
    use super::*;
    use crate::leads::MAX_LIMIT;

    #[test]
    fn a_query_is_read_strictly_and_an_empty_field_is_none() {
        let read = |pairs: &[(&str, &str)]| {
            read::<ListParameters>(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let parameters = read(&[("company", ""), ("min_score", "12.5"), ("limit", "7")]).unwrap();
        assert_eq!((parameters.company, parameters.min_score, parameters.limit), (None, Some(12.5), Some(7)));
        assert!(read(&[("limit", &MAX_LIMIT.to_string())]).is_ok());
        for (key, value, says) in [
            ("minscore", "1", "did you mean `min_score`?"),
            ("min_score", "many", "the parameter `min_score` is \"many\"; give a number"),
            ("limit", "ten", "give a number from 1 to 500"),
        ] {
            let refused = read(&[(key, value)]).unwrap_err().message;
            assert!(refused.contains(says), "{refused}");
        }
    }
}
