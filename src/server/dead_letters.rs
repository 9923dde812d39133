//! `/v1/dead-letters`: what the board shows of dead letters, as JSON, and sending their records again.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::dashboard::{Dashboard, DeadLetterCount, DeadLetterView, MAX_DEAD_LETTERS};
use crate::did_you_mean::suggestion;
use crate::failure::FailureClass;
use crate::store::{DeadLetterFilter, DeadLetterSummary, ReplaySummary};

/// The keys of a query.
const KEYS: [&str; 4] = ["pipeline", "class", "task", "limit"];

/// Letters of a list unless told.
const LISTED: i64 = 50;

/// Dead letters, the latest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct DeadLetterList {
    /// How many there are by pipeline and class, the most frequent first.
    counts: Vec<DeadLetterCount>,
    /// The latest of them.
    letters: Vec<DeadLetterSummary>,
}

/// Which letters to send again: those with these ids, or all that the other conditions let through. Something must be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayRequest {
    /// These letters.
    ids: Vec<i64>,
    /// Of this pipeline.
    pipeline: Option<String>,
    /// Of this class of fault.
    class: Option<String>,
}

fn dashboard(services: &Services, caller: &Caller) -> Dashboard {
    services.dashboard.visible_to(caller.tenant.as_ref())
}

/// The latest dead letters
#[utoipa::path(get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "Only of this pipeline"),
           ("class" = Option<String>, Query, description = "Only of this class of fault"),
           ("task" = Option<String>, Query, description = "Only of this task; empty for those of whole records"),
           ("limit" = Option<i64>, Query, description = "Most letters; 50 unless told", minimum = 1, maximum = 1000)),
    responses((status = 200, description = "The letters", body = DeadLetterList), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<BTreeMap<String, String>>, QueryRejection>,
) -> Result<Json<DeadLetterList>, ApiError> {
    let Query(mut parameters) = parameters?;
    if let Some(key) = parameters.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown parameter `{key}`; {}", suggestion(key, KEYS))));
    }
    let limit = match parameters.remove("limit") {
        Some(text) => text.parse().ok().filter(|limit| (1..=MAX_DEAD_LETTERS).contains(limit)),
        None => Some(LISTED),
    };
    let limit = limit.ok_or_else(|| ApiError::invalid(format!("`limit` is no number from 1 to {MAX_DEAD_LETTERS}")))?;
    let mut take = |key: &str| parameters.remove(key);
    let filter = DeadLetterFilter { task: take("task"), ..filter(take("pipeline"), take("class"))? };
    let (counts, letters) =
        dashboard(&services, &caller).letters(&filter, limit).await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(Json(DeadLetterList { counts, letters }))
}

/// Everything about one dead letter
#[utoipa::path(get, path = "/v1/dead-letters/{id}", operation_id = "show_dead_letter", tag = "dead letters", security(("token" = ["read"])),
    params(("id" = i64, Path, description = "The letter's number")),
    responses((status = 200, description = "The letter", body = DeadLetterView), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<DeadLetterView>, ApiError> {
    let Path(id) = id?;
    let letter = dashboard(&services, &caller).letter(id).await.map_err(|error| ApiError::unavailable(&error))?;
    letter.map(Json).ok_or_else(|| ApiError::new(ProblemCode::UnknownLetter, format!("there is no dead letter {id}")))
}

/// Send the records of dead letters again
///
/// Each letter's record is sent once, however often this is asked for; one that dies again is another letter. At most 1,000 at a time.
#[utoipa::path(post, path = "/v1/dead-letters/replay", operation_id = "replay_dead_letters", tag = "dead letters", security(("token" = ["submit"])), request_body = ReplayRequest,
    responses((status = 200, description = "What is sent", body = ReplaySummary), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn replay(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ReplaySummary>, ApiError> {
    let wanted: ReplayRequest =
        serde_json::from_slice(&body?).map_err(|e| ApiError::invalid(format!("the body says not which letters: {e}")))?;
    if wanted.ids.is_empty() && wanted.pipeline.is_none() && wanted.class.is_none() {
        return Err(ApiError::invalid("which letters? give `ids`, `pipeline` or `class`"));
    }
    let filter = DeadLetterFilter { ids: wanted.ids, ..filter(wanted.pipeline, wanted.class)? };
    Ok(Json(dashboard(&services, &caller).replay(filter).await.map_err(|error| ApiError::unavailable(&error))?))
}

fn filter(pipeline: Option<String>, class: Option<String>) -> Result<DeadLetterFilter, ApiError> {
    class.as_deref().map(FailureClass::named).transpose().map_err(ApiError::invalid)?;
    if pipeline.as_deref().is_some_and(|name| name.contains('\0')) {
        return Err(ApiError::invalid("`pipeline` holds U+0000, which no name does"));
    }
    Ok(DeadLetterFilter { pipeline, class, ..DeadLetterFilter::default() })
}
