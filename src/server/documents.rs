//! `GET /v1/documents/{id}?pipeline=`: everything that is known of a document, and where it comes from.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::Deserialize;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::explain::{DocumentExplanation, ExplainError};

/// Which of the documents with that id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The pipeline; may be left out where there is one.
    pub pipeline: Option<String>,
}

/// Everything that is known of a document, and where it comes from
#[utoipa::path(get, path = "/v1/documents/{id}", operation_id = "explain_document", tag = "documents", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The document's id"),
           ("pipeline" = Option<String>, Query, description = "The pipeline; may be left out where there is one")),
    responses((status = 200, description = "The document", body = DocumentExplanation),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn explain(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<DocumentExplanation>, ApiError> {
    let (Path(id), Query(Parameters { pipeline })) = (id?, parameters?);
    let explainer = services.explainer.visible_to(caller.tenant.as_ref());
    let mut explained = explainer.explain(pipeline.as_deref(), &id).await?;
    for past in &mut explained.history.outputs {
        past.file = past.file.rsplit('/').next().unwrap_or_default().to_owned();
    }
    // They name folders of this machine. How many files they are is said all the same.
    for fault in std::mem::take(&mut explained.history.faults) {
        tracing::warn!(fault, "a Parquet file was left out of an explanation");
    }
    Ok(Json(explained))
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
