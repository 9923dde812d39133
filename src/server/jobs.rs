//! `/v1/jobs`: what the desk answers, as JSON.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode, ProblemDetails};
use crate::did_you_mean::suggestion;
use crate::jobs::spec::{JobFile, JobSpec};
use crate::jobs::{JobDetails, JobService, JobServiceError, JobSummary, LISTED};
use crate::store::{JobFilter, JobState, SubmitOutcome};

/// The keys of a query.
const KEYS: [&str; 3] = ["pipeline", "state", "limit"];

type Parameters = Result<Query<BTreeMap<String, String>>, QueryRejection>;
type Id = Result<Path<String>, PathRejection>;

/// The header under which callers give a request a name of its own.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Jobs, the latest first.
#[derive(Serialize, ToSchema)]
pub struct JobList {
    /// The jobs.
    jobs: Vec<JobSummary>,
}

/// What the caller may see of the desk.
fn job_service(services: &Services, caller: &Caller) -> JobService {
    services.job_service.visible_to(caller.tenant.as_ref())
}

/// Ask for a job
///
/// The job's `id` makes the request idempotent: the same id in the same words is one job, however often it is asked for. Where the
/// body has no `id`, the header `Idempotency-Key` is the id.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "submit_job", tag = "jobs", security(("token" = ["submit"])), request_body = JobFile,
    params(("Idempotency-Key" = Option<String>, Header, description = "The id of a job that has none in its body")),
    responses((status = 201, description = "A new job, queued", body = JobDetails), (status = 200, description = "A job that is known", body = JobDetails),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn submit(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<JobDetails>), ApiError> {
    let key = idempotency_key(&headers)?;
    let spec = JobSpec::parse_request(&body?, key).map_err(|error| ApiError::invalid(error.0))?;
    if let Some(key) = key.filter(|key| *key != spec.id) {
        let message = format!("the header `Idempotency-Key` is `{key}` and the job's `id` is `{}`; send one of them", spec.id);
        return Err(ApiError::invalid(message));
    }
    let (submitted, details) = job_service(&services, &caller).submit(&spec).await?;
    let status = if submitted == SubmitOutcome::New { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(details)))
}

/// The latest jobs
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs", security(("token" = ["read"])),
    params(("pipeline" = Option<String>, Query, description = "Only of this pipeline"),
           ("state" = Option<String>, Query, description = "Only in these states: one, or several with commas between"),
           ("limit" = Option<i64>, Query, description = "Most jobs; 20 unless told", minimum = 1, maximum = 100)),
    responses((status = 200, description = "The jobs", body = JobList), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    parameters: Parameters,
) -> Result<Json<JobList>, ApiError> {
    let Query(parameters) = parameters?;
    Ok(Json(JobList { jobs: job_service(&services, &caller).list(&filter(&parameters)?).await? }))
}

/// Everything that is known of a job
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "show_job", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job", body = JobDetails), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(job_service(&services, &caller).show(&id?).await?))
}

/// Call a job off
///
/// What is finished stays. One that is called off already stays so, so the request can be sent again.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs", security(("token" = ["submit"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job, as it now is", body = JobDetails), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn cancel(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(job_service(&services, &caller).cancel(&id?).await?))
}

/// Try again what of a job failed or was stopped
///
/// A job that is being tried again cannot be again before it has ended: a request that is sent twice does it once.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retry_job", tag = "jobs", security(("token" = ["submit"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job, as it now is", body = JobDetails), (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn retry(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(job_service(&services, &caller).retry(&id?).await?))
}

/// The key, with or without the quotation marks that the header's draft asks for.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid("there are several headers `Idempotency-Key`; send one"));
    }
    let key = value.to_str().map_err(|_| ApiError::invalid("the header `Idempotency-Key` is not ASCII; write a plain name"))?;
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    Ok(Some(bare))
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

impl From<JobServiceError> for ApiError {
    fn from(error: JobServiceError) -> Self {
        let message = error.to_string();
        match error {
            JobServiceError::Invalid(_) => Self::invalid(message),
            JobServiceError::Unknown(id) => Self::new(ProblemCode::UnknownJob, format!("there is no job `{id}`")),
            JobServiceError::Conflict(_) => Self::new(ProblemCode::Conflict, message),
            JobServiceError::Unavailable(transient) => Self::unavailable(&transient),
        }
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
