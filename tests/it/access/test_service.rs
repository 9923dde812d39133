//! A service in this process with two tenants, on a database of its own, without Kafka and models.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidemill::access::{NewSecret, Scope};
use tidemill::config::{DatasetConfig, EngineConfig, JobsConfig, ServerConfig};
use tidemill::copy::CopyService;
use tidemill::dashboard::Dashboard;
use tidemill::engine::Engine;
use tidemill::explain::Explainer;
use tidemill::failure::Component;
use tidemill::health::Health;
use tidemill::jobs::spec::JobSpec;
use tidemill::jobs::{JobService, KnownNames};
use tidemill::leads::LeadService;
use tidemill::pipeline::definition::Definition;
use tidemill::recommend::Recommender;
use tidemill::search::Searcher;
use tidemill::server::{self, Authenticator, Services};
use tidemill::store::{NewToken, Store};
use tokio::sync::oneshot;

use crate::harness::postgres;

/// The tenants; each has a pipeline `<tenant>-notes`, a dataset `<tenant>-archive`, a job `<tenant>-job` and a document.
pub const TENANTS: [&str; 2] = ["acme", "globex"];

/// A running service.
pub struct TestService {
    pub store: Store,
    /// The ledger's address.
    pub database_url: String,
    /// The address of the service.
    pub url: String,
    client: Client,
    _stop: oneshot::Sender<()>,
}

impl TestService {
    /// Starts a service with a document and a job of each tenant.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same, with other settings of the server.
    pub async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let database = postgres::database().await;
        let definitions = TENANTS.map(|tenant| {
            let text = format!(
                "version: 1\nname: {tenant}-notes\ntenant: {tenant}\nsource: {{ topic: {tenant}, metadata: [note] }}\n\
                 tasks:\n  copy: {{ render: {{ template: \"{{{{ document.text }}}}!\" }} }}\n  worth: {{ score: {{ parts: {{ all: '80' }} }} }}\n\
                 leads: {{ score: worth, threshold: 70, company: document.metadata.note }}\n"
            );
            Definition::parse(Path::new("notes.yaml"), &text).unwrap()
        });
        for definition in &definitions {
            database.store.enroll_pipeline(&definition.name, &definition.tenant).await.unwrap();
        }
        let dataset = |tenant: &str| DatasetConfig { tenant: Some(tenant.into()), ..DatasetConfig::local("archive") };
        let datasets: BTreeMap<_, _> = TENANTS.map(|tenant| (format!("{tenant}-archive"), dataset(tenant))).into();
        let engine = Engine::start(&EngineConfig::default(), &BTreeMap::new()).unwrap();
        let mut config = ServerConfig { listen: "127.0.0.1:0".into(), ..ServerConfig::default() };
        change(&mut config);
        let health = Health::new();
        Component::ALL.iter().for_each(|component| health.up(*component));
        let service = Services {
            health,
            searcher: Searcher::new(database.store.clone(), engine, &definitions),
            recommender: Recommender::new(&database.store, &definitions),
            explainer: Explainer::new(database.store.clone(), &definitions, None),
            job_service: JobService::new(
                database.store.clone(),
                &JobsConfig::default(),
                KnownNames::new(&definitions, &datasets),
            ),
            dashboard: Dashboard::new(database.store.clone(), &definitions, None),
            copy: CopyService::new(database.store.clone(), &definitions),
            leads: LeadService::new(database.store.clone(), &definitions),
            auth: Authenticator::new(&config, Some(database.store.clone())),
        };
        let listener = server::bind(&config, async || Ok(false)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(server::serve(listener, service, async { drop(stopped.await) }));
        let service = Self { store: database.store, database_url: database.url, url, client: Client::new(), _stop: stop };
        for tenant in TENANTS {
            service.write(&format!("{tenant}-notes"), &format!("{tenant}-1"), &format!("A secret plan of {tenant}")).await;
            service.ask_for_job(tenant).await;
        }
        service
    }

    /// Stores a document with an output, a vector, a dead letter, a lead and an interaction, as batches of the pipeline do.
    pub async fn write(&self, pipeline: &str, id: &str, text: &str) {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        sqlx::query(
            "WITH batch AS (
                 INSERT INTO batches (id, pipeline, topic, partition, from_offset, to_offset, epoch, records,
                                      units_in, units_ok, units_reused, units_skipped, units_dead, parquet_rows)
                 VALUES (gen_random_uuid(), $1, 't', 0, 0, 1, 1, 1, 2, 1, 0, 0, 1, 0) RETURNING id),
             document AS (
                 INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
                 SELECT $1, $2, 1, false, $3, '{}', id FROM batch),
             result AS (
                 INSERT INTO results (pipeline, document_id, task, kind, version, fields, fingerprint, tokens, device_micros, batch_id)
                 SELECT $1, $2, 'copy', 'render', 1, '{}', '', 1, 1, id FROM batch),
             deed AS (
                 INSERT INTO interactions (pipeline, document_id, task, target, item, user_id, kind, at)
                 VALUES ($1, $2, 'copy', $1, $2, 'somebody', 'view', now())),
             lead AS (
                 INSERT INTO leads (pipeline, document_id, version, content, score, maximum, parts, company, account, above)
                 VALUES ($1, $2, 1, '', 80, 100, '[]', $1, replace($1, '-', ' '), true)),
             company AS (INSERT INTO accounts (pipeline, key, name, documents) VALUES ($1, replace($1, '-', ' '), $1, 1)),
             told AS (
                 INSERT INTO deliveries (id, pipeline, document_id, crossing, webhook, body)
                 VALUES (gen_random_uuid(), $1, $2, 1, 'crm', '{}')),
             spent AS (
                 INSERT INTO usage (batch_id, pipeline, task, ok, reused, skipped, dead, tokens, device_micros)
                 SELECT id, $1, 'copy', 1, 0, 0, 1, 1, 1 FROM batch),
             parked AS (
                 INSERT INTO parked_events (id, event_id, pipeline, topic, key, keyless, payload, headers, reason)
                 SELECT count(*) + 1, gen_random_uuid(), $1, 'results', convert_to($2, 'UTF8'), false, '', '{}', $3 FROM parked_events),
             space AS (
                 INSERT INTO embedding_sets AS s (model, revision, dimension) VALUES ('m', 'r', 3)
                 ON CONFLICT (model, revision) DO UPDATE SET dimension = s.dimension RETURNING id),
             embedding AS (
                 INSERT INTO embeddings (set_id, pipeline, document_id, task, chunk, span_start, span_end, tokens, vector)
                 SELECT id, $1, $2, 'vector', 0, 0, octet_length($3), 1, '[1,0,0]' FROM space)
             INSERT INTO dead_letters (pipeline, topic, partition, record_offset, task, class, reason, header_names, header_values, batch_id)
             SELECT $1, 't', 0, 0, 'copy', 'poison', 'why', '{}', '{}', id FROM batch",
        )
        .bind(pipeline)
        .bind(id)
        .bind(text)
        .execute(&mut connection)
        .await
        .unwrap();
    }

    async fn ask_for_job(&self, tenant: &str) {
        let job =
            json!({ "version": 1, "id": format!("{tenant}-job"), "kind": "reembed", "pipeline": format!("{tenant}-notes") });
        let spec = JobSpec::parse(job.to_string().as_bytes(), None).unwrap();
        self.store.submit_job(&spec.to_new(tenant, None, None).unwrap(), "events").await.unwrap();
        postgres::execute(
            &self.database_url,
            &format!(
                "INSERT INTO units (id, job_id, ordinal, topic, source, from_row, to_row, rows)
                 VALUES ('{tenant}-unit', '{tenant}:{tenant}-job', 0, 'job:{tenant}:{tenant}-job', '{{}}', 0, 1, 1)"
            ),
        )
        .await;
    }

    /// Makes a token of the tenant, or of none.
    pub async fn token(&self, tenant: Option<&str>, scopes: &[Scope]) -> String {
        self.token_until(tenant, scopes, None).await
    }

    /// Makes a token that expires.
    pub async fn token_until(&self, tenant: Option<&str>, scopes: &[Scope], expires_ms: Option<i64>) -> String {
        let secret = NewSecret::draw().unwrap();
        let token = NewToken {
            id: secret.id,
            name: "test".into(),
            hash: *secret.hash.as_bytes(),
            scopes: scopes.to_vec(),
            tenant: tenant.map(str::to_owned),
            expires_ms,
            created_by: "the tests".into(),
        };
        self.store.create_token(&token).await.unwrap();
        secret.token
    }

    /// Sends GET, or POST where there is a body.
    pub async fn ask(&self, token: Option<&str>, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.url);
        let request = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Sends a request that the caller builds.
    pub async fn ask_raw(&self, request: impl FnOnce(&Client) -> reqwest::RequestBuilder) -> reqwest::Response {
        request(&self.client).send().await.unwrap()
    }

    /// The single number that a query returns.
    pub async fn count(&self, query: &str) -> i64 {
        postgres::count(&self.database_url, query).await
    }

    /// Runs a statement in the role in which tenants read: its number, or the database's error.
    pub async fn as_reader(&self, tenant: Option<&str>, statement: &str) -> Result<i64, String> {
        let mut connection = PgConnection::connect(&self.database_url).await.unwrap();
        sqlx::query("SELECT set_config('tidemill.tenant', $1, false), set_config('role', 'tidemill_reader', false)")
            .bind(tenant)
            .execute(&mut connection)
            .await
            .unwrap();
        let answer = sqlx::query_scalar(AssertSqlSafe(statement.to_owned())).fetch_one(&mut connection).await;
        answer.map_err(|error| error.to_string())
    }
}

/// The tenant's name as a reader's configuration has it.
pub fn tenant(name: &str) -> Option<Arc<str>> {
    Some(name.into())
}
