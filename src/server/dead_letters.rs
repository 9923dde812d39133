//! `/v1/dead-letters`: dead letters as JSON, and sending their records again.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::dashboard::{Dashboard, DeadLetterCount, DeadLetterView};
use crate::failure::FailureClass;
use crate::store::{DeadLetterFilter, DeadLetterSummary, ReplaySummary};

/// How many dead letters a list has if the caller sets no limit.
const DEFAULT_LIMIT: i64 = 50;

/// Dead letters, the latest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct DeadLetterList {
    /// The number of dead letters by pipeline and class, the most frequent first.
    counts: Vec<DeadLetterCount>,
    /// The latest dead letters.
    letters: Vec<DeadLetterSummary>,
}

/// Which dead letters to send again: those with these ids, or all that match the other conditions. At least one condition is
/// required.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Replay)]
pub struct ReplayRequest {
    /// Only dead letters with these ids.
    ids: Vec<i64>,
    /// Only dead letters of this pipeline.
    pipeline: Option<String>,
    /// Only dead letters of this failure class.
    class: Option<String>,
}

/// The query parameters of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Only dead letters of this pipeline
    pipeline: Option<String>,
    /// Only dead letters of this failure class
    class: Option<String>,
    /// Only dead letters of this task; empty for those of whole records
    task: Option<String>,
    /// The maximum number of dead letters; the default is 50
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

impl QueryParameters for ListParameters {}

fn visible(services: &Services, caller: &Caller) -> Dashboard {
    services.dashboard.visible_to(caller.tenant.as_ref())
}

/// The latest dead letters
#[utoipa::path(get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters",
    security(("token" = ["read"])),
    params(ListParameters), responses((status = 200, description = "The dead letters", body = DeadLetterList)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ListParameters>,
) -> Result<Json<DeadLetterList>, ApiError> {
    let ListParameters { pipeline, class, task, limit } = parameters;
    let filter = DeadLetterFilter { task, ..filter(pipeline, class)? };
    let (counts, letters) = visible(&services, &caller).dead_letters(&filter, limit.unwrap_or(DEFAULT_LIMIT)).await?;
    Ok(Json(DeadLetterList { counts, letters }))
}

/// One dead letter with its record
#[utoipa::path(get, path = "/v1/dead-letters/{id}", operation_id = "show_dead_letter", tag = "dead letters",
    security(("token" = ["read"])),
    params(("id" = i64, Path, description = "The id of the dead letter")),
    responses((status = 200, description = "The dead letter", body = DeadLetterView)))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<DeadLetterView>, ApiError> {
    let Path(id) = id?;
    let letter = visible(&services, &caller).dead_letter(id).await?;
    letter.map(Json).ok_or_else(|| ApiError::new(ProblemCode::UnknownLetter, format!("there is no dead letter {id}")))
}

/// Send the records of dead letters again
///
/// The record of a dead letter is sent once, however often this request is repeated. A record that fails again becomes a new dead
/// letter. At most 1,000 records are sent at a time.
#[utoipa::path(post, path = "/v1/dead-letters/replay", operation_id = "replay_dead_letters", tag = "dead letters",
    security(("token" = ["submit"])), request_body = ReplayRequest,
    responses((status = 200, description = "The number of records that are sent", body = ReplaySummary)))]
pub async fn replay(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ReplaySummary>, ApiError> {
    let ReplayRequest { ids, pipeline, class } = serde_json::from_slice(&body?)
        .map_err(|e| ApiError::invalid(format!("the body does not say which dead letters to send again: {e}")))?;
    if ids.is_empty() && pipeline.is_none() && class.is_none() {
        return Err(ApiError::invalid(
            "the body does not say which dead letters to send again; give `ids`, `pipeline` or `class`",
        ));
    }
    let filter = DeadLetterFilter { ids, ..filter(pipeline, class)? };
    Ok(Json(visible(&services, &caller).replay(filter).await?))
}

fn filter(pipeline: Option<String>, class: Option<String>) -> Result<DeadLetterFilter, ApiError> {
    class.as_deref().map(FailureClass::named).transpose().map_err(ApiError::invalid)?;
    if pipeline.as_deref().is_some_and(|name| name.contains('\0')) {
        return Err(ApiError::invalid("`pipeline` contains U+0000, which no name can"));
    }
    Ok(DeadLetterFilter { pipeline, class, ..DeadLetterFilter::default() })
}
