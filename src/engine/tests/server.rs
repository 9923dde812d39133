//! A small HTTP server that plays whatever a test needs, faults included.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Path and query.
    pub(crate) path: String,
    /// By lowercase name.
    pub(crate) headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server does about a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Play {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Waited before the answer.
    pub(crate) delay: Duration,
    /// The connection closes after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Play {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, ..Self::ok(body) }
    }
}

/// The server; it ends with the value.
pub(crate) struct Server {
    /// `http://127.0.0.1:port`.
    pub(crate) address: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Seen>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Server {
    /// Plays `play` for every request, given its number, counted from 0.
    pub(crate) async fn start(play: impl Fn(&Seen, usize) -> Play + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (state, play) = (Arc::new(State::default()), Arc::new(play));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, play) = (shared.clone(), play.clone());
                // A client that has gone away is no fault of the server.
                tokio::spawn(async move { serve(stream, &state, &*play).await.ok() });
            }
        });
        Self { address, state, task }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The most requests that were in work at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.state.most.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: &State, play: &(dyn Fn(&Seen, usize) -> Play + Send + Sync)) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let seen = Seen { path, headers, body };
    let number = {
        let mut all = state.seen.lock().unwrap();
        all.push(seen.clone());
        all.len() - 1
    };
    state.most.fetch_max(state.running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    let played = play(&seen, number);
    tokio::time::sleep(played.delay).await;
    state.running.fetch_sub(1, Ordering::SeqCst);
    let mut head = format!("HTTP/1.1 {} Played\r\nconnection: close\r\ncontent-length: {}\r\n", played.status, played.body.len());
    for (name, value) in &played.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let end = played.cut.unwrap_or(played.body.len()).min(played.body.len());
    stream.write_all(&played.body[..end]).await?;
    stream.flush().await?;
    stream.shutdown().await
}
