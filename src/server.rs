//! The HTTP server: a route a line, a file an endpoint.
//!
//! | route | needs | answers |
//! |---|---|---|
//! | `GET /healthz` | nothing | 200 while the process lives |
//! | `GET /readyz` | nothing | 200, or 503 with what is out of order; why is told to whoever may read and is of no tenant |
//! | `GET /openapi.json` | nothing | the description of all this |
//! | `GET /metrics` | `read` and no tenant, or `server.metrics_token` | Prometheus text |
//! | `POST /v1/search` | `read` | the documents that answer a question |
//! | `POST /v1/answer` | `read` | an answer from the documents, each sentence with its citations |
//! | `GET /v1/recommendations` | `read` | documents like another, or for a user, each with its reasons |
//! | `GET /v1/documents/{id}` | `read` | everything that is known of a document, and where it comes from |
//! | `POST /v1/jobs` | `submit` | the job, queued or known already |
//! | `GET /v1/jobs`, `GET /v1/jobs/{id}` | `read` | jobs and how far they are |
//! | `POST /v1/jobs/{id}/cancel`, `…/retry` | `submit` | the job, as it then is |
//! | `GET /v1/pipelines` | `read` | pipelines, their graphs and their last 24 hours |
//! | `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}` | `read` | what could not be done, and why |
//! | `POST /v1/dead-letters/replay` | `submit` | what is sent again |
//! | `GET /v1/parked-events` | `read` | what its topic could not take, and why |
//! | `GET /v1/copy`, `GET /v1/copy/{document}` | `read` | what pages say of documents, and what waits to be decided |
//! | `POST /v1/copy/{document}/approve`, `…/reject`, `…/edit` | `review` | the version, as it then is |
//! | `GET /v1/exports/copy`, `GET /v1/sitemap.xml` | `read` | what is published, as CSV or Parquet, and where |
//! | `GET /v1/leads`, `GET /v1/leads/{id}` | `read` | leads by their scores, and everything about one |
//! | `GET /v1/leads/export` | `read` | leads as CSV |
//! | `GET /v1/accounts/{key}` | `read` | a company and its leads |
//! | `GET /`, `GET /console/{file}` | nothing | the console, whose pages ask the API |
//!
//! While models are loaded, [`meanwhile`] answers the probes and `/metrics`; the rest is unavailable.
//! Refusals are `application/problem+json`; every reason stands in `error.rs`.

mod answer;
mod auth;
mod connections;
mod console;
mod copy;
mod dead_letters;
mod documents;
mod error;
mod health;
mod jobs;
mod leads;
mod metrics;
mod middleware;
mod openapi;
mod origin;
mod parked_events;
mod pipelines;
mod rate_limit;
mod recommendations;
mod routes;
mod search;
mod startup;
mod write_timeout;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::catch_panic::CatchPanicLayer;

use self::auth::RequiredAccess;
use self::routes::RouteTable;
use crate::access::Scope::{Read, Review, Submit};
use crate::config::{ConfigError, ServerConfig};
use crate::copy::CopyService;
use crate::dashboard::Dashboard;
use crate::explain::Explainer;
use crate::health::Health;
use crate::jobs::JobService;
use crate::leads::LeadService;
use crate::recommend::Recommender;
use crate::search::Searcher;

pub use self::auth::Authenticator;

/// The largest request body: far above the longest query, far below what hurts.
const BODY_BYTES: usize = 1 << 20;

/// What the endpoints serve from. Clones share it.
#[derive(Clone)]
pub struct Services {
    /// Answers `/readyz`.
    pub health: Health,
    /// Answers `/v1/search`.
    pub searcher: Searcher,
    /// Answers `/v1/recommendations`.
    pub recommender: Recommender,
    /// Answers `/v1/documents`.
    pub explainer: Explainer,
    /// Answers `/v1/jobs`, whether or not this process works on jobs.
    pub job_service: JobService,
    /// Answers `/v1/pipelines` and `/v1/dead-letters`.
    pub dashboard: Dashboard,
    /// Answers `/v1/copy`, `/v1/exports/copy` and `/v1/sitemap.xml`.
    pub copy: CopyService,
    /// Answers `/v1/leads` and `/v1/accounts`.
    pub leads: LeadService,
    /// Knows who asks.
    pub auth: Authenticator,
}

/// The table of contents.
fn routes(auth: &Authenticator) -> RouteTable<Services> {
    use RequiredAccess::{Metrics, Nothing, Probe, Scope};
    RouteTable::new(auth)
        .get("/healthz", Probe, health::alive)
        .get("/readyz", Probe, health::ready)
        .get("/openapi.json", Nothing, openapi::describe)
        .get("/metrics", Metrics, metrics::render)
        .post("/v1/search", Scope(Read), search::answer)
        .post("/v1/answer", Scope(Read), answer::answer)
        .get("/v1/recommendations", Scope(Read), recommendations::list)
        .get("/v1/documents/{id}", Scope(Read), documents::explain)
        .get("/v1/jobs", Scope(Read), jobs::list)
        .post("/v1/jobs", Scope(Submit), jobs::submit)
        .get("/v1/jobs/{id}", Scope(Read), jobs::show)
        .post("/v1/jobs/{id}/cancel", Scope(Submit), jobs::cancel)
        .post("/v1/jobs/{id}/retry", Scope(Submit), jobs::retry)
        .get("/v1/pipelines", Scope(Read), pipelines::list)
        .get("/v1/dead-letters", Scope(Read), dead_letters::list)
        .get("/v1/dead-letters/{id}", Scope(Read), dead_letters::show)
        .post("/v1/dead-letters/replay", Scope(Submit), dead_letters::replay)
        .get("/v1/parked-events", Scope(Read), parked_events::list)
        .get("/v1/copy", Scope(Read), copy::list)
        .get("/v1/copy/{document}", Scope(Read), copy::show)
        .post("/v1/copy/{document}/approve", Scope(Review), copy::approve)
        .post("/v1/copy/{document}/reject", Scope(Review), copy::reject)
        .post("/v1/copy/{document}/edit", Scope(Review), copy::edit)
        .get("/v1/exports/copy", Scope(Read), copy::export)
        .get("/v1/sitemap.xml", Scope(Read), copy::sitemap)
        .get("/v1/leads", Scope(Read), leads::list)
        .get("/v1/leads/export", Scope(Read), leads::export)
        .get("/v1/leads/{id}", Scope(Read), leads::show)
        .get("/v1/accounts/{key}", Scope(Read), leads::account)
}

fn router(services: Services) -> Router {
    let limited = || from_fn_with_state((services.auth.clone(), RequiredAccess::Nothing), auth::admit);
    let routes = routes(&services.auth)
        .into_router()
        .route("/", get(console::index).route_layer(limited()))
        .route("/console/{file}", get(console::file).route_layer(limited()))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES));
    surrounded(routes, &services.auth).with_state(services)
}

/// What every answer goes through.
fn surrounded<S: Clone + Send + Sync + 'static>(routes: Router<S>, auth: &Authenticator) -> Router<S> {
    let deadline = Duration::from_secs(auth.limits().request_seconds);
    routes
        .layer(from_fn(middleware::well_formed))
        .layer(from_fn_with_state(deadline, middleware::deadline))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(map_response(middleware::headers))
}

/// Listens where the configuration says. `has_tokens` tells whether the ledger holds any, and is asked only where that decides.
///
/// # Errors
/// Where the address is no address, is taken, or is reachable by others while there is no token.
pub async fn bind(config: &ServerConfig, has_tokens: impl AsyncFnOnce() -> anyhow::Result<bool>) -> anyhow::Result<TcpListener> {
    let listen = &config.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|e| ConfigError(format!("`server.listen` is {listen:?}, which is no address: {e}; write host:port")))?
        .collect();
    let is_reachable = addresses.iter().any(|address| !connections::is_local(address.ip()));
    if is_reachable && config.token.is_none() && !has_tokens().await? {
        let message = format!(
            "`server.listen` is {listen:?}, which others can reach, and there is no token; set server.token_file (or \
             TIDEMILL_SERVER__TOKEN), make one with `tidemill tokens create`, or listen on 127.0.0.1"
        );
        return Err(ConfigError(message).into());
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}; free the port or set server.listen to another"))
}

/// The description of the API, in OpenAPI 3.1.
pub fn description() -> &'static str {
    &openapi::TEXT
}

/// Serves until `shutdown` resolves, then answers what has been asked and returns. A caller who dawdles is cut off soon after.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let auth = services.auth.clone();
    connections::serve(listener, router(services), auth.limits(), shutdown).await
}

/// Answers probes and `/metrics` at the listener while `work` goes on, which may take minutes where models are large: whoever
/// restarts what does not answer, or counts what is under way, must see a process that loads. What only the whole service can
/// answer is refused as unavailable.
///
/// # Errors
/// Where the listener cannot be shared.
pub async fn meanwhile<T>(listener: &TcpListener, auth: &Authenticator, work: impl Future<Output = T>) -> io::Result<T> {
    // The same socket by another handle: callers who come between the two servers wait in its queue.
    let shared = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    let shared = TcpListener::from_std(shared)?;
    let (done, told) = oneshot::channel::<()>();
    let (routes, auth) = (surrounded(startup::router(auth), auth), auth.clone());
    let server = tokio::spawn(async move { connections::serve(shared, routes, auth.limits(), async { drop(told.await) }).await });
    let outcome = work.await;
    drop(done);
    server.await.map_err(io::Error::other)??;
    Ok(outcome)
}

#[cfg(test)]
mod tests;
