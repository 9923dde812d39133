//! The loop that takes connections in. `axum::serve` would wait for a caller's headers without an end, and for any number of callers.
//!
//! | what a caller can hold back | is bounded by |
//! |---|---|
//! | connections that it opens | a number in all, and a share for each address |
//! | the headers of a request, or the next request | `header_seconds`, by [`http1::Builder::header_read_timeout`] |
//! | the body | the deadline of the request, see [`middleware`](super::middleware) |
//! | taking the answer | `stall_seconds`, see [`WriteTimeoutStream`] |

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

/// How long a shutdown waits for callers: a search takes milliseconds, and supervisors do not wait for ever.
pub const GRACE: Duration = Duration::from_secs(3);

/// How long the loop rests when the system has no more sockets to give.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Bytes of a request's line and headers.
const HEADER_BYTES: usize = 64 << 10;

/// What a caller reads for whom there is no room. It did not say yet what it wants, so this fits whatever that is.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 181\r\n\r\n\
    {\"type\":\"urn:tidemill:problem:unavailable\",\"title\":\"out of order for now\",\"status\":503,\
    \"detail\":\"too many connections are open; close some, or try again later\",\"code\":\"unavailable\"}";

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The caller's address.
    pub address: IpAddr,
    /// Whether only callers of this machine reach the listener.
    pub is_local: bool,
}

impl Peer {
    /// Where no connection is known; nothing is taken for granted.
    pub const UNKNOWN: Self = Self { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), is_local: false };
}

/// Whether only callers of this machine reach the address.
pub fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Serves until `shutdown` resolves, then answers what has been asked and returns. A caller who dawdles is cut off after [`GRACE`].
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: &ServerLimitsConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(limits.header_seconds)).max_buf_size(HEADER_BYTES);
    let patience = Duration::from_secs(limits.stall_seconds);
    let is_local = is_local(listener.local_addr()?.ip());
    let (room, graceful, mut callers) = (ConnectionLimits::new(limits), GracefulShutdown::new(), JoinSet::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = callers.join_next(), if !callers.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_caller(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "cannot take connections in");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        let Some(place) = room.enter(address.ip()) else {
            refuse(stream);
            continue;
        };
        let routes = routes.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer { address: address.ip(), is_local });
            routes.clone().call(request)
        });
        let connection = http.serve_connection(TokioIo::new(WriteTimeoutStream::new(stream, patience)), service);
        let connection = graceful.watch(connection);
        callers.spawn(async move {
            // How a connection ends is the caller's affair.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = sleep(GRACE) => {}
    }
    callers.shutdown().await;
    Ok(())
}

/// Whether the caller was gone before it was let in; otherwise the system is out of something.
fn is_of_the_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Says why, as far as the socket takes it at once, and closes.
fn refuse(stream: TcpStream) {
    METRICS.http_connections_refused.inc();
    // The runtime does not know yet that it can be written to; the system does. Nobody waits for a caller that is turned away.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(FULL);
    }
}

/// Places for connections.
#[derive(Clone)]
struct ConnectionLimits {
    all: usize,
    each: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A place that is given back when it is dropped.
struct ConnectionPermit {
    room: ConnectionLimits,
    of: IpAddr,
}

impl ConnectionLimits {
    fn new(limits: &ServerLimitsConfig) -> Self {
        Self { all: limits.connections, each: limits.connections_per_address, taken: Arc::default() }
    }

    fn enter(&self, address: IpAddr) -> Option<ConnectionPermit> {
        let of = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.get(&of).copied().unwrap_or_default();
        if own >= self.each || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        taken.insert(of, own + 1);
        METRICS.http_connections.inc();
        Some(ConnectionPermit { room: self.clone(), of })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        METRICS.http_connections.dec();
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut own) = taken.entry(self.of) {
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
        let (room, one, other) = (ConnectionLimits::new(&limits), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = [room.enter(one), room.enter(one)];
        assert!(first.iter().all(Option::is_some) && room.enter(one).is_none(), "an address has its share");
        let second = room.enter(other);
        assert!(second.is_some() && room.enter(other).is_none(), "there are no more places than there are");
        drop(first);
        assert!(room.enter(other).is_some(), "a place that is left is free");
        drop(second);
        assert!(room.taken.lock().unwrap().is_empty(), "nobody is remembered who has left");
    }

    #[test]
    fn who_is_turned_away_reads_a_whole_answer() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head} is not true of {} bytes", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "unavailable");
    }
}
