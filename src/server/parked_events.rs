//! `/v1/parked-events`: events that their topic could not take as they are. Sending them again and dropping them is the command line's.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemDetails};
use crate::store::ParkedEvent;

/// Parked events, the latest first.
#[derive(Serialize, ToSchema)]
pub struct ParkedEvents {
    /// The latest of them, 1,000 at most.
    events: Vec<ParkedEvent>,
}

/// Events that their topic could not take
///
/// Each waits for an operator, who has it sent again or gives it up with `tidemill outbox`.
#[utoipa::path(get, path = "/v1/parked-events", operation_id = "list_parked_events", tag = "dead letters", security(("token" = ["read"])),
    responses((status = 200, description = "The events", body = ParkedEvents),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ParkedEvents>, ApiError> {
    let dashboard = services.dashboard.visible_to(caller.tenant.as_ref());
    let events = dashboard.parked_events().await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(Json(ParkedEvents { events }))
}
