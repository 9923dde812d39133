//! `/healthz` and `/readyz`: restart me, and send me traffic.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::connections::Peer;
use super::error::ProblemDetails;
use crate::health::Health;

/// A sign of life.
#[derive(Serialize, ToSchema)]
pub struct Liveness {
    /// `ok`.
    status: &'static str,
}

/// Whether everything is in order.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `unready`.
    status: &'static str,
    /// What is out of order, and why: a component, a pipeline that is stopped, or a topic that takes no events.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<BTreeMap<String, String>>,
    /// Pipelines that wait for an operator, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<BTreeMap<String, String>>,
}

impl Readiness {
    /// Something is out of order.
    pub fn unready(problems: BTreeMap<String, String>, halted: BTreeMap<String, String>) -> Self {
        Self { status: "unready", problems: Some(problems), halted: Some(halted) }
    }
}

/// Whether the process lives
///
/// An outage of the database or the broker is no reason to restart the process.
#[utoipa::path(get, path = "/healthz", tag = "service",
    responses((status = 200, description = "It does", body = Liveness),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn alive() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// Whether everything is in order
///
/// What is stopped or halted waits for an operator; what else is wrong mends itself once the world does. Reasons name pipelines, offsets
/// and addresses: they are told to a caller who may read and is of no tenant, others hear only what is out of order.
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses((status = 200, description = "It is", body = Readiness), (status = 503, description = "It is not", body = Readiness),
              (status = "default", description = "A refusal", body = ProblemDetails, content_type = "application/problem+json")))]
pub async fn ready(
    State(services): State<Services>,
    uri: Uri,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
) -> (StatusCode, Json<Readiness>) {
    let peer = peer.map_or(Peer::UNKNOWN, |Extension(peer)| peer);
    let tells_all = services.auth.recognise(&uri, &headers, peer).await.is_some_and(|caller| caller.sees_all());
    let components = services.health.problems().into_iter().map(|(component, reason)| (component.to_string(), reason));
    let stops = services.health.stops().into_iter();
    let stops = stops.map(|(pipeline, reason)| (format!("pipeline {pipeline}"), format!("stopped: {reason}")));
    let topics = services.health.blocked_topics().into_iter();
    let topics = topics.map(|(topic, reason)| (format!("topic {topic}"), format!("takes no events: {reason}")));
    let mut problems: BTreeMap<String, String> = components.chain(stops).chain(topics).collect();
    let mut halted = services.health.halts();
    if !tells_all {
        (problems, halted) = (outline(&services.health), BTreeMap::new());
    }
    if problems.is_empty() && halted.is_empty() {
        return (StatusCode::OK, Json(Readiness { status: "ready", problems: None, halted: None }));
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::unready(problems, halted)))
}

/// What is out of order, without names or reasons.
fn outline(health: &Health) -> BTreeMap<String, String> {
    let components = health.problems().into_iter().map(|(component, _)| (component.to_string(), "out of order".to_owned()));
    let waiting = health.stops().len() + health.halts().len();
    let pipelines =
        (waiting > 0).then(|| ("pipelines".to_owned(), format!("{waiting} stopped; a token that may read is told which")));
    let blocked = health.blocked_topics().len();
    let topics =
        (blocked > 0).then(|| ("topics".to_owned(), format!("{blocked} take no events; a token that may read is told which")));
    components.chain(pipelines).chain(topics).collect()
}
