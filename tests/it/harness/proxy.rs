//! A network that tests can break: a TCP proxy in front of one port of this machine.
//!
//! | call | open connections | connections made later |
//! |---|---|---|
//! | none | pass everything | pass everything |
//! | `cut` | are closed | are closed at once, until `restore` |
//! | `swallow` | stay open and pass nothing any more | pass everything |
//! | `lose_replies_to_commit` | the next one on which Postgres confirms a COMMIT is closed instead of passing that reply | likewise |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy in front of a port. It closes its connections and stops when this value is dropped.
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
    accepting: JoinHandle<()>,
}

struct Network {
    state: watch::Sender<State>,
    /// Replies to a COMMIT that are still to be lost.
    losing: AtomicUsize,
    lost: AtomicUsize,
    reads_postgres: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    is_cut: bool,
    /// Connections that were opened at a lower age pass nothing.
    age: usize,
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, which need not listen yet.
    pub async fn before(upstream: u16) -> Self {
        Self::start(upstream, false).await
    }

    /// Starts a proxy in front of Postgres, which reads its replies. They must not be encrypted.
    pub async fn before_postgres(upstream: u16) -> Self {
        Self::start(upstream, true).await
    }

    async fn start(upstream: u16, reads_postgres: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (losing, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let network = Arc::new(Network { state: watch::Sender::default(), losing, lost, reads_postgres });
        let accepting = tokio::spawn(accept(listener, upstream, network.clone()));
        Self { port, network, accepting }
    }

    /// The port that the proxy listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.network.state.send_modify(|state| state.is_cut = true);
    }

    /// Ends a cut: new connections pass everything again.
    pub fn restore(&self) {
        self.network.state.send_modify(|state| state.is_cut = false);
    }

    /// Makes the connections that are open now pass nothing any more. They stay open.
    pub fn swallow(&self) {
        self.network.state.send_modify(|state| state.age += 1);
    }

    /// Loses the next `count` replies to a COMMIT, and closes the connection of each.
    pub fn lose_replies_to_commit(&self, count: usize) {
        self.network.losing.store(count, Ordering::SeqCst);
    }

    /// Replies to a COMMIT that were lost.
    pub fn lost(&self) -> usize {
        self.network.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, upstream: u16, network: Arc<Network>) {
    while let Ok((client, _)) = listener.accept().await {
        if !network.state.borrow().is_cut {
            tokio::spawn(connect(client, upstream, network.clone()));
        }
    }
}

/// Runs one connection until either side closes it or the network is cut. Where the client closes a swallowed connection, the proxy
/// closes the server's side too, as keepalives would within a minute.
async fn connect(client: TcpStream, upstream: u16, network: Arc<Network>) {
    let mut state = network.state.subscribe();
    let age = state.borrow().age;
    let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let swallowed = || network.state.borrow().age > age;
    let up = async {
        let mut chunk = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut chunk).await {
            if swallowed() {
                continue;
            }
            if to_server.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut chunk = vec![0; 1 << 16];
        let mut messages = Messages::default();
        while let Ok(length @ 1..) = from_server.read(&mut chunk).await {
            if swallowed() {
                continue;
            }
            if network.reads_postgres && messages.confirm_a_commit(&chunk[..length]) && network.loses() {
                return;
            }
            if to_client.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = state.wait_for(|state| state.is_cut) => {}
    }
}

impl Network {
    /// Whether to lose one more reply; if so, it is counted.
    fn loses(&self) -> bool {
        let loses = self.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        self.lost.fetch_add(usize::from(loses), Ordering::SeqCst);
        loses
    }
}

/// The messages of a Postgres server. Each is a type byte, a length that includes itself, and the body.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Set once the server has answered whether it encrypts. That answer is a single byte and no message.
    began: bool,
}

impl Messages {
    /// Takes the next bytes; returns whether a message that they complete confirms a COMMIT.
    fn confirm_a_commit(&mut self, bytes: &[u8]) -> bool {
        let answers = !self.began && bytes == b"N";
        self.began = true;
        if answers {
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        let mut confirmed = false;
        while let Some(length) = self.bytes.get(1..5) {
            let end = 1 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(message) = self.bytes.get(..end) else { break };
            confirmed |= message[0] == b'C' && &message[5..] == b"COMMIT\0";
            self.bytes.drain(..end);
        }
        confirmed
    }
}
