//! `/healthz`, which tells whether to restart the process, and `/readyz`, which tells whether to send it traffic.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use super::connections::Peer;
use crate::health::Health;

/// Whether the process is alive.
#[derive(Serialize, ToSchema)]
pub struct Liveness {
    /// Always `ok`.
    status: &'static str,
}

/// Whether the process is ready.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `unready`.
    status: &'static str,
    /// What is unavailable, and why: a component, a stopped pipeline, or a topic that refuses events.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<BTreeMap<String, String>>,
    /// Pipelines that are halted until an operator acts, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    halted: Option<BTreeMap<String, String>>,
}

impl Readiness {
    /// A process that is not ready.
    pub fn unready(problems: BTreeMap<String, String>, halted: BTreeMap<String, String>) -> Self {
        Self { status: "unready", problems: Some(problems), halted: Some(halted) }
    }
}

/// Whether the process is alive
///
/// The probe ignores the database and the brokers: a restart would not repair them.
#[utoipa::path(get, path = "/healthz", tag = "service",
    responses((status = 200, description = "It is alive", body = Liveness)))]
pub async fn alive() -> Json<Liveness> {
    Json(Liveness { status: "ok" })
}

/// Whether the process is ready
///
/// A stopped or halted pipeline waits for an operator; every other problem ends when its cause does. Reasons name pipelines,
/// offsets and addresses, so only a caller with scope `read` and without a tenant gets them. Others get the components and the
/// numbers.
#[utoipa::path(get, path = "/readyz", tag = "service",
    responses((status = 200, description = "It is ready", body = Readiness),
              (status = 503, description = "It is not ready", body = Readiness)))]
pub async fn ready(
    State(services): State<Services>,
    uri: Uri,
    headers: HeaderMap,
    peer: Option<Extension<Peer>>,
) -> (StatusCode, Json<Readiness>) {
    let peer = peer.map_or(Peer::UNKNOWN, |Extension(peer)| peer);
    let shows_reasons = services.auth.identify_prober(&uri, &headers, peer).await.is_some_and(|caller| caller.sees_all());
    let components = services.health.problems().into_iter().map(|(component, reason)| (component.to_string(), reason));
    let stops = services.health.stops().into_iter();
    let stops = stops.map(|(pipeline, reason)| (format!("pipeline {pipeline}"), format!("stopped: {reason}")));
    let topics = services.health.blocked_topics().into_iter();
    let topics = topics.map(|(topic, reason)| (format!("topic {topic}"), format!("refuses events: {reason}")));
    let mut problems: BTreeMap<String, String> = components.chain(stops).chain(topics).collect();
    let mut halted = services.health.halts();
    if !shows_reasons {
        (problems, halted) = (outline(&services.health), BTreeMap::new());
    }
    if problems.is_empty() && halted.is_empty() {
        return (StatusCode::OK, Json(Readiness { status: "ready", problems: None, halted: None }));
    }
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness::unready(problems, halted)))
}

/// What is unavailable, without names and reasons.
fn outline(health: &Health) -> BTreeMap<String, String> {
    let components = health.problems().into_iter().map(|(component, _)| (component.to_string(), "unavailable".to_owned()));
    let waiting = health.stops().len() + health.halts().len();
    let pipelines =
        (waiting > 0).then(|| ("pipelines".to_owned(), format!("{waiting} stopped; a token with scope `read` shows which")));
    let blocked = health.blocked_topics().len();
    let topics =
        (blocked > 0).then(|| ("topics".to_owned(), format!("{blocked} refuse events; a token with scope `read` shows which")));
    components.chain(pipelines).chain(topics).collect()
}
