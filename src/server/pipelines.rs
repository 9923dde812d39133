//! `/v1/pipelines`: what the board shows of pipelines, as JSON.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemDetails};
use crate::dashboard::PipelineView;

/// The pipelines.
#[derive(Serialize, ToSchema)]
pub struct Pipelines {
    /// The pipelines of this process.
    pipelines: Vec<PipelineView>,
    /// What an hour of a device costs, where the operator has said so.
    price_per_device_hour: Option<f64>,
}

/// The pipelines, their graphs and their last 24 hours
#[utoipa::path(get, path = "/v1/pipelines", operation_id = "list_pipelines", tag = "pipelines", security(("token" = ["read"])),
    responses((status = 200, description = "The pipelines", body = Pipelines),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(State(services): State<Services>, Extension(caller): Extension<Caller>) -> Result<Json<Pipelines>, ApiError> {
    let dashboard = services.dashboard.visible_to(caller.tenant.as_ref());
    let pipelines = dashboard.pipelines().await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(Json(Pipelines { pipelines, price_per_device_hour: dashboard.price_per_device_hour() }))
}
