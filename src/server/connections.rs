//! Accepting connections. `axum::serve` would wait for a caller's headers for ever, and for any number of callers.
//!
//! | resource | bounded by |
//! |---|---|
//! | open connections | a maximum in all, and one for each address |
//! | the wait for headers, or for the next request | `header_seconds`, by [`http1::Builder::header_read_timeout`] |
//! | the wait for the body | the deadline of the request, see [`middleware`](super::middleware) |
//! | the wait for the caller to read the response | `stall_seconds`, see [`WriteTimeoutStream`] |

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower_service::Service as _;

use super::rate_limit::network;
use super::write_timeout::WriteTimeoutStream;
use crate::config::ServerLimitsConfig;
use crate::metrics::METRICS;

/// How long a shutdown waits for open requests. A search takes milliseconds, and a supervisor soon kills a process that does not
/// end.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the loop pauses if the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The maximum size of a request's line and headers in bytes.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The response to a connection beyond the maximum. It is sent before the request is read.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 184\r\n\r\n\
    {\"type\":\"urn:tidemill:problem:unavailable\",\"title\":\"temporarily unavailable\",\"status\":503,\
    \"detail\":\"too many connections are open; close some, or try again later\",\"code\":\"unavailable\"}";

/// The source of a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: IpAddr,
    /// Whether the listener is reachable from this machine only.
    pub is_local: bool,
}

impl Peer {
    /// A request whose connection is not known. It counts as one from another machine.
    pub const UNKNOWN: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), is_local: false };
}

/// Whether the address is reachable from this machine only.
pub fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Serves until `shutdown` resolves, then finishes open requests and returns. It closes connections that are still open after
/// [`SHUTDOWN_TIMEOUT`].
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: &ServerLimitsConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(limits.header_seconds)).max_buf_size(MAX_HEADER_BYTES);
    let write_timeout = Duration::from_secs(limits.stall_seconds);
    let is_local = is_local(listener.local_addr()?.ip());
    let (connection_limits, graceful, mut connections) = (ConnectionLimits::new(limits), GracefulShutdown::new(), JoinSet::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_caller_error(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(permit) = connection_limits.acquire(address.ip()) else {
            refuse(stream);
            continue;
        };
        let routes = routes.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer { address: address.ip(), is_local });
            routes.clone().call(request)
        });
        let connection = http.serve_connection(TokioIo::new(WriteTimeoutStream::new(stream, write_timeout)), service);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // Callers may close a connection at any time.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(SHUTDOWN_TIMEOUT) => {}
    }
    connections.shutdown().await;
    Ok(())
}

/// Whether the caller closed the connection before it was accepted. Any other error means that the system lacks a resource.
fn is_caller_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Sends the reason, if the socket takes it at once, and closes the connection.
fn refuse(stream: TcpStream) {
    METRICS.http_connections_refused.inc();
    // The runtime does not know yet that the socket is writable, but the system does. Nothing waits for a refused caller.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY_CONNECTIONS);
    }
}

/// Limits the number of open connections. Clones share the count.
#[derive(Clone)]
struct ConnectionLimits {
    max_total: usize,
    max_per_address: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// An open connection in the count, until it is dropped.
struct ConnectionPermit {
    limits: ConnectionLimits,
    network: IpAddr,
}

impl ConnectionLimits {
    fn new(limits: &ServerLimitsConfig) -> Self {
        Self { max_total: limits.connections, max_per_address: limits.connections_per_address, open: Arc::default() }
    }

    fn acquire(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let network = network(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.get(&network).copied().unwrap_or_default();
        if own >= self.max_per_address || open.values().sum::<usize>() >= self.max_total {
            return None;
        }
        open.insert(network, own + 1);
        METRICS.http_connections.inc();
        Some(ConnectionPermit { limits: self.clone(), network })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        METRICS.http_connections.dec();
        let mut open = self.limits.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = open.entry(self.network) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_for_each_address() {
        let limits = ServerLimitsConfig { connections: 3, connections_per_address: 2, ..ServerLimitsConfig::default() };
        let (limits, one, other) = (ConnectionLimits::new(&limits), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = [limits.acquire(one), limits.acquire(one)];
        assert!(first.iter().all(Option::is_some) && limits.acquire(one).is_none(), "an address has a maximum");
        let second = limits.acquire(other);
        assert!(second.is_some() && limits.acquire(other).is_none(), "there is a maximum in all");
        drop(first);
        assert!(limits.acquire(other).is_some(), "a closed connection no longer counts");
        drop(second);
        assert!(limits.open.lock().unwrap().is_empty(), "no count is kept for addresses without connections");
    }

    #[test]
    fn who_is_turned_away_reads_a_whole_answer() {
        let text = std::str::from_utf8(TOO_MANY_CONNECTIONS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head} is not true of {} bytes", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "unavailable");
    }
}
