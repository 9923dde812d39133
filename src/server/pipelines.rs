//! `/v1/pipelines`: pipelines and what they committed in the last 24 hours.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::ApiError;
use crate::dashboard::PipelineView;

/// The pipelines.
#[derive(Serialize, ToSchema)]
pub struct Pipelines {
    /// The pipelines of this process.
    pipelines: Vec<PipelineView>,
    /// The price of a device hour, if one is configured.
    price_per_device_hour: Option<f64>,
}

/// The pipelines, their graphs and their last 24 hours
#[utoipa::path(get, path = "/v1/pipelines", operation_id = "list_pipelines", tag = "pipelines", security(("token" = ["read"])),
    responses((status = 200, description = "The pipelines", body = Pipelines)))]
pub async fn list(State(services): State<Services>, Extension(caller): Extension<Caller>) -> Result<Json<Pipelines>, ApiError> {
    let dashboard = services.dashboard.visible_to(caller.tenant.as_ref());
    Ok(Json(Pipelines { pipelines: dashboard.pipelines().await?, price_per_device_hour: dashboard.price_per_device_hour() }))
}
