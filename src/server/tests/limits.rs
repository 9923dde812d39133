//! Rate limits, connection limits and timeouts: callers that exceed them are refused, and others are not affected.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use reqwest::{ClientBuilder, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::{Running, limited};
use crate::http;

/// Another address of this machine.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

impl Running {
    fn address(&self) -> SocketAddr {
        self.url.trim_start_matches("http://").parse().expect("the server has an address")
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.expect("the server's backlog takes it")
    }

    /// The status of a well-behaved request from another address.
    async fn request_from_elsewhere(&self) -> StatusCode {
        let address = self.url.parse().expect("an address");
        let elsewhere = |builder: ClientBuilder| builder.local_address(IpAddr::from(ELSEWHERE)).timeout(Duration::from_secs(5));
        let client = http::client(&address, elsewhere).expect("a client");
        let response = client.get(format!("{}/openapi.json", self.url)).send().await;
        response.expect("a well-behaved caller must get a response").status()
    }
}

/// What the server sends until it closes the connection.
async fn read_to_close(mut stream: TcpStream, limit: Duration) -> String {
    let mut received = Vec::new();
    // A connection that the server resets was closed as well.
    let _ = timeout(limit, stream.read_to_end(&mut received))
        .await
        .expect("the server keeps a connection that it should have closed");
    String::from_utf8_lossy(&received).into_owned()
}

/// Sends one byte at a time until the server closes the connection.
async fn trickle(mut stream: TcpStream, begin: &'static [u8], byte: &'static [u8]) {
    let mut sent = stream.write_all(begin).await;
    while sent.is_ok() {
        sleep(Duration::from_millis(50)).await;
        sent = stream.write_all(byte).await;
    }
}

#[tokio::test]
async fn slow_callers_do_not_keep_a_proper_one_waiting_and_are_let_go() {
    let server = limited(|limits| {
        (limits.connections, limits.connections_per_address) = (40, 30);
        (limits.header_seconds, limits.request_seconds) = (1, 1);
    })
    .await;
    let (mut trickling, mut silent) = (Vec::new(), Vec::new());
    let body =
        b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";
    for _ in 0..10 {
        trickling.push(tokio::spawn(trickle(server.connect().await, b"GET /healthz HTTP/1.1\r\nx: ", b"x")));
        trickling.push(tokio::spawn(trickle(server.connect().await, body, b" ")));
        silent.push(server.connect().await);
    }
    sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    assert_eq!(server.request_from_elsewhere().await, StatusCode::OK);
    assert!(start.elapsed() < Duration::from_secs(1), "the proper caller waited for {:?}", start.elapsed());
    for stream in silent {
        read_to_close(stream, Duration::from_secs(5)).await;
    }
    for caller in trickling {
        timeout(Duration::from_secs(5), caller).await.expect("a trickle keeps its connection").unwrap();
    }
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK, "their places are free again");
}

#[tokio::test]
async fn a_connection_on_which_nothing_more_is_asked_ends() {
    let server = limited(|limits| limits.header_seconds = 1).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let start = Instant::now();
    let received = read_to_close(stream, Duration::from_secs(5)).await;
    assert!(received.starts_with("HTTP/1.1 200 OK") && received.ends_with(r#"{"status":"ok"}"#), "{received}");
    assert!(start.elapsed() > Duration::from_millis(500), "the connection stays open for a while");
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_and_hears_why_not_more() {
    let server = limited(|limits| limits.connections_per_address = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(server.connect().await);
    }
    // The server accepts connections in their order.
    let refused = read_to_close(server.connect().await, Duration::from_secs(5)).await;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("too many connections are open"), "{refused}");
    assert_eq!(server.request_from_elsewhere().await, StatusCode::OK, "another address is not affected");
    drop(held);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK, "a closed connection no longer counts");
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again() {
    let server = limited(|limits| (limits.requests_per_second, limits.burst) = (1, 5)).await;
    for _ in 0..5 {
        assert_eq!(server.get("/v1/jobs?limit=0").await.status(), StatusCode::BAD_REQUEST);
    }
    let refused = server.get("/v1/jobs").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "too_many_requests");
    assert_eq!(server.request_from_elsewhere().await, StatusCode::OK, "another address is not affected");
    for page in ["/", "/console/app.js", "/openapi.json"] {
        assert_eq!(server.get(page).await.status(), StatusCode::TOO_MANY_REQUESTS, "{page}");
    }
    for _ in 0..20 {
        assert_eq!(server.get("/healthz").await.status(), StatusCode::OK, "a probe is never refused");
        assert_ne!(server.get("/readyz").await.status(), StatusCode::TOO_MANY_REQUESTS, "a probe is never refused");
    }
    sleep(Duration::from_millis(1_100)).await;
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn who_guesses_tokens_is_held_up() {
    let mut config = super::loopback();
    config.token = Some("s3cret".into());
    (config.limits.requests_per_second, config.limits.burst) = (1, 5);
    let server = super::started(config).await;
    let guess = async |token: &str| {
        server.client.get(format!("{}/v1/jobs?limit=0", server.url)).bearer_auth(token).send().await.unwrap().status()
    };
    for _ in 0..5 {
        assert_eq!(guess("wrong").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(guess("wrong").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(guess("s3cret").await, StatusCode::BAD_REQUEST, "the right token has an allowance of its own");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up() {
    let server = limited(|limits| limits.stall_seconds = 1).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address()).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    // Many responses that nobody reads fill every buffer on the way; then the server must close the connection.
    let asked = async {
        while stream.write_all(request).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), asked).await.expect("the server keeps responses that nobody reads");
}
