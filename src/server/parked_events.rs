//! `/v1/parked-events`: events that their topic refused. `tidemill outbox` sends them again or drops them.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::ApiError;
use crate::store::ParkedEvent;

/// Parked events, the latest first.
#[derive(Serialize, ToSchema)]
pub struct ParkedEvents {
    /// The latest events, at most 1,000.
    events: Vec<ParkedEvent>,
}

/// Events that their topic refused
///
/// Each event waits for an operator, who sends it again or drops it with `tidemill outbox`.
#[utoipa::path(get, path = "/v1/parked-events", operation_id = "list_parked_events", tag = "dead letters",
    security(("token" = ["read"])),
    responses((status = 200, description = "The events", body = ParkedEvents)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ParkedEvents>, ApiError> {
    Ok(Json(ParkedEvents { events: services.dashboard.visible_to(caller.tenant.as_ref()).parked_events().await? }))
}
