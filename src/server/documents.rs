//! `GET /v1/documents/{id}?pipeline=`: everything that is known about a document, and where it comes from.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::explain::{DocumentExplanation, ExplainError};

/// The query parameters.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DocumentParameters {
    /// The pipeline; may be omitted if there is only one
    pipeline: Option<String>,
}

impl QueryParameters for DocumentParameters {}

/// Everything that is known about a document, and where it comes from
#[utoipa::path(get, path = "/v1/documents/{id}", operation_id = "explain_document", tag = "documents",
    security(("token" = ["read"])),
    params(("id" = String, Path, description = "The document's id"), DocumentParameters),
    responses((status = 200, description = "The document", body = DocumentExplanation)))]
pub async fn explain(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    ApiQuery(parameters): ApiQuery<DocumentParameters>,
) -> Result<Json<DocumentExplanation>, ApiError> {
    let Path(id) = id?;
    let explainer = services.explainer.visible_to(caller.tenant.as_ref());
    let mut explanation = explainer.explain(parameters.pipeline.as_deref(), &id).await?;
    for past in &mut explanation.history.outputs {
        past.file = past.file.rsplit('/').next().unwrap_or_default().to_owned();
    }
    // The messages name folders of this machine, so callers get only the number of unreadable files.
    for fault in std::mem::take(&mut explanation.history.faults) {
        tracing::warn!(fault, "a Parquet file was left out of an explanation");
    }
    Ok(Json(explanation))
}

impl From<ExplainError> for ApiError {
    fn from(error: ExplainError) -> Self {
        let message = error.to_string();
        match error {
            ExplainError::Invalid(_) => Self::invalid(message),
            ExplainError::Unknown { .. } => Self::new(ProblemCode::UnknownDocument, message),
            ExplainError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}
