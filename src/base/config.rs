//! The operator's configuration: `tidemill.toml`, then `TIDEMILL_*` variables, then flags.

mod address;
mod device;
mod engine;
mod error;
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
pub use error::ConfigError;
pub use kafka::{KafkaConfig, KafkaSecurityConfig, SaslMechanism, SecurityProtocol};
pub use load::Flag;
pub use model::{ModelConfig, ModelLocation, ModelServer};
pub use registry::{RegistryConnection, SchemaRegistryConfig};
pub use schedule::{OverlapPolicy, ScheduleConfig};
pub use server::{ServerConfig, ServerLimitsConfig};
pub use webhook::{WebhookConfig, WebhookTarget};

/// The whole configuration of a process. Pipeline files refer to models, datasets and webhooks by name; only the configuration has
/// paths, addresses and secrets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder for the embedded Postgres of `demo`, and for datasets without a path of their own.
    pub data_dir: PathBuf,
    /// The folder of pipeline files.
    pub pipelines: PathBuf,
    pub database: DatabaseConfig,
    pub kafka: KafkaConfig,
    pub schema_registry: SchemaRegistryConfig,
    pub server: ServerConfig,
    pub engine: EngineConfig,
    /// Models by the name that pipelines use.
    pub models: BTreeMap<String, ModelConfig>,
    /// Datasets by the name that pipelines use.
    pub datasets: BTreeMap<String, DatasetConfig>,
    /// Webhooks by the name that pipelines use.
    pub webhooks: BTreeMap<String, WebhookConfig>,
    pub jobs: JobsConfig,
    /// Schedules by name, besides those of pipeline files.
    pub schedules: BTreeMap<String, ScheduleConfig>,
    pub limits: LimitsConfig,
}

/// The connection to Postgres.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/name`. Never printed.
    pub url: Option<String>,
    /// A file with the URL, for secrets that are mounted as files.
    pub url_file: Option<PathBuf>,
    /// Connections of this process for its pipelines and jobs. The default is 10.
    pub max_connections: Option<u32>,
    /// Further connections for HTTP requests. The default is 6.
    pub question_connections: Option<u32>,
    /// How long a statement or a transaction may take before the database counts as unavailable. The default is 90.
    pub deadline_seconds: Option<u64>,
}

/// The location of a dataset's files: a folder (`path`) or a bucket (`url`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatasetConfig {
    /// A folder on local disk.
    pub path: PathBuf,
    /// `s3://bucket/prefix`. Jobs can read a dataset in a bucket; pipelines cannot write to it.
    pub url: Option<String>,
    /// The address of an S3-compatible service. The default is Amazon's.
    pub endpoint: Option<String>,
    /// The bucket's region. The default is us-east-1.
    pub region: Option<String>,
    /// The environment variable with the access key. Without one, requests are not signed.
    pub access_key_env: Option<String>,
    /// The environment variable with the secret key.
    pub secret_key_env: Option<String>,
    /// The tenant of the dataset. Jobs submitted with a token of another tenant may not read it. The default is `default`.
    pub tenant: Option<String>,
}

impl DatasetConfig {
    /// A folder on local disk.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// The tenant's name, or the default one.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }
}

/// Jobs and their topics.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// Whether this process accepts, plans and runs jobs.
    pub enabled: bool,
    /// The topic of submitted jobs.
    pub topic: String,
    /// The topic from which workers take units. Its number of partitions limits how many units run at the same time.
    pub units_topic: String,
    /// The topic of an event for every change of a job.
    pub events_topic: String,
    /// How many units this process runs at the same time.
    pub units_at_a_time: usize,
    /// How many jobs run at the same time. Others wait in the order of priority.
    pub jobs_at_a_time: usize,
    /// How long a unit should take. Jobs are divided into units accordingly.
    pub unit_seconds: u64,
    /// The price of one hour of a device, in any currency. Plans and budgets in money need it.
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

/// Limits of one process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// How many bytes of records one pipeline may have read and not yet committed. Reading pauses at this limit and resumes at half
    /// of it.
    pub in_flight_bytes: usize,
    /// How long a shutdown may take to finish batches in flight.
    pub drain_seconds: u64,
    /// How long the oldest batch may be in flight before the process ends itself.
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
