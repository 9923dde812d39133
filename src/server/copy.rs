//! `/v1/copy`: what the editors' desk shows and takes, as JSON; with what is published as files, for shops and for crawlers.
//!
//! Exports lie beside `/v1/copy/{document}` and not below it, where they would hide a document of that name.

use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::copy::{CopyError, CopyList, CopyService, CopyView, DecisionRequest, ExportFormat, MAX_COPIES};
use crate::did_you_mean::suggestion;
use crate::outcome::Check;
use crate::store::{CopyState, CopyVersion};

/// Versions of a list unless told.
const LISTED: i64 = 50;

/// Which versions to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    state: Option<String>,
    pipeline: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
}

/// Which catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    pipeline: Option<String>,
}

/// Which catalogue, in which format.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exporting {
    format: Option<String>,
    pipeline: Option<String>,
}

/// Which catalogue, and which of its sitemaps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pipeline: Option<String>,
    file: Option<i64>,
}

/// A version goes on its page.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApproveCopy)]
pub struct Approving {
    /// The version that you have seen.
    version: i32,
    /// Checks that speak against it and are overruled; the schema and the address cannot be.
    #[serde(default)]
    despite: Vec<Check>,
    /// What you say of it.
    #[serde(default)]
    note: Option<String>,
}

/// A version is refused, or leaves its page.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RejectCopy)]
pub struct Rejecting {
    /// The version that you have seen.
    version: i32,
    /// Why.
    #[serde(default)]
    note: Option<String>,
}

/// A version is written anew.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EditCopy)]
pub struct Editing {
    /// The version that you have changed.
    version: i32,
    /// The whole content as it should be.
    content: Map<String, Value>,
    /// What you say of it.
    #[serde(default)]
    note: Option<String>,
}

/// The copy of a document, as the address names it.
#[derive(Debug)]
pub struct Page {
    pipeline: Option<String>,
    document_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(document_id) = Path::from_request_parts(parts, state).await?;
        let Query(Parameters { pipeline }) = Query::from_request_parts(parts, state).await?;
        Ok(Self { pipeline, document_id })
    }
}

impl Page {
    fn verdict(self, caller: &Caller, version: i32, note: Option<String>) -> DecisionRequest {
        let Self { pipeline, document_id } = self;
        DecisionRequest { pipeline, document_id, version, by: caller.name.to_string(), note }
    }
}

fn copy_service(services: &Services, caller: &Caller) -> CopyService {
    services.copy.visible_to(caller.tenant.as_ref())
}

/// Copy that waits, or stands in another state
#[utoipa::path(get, path = "/v1/copy", operation_id = "list_copy", tag = "copy", security(("token" = ["read"])),
    params(("state" = Option<String>, Query, description = "review unless told; or approved, rejected, superseded, withdrawn"),
           ("pipeline" = Option<String>, Query, description = "Only of this catalogue"),
           ("limit" = Option<i64>, Query, description = "Most versions; 50 unless told", minimum = 1, maximum = 500),
           ("cursor" = Option<String>, Query, description = "`next` of the page before")),
    responses((status = 200, description = "The versions", body = CopyList), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<CopyList>, ApiError> {
    let Query(Listing { state, pipeline, limit, cursor }) = parameters?;
    let state = match state {
        Some(word) => CopyState::named(&word).ok_or_else(|| {
            let known = CopyState::ALL.map(CopyState::as_str);
            ApiError::invalid(format!("`{word}` is no state of copy; {}", suggestion(&word, known)))
        })?,
        None => CopyState::Review,
    };
    let limit = limit.unwrap_or(LISTED);
    if !(1..=MAX_COPIES).contains(&limit) {
        return Err(ApiError::invalid(format!("`limit` is no number from 1 to {MAX_COPIES}")));
    }
    Ok(Json(copy_service(&services, &caller).list(pipeline.as_deref(), state, limit, cursor.as_deref()).await?))
}

/// The copy of a document: versions, reasons, evidence and the source beside it
#[utoipa::path(get, path = "/v1/copy/{document}", operation_id = "show_copy", tag = "copy", security(("token" = ["read"])),
    params(("document" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one")),
    responses((status = 200, description = "The copy", body = CopyView), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    page: Page,
) -> Result<Json<CopyView>, ApiError> {
    Ok(Json(copy_service(&services, &caller).show(page.pipeline.as_deref(), &page.document_id).await?))
}

/// Put a version on its page
///
/// What was there is superseded. Of two people who decide on the same version, the second is refused with `conflict`.
#[utoipa::path(post, path = "/v1/copy/{document}/approve", operation_id = "approve_copy", tag = "copy", security(("token" = ["review"])), request_body = Approving,
    params(("document" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one")),
    responses((status = 200, description = "The version, as it then is", body = CopyVersion), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn approve(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    page: Page,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let Approving { version, despite, note } = read(&body?)?;
    let verdict = page.verdict(&caller, version, note);
    Ok(Json(copy_service(&services, &caller).approve(verdict, &despite).await?))
}

/// Refuse a version, or take a page down
#[utoipa::path(post, path = "/v1/copy/{document}/reject", operation_id = "reject_copy", tag = "copy", security(("token" = ["review"])), request_body = Rejecting,
    params(("document" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one")),
    responses((status = 200, description = "The version, as it then is", body = CopyVersion), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn reject(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    page: Page,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let Rejecting { version, note } = read(&body?)?;
    let verdict = page.verdict(&caller, version, note);
    Ok(Json(copy_service(&services, &caller).reject(verdict).await?))
}

/// Write a version anew
///
/// It keeps to the schema, goes through the same checks, and waits to be approved. What is generated later waits beside it.
#[utoipa::path(post, path = "/v1/copy/{document}/edit", operation_id = "edit_copy", tag = "copy", security(("token" = ["review"])), request_body = Editing,
    params(("document" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one")),
    responses((status = 200, description = "The new version", body = CopyVersion), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn edit(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    page: Page,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let Editing { version, content, note } = read(&body?)?;
    let verdict = page.verdict(&caller, version, note);
    Ok(Json(copy_service(&services, &caller).edit(verdict, content).await?))
}

/// What is on the pages, as a file
#[utoipa::path(get, path = "/v1/exports/copy", operation_id = "export_copy", tag = "copy", security(("token" = ["read"])),
    params(("format" = Option<String>, Query, description = "csv unless told, or parquet"),
           ("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one")),
    responses((status = 200, description = "The file; it ends early where the database is gone", content((String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet"))),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn export(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Exporting>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(Exporting { format, pipeline }) = parameters?;
    let word = format.as_deref().unwrap_or("csv");
    let format = ExportFormat::named(word).ok_or_else(|| {
        ApiError::invalid(format!("`{word}` is no format of exports; {}", suggestion(word, ["csv", "parquet"])))
    })?;
    let stream = copy_service(&services, &caller).export(pipeline.as_deref(), format)?;
    let name = format!("attachment; filename=\"copy.{}\"", if format == ExportFormat::Csv { "csv" } else { "parquet" });
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::CONTENT_DISPOSITION, name.as_str())];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The sitemap of what is on the pages
///
/// One file, or where there are more than 20,000 pages the index of them; `file` is the number of one of those.
#[utoipa::path(get, path = "/v1/sitemap.xml", operation_id = "sitemap", tag = "copy", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "The catalogue; may be left out where there is one"),
           ("file" = Option<i64>, Query, description = "The number of a file, from 1", minimum = 1)),
    responses((status = 200, description = "The sitemap", body = String, content_type = "application/xml"),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn sitemap(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<Mapping>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(Mapping { pipeline, file }) = parameters?;
    let xml = copy_service(&services, &caller).sitemap(pipeline.as_deref(), file).await?;
    Ok(([(header::CONTENT_TYPE, "application/xml")], xml).into_response())
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("the body is not what is asked for: {error}")))
}

impl From<CopyError> for ApiError {
    fn from(error: CopyError) -> Self {
        let message = error.to_string();
        match error {
            CopyError::Invalid(_) => Self::invalid(message),
            CopyError::Unknown { .. } => Self::new(ProblemCode::UnknownDocument, message),
            CopyError::Conflict(_) => Self::new(ProblemCode::Conflict, message),
            CopyError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}
