//! A client for the Avro schema registry (Confluent API).
//!
//! The schema of an id never changes, so each schema is requested once and cached.
//!
//! | answer | result |
//! |---|---|
//! | a schema | cached; schemas that it refers to are requested too |
//! | 404 with an error code of the API | a dead letter for each record with the id; requested again after some seconds, because the schema may be registered late |
//! | no connection, no answer in time, 408, 425, 429, 5xx | a pause of the stream |
//! | anything else, including a 404 from a server that is not a registry | a pause of the stream; the settings are wrong |

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::ACCEPT;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::config::{ConfigError, RegistryConnection, SchemaRegistryConfig};
use crate::document::avro::{Schema, Schemas};
use crate::failure::{Component, FailureClass, Poison, Transient};
use crate::health::Health;
use crate::http;
use crate::http::retry::{BackoffGate, StatusClass, retry_after};

/// A client with its cache. Clones share both.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    place: RegistryConnection,
    client: Client,
    gate: BackoffGate,
    health: Health,
    known: Mutex<HashMap<u32, Arc<CachedSchema>>>,
    /// When the registry last failed, if it has not answered since.
    failed: Mutex<Option<Instant>>,
}

/// The cached answer for an id. Concurrent requests for the same id wait for one answer.
struct CachedSchema {
    answer: OnceCell<SchemaLookup>,
    asked: Instant,
}

/// The schema of an id, or why records with this id cannot be decoded.
type SchemaLookup = Result<Arc<Schema>, Poison>;

/// Most cached ids. A pipeline reads one topic, and a topic has a few schemas. The limit protects against payloads with random ids.
const MAX_ENTRIES: usize = 1000;
/// How long an unknown id is cached. Replicas of a registry receive new schemas in less time.
const UNKNOWN_TTL: Duration = Duration::from_secs(10);
/// How long a failure is reported without being repeated. Partitions that need an answer retry sooner, so after this time none
/// needs it any more.
const FAILURE_EXPIRES_AFTER: Duration = Duration::from_secs(90);
const CALLS: usize = 8;
/// Largest response in bytes. Schemas have a few kilobytes.
const MAX_BYTES: usize = 4 << 20;
/// Most schemas that one schema may refer to, directly or indirectly.
const MAX_REFERENCES: usize = 200;
/// The longest wait that a registry can request.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A schema response of the API.
#[derive(Debug, Deserialize)]
struct SchemaResponse {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// A reference to another registered schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Debug, Deserialize)]
struct ErrorResponse {
    error_code: i64,
}

/// An answer of the API.
enum RegistryAnswer {
    Schema(SchemaResponse),
    Unknown,
    /// The schema exists but cannot be used.
    Poison(String),
}

impl Registry {
    /// The configured registry, if there is one. This does not connect, because the registry may be down when the process starts.
    ///
    /// # Errors
    /// If the settings contradict each other, or a secret is missing.
    pub fn new(config: &SchemaRegistryConfig, health: Health) -> Result<Option<Self>, ConfigError> {
        let Some(place) = config.place()? else { return Ok(None) };
        let client = http::client(&place.url, |builder| builder.timeout(place.timeout))
            .map_err(|error| ConfigError(format!("`schema_registry`: cannot prepare connections: {}", http::reason(&error))))?;
        let (gate, known, failed) = (BackoffGate::default(), Mutex::default(), Mutex::default());
        Ok(Some(Self { shared: Arc::new(Shared { place, client, gate, health, known, failed }) }))
    }

    /// The schemas of the ids.
    ///
    /// # Errors
    /// If the registry does not answer. Try again later.
    pub async fn schemas(&self, ids: &BTreeSet<u32>) -> Result<Schemas, Transient> {
        let found = stream::iter(ids.iter().copied().map(|id| async move { Ok((id, self.shared.schema(id).await?)) }));
        let found: Vec<(u32, SchemaLookup)> = found.buffer_unordered(CALLS).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    /// Marks the registry as available again if nothing has needed it for a while. This happens when the partition that needed it
    /// was assigned to another process.
    pub fn clear_old_failure(&self) {
        let mut failed = self.shared.failed();
        if failed.is_some_and(|failed| failed.elapsed() >= FAILURE_EXPIRES_AFTER) {
            *failed = None;
            self.shared.health.up(Component::Registry);
        }
    }
}

impl Shared {
    async fn schema(&self, id: u32) -> Result<SchemaLookup, Transient> {
        let entry = self.entry(id);
        let found = entry.answer.get_or_try_init(|| self.look_up(id)).await;
        if found.is_err() {
            *self.failed() = Some(Instant::now());
        }
        found.cloned()
    }

    fn entry(&self, id: u32) -> Arc<CachedSchema> {
        let mut known = self.known();
        if let Some(entry) = known.get(&id) {
            let unknown = |found: &SchemaLookup| matches!(found, Err(poison) if poison.class == FailureClass::UnknownSchema);
            if !entry.answer.get().is_some_and(unknown) || entry.asked.elapsed() < UNKNOWN_TTL {
                return entry.clone();
            }
        }
        if known.len() >= MAX_ENTRIES {
            // Removes ids without a schema first, because they are the likely cause of so many entries.
            known.retain(|_, entry| matches!(entry.answer.get(), Some(Ok(_))));
        }
        if known.len() >= MAX_ENTRIES
            && let Some(any) = known.keys().next().copied()
        {
            known.remove(&any);
        }
        let entry = Arc::new(CachedSchema { answer: OnceCell::new(), asked: Instant::now() });
        known.insert(id, entry.clone());
        entry
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u32, Arc<CachedSchema>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_up(&self, id: u32) -> Result<SchemaLookup, Transient> {
        let answer = self.ask(&["schemas", "ids", &id.to_string()]).await?;
        *self.failed() = None;
        self.health.up(Component::Registry);
        let response = match answer {
            RegistryAnswer::Schema(response) => response,
            RegistryAnswer::Unknown => return Ok(Err(unknown(format!("the registry has no schema {id}")))),
            RegistryAnswer::Poison(reason) => return Ok(Err(malformed(format!("schema {id} {reason}")))),
        };
        if let Some(kind) = response.kind.as_deref().filter(|kind| *kind != "AVRO") {
            return Ok(Err(malformed(format!("schema {id} is of the type {kind}, not AVRO"))));
        }
        let references = match self.references(id, response.references).await? {
            Ok(references) => references,
            Err(poison) => return Ok(Err(poison)),
        };
        Ok(Schema::parse(id, &response.schema, &references).map(Arc::new))
    }

    /// All schemas referred to, directly or indirectly. Each comes before the schemas that refer to it.
    async fn references(&self, id: u32, wanted: Vec<Reference>) -> Result<Result<Vec<String>, Poison>, Transient> {
        enum Visit {
            Request(Reference),
            Collect(String),
        }
        let (mut seen, mut texts) = (HashSet::new(), Vec::new());
        let mut visits: Vec<Visit> = wanted.into_iter().rev().map(Visit::Request).collect();
        while let Some(visit) = visits.pop() {
            let reference = match visit {
                Visit::Collect(text) => {
                    texts.push(text);
                    continue;
                }
                Visit::Request(reference) if seen.insert(reference.clone()) => reference,
                Visit::Request(_) => continue,
            };
            if seen.len() > MAX_REFERENCES {
                return Ok(Err(malformed(format!("schema {id} refers to more than {MAX_REFERENCES} others"))));
            }
            let Reference { subject, version } = &reference;
            match self.ask(&["subjects", subject, "versions", &version.to_string()]).await? {
                RegistryAnswer::Schema(response) => {
                    visits.push(Visit::Collect(response.schema));
                    visits.extend(response.references.into_iter().rev().map(Visit::Request));
                }
                RegistryAnswer::Unknown => {
                    let reason =
                        format!("schema {id} refers to version {version} of `{subject}`, which the registry does not know");
                    return Ok(Err(unknown(reason)));
                }
                RegistryAnswer::Poison(reason) => {
                    return Ok(Err(malformed(format!(
                        "version {version} of `{subject}`, which schema {id} refers to, {reason}"
                    ))));
                }
            }
        }
        Ok(Ok(texts))
    }

    async fn ask(&self, path: &[&str]) -> Result<RegistryAnswer, Transient> {
        let mut url: Url = self.place.url.clone();
        // The configuration accepts only URLs that can have a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.gate.pass().await;
        let mut request = self.client.get(url).header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        if let Some((username, password)) = &self.place.credentials {
            request = request.basic_auth(username, Some(password));
        }
        let response = request.send().await.map_err(|error| transient(format!("cannot be reached: {}", http::reason(&error))))?;
        let status = response.status();
        let asked = retry_after(response.headers(), jiff::Timestamp::now());
        let body = match http::read(response, MAX_BYTES).await {
            Ok(body) => body,
            Err(http::BodyError::Broken(reason)) => return Err(transient(format!("did not complete its answer: {reason}"))),
            Err(http::BodyError::TooLarge) => return Ok(RegistryAnswer::Poison(format!("is larger than {MAX_BYTES} bytes"))),
        };
        match StatusClass::of(status) {
            StatusClass::Answer => match serde_json::from_slice(&body) {
                Ok(response) => Ok(RegistryAnswer::Schema(response)),
                Err(_) => Err(transient("answers with something that is not a schema; correct `schema_registry.url`")),
            },
            StatusClass::Again => {
                self.gate.close(asked.unwrap_or_default().min(LONGEST_WAIT));
                Err(transient(format!("answers {status}")))
            }
            StatusClass::Settings | StatusClass::Request if is_unknown(status, &body) => Ok(RegistryAnswer::Unknown),
            StatusClass::Settings | StatusClass::Request => Err(transient(self.settings_at_fault(status))),
        }
    }

    fn settings_at_fault(&self, status: StatusCode) -> String {
        match (status.as_u16(), &self.place.credentials) {
            (401 | 403, Some((username, _))) => {
                format!("refuses the user {username:?} ({status}); correct `schema_registry.username` or its password")
            }
            (401 | 403, None) => {
                format!("requires a user ({status}); set `schema_registry.username` and `schema_registry.password_env`")
            }
            _ => format!("does not answer like a schema registry ({status}); correct `schema_registry.url`"),
        }
    }
}

/// Whether the API reports that the schema, subject or version does not exist. A wrong address returns 404 too, and must not turn a
/// whole topic into dead letters.
fn is_unknown(status: StatusCode, body: &[u8]) -> bool {
    let code = serde_json::from_slice::<ErrorResponse>(body).map(|refused| refused.error_code);
    status == StatusCode::NOT_FOUND && matches!(code, Ok(40401..=40403))
}

fn transient(reason: impl std::fmt::Display) -> Transient {
    Transient::new(Component::Registry, format!("the schema registry {reason}"))
}

fn unknown(reason: String) -> Poison {
    Poison { class: FailureClass::UnknownSchema, reason }
}

fn malformed(reason: String) -> Poison {
    Poison { class: FailureClass::MalformedAvro, reason }
}
