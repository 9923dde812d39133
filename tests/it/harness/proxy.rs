//! A network that can be broken: a TCP proxy in front of one port of this machine.
//!
//! | told to | connections that are open | connections made later |
//! |---|---|---|
//! | forward | pass everything | pass everything |
//! | cut | are closed | are closed at once |
//! | swallow | stay open and pass nothing any more | pass everything |
//! | lose a reply | the next that carries Postgres' word that a COMMIT went through is closed in its place | |

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy in front of a port. It ends with this value, and its connections with it.
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
    /// Connections of an earlier age than this pass nothing.
    age: usize,
}

impl Proxy {
    /// A proxy on a port of its own in front of `upstream`, which need not listen yet.
    pub async fn before(upstream: u16) -> Self {
        Self::start(upstream, false).await
    }

    /// A proxy in front of a Postgres, whose replies it can read as long as they are not encrypted.
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

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes what is open and refuses what is new.
    pub fn cut(&self) {
        self.network.state.send_modify(|state| state.is_cut = true);
    }

    /// Mends a cut.
    pub fn mend(&self) {
        self.network.state.send_modify(|state| state.is_cut = false);
    }

    /// Lets what is open pass nothing any more, and stay open.
    pub fn swallow(&self) {
        self.network.state.send_modify(|state| state.age += 1);
    }

    /// Loses the next `count` replies to a COMMIT, each with its connection.
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

/// One connection, until either side ends or it is cut. One that is swallowed and then closed by its client is closed towards the
/// server, too: there, keepalives would find out within a minute.
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
    /// Whether one more reply is to be lost; counts it.
    fn loses(&self) -> bool {
        let loses = self.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        self.lost.fetch_add(usize::from(loses), Ordering::SeqCst);
        loses
    }
}

/// What a Postgres server says, message by message: a letter, a length that counts itself, and the rest.
#[derive(Default)]
struct Messages {
    bytes: Vec<u8>,
    /// Set once the server has answered whether it encrypts, which it does with a letter alone.
    began: bool,
}

impl Messages {
    /// Takes the next bytes; whether a message that ends in them says that a COMMIT went through.
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
