//! The registry of Avro schemas, by Confluent's API.
//!
//! What an id stands for never changes, so a schema is asked for once and kept.
//!
//! | what comes back | what follows |
//! |---|---|
//! | a schema | kept; the types of others that it names are asked for, too |
//! | 404 with a code of the API | a dead letter for each record that names the id; asked again after some seconds, as it may be registered late |
//! | no connection, no answer in time, 408, 425, 429, 5xx | a pause of the stream |
//! | anything else, a 404 of something that is no registry among it | a pause of the stream: the settings are at fault |

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

/// A registry and what it has said. Clones share it.
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
    /// When it last failed to answer, where it has not answered since.
    failed: Mutex<Option<Instant>>,
}

/// What is known of an id: the cell is filled once, whoever asks meanwhile waits for the same answer.
struct CachedSchema {
    answer: OnceCell<SchemaLookup>,
    asked: Instant,
}

/// The schema of an id, or why no record that names it can be read.
type SchemaLookup = Result<Arc<Schema>, Poison>;

/// Ids that are kept. A topic has a few schemas, and a pipeline one topic; the bound is for payloads that name ids at random.
const KEPT: usize = 1000;
/// How long a registry is believed that it does not know an id: its replicas learn of new ones in less.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// How long a failure counts that nobody repeats. Whoever needs an answer asks again sooner, so that nobody needs it any more.
const FORGIVEN_AFTER: Duration = Duration::from_secs(90);
/// Calls at the same time.
const CALLS: usize = 8;
/// The longest answer. Schemas have kilobytes.
const MAX_BYTES: usize = 4 << 20;
/// Schemas that one may refer to, in turn or at once.
const MAX_REFERENCES: usize = 200;
/// The longest that a registry may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A schema as the API tells it.
#[derive(Debug, Deserialize)]
struct Told {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// Where the types of another schema are registered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
struct Reference {
    subject: String,
    version: i64,
}

#[derive(Debug, Deserialize)]
struct ErrorResponse {
    error_code: i64,
}

/// An answer of the API: what was asked for, or that there is none.
enum Answer {
    Told(Told),
    Unknown,
    /// It is there, and no use.
    Poison(String),
}

impl Registry {
    /// The configured registry, if there is one. It is not spoken to: it may be down when the process starts.
    ///
    /// # Errors
    /// Where the settings contradict each other, or a secret is missing.
    pub fn new(config: &SchemaRegistryConfig, health: Health) -> Result<Option<Self>, ConfigError> {
        let Some(place) = config.place()? else { return Ok(None) };
        let client = http::client(&place.url, |builder| builder.timeout(place.timeout))
            .map_err(|error| ConfigError(format!("`schema_registry`: cannot prepare connections: {}", http::reason(&error))))?;
        let (gate, known, failed) = (BackoffGate::default(), Mutex::default(), Mutex::default());
        Ok(Some(Self { shared: Arc::new(Shared { place, client, gate, health, known, failed }) }))
    }

    /// What the ids stand for.
    ///
    /// # Errors
    /// Where the registry does not answer: ask again.
    pub async fn schemas(&self, ids: &BTreeSet<u32>) -> Result<Schemas, Transient> {
        let found = stream::iter(ids.iter().copied().map(|id| async move { Ok((id, self.shared.schema(id).await?)) }));
        let found: Vec<(u32, SchemaLookup)> = found.buffer_unordered(CALLS).try_collect().await?;
        Ok(found.into_iter().collect())
    }

    /// Takes back that the registry is out of order, where those who needed it are gone: their partition is another's by now.
    pub fn clear_old_failure(&self) {
        let mut failed = self.shared.failed();
        if failed.is_some_and(|failed| failed.elapsed() >= FORGIVEN_AFTER) {
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
            if !entry.answer.get().is_some_and(unknown) || entry.asked.elapsed() < UNKNOWN_FOR {
                return entry.clone();
            }
        }
        if known.len() >= KEPT {
            // Those without a schema first: they are why there are so many.
            known.retain(|_, entry| matches!(entry.answer.get(), Some(Ok(_))));
        }
        if known.len() >= KEPT
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
        let told = match answer {
            Answer::Told(told) => told,
            Answer::Unknown => return Ok(Err(unknown(format!("the registry knows no schema {id}")))),
            Answer::Poison(reason) => return Ok(Err(malformed(format!("schema {id} {reason}")))),
        };
        if let Some(kind) = told.kind.as_deref().filter(|kind| *kind != "AVRO") {
            return Ok(Err(malformed(format!("schema {id} is of the type {kind}, not AVRO"))));
        }
        let references = match self.references(id, told.references).await? {
            Ok(references) => references,
            Err(poison) => return Ok(Err(poison)),
        };
        Ok(Schema::parse(id, &told.schema, &references).map(Arc::new))
    }

    /// The schemas that are referred to, and those that they refer to: each before those that name it.
    async fn references(&self, id: u32, wanted: Vec<Reference>) -> Result<Result<Vec<String>, Poison>, Transient> {
        enum Step {
            Ask(Reference),
            Place(String),
        }
        let (mut met, mut texts) = (HashSet::new(), Vec::new());
        let mut steps: Vec<Step> = wanted.into_iter().rev().map(Step::Ask).collect();
        while let Some(step) = steps.pop() {
            let reference = match step {
                Step::Place(text) => {
                    texts.push(text);
                    continue;
                }
                Step::Ask(reference) if met.insert(reference.clone()) => reference,
                Step::Ask(_) => continue,
            };
            if met.len() > MAX_REFERENCES {
                return Ok(Err(malformed(format!("schema {id} refers to more than {MAX_REFERENCES} others"))));
            }
            let Reference { subject, version } = &reference;
            match self.ask(&["subjects", subject, "versions", &version.to_string()]).await? {
                Answer::Told(told) => {
                    steps.push(Step::Place(told.schema));
                    steps.extend(told.references.into_iter().rev().map(Step::Ask));
                }
                Answer::Unknown => {
                    let reason =
                        format!("schema {id} refers to version {version} of `{subject}`, which the registry does not know");
                    return Ok(Err(unknown(reason)));
                }
                Answer::Poison(reason) => {
                    return Ok(Err(malformed(format!(
                        "version {version} of `{subject}`, to which schema {id} refers, {reason}"
                    ))));
                }
            }
        }
        Ok(Ok(texts))
    }

    async fn ask(&self, path: &[&str]) -> Result<Answer, Transient> {
        let mut url: Url = self.place.url.clone();
        // Every address that the configuration lets pass has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        self.gate.pass().await;
        let mut request = self.client.get(url).header(ACCEPT, "application/vnd.schemaregistry.v1+json, application/json");
        if let Some((username, password)) = &self.place.credentials {
            request = request.basic_auth(username, Some(password));
        }
        let response = request.send().await.map_err(|error| transient(format!("cannot be asked: {}", http::reason(&error))))?;
        let status = response.status();
        let asked = retry_after(response.headers(), jiff::Timestamp::now());
        let body = match http::read(response, MAX_BYTES).await {
            Ok(body) => body,
            Err(http::BodyError::Broken(reason)) => return Err(transient(format!("breaks off its answer: {reason}"))),
            Err(http::BodyError::TooLarge) => return Ok(Answer::Poison(format!("is larger than {MAX_BYTES} bytes"))),
        };
        match StatusClass::of(status) {
            StatusClass::Answer => match serde_json::from_slice(&body) {
                Ok(told) => Ok(Answer::Told(told)),
                Err(_) => Err(transient("answers with something that is no schema; correct `schema_registry.url`")),
            },
            StatusClass::Again => {
                self.gate.close(asked.unwrap_or_default().min(LONGEST_WAIT));
                Err(transient(format!("answers {status}")))
            }
            StatusClass::Settings | StatusClass::Request if is_unknown(status, &body) => Ok(Answer::Unknown),
            StatusClass::Settings | StatusClass::Request => Err(transient(self.settings_at_fault(status))),
        }
    }

    fn settings_at_fault(&self, status: StatusCode) -> String {
        match (status.as_u16(), &self.place.credentials) {
            (401 | 403, Some((username, _))) => {
                format!("refuses the user {username:?} ({status}); correct `schema_registry.username` or its password")
            }
            (401 | 403, None) => {
                format!("asks for a user ({status}); set `schema_registry.username` and `schema_registry.password_env`")
            }
            _ => format!("does not know what a registry knows ({status}); correct `schema_registry.url`"),
        }
    }
}

/// Whether the API itself says that there is no such schema, subject or version. A wrong address gives a 404, too, and must not
/// make dead letters of a whole topic.
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
