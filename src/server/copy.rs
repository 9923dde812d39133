//! `/v1/copy`: generated copy, the decisions on it, and what is published, as JSON and as files for shops and crawlers.
//!
//! The export is not below `/v1/copy/`, where it would hide a document with that id.

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::copy::{CopyError, CopyList, CopyService, CopyView, DecisionRequest, ExportFormat};
use crate::did_you_mean::suggestion;
use crate::outcome::Check;
use crate::store::{CopyState, CopyVersion};

/// How many versions a list has if the caller sets no limit.
const DEFAULT_LIMIT: i64 = 50;

/// The query parameters of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// The state of the versions: `review` (the default), `approved`, `rejected`, `superseded` or `withdrawn`
    state: Option<String>,
    /// Only copy of this pipeline
    pipeline: Option<String>,
    /// The maximum number of versions; the default is 50
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
    /// The `next` of the previous page
    cursor: Option<String>,
}

impl QueryParameters for ListParameters {}

/// The query parameters of one document's copy.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CopyParameters {
    /// The pipeline; may be omitted if only one pipeline makes copy
    pipeline: Option<String>,
}

impl QueryParameters for CopyParameters {}

/// The query parameters of an export.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportParameters {
    /// `csv` (the default) or `parquet`
    format: Option<String>,
    /// The pipeline; may be omitted if only one pipeline makes copy
    pipeline: Option<String>,
}

impl QueryParameters for ExportParameters {}

/// The query parameters of a sitemap.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct SitemapParameters {
    /// The pipeline; may be omitted if only one pipeline makes copy
    pipeline: Option<String>,
    /// The number of a file of the index, from 1
    #[param(minimum = 1)]
    file: Option<i64>,
}

impl QueryParameters for SitemapParameters {}

/// Approves a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApproveCopy)]
pub struct ApproveBody {
    /// The version that you have seen.
    version: i32,
    /// Failed checks that you overrule. The schema, the address and uniqueness cannot be overruled.
    #[serde(default)]
    despite: Vec<Check>,
    /// A remark.
    #[serde(default)]
    note: Option<String>,
}

/// Rejects a version, or withdraws it from its page.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RejectCopy)]
pub struct RejectBody {
    /// The version that you have seen.
    version: i32,
    /// The reason.
    #[serde(default)]
    note: Option<String>,
}

/// Adds an edited version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EditCopy)]
pub struct EditBody {
    /// The version that you have changed.
    version: i32,
    /// The whole content after the change.
    content: Map<String, Value>,
    /// A remark.
    #[serde(default)]
    note: Option<String>,
}

/// The document in the path and the pipeline in the query.
#[derive(Debug)]
pub struct DocumentCopy {
    pipeline: Option<String>,
    document_id: String,
}

impl<S: Send + Sync> FromRequestParts<S> for DocumentCopy {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(document_id) = Path::from_request_parts(parts, state).await?;
        let ApiQuery(CopyParameters { pipeline }) = ApiQuery::from_request_parts(parts, state).await?;
        Ok(Self { pipeline, document_id })
    }
}

impl DocumentCopy {
    fn decision(self, caller: &Caller, version: i32, note: Option<String>) -> DecisionRequest {
        let Self { pipeline, document_id } = self;
        DecisionRequest { pipeline, document_id, version, by: caller.name.to_string(), note }
    }
}

fn visible(services: &Services, caller: &Caller) -> CopyService {
    services.copy.visible_to(caller.tenant.as_ref())
}

/// Versions of copy in one state
#[utoipa::path(get, path = "/v1/copy", operation_id = "list_copy", tag = "copy", security(("token" = ["read"])),
    params(ListParameters), responses((status = 200, description = "The versions", body = CopyList)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ListParameters>,
) -> Result<Json<CopyList>, ApiError> {
    let ListParameters { state, pipeline, limit, cursor } = parameters;
    let state = match state {
        Some(word) => CopyState::named(&word).ok_or_else(|| {
            let known = CopyState::ALL.map(CopyState::as_str);
            ApiError::invalid(format!("`{word}` is not a state of copy; {}", suggestion(&word, known)))
        })?,
        None => CopyState::Review,
    };
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    Ok(Json(visible(&services, &caller).list(pipeline.as_deref(), state, limit, cursor.as_deref()).await?))
}

/// The copy of a document: its versions, failed checks, evidence and source
#[utoipa::path(get, path = "/v1/copy/{document}", operation_id = "show_copy", tag = "copy", security(("token" = ["read"])),
    params(("document" = String, Path, description = "The document's id"), CopyParameters),
    responses((status = 200, description = "The copy", body = CopyView)))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    document: DocumentCopy,
) -> Result<Json<CopyView>, ApiError> {
    Ok(Json(visible(&services, &caller).show(document.pipeline.as_deref(), &document.document_id).await?))
}

/// Approve a version and publish it
///
/// It supersedes the published version. If two people decide on the same version, the second request is refused with `conflict`.
#[utoipa::path(post, path = "/v1/copy/{document}/approve", operation_id = "approve_copy", tag = "copy",
    security(("token" = ["review"])),
    request_body = ApproveBody, params(("document" = String, Path, description = "The document's id"), CopyParameters),
    responses((status = 200, description = "The version after the decision", body = CopyVersion)))]
pub async fn approve(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    document: DocumentCopy,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let ApproveBody { version, despite, note } = read(&body?)?;
    let decision = document.decision(&caller, version, note);
    Ok(Json(visible(&services, &caller).approve(decision, &despite).await?))
}

/// Reject a version, or withdraw the published one
#[utoipa::path(post, path = "/v1/copy/{document}/reject", operation_id = "reject_copy", tag = "copy",
    security(("token" = ["review"])),
    request_body = RejectBody, params(("document" = String, Path, description = "The document's id"), CopyParameters),
    responses((status = 200, description = "The version after the decision", body = CopyVersion)))]
pub async fn reject(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    document: DocumentCopy,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let RejectBody { version, note } = read(&body?)?;
    let decision = document.decision(&caller, version, note);
    Ok(Json(visible(&services, &caller).reject(decision).await?))
}

/// Edit a version
///
/// The edited content must keep to the schema, goes through the same checks, and waits for approval as a new version. Versions that
/// are generated later wait beside it.
#[utoipa::path(post, path = "/v1/copy/{document}/edit", operation_id = "edit_copy", tag = "copy", security(("token" = ["review"])),
    request_body = EditBody, params(("document" = String, Path, description = "The document's id"), CopyParameters),
    responses((status = 200, description = "The new version", body = CopyVersion)))]
pub async fn edit(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    document: DocumentCopy,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<CopyVersion>, ApiError> {
    let EditBody { version, content, note } = read(&body?)?;
    let decision = document.decision(&caller, version, note);
    Ok(Json(visible(&services, &caller).edit(decision, content).await?))
}

/// All published copy, as a file
#[utoipa::path(get, path = "/v1/exports/copy", operation_id = "export_copy", tag = "copy", security(("token" = ["read"])),
    params(ExportParameters), responses((status = 200, description = "The file; it breaks off if the database becomes unavailable",
        content((String = "text/csv"), (Vec<u8> = "application/vnd.apache.parquet")))))]
pub async fn export(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ExportParameters>,
) -> Result<Response, ApiError> {
    let word = parameters.format.as_deref().unwrap_or("csv");
    let format = ExportFormat::named(word).ok_or_else(|| {
        ApiError::invalid(format!("`{word}` is not an export format; {}", suggestion(word, ["csv", "parquet"])))
    })?;
    let stream = visible(&services, &caller).export(parameters.pipeline.as_deref(), format)?;
    let name = format!("attachment; filename=\"copy.{}\"", if format == ExportFormat::Csv { "csv" } else { "parquet" });
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::CONTENT_DISPOSITION, name.as_str())];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// The sitemap of the published pages
///
/// For up to 20,000 pages it is one file, for more it is an index of several; `file` is the number of one of those.
#[utoipa::path(get, path = "/v1/sitemap.xml", operation_id = "sitemap", tag = "copy", security(("token" = ["read"])),
    params(SitemapParameters),
    responses((status = 200, description = "The sitemap", body = String, content_type = "application/xml")))]
pub async fn sitemap(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<SitemapParameters>,
) -> Result<Response, ApiError> {
    let xml = visible(&services, &caller).sitemap(parameters.pipeline.as_deref(), parameters.file).await?;
    Ok(([(header::CONTENT_TYPE, "application/xml")], xml).into_response())
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::invalid(format!("the body cannot be read: {error}")))
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
