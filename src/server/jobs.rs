//! `/v1/jobs`: jobs as JSON, submitting, cancelling and retrying them.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Services;
use super::auth::Caller;
use super::error::{ApiError, ProblemCode};
use super::query::{ApiQuery, QueryParameters};
use crate::did_you_mean::suggestion;
use crate::jobs::spec::{JobFile, JobSpec};
use crate::jobs::{JobDetails, JobService, JobServiceError, JobSummary, LISTED};
use crate::store::{JobFilter, JobState, SubmitOutcome};

type Id = Result<Path<String>, PathRejection>;

/// The header with a job's id, for callers whose body has none.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Jobs, the latest first.
#[derive(Serialize, ToSchema)]
#[schema(as = Jobs)]
pub struct JobList {
    jobs: Vec<JobSummary>,
}

/// The query parameters of the list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParameters {
    /// Only jobs of this pipeline
    pipeline: Option<String>,
    /// Only jobs in these states: one state, or several separated by commas
    state: Option<String>,
    /// The maximum number of jobs; the default is 20
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

impl QueryParameters for ListParameters {}

fn visible(services: &Services, caller: &Caller) -> JobService {
    services.job_service.visible_to(caller.tenant.as_ref())
}

/// Submit a job
///
/// The job's `id` makes the request idempotent: requests with the same id and the same content are one job. If the body has no
/// `id`, the header `Idempotency-Key` is the id.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "submit_job", tag = "jobs",
    security(("token" = ["submit"])), request_body = JobFile,
    params(("Idempotency-Key" = Option<String>, Header, description = "The id of a job whose body has none")),
    responses((status = 201, description = "A new job, now queued", body = JobDetails),
              (status = 200, description = "A job that was submitted before", body = JobDetails)))]
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
    let (outcome, details) = visible(&services, &caller).submit(&spec).await?;
    let status = if outcome == SubmitOutcome::New { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(details)))
}

/// The jobs, the latest first
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs", security(("token" = ["read"])),
    params(ListParameters), responses((status = 200, description = "The jobs", body = JobList)))]
pub async fn list(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    ApiQuery(parameters): ApiQuery<ListParameters>,
) -> Result<Json<JobList>, ApiError> {
    Ok(Json(JobList { jobs: visible(&services, &caller).list(&filter(parameters)?).await? }))
}

/// One job with all details
#[utoipa::path(get, path = "/v1/jobs/{id}", operation_id = "show_job", tag = "jobs", security(("token" = ["read"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job", body = JobDetails)))]
pub async fn show(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(visible(&services, &caller).show(&id?).await?))
}

/// Cancel a job
///
/// Finished units keep their results. Cancelling a cancelled job changes nothing, so the request can be sent again.
#[utoipa::path(post, path = "/v1/jobs/{id}/cancel", operation_id = "cancel_job", tag = "jobs", security(("token" = ["submit"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job after the change", body = JobDetails)))]
pub async fn cancel(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(visible(&services, &caller).cancel(&id?).await?))
}

/// Retry the units of a job that failed or were cancelled
///
/// A job that is being retried cannot be retried again before it ends, so a request that is sent twice retries it once.
#[utoipa::path(post, path = "/v1/jobs/{id}/retry", operation_id = "retry_job", tag = "jobs", security(("token" = ["submit"])),
    params(("id" = String, Path, description = "The job's id")),
    responses((status = 200, description = "The job after the change", body = JobDetails)))]
pub async fn retry(
    State(services): State<Services>,
    Extension(caller): Extension<Caller>,
    id: Id,
) -> Result<Json<JobDetails>, ApiError> {
    Ok(Json(visible(&services, &caller).retry(&id?).await?))
}

/// The id in the header. The draft of the header's standard wants quotation marks around it; callers may leave them out.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid("there are several headers `Idempotency-Key`; send one"));
    }
    let key = value.to_str().map_err(|_| ApiError::invalid("the header `Idempotency-Key` is not ASCII; use ASCII characters"))?;
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    Ok(Some(bare))
}

fn filter(parameters: ListParameters) -> Result<JobFilter, ApiError> {
    let ListParameters { pipeline, state, limit } = parameters;
    let named = |name: &str| {
        let near = || suggestion(name, JobState::ALL.map(JobState::as_str));
        JobState::named(name).ok_or_else(|| ApiError::invalid(format!("`{name}` is not a state of jobs; {}", near())))
    };
    let states = state.iter().flat_map(|states| states.split(',')).map(named).collect::<Result<_, _>>()?;
    Ok(JobFilter { pipeline, states, schedule: None, limit: limit.unwrap_or(LISTED) })
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
    use super::super::query::read;
    use super::*;

    fn filter_of(parameters: &[(&str, &str)]) -> Result<JobFilter, String> {
        let parameters = parameters.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        read(parameters).and_then(filter).map_err(|error| error.message)
    }

    #[test]
    fn a_list_is_asked_for_by_pipeline_states_and_limit() {
        let found = filter_of(&[("pipeline", "news"), ("state", "running,queued"), ("limit", "5")]).unwrap();
        let states = vec![JobState::Running, JobState::Queued];
        assert_eq!(found, JobFilter { pipeline: Some("news".into()), states, schedule: None, limit: 5 });
        assert_eq!(filter_of(&[]).unwrap().limit, LISTED);
        assert_eq!(filter_of(&[("stat", "queued")]).unwrap_err(), "unknown parameter `stat`; did you mean `state`?");
        assert_eq!(filter_of(&[("state", "runing")]).unwrap_err(), "`runing` is not a state of jobs; did you mean `running`?");
        assert_eq!(
            filter_of(&[("limit", "many")]).unwrap_err(),
            "the parameter `limit` is \"many\"; give a number from 1 to 100"
        );
    }
}
