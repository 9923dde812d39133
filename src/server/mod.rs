//! The HTTP server: a route a line, a file an endpoint.
//!
//! | route | open to | answers |
//! |---|---|---|
//! | `GET /healthz` | all | 200 while the process lives |
//! | `GET /readyz` | all | 200, or 503 with what is out of order and why |
//! | `GET /metrics` | the token | Prometheus text |
//! | `POST /v1/search` | the token | the documents that answer a question |
//! | `POST /v1/answer` | the token | an answer from the documents, each sentence with its citations |
//! | `GET /v1/documents/{id}` | the token | everything that is known of a document, and where it comes from |
//! | `POST /v1/jobs` | the token | the job, queued or known already |
//! | `GET /v1/jobs`, `GET /v1/jobs/{id}` | the token | jobs and how far they are |
//! | `POST /v1/jobs/{id}/cancel`, `…/retry` | the token | the job, as it then is |
//!
//! While models are loaded, [`meanwhile`] answers the first three; the rest is unavailable.

mod answer;
mod auth;
mod documents;
mod error;
mod guard;
mod health;
mod jobs;
mod metrics;
mod search;
mod starting;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_http::catch_panic::CatchPanicLayer;

use crate::config::{ConfigError, ServerConfig};
use crate::explain::Explainer;
use crate::health::Health;
use crate::jobs::Desk;
use crate::search::Searcher;

/// The largest request body: far above the longest query, far below what hurts.
const BODY_BYTES: usize = 1 << 20;

/// How long a shutdown waits for callers: a search takes milliseconds, and supervisors do not wait for ever.
const GRACE: Duration = Duration::from_secs(3);

/// What the endpoints serve from. Clones share it.
#[derive(Clone)]
pub struct Service {
    /// Answers `/readyz`.
    pub health: Health,
    /// Answers `/v1/search`.
    pub searcher: Searcher,
    /// Answers `/v1/documents`.
    pub explainer: Explainer,
    /// Answers `/v1/jobs`, whether or not this process works on jobs.
    pub desk: Desk,
    /// The bearer token that callers must carry, where there is one.
    pub token: Option<Arc<str>>,
}

/// The table of contents.
fn router(service: Service) -> Router {
    let guarded = Router::new()
        .route("/metrics", measured("/metrics", get(metrics::render)))
        .route("/v1/search", measured("/v1/search", post(search::answer)))
        .route("/v1/answer", measured("/v1/answer", post(answer::answer)))
        .route("/v1/documents/{id}", measured("/v1/documents/{id}", get(documents::explain)))
        .route("/v1/jobs", measured("/v1/jobs", get(jobs::list).post(jobs::submit)))
        .route("/v1/jobs/{id}", measured("/v1/jobs/{id}", get(jobs::show)))
        .route("/v1/jobs/{id}/cancel", measured("/v1/jobs/{id}/cancel", post(jobs::cancel)))
        .route("/v1/jobs/{id}/retry", measured("/v1/jobs/{id}/retry", post(jobs::retry)))
        .route_layer(from_fn_with_state(service.token.clone(), auth::require));
    let open = Router::new()
        .route("/healthz", measured("/healthz", get(health::alive)))
        .route("/readyz", measured("/readyz", get(health::ready)));
    guarded
        .merge(open)
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn(guard::deadline))
        .layer(CatchPanicLayer::custom(guard::panicked))
        .with_state(service)
}

/// The route's template is the metric's label: paths as callers send them would make a series each.
fn measured(route: &'static str, methods: MethodRouter<Service>) -> MethodRouter<Service> {
    methods.layer(from_fn_with_state(route, guard::measure))
}

/// Listens where the configuration says.
///
/// # Errors
/// Where the address is no address, is taken, or is reachable by others while no token is set.
pub async fn bind(config: &ServerConfig) -> anyhow::Result<TcpListener> {
    let listen = &config.listen;
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host(listen)
        .await
        .map_err(|e| ConfigError(format!("`server.listen` is {listen:?}, which is no address: {e}; write host:port")))?
        .collect();
    if config.token.is_none() && addresses.iter().any(|address| !address.ip().is_loopback()) {
        let message = format!(
            "`server.listen` is {listen:?}, which others can reach, and no token is set; \
             set server.token_file (or TIDEMILL_SERVER__TOKEN), or listen on 127.0.0.1"
        );
        return Err(ConfigError(message).into());
    }
    TcpListener::bind(addresses.as_slice())
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}; free the port or set server.listen to another"))
}

/// Serves until `shutdown` resolves, then answers what has been asked and returns. A caller who dawdles is cut off after [`GRACE`].
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_routes(listener, router(service), shutdown).await
}

/// Answers probes and `/metrics` at the listener while `work` goes on, which may take minutes where models are large: whoever
/// restarts what does not answer, or counts what is under way, must see a process that loads. What only the whole service can
/// answer is refused as unavailable.
///
/// # Errors
/// Where the listener cannot be shared.
pub async fn meanwhile<T>(listener: &TcpListener, token: Option<&str>, work: impl Future<Output = T>) -> io::Result<T> {
    // The same socket by another handle: callers who come between the two servers wait in its queue.
    let shared = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    let shared = TcpListener::from_std(shared)?;
    let (done, told) = oneshot::channel::<()>();
    let routes = starting::router(token.map(Arc::from));
    let server = tokio::spawn(serve_routes(shared, routes, async move { drop(told.await) }));
    let outcome = work.await;
    drop(done);
    server.await.map_err(io::Error::other)??;
    Ok(outcome)
}

async fn serve_routes(
    listener: TcpListener,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody listens any more where the server has ended by itself.
        let _ = tell.send(());
    };
    let overdue = async move {
        match told.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        served = axum::serve(listener, routes).with_graceful_shutdown(shutdown).into_future() => served,
        () = overdue => Ok(()),
    }
}

#[cfg(test)]
mod tests;
