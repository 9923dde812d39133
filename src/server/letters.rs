//! `/v1/dead-letters`: what the board shows of dead letters, as JSON, and sending their records again.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Service;
use super::error::{ApiError, Code, Problem};
use super::gate::Caller;
use crate::board::{Board, LetterCount, LetterView, MOST_LETTERS};
use crate::failure::FailureClass;
use crate::nearest::suggestion;
use crate::store::{LetterFilter, LetterGlance, Replayed};

/// The keys of a query.
const KEYS: [&str; 4] = ["pipeline", "class", "task", "limit"];

/// Letters of a list unless told.
const LISTED: i64 = 50;

/// Dead letters, the latest first.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetters)]
pub struct Letters {
    /// How many there are by pipeline and class, the most frequent first.
    counts: Vec<LetterCount>,
    /// The latest of them.
    letters: Vec<LetterGlance>,
}

/// Which letters to send again: those with these ids, or all that the other conditions let through. Something must be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// These letters.
    ids: Vec<i64>,
    /// Of this pipeline.
    pipeline: Option<String>,
    /// Of this class of fault.
    class: Option<String>,
}

fn board(service: &Service, caller: &Caller) -> Board {
    service.board.seen_by(caller.tenant.as_ref())
}

/// The latest dead letters
#[utoipa::path(get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "Only of this pipeline"),
           ("class" = Option<String>, Query, description = "Only of this class of fault"),
           ("task" = Option<String>, Query, description = "Only of this task; empty for those of whole records"),
           ("limit" = Option<i64>, Query, description = "Most letters; 50 unless told", minimum = 1, maximum = 1000)),
    responses((status = 200, description = "The letters", body = Letters), (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    parameters: Result<Query<BTreeMap<String, String>>, QueryRejection>,
) -> Result<Json<Letters>, ApiError> {
    let Query(mut parameters) = parameters?;
    if let Some(key) = parameters.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown parameter `{key}`; {}", suggestion(key, KEYS))));
    }
    let limit = match parameters.remove("limit") {
        Some(text) => text.parse().ok().filter(|limit| (1..=MOST_LETTERS).contains(limit)),
        None => Some(LISTED),
    };
    let limit = limit.ok_or_else(|| ApiError::invalid(format!("`limit` is no number from 1 to {MOST_LETTERS}")))?;
    let mut take = |key: &str| parameters.remove(key);
    let filter = LetterFilter { task: take("task"), ..filter(take("pipeline"), take("class"))? };
    let (counts, letters) =
        board(&service, &caller).letters(&filter, limit).await.map_err(|error| ApiError::unavailable(&error))?;
    Ok(Json(Letters { counts, letters }))
}

/// Everything about one dead letter
#[utoipa::path(get, path = "/v1/dead-letters/{id}", operation_id = "show_dead_letter", tag = "dead letters", security(("token" = ["read"])),
    params(("id" = i64, Path, description = "The letter's number")),
    responses((status = 200, description = "The letter", body = LetterView), (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn show(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<i64>, PathRejection>,
) -> Result<Json<LetterView>, ApiError> {
    let Path(id) = id?;
    let letter = board(&service, &caller).letter(id).await.map_err(|error| ApiError::unavailable(&error))?;
    letter.map(Json).ok_or_else(|| ApiError::new(Code::UnknownLetter, format!("there is no dead letter {id}")))
}

/// Send the records of dead letters again
///
/// Each letter's record is sent once, however often this is asked for; one that dies again is another letter. At most 1,000 at a time.
#[utoipa::path(post, path = "/v1/dead-letters/replay", operation_id = "replay_dead_letters", tag = "dead letters", security(("token" = ["submit"])), request_body = Replay,
    responses((status = 200, description = "What is sent", body = Replayed), (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
pub async fn replay(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Replayed>, ApiError> {
    let wanted: Replay =
        serde_json::from_slice(&body?).map_err(|e| ApiError::invalid(format!("the body says not which letters: {e}")))?;
    if wanted.ids.is_empty() && wanted.pipeline.is_none() && wanted.class.is_none() {
        return Err(ApiError::invalid("which letters? give `ids`, `pipeline` or `class`"));
    }
    let filter = LetterFilter { ids: wanted.ids, ..filter(wanted.pipeline, wanted.class)? };
    Ok(Json(board(&service, &caller).replay(filter).await.map_err(|error| ApiError::unavailable(&error))?))
}

fn filter(pipeline: Option<String>, class: Option<String>) -> Result<LetterFilter, ApiError> {
    class.as_deref().map(FailureClass::named).transpose().map_err(ApiError::invalid)?;
    if pipeline.as_deref().is_some_and(|name| name.contains('\0')) {
        return Err(ApiError::invalid("`pipeline` holds U+0000, which no name does"));
    }
    Ok(LetterFilter { pipeline, class, ..LetterFilter::default() })
}
