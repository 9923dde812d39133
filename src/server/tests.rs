mod access;
mod console;
mod description;
mod limits;

use std::collections::BTreeMap;
use std::path::Path;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::{DatabaseConfig, DatasetConfig, EngineConfig, JobsConfig, ServerLimitsConfig};
use crate::engine::Engine;
use crate::failure::Component;
use crate::http;
use crate::jobs::KnownNames;
use crate::pipeline::definition::Definition;
use crate::store::Store;

struct Running {
    url: String,
    health: Health,
    client: Client,
    stop: oneshot::Sender<()>,
    served: JoinHandle<io::Result<()>>,
}

fn loopback() -> ServerConfig {
    ServerConfig { listen: "127.0.0.1:0".into(), ..ServerConfig::default() }
}

/// A client of the process's own kind, which sets up cryptography whichever test runs first.
fn client() -> Client {
    let here = "http://127.0.0.1/".parse().expect("an address");
    http::client(&here, |builder| builder).expect("a client without TLS")
}

async fn no_tokens() -> anyhow::Result<bool> {
    Ok(false)
}

async fn running(token: Option<&str>) -> Running {
    started(ServerConfig { token: token.map(str::to_owned), ..loopback() }).await
}

async fn limited(change: impl FnOnce(&mut ServerLimitsConfig)) -> Running {
    let mut config = loopback();
    change(&mut config.limits);
    started(config).await
}

async fn started(config: ServerConfig) -> Running {
    let listener = bind(&config, no_tokens).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let health = Health::new();
    let services = services(health.clone(), Authenticator::new(&config, None));
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(serve(listener, services, async move { stopped.await.unwrap_or_default() }));
    Running { url, health, client: client(), stop, served }
}

/// Services over one pipeline without vectors and one dataset, with a database that is unavailable.
fn services(health: Health, auth: Authenticator) -> Services {
    let datasets = [("archive".to_owned(), DatasetConfig::local("archive"))].into();
    let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
    Services {
        health,
        searcher: Searcher::new(store(), engine, [&notes()]),
        recommender: Recommender::new(&store(), [&notes()]),
        explainer: Explainer::new(store(), [&notes()], None),
        job_service: JobService::new(store(), &JobsConfig::default(), KnownNames::new([&notes()], &datasets)),
        dashboard: Dashboard::new(store(), &[notes()], None),
        copy: CopyService::new(store(), [&notes()]),
        leads: LeadService::new(store(), [&notes()]),
        auth,
    }
}

/// A database at an address where nothing listens.
fn store() -> Store {
    let database = DatabaseConfig { url: Some("postgres://nobody@127.0.0.1:1/none".into()), ..DatabaseConfig::default() };
    Store::connect(&database).unwrap()
}

fn notes() -> Definition {
    let pipeline = "version: 1\nname: notes\nsource: { topic: t }\ntasks: { copy: { render: { template: x } } }\n";
    Definition::parse(Path::new("notes.yaml"), pipeline).unwrap()
}

impl Running {
    async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }
}

#[tokio::test]
async fn readyz_names_what_is_out_of_order_until_nothing_is() {
    let server = running(None).await;
    for component in Component::ALL {
        server.health.up(*component);
    }
    server.health.down(Component::Broker, "connection refused");
    let response = server.get("/readyz").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.json::<Value>().await.unwrap()["problems"], json!({ "broker": "connection refused" }));
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK, "an outage does not restart the process");
    server.health.up(Component::Broker);
    assert_eq!(server.get("/readyz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn metrics_count_requests_under_their_route() {
    let server = running(None).await;
    server.get("/healthz").await;
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("tidemill_http_requests_total{route=\"/healthz\",status=\"200\"}"), "{text}");
}

#[tokio::test]
async fn the_token_guards_metrics_and_leaves_the_probes_open() {
    let server = running(Some("s3cret")).await;
    assert_eq!(server.get("/healthz").await.status(), StatusCode::OK);
    let refused = server.get("/metrics").await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "unauthorized");
    for (carried, expected) in [("s3cre", StatusCode::UNAUTHORIZED), ("s3cret", StatusCode::OK), ("", StatusCode::UNAUTHORIZED)] {
        let request = server.client.get(format!("{}/metrics", server.url)).bearer_auth(carried);
        assert_eq!(request.send().await.unwrap().status(), expected, "for the token {carried:?}");
    }
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_a_token() {
    let mut config = ServerConfig { listen: "0.0.0.0:0".into(), ..ServerConfig::default() };
    let error = bind(&config, no_tokens).await.unwrap_err();
    assert!(error.is::<ConfigError>() && error.to_string().contains("there is no token"), "{error}");
    bind(&config, async || Ok(true)).await.expect("the database has tokens");
    bind(&config, async || anyhow::bail!("gone")).await.expect_err("it is not known whether the database has tokens");
    config.token = Some("s3cret".into());
    bind(&config, async || anyhow::bail!("gone")).await.expect("a configured token is enough");
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_json() {
    let server = running(None).await;
    let response = server.get("/nothing").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.json::<Value>().await.unwrap()["detail"], "there is no path /nothing");
    let response = server.client.post(format!("{}/healthz", server.url)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "method_not_allowed");
}

#[tokio::test]
async fn a_search_that_cannot_be_understood_is_refused_and_one_that_cannot_be_answered_says_why() {
    let server = running(None).await;
    let cases = [
        (json!({ "query": "x", "pipeline": "note" }), 400, "there is no pipeline `note`; did you mean `notes`?"),
        (json!({ "query": "x", "limit": 0 }), 400, "`limit` is 0; give a number from 1 to 100"),
        (json!({ "query": "a\u{0}b" }), 400, "`query` contains U+0000, which no stored text can; remove it"),
        (
            json!({ "query": "x", "mode": "vector" }),
            400,
            "pipeline `notes` makes no vectors; use mode `text`, or add an `embed` task",
        ),
        (json!({ "query": "x" }), 503, "the database is unavailable; try again later"),
    ];
    for (body, status, message) in cases {
        let response = server.client.post(format!("{}/v1/search", server.url)).json(&body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "for {body}");
        assert_eq!(response.json::<Value>().await.unwrap()["detail"], message, "for {body}");
    }
    let large = server.client.post(format!("{}/v1/search", server.url)).header("content-type", "application/json");
    let large = large.body(" ".repeat(MAX_BODY_BYTES + 1)).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(large.json::<Value>().await.unwrap()["code"], "too_large");
}

#[tokio::test]
async fn a_job_that_cannot_be_is_refused_and_one_that_cannot_be_queued_says_why() {
    let server = running(None).await;
    let job = |pipeline: &str, dataset: &str| json!({ "version": 1, "id": "j", "kind": "backfill", "pipeline": pipeline, "dataset": dataset });
    let cases = [
        (json!({ "version": 1, "kind": "reembed", "pipeline": "notes" }), 400, "`id` is missing; give the job a name of its own"),
        (job("note", "archive"), 400, "no pipeline is named `note`; did you mean `notes`?"),
        (job("notes", "archiv"), 400, "dataset `archiv` is not configured; did you mean `archive`?"),
        (job("notes", "archive"), 503, "the database is unavailable; try again later"),
    ];
    for (body, status, message) in cases {
        let response = server.client.post(format!("{}/v1/jobs", server.url)).json(&body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "for {body}");
        assert_eq!(response.json::<Value>().await.unwrap()["detail"], message, "for {body}");
    }
    for (path, status) in [("/v1/jobs?limit=101", 400), ("/v1/jobs?status=queued", 400), ("/v1/jobs", 503), ("/v1/jobs/j", 503)] {
        assert_eq!(server.get(path).await.status().as_u16(), status, "for {path}");
    }
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(text.contains("tidemill_http_requests_total{route=\"/v1/jobs/{id}\",status=\"503\"}"), "{text}");
}

#[tokio::test]
async fn a_shutdown_ends_the_server_whatever_callers_do() {
    let server = running(None).await;
    server.get("/healthz").await;
    let mut slow_caller = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    slow_caller
        .write_all(
            b"POST /v1/search HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{",
        )
        .await
        .unwrap();
    // Once another request is answered, this one is being served.
    server.get("/healthz").await;
    server.stop.send(()).unwrap();
    tokio::time::timeout(connections::SHUTDOWN_TIMEOUT * 3, server.served)
        .await
        .expect("the server waits for a slow caller")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_process_that_loads_is_alive_and_not_ready_and_hands_its_callers_on() {
    let (config, auth) = (loopback(), Authenticator::new(&loopback(), None));
    let listener = bind(&config, no_tokens).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = client();
    let status = async |path: &str| client.get(format!("{url}{path}")).send().await.unwrap().status();
    let seen = serve_during_startup(&listener, &auth, async {
        [status("/healthz").await, status("/readyz").await, status("/metrics").await, status("/v1/search").await]
    });
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(seen.await.unwrap(), [StatusCode::OK, unavailable, StatusCode::OK, unavailable]);
    let early = tokio::spawn(client.get(format!("{url}/healthz")).send());
    // It waits in the socket's queue until the whole service runs.
    tokio::task::yield_now().await;
    let services = services(Health::new(), auth.clone());
    let served = tokio::spawn(serve(listener, services, std::future::pending()));
    assert_eq!(early.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(status("/v1/search").await, StatusCode::METHOD_NOT_ALLOWED, "the whole service responds");
    served.abort();
}

#[tokio::test]
async fn documents_and_answers_are_refused_with_the_mend() {
    let server = running(None).await;
    let read = async |response: reqwest::Response| {
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap().to_string())
    };
    for (path, status, message) in [
        ("/v1/documents/x?pipeline=note", 400, "did you mean `notes`?"),
        ("/v1/documents/x?pipelin=notes", 400, "pipelin"),
        ("/v1/documents/x%00", 400, "U+0000"),
        ("/v1/documents/x", 503, "the database is unavailable"),
    ] {
        let (seen, text) = read(server.get(path).await).await;
        assert_eq!(seen, status, "for {path}: {text}");
        assert!(text.contains(message), "for {path}: {text}");
    }
    for (body, message) in [
        (json!({ "question": "" }), "`question` is empty"),
        (json!({ "question": "x", "pipeline": "note" }), "did you mean `notes`?"),
        (json!({ "question": "x" }), "has no model for answers"),
        (json!({ "question": "x", "model": "clerk" }), "pipeline `notes` names no generator `clerk`"),
        (json!({ "query": "x" }), "unknown key `query`"),
    ] {
        let response = server.client.post(format!("{}/v1/answer", server.url)).json(&body).send().await.unwrap();
        let (status, text) = read(response).await;
        assert!(status == 400 && text.contains(message), "for {body}: {status} {text}");
    }
}
