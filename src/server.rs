//! The HTTP server: one line a route, one file an endpoint.
//!
//! | route | requires | responds with |
//! |---|---|---|
//! | `GET /healthz` | nothing | 200 while the process is alive |
//! | `GET /readyz` | nothing | 200, or 503 with what is unavailable; the reasons require `read` and no tenant |
//! | `GET /openapi.json` | nothing | the description of the API |
//! | `GET /metrics` | `read` and no tenant, or `server.metrics_token` | metrics in Prometheus' text format |
//! | `POST /v1/search` | `read` | the documents that match a query |
//! | `POST /v1/answer` | `read` | an answer from the documents, each sentence with its citations |
//! | `GET /v1/recommendations` | `read` | documents similar to another or for a user, each with the reasons |
//! | `GET /v1/documents/{id}` | `read` | everything that is known about a document, and where it comes from |
//! | `POST /v1/jobs` | `submit` | the submitted job, new or known |
//! | `GET /v1/jobs`, `GET /v1/jobs/{id}` | `read` | jobs and their progress |
//! | `POST /v1/jobs/{id}/cancel`, `…/retry` | `submit` | the job after the change |
//! | `GET /v1/pipelines` | `read` | pipelines, their graphs and their last 24 hours |
//! | `GET /v1/dead-letters`, `GET /v1/dead-letters/{id}` | `read` | records and tasks that failed, and why |
//! | `POST /v1/dead-letters/replay` | `submit` | the number of records that are sent again |
//! | `GET /v1/parked-events` | `read` | events that their topic refused, and why |
//! | `GET /v1/copy`, `GET /v1/copy/{document}` | `read` | generated copy, and what waits for a decision |
//! | `POST /v1/copy/{document}/approve`, `…/reject`, `…/edit` | `review` | the version after the decision |
//! | `GET /v1/exports/copy`, `GET /v1/sitemap.xml` | `read` | published copy as CSV or Parquet, and the addresses of its pages |
//! | `GET /v1/leads`, `GET /v1/leads/{id}` | `read` | leads by score, and one lead with all details |
//! | `GET /v1/leads/export` | `read` | leads as CSV |
//! | `GET /v1/accounts/{key}` | `read` | a company and its leads |
//! | `GET /`, `GET /console/{file}` | nothing | the console, whose pages use the API |
//!
//! While models are loaded, [`serve_during_startup`] serves the probes and `/metrics`, and 503 for everything else.
//! Errors are `application/problem+json`; `error.rs` has every code.

mod answer;
mod auth;
mod body;
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
mod query;
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

/// The maximum size of a request body: far above the longest query, and small enough to hold many in memory.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The services behind the endpoints. Clones share everything.
#[derive(Clone)]
pub struct Services {
    /// For `/readyz`.
    pub health: Health,
    /// For `/v1/search` and `/v1/answer`.
    pub searcher: Searcher,
    /// For `/v1/recommendations`.
    pub recommender: Recommender,
    /// For `/v1/documents`.
    pub explainer: Explainer,
    /// For `/v1/jobs`, whether or not this process works on jobs.
    pub job_service: JobService,
    /// For `/v1/pipelines`, `/v1/dead-letters` and `/v1/parked-events`.
    pub dashboard: Dashboard,
    /// For `/v1/copy`, `/v1/exports/copy` and `/v1/sitemap.xml`.
    pub copy: CopyService,
    /// For `/v1/leads` and `/v1/accounts`.
    pub leads: LeadService,
    pub auth: Authenticator,
}

/// The routes of the API.
fn routes(auth: &Authenticator) -> RouteTable<Services> {
    use RequiredAccess::{Metrics, Probe, Public, Scope};
    RouteTable::new(auth)
        .get("/healthz", Probe, health::alive)
        .get("/readyz", Probe, health::ready)
        .get("/openapi.json", Public, openapi::describe)
        .get("/metrics", Metrics, metrics::render)
        .post("/v1/search", Scope(Read), search::search)
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
    let limited = || from_fn_with_state((services.auth.clone(), RequiredAccess::Public), auth::authorize);
    let routes = routes(&services.auth)
        .into_router()
        .route("/", get(console::index).route_layer(limited()))
        .route("/console/{file}", get(console::file).route_layer(limited()))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES));
    with_middleware(routes, &services.auth).with_state(services)
}

/// Adds the middleware of every route.
fn with_middleware<S: Clone + Send + Sync + 'static>(routes: Router<S>, auth: &Authenticator) -> Router<S> {
    let deadline = Duration::from_secs(auth.limits().request_seconds);
    routes
        .layer(from_fn(middleware::well_formed))
        .layer(from_fn_with_state(deadline, middleware::deadline))
        .layer(CatchPanicLayer::custom(middleware::panicked))
        .layer(map_response(middleware::headers))
}

/// Listens on the configured address. `has_tokens` tells whether the database has a token; it is called only if that decides.
///
/// # Errors
/// If the address is not valid or not free, or if other machines can reach it while there is no token.
pub async fn bind(config: &ServerConfig, has_tokens: impl AsyncFnOnce() -> anyhow::Result<bool>) -> anyhow::Result<TcpListener> {
    let listen = &config.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|e| ConfigError(format!("`server.listen` is {listen:?}, which is not an address: {e}; write host:port")))?
        .collect();
    let is_reachable = addresses.iter().any(|address| !connections::is_local(address.ip()));
    if is_reachable && config.token.is_none() && !has_tokens().await? {
        let message = format!(
            "`server.listen` is {listen:?}, which other machines can reach, but there is no token; set server.token_file (or \
             TIDEMILL_SERVER__TOKEN), create one with `tidemill tokens create`, or listen on 127.0.0.1"
        );
        return Err(ConfigError(message).into());
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}; free the port, or set server.listen to another one"))
}

/// The description of the API, in OpenAPI 3.1.
pub fn description() -> &'static str {
    &openapi::TEXT
}

/// Serves until `shutdown` resolves, then finishes open requests within a short time and returns.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let auth = services.auth.clone();
    connections::serve(listener, router(services), auth.limits(), shutdown).await
}

/// Serves probes and `/metrics` on the listener while `work` runs, which takes minutes if models are large, so that supervisors and
/// metrics collectors see a live process. Every other request gets 503.
///
/// # Errors
/// If the listener cannot be shared.
pub async fn serve_during_startup<T>(
    listener: &TcpListener,
    auth: &Authenticator,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    // A second handle of the same socket: callers that connect between the two servers wait in its queue.
    let shared = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    let shared = TcpListener::from_std(shared)?;
    let (done, finished) = oneshot::channel::<()>();
    let (routes, auth) = (with_middleware(startup::router(auth), auth), auth.clone());
    let server =
        tokio::spawn(async move { connections::serve(shared, routes, auth.limits(), async { drop(finished.await) }).await });
    let outcome = work.await;
    drop(done);
    server.await.map_err(io::Error::other)??;
    Ok(outcome)
}

#[cfg(test)]
mod tests;
