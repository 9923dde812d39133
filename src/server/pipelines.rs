//! `/v1/pipelines`: what the board shows of pipelines, as JSON.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use super::error::{ApiError, Problem};
use super::gate::Caller;
use crate::board::PipelineView;

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
              (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn list(State(service): State<Service>, Extension(caller): Extension<Caller>) -> Result<Json<Pipelines>, ApiError> {
    let board = service.board.seen_by(caller.tenant.as_ref());
    let pipelines = board.pipelines().await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(Json(Pipelines { pipelines, price_per_device_hour: board.price_per_device_hour() }))
}
