//! `/v1/jobs`: what the desk answers, as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Service;
use super::error::ApiError;
use crate::jobs::spec::JobSpec;
use crate::jobs::{DeskError, Details, LISTED};
use crate::nearest::suggestion;
use crate::store::{JobFilter, JobState, Submitted};

/// The keys of a query.
const KEYS: [&str; 3] = ["pipeline", "state", "limit"];

type Parameters = Result<Query<BTreeMap<String, String>>, QueryRejection>;

/// Queues a job: 201 where it is new, 200 where it is known in the same words.
pub async fn submit(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Details>), ApiError> {
    let spec = JobSpec::parse(&body?, None).map_err(|error| ApiError::invalid(error.0))?;
    let (submitted, details) = service.desk.submit(&spec).await?;
    let status = if submitted == Submitted::New { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(details)))
}

/// The latest jobs.
pub async fn list(State(service): State<Service>, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let Query(parameters) = parameters.map_err(|e| ApiError::invalid(format!("the query cannot be read: {e}")))?;
    let jobs = service.desk.list(&filter(&parameters)?).await?;
    Ok(Json(json!({ "jobs": jobs })))
}

/// Everything that is known of a job.
pub async fn show(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Details>, ApiError> {
    Ok(Json(service.desk.show(&id).await?))
}

/// Calls a job off.
pub async fn cancel(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Details>, ApiError> {
    Ok(Json(service.desk.cancel(&id).await?))
}

/// Tries again what of a job failed or was stopped.
pub async fn retry(State(service): State<Service>, Path(id): Path<String>) -> Result<Json<Details>, ApiError> {
    Ok(Json(service.desk.retry(&id).await?))
}

fn filter(parameters: &BTreeMap<String, String>) -> Result<JobFilter, ApiError> {
    if let Some(key) = parameters.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown parameter `{key}`; {}", suggestion(key, KEYS))));
    }
    let states = parameters.get("state").into_iter().flat_map(|states| states.split(','));
    let named = |name: &str| {
        let near = || suggestion(name, JobState::ALL.map(JobState::as_str));
        JobState::named(name).ok_or_else(|| ApiError::invalid(format!("`{name}` is no state of a job; {}", near())))
    };
    let limit = match parameters.get("limit") {
        Some(text) => text.parse().map_err(|_| ApiError::invalid(format!("`limit` is {text:?}; write a number")))?,
        None => LISTED,
    };
    let states = states.map(named).collect::<Result<_, _>>()?;
    Ok(JobFilter { pipeline: parameters.get("pipeline").cloned(), states, schedule: None, limit })
}

impl From<DeskError> for ApiError {
    fn from(error: DeskError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            DeskError::Invalid(_) => return Self::invalid(message),
            DeskError::Unknown(id) => {
                let message = format!("there is no job `{id}`");
                return Self { status: StatusCode::NOT_FOUND, code: "unknown_job", message };
            }
            DeskError::Conflict(_) => (StatusCode::CONFLICT, "conflict"),
            DeskError::Unavailable(transient) => return Self::unavailable(&transient),
        };
        Self { status, code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter_of(parameters: &[(&str, &str)]) -> Result<JobFilter, String> {
        let parameters = parameters.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        filter(&parameters).map_err(|error| error.message)
    }

    #[test]
    fn a_list_is_asked_for_by_pipeline_states_and_limit() {
        let found = filter_of(&[("pipeline", "news"), ("state", "running,queued"), ("limit", "5")]).unwrap();
        let states = vec![JobState::Running, JobState::Queued];
        assert_eq!(found, JobFilter { pipeline: Some("news".into()), states, schedule: None, limit: 5 });
        assert_eq!(filter_of(&[]).unwrap().limit, LISTED);
        assert_eq!(filter_of(&[("stat", "queued")]).unwrap_err(), "unknown parameter `stat`; did you mean `state`?");
        assert_eq!(filter_of(&[("state", "runing")]).unwrap_err(), "`runing` is no state of a job; did you mean `running`?");
        assert_eq!(filter_of(&[("limit", "many")]).unwrap_err(), "`limit` is \"many\"; write a number");
    }
}
