//! `GET /v1/documents/{id}?pipeline=`: everything that is known of a document, and where it comes from.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use super::Service;
use super::error::ApiError;
use crate::explain::{ExplainError, Explained};

/// Which of the documents with that id.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// The pipeline; may be left out where there is one.
    pub pipeline: Option<String>,
}

/// Explains a document.
pub async fn explain(
    State(service): State<Service>,
    Path(id): Path<String>,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<Explained>, ApiError> {
    let Query(Parameters { pipeline }) =
        parameters.map_err(|e| ApiError::invalid(format!("the query cannot be read: {}", e.body_text())))?;
    Ok(Json(service.explainer.explain(pipeline.as_deref(), &id).await?))
}

impl From<ExplainError> for ApiError {
    fn from(error: ExplainError) -> Self {
        let message = error.to_string();
        match error {
            ExplainError::Invalid(_) => Self::invalid(message),
            ExplainError::Unknown { .. } => Self { status: StatusCode::NOT_FOUND, code: "unknown_document", message },
            ExplainError::Unavailable(transient) => Self::unavailable(&transient),
        }
    }
}
