//! Requests without a token, and malformed requests.

use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{client, loopback, running, started};
use crate::config::ServerConfig;
use crate::failure::Component;

const JOB: &str = r#"{"version":1,"id":"j","kind":"delete","pipeline":"notes","documents":["a"]}"#;

#[tokio::test]
async fn pages_of_other_sites_are_refused_where_no_token_is_needed() {
    let server = running(None).await;
    let port = server.url.rsplit(':').next().unwrap().to_owned();
    for (name, value) in [
        ("host", format!("evil.example:{port}")),
        ("origin", "https://evil.example".into()),
        ("origin", "null".into()),
        ("sec-fetch-site", "cross-site".into()),
    ] {
        for path in ["/v1/jobs", "/v1/search", "/v1/dead-letters/replay"] {
            let sent = server.client.post(format!("{}{path}", server.url)).header(name, &value);
            let refused = sent.header("content-type", "application/json").body(JOB).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{name}: {value} to {path}");
        }
        let read = server.client.get(format!("{}/v1/jobs", server.url)).header(name, &value).send().await.unwrap();
        assert_eq!(read.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    // An accepted request then fails because the database is unavailable.
    for origin in [None, Some(server.url.as_str())] {
        let own = server.client.get(format!("{}/v1/jobs", server.url));
        let own =
            origin.into_iter().fold(own, |own, origin| own.header("origin", origin).header("sec-fetch-site", "same-origin"));
        assert_eq!(own.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE, "{origin:?}");
    }
}

#[tokio::test]
async fn a_token_is_good_whatever_the_page() {
    let server = running(Some("of-the-operator")).await;
    let asked =
        server.client.get(format!("{}/v1/jobs", server.url)).header("host", "tidemill.example").bearer_auth("of-the-operator");
    assert_eq!(asked.header("origin", "https://desk.example").send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_body_that_is_not_said_to_be_json_is_refused() {
    let server = running(None).await;
    let path = format!("{}/v1/jobs", server.url);
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        let sent = content_type.into_iter().fold(server.client.post(&path), |sent, value| sent.header("content-type", value));
        let refused = sent.body(JOB).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type:?}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "unsupported_media_type");
    }
    let twice = server.client.post(&path).header("content-type", "application/json").header("content-type", "text/plain");
    assert_eq!(
        twice.body(JOB).send().await.unwrap().status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "one wrong header of two is enough"
    );
    for content_type in ["application/json", "application/json; charset=utf-8", "Application/JSON"] {
        let sent = client().post(&path).header("content-type", content_type).body(JOB).send().await.unwrap();
        assert_eq!(sent.status(), StatusCode::SERVICE_UNAVAILABLE, "{content_type}");
    }
    let empty = server.client.post(format!("{}/v1/jobs/j/cancel", server.url)).send().await.unwrap();
    assert_eq!(empty.status(), StatusCode::SERVICE_UNAVAILABLE, "a request without a body needs no type");
}

#[tokio::test]
async fn a_request_has_one_host() {
    let server = running(None).await;
    for (version, hosts, expected) in
        [("1.1", "", "400"), ("1.1", "host: a\r\nhost: b\r\n", "400"), ("1.0", "", "200"), ("1.1", "host: a\r\n", "200")]
    {
        let mut stream = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        let request = format!("GET /healthz HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert_eq!(response.split(' ').nth(1), Some(expected), "HTTP/{version} with {hosts:?}: {response}");
    }
}

#[tokio::test]
async fn an_address_of_ipv4_in_ipv6_is_loopback() {
    let server = started(ServerConfig { listen: "[::ffff:127.0.0.1]:0".into(), ..loopback() }).await;
    assert_eq!(server.get("/v1/jobs").await.status(), StatusCode::SERVICE_UNAVAILABLE, "no token is required there");
}

#[tokio::test]
async fn only_who_may_read_is_told_why_the_process_is_not_ready() {
    let token = "of-the-operator!";
    let server =
        started(ServerConfig { metrics_token: Some("of-the-scraper!!".into()), token: Some(token.into()), ..loopback() }).await;
    for component in Component::ALL {
        server.health.up(*component);
    }
    server.health.down(Component::Database, "no route to db.internal:5432");
    server.health.stopped("acme-secrets", "too many dead letters at offset 17");
    server.health.halt("acme-plans", "its records are gone");
    server.health.block_topic("acme.results", "not authorized");
    let problems = async |token: Option<&str>| {
        let asked = server.client.get(format!("{}/readyz", server.url));
        let answer = token.into_iter().fold(asked, |asked, token| asked.bearer_auth(token)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "every caller learns that it is not ready");
        answer.text().await.unwrap()
    };
    for token in [None, Some("wrong"), Some("of-the-scraper!!")] {
        let body = problems(token).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let (pipelines, topics) =
            ("2 stopped; a token with scope `read` shows which", "1 refuse events; a token with scope `read` shows which");
        let outline = serde_json::json!({ "status": "unready", "problems": { "database": "unavailable", "pipelines": pipelines, "topics": topics }, "halted": {} });
        assert_eq!(body, outline, "{token:?}");
    }
    let body = problems(Some(token)).await;
    for word in ["no route to db.internal:5432", "acme-secrets", "offset 17", "acme-plans", "acme.results"] {
        assert!(body.contains(word), "{body}");
    }
}

#[tokio::test]
async fn the_token_of_a_scraper_is_good_for_metrics_alone() {
    let config =
        ServerConfig { metrics_token: Some("of-the-scraper!!".into()), token: Some("of-the-operator!".into()), ..loopback() };
    let server = started(config).await;
    let ask = async |path: &str| {
        server.client.get(format!("{}{path}", server.url)).bearer_auth("of-the-scraper!!").send().await.unwrap().status()
    };
    assert_eq!(ask("/metrics").await, StatusCode::OK);
    for path in ["/v1/jobs", "/v1/pipelines", "/v1/documents/a", "/v1/dead-letters"] {
        assert_eq!(ask(path).await, StatusCode::FORBIDDEN, "{path}");
    }
}
