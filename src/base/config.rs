//! The operator's configuration: `tidemill.toml`, then `TIDEMILL_*` variables, then flags.

mod address;
mod device;
mod engine;
mod kafka;
mod load;
mod model;
mod registry;
mod schedule;
mod secret;
mod server;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use crate::access::DEFAULT_TENANT;

pub use device::{ComputeDevice, ComputeDevices};
pub use engine::EngineConfig;
pub use kafka::{KafkaConfig, KafkaSecurityConfig, SaslMechanism, SecurityProtocol};
pub use load::{ConfigError, Flag};
pub use model::{ModelConfig, ModelLocation, ModelServer};
pub use registry::{RegistryConnection, SchemaRegistryConfig};
pub use schedule::{OverlapPolicy, ScheduleConfig};
pub use server::{ServerConfig, ServerLimitsConfig};
pub use webhook::{WebhookConfig, WebhookTarget};

/// Everything an operator sets. Pipelines name models and datasets; only this names paths, hosts and secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Private data: the embedded Postgres of `demo`, and datasets without a path of their own.
    pub data_dir: PathBuf,
    /// The folder of pipeline files.
    pub pipelines: PathBuf,
    /// Postgres.
    pub database: DatabaseConfig,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The registry of Avro schemas.
    pub schema_registry: SchemaRegistryConfig,
    /// The HTTP server.
    pub server: ServerConfig,
    /// The model host.
    pub engine: EngineConfig,
    /// Models by the name that pipelines use.
    pub models: BTreeMap<String, ModelConfig>,
    /// Datasets by the name that pipelines use.
    pub datasets: BTreeMap<String, DatasetConfig>,
    /// Receivers by the name that pipelines use.
    pub webhooks: BTreeMap<String, WebhookConfig>,
    /// Jobs: backfills and other work that somebody asks for.
    pub jobs: JobsConfig,
    /// Schedules by name, besides those of pipeline files.
    pub schedules: BTreeMap<String, ScheduleConfig>,
    /// Bounds on what is held in memory and waited for.
    pub limits: LimitsConfig,
}

/// Where Postgres is.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/name`. Never printed.
    pub url: Option<String>,
    /// A file that holds the URL, for secrets mounted as files.
    pub url_file: Option<PathBuf>,
    /// Connections of this process for what it does itself; 10 unless told.
    pub max_connections: Option<u32>,
    /// Connections besides, for what people and programs ask over HTTP; 6 unless told.
    pub question_connections: Option<u32>,
    /// Seconds that a statement or a transaction may take before the database counts as gone; 90 unless told.
    pub deadline_seconds: Option<u64>,
}

/// Where a dataset's files are: in a folder (`path`) or in a bucket (`url`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetConfig {
    /// A folder on local disk.
    pub path: PathBuf,
    /// `s3://bucket/prefix`; datasets in buckets are read by jobs and not written.
    pub url: Option<String>,
    /// The address of an S3-compatible service; Amazon's unless told.
    pub endpoint: Option<String>,
    /// The bucket's region; us-east-1 unless told.
    pub region: Option<String>,
    /// The variable of the environment that holds the access key; requests are not signed without one.
    pub access_key_env: Option<String>,
    /// The variable of the environment that holds the secret key.
    pub secret_key_env: Option<String>,
    /// Whose it is: jobs that a token of another tenant asks for may not read it. `default` unless told.
    pub tenant: Option<String>,
}

impl DatasetConfig {
    /// A folder on local disk.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Whose it is.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }
}

/// Jobs, and the topics that they live on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Whether this process takes part: takes jobs in, plans them and works off units.
    pub enabled: bool,
    /// The topic that jobs arrive on.
    pub topic: String,
    /// The topic that hands units out. Its partitions bound how many are worked on at a time.
    pub units_topic: String,
    /// The topic that every change of a job is told on.
    pub events_topic: String,
    /// Units that this process works on at a time.
    pub units_at_a_time: usize,
    /// Jobs that run at a time; others wait by priority.
    pub jobs_at_a_time: usize,
    /// Seconds that a unit is to take.
    pub unit_seconds: u64,
    /// What an hour of a device costs, in whatever currency; plans and budgets speak of money only where it is set.
    pub price_per_device_hour: Option<f64>,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            topic: "tidemill.jobs".into(),
            units_topic: "tidemill.units".into(),
            events_topic: "tidemill.job-events".into(),
            units_at_a_time: 2,
            jobs_at_a_time: 4,
            unit_seconds: 45,
            price_per_device_hour: None,
        }
    }
}

/// Bounds on what one process holds and waits for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of records read and not yet committed, of one pipeline. Reading pauses there and resumes at half.
    pub in_flight_bytes: usize,
    /// How long a drain may take on shutdown.
    pub drain_seconds: u64,
    /// How long the oldest batch may be in flight before the process gives itself up.
    pub watchdog_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: ".tidemill".into(),
            pipelines: "pipelines".into(),
            database: DatabaseConfig::default(),
            kafka: KafkaConfig::default(),
            schema_registry: SchemaRegistryConfig::default(),
            server: ServerConfig::default(),
            engine: EngineConfig::default(),
            models: BTreeMap::new(),
            datasets: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            jobs: JobsConfig::default(),
            schedules: BTreeMap::new(),
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { in_flight_bytes: 16 << 20, drain_seconds: 20, watchdog_seconds: 600 }
    }
}

impl std::fmt::Debug for DatabaseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.url.as_ref().map(|_| "<secret>");
        f.debug_struct("DatabaseConfig").field("url", &url).field("url_file", &self.url_file).finish_non_exhaustive()
    }
}
