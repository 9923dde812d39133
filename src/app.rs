//! The service: built once, run until told to stop.
//!
//! ```text
//!            ┌─ runner (one a pipeline, unless it is stopped): source → lanes → ledger
//! build ──▶  ├─ relay: outbox → topics
//!            ├─ couriers, one a webhook that a pipeline names: deliveries → receivers
//!            ├─ caretaker: health of database and models, sweep of files that never went live
//!            ├─ indexer: an index for each vector space that has become large
//!            └─ HTTP server
//! ```
//! On shutdown the runners drain first; the rest ends when they have.

mod supervisor;
pub mod tuning;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::supervisor::PipelineSupervisor;
use crate::broker::BrokerSettings;
use crate::config::{Config, ConfigError};
use crate::copy::CopyService;
use crate::dashboard::Dashboard;
use crate::engine::{BatchTuning, Engine, Priority};
use crate::explain::Explainer;
use crate::failure::{Component, Transient};
use crate::health::Health;
use crate::jobs::schedules::Schedule;
use crate::jobs::{JobPipeline, JobRunner, JobService, KnownNames, UnitWorker};
use crate::leads::LeadService;
use crate::metrics::METRICS;
use crate::pipeline::definition::{Definition, Start};
use crate::pipeline::definition_error::{DefinitionError, DefinitionProblem};
use crate::pipeline::{Dependencies, Isolation, PipelineRuntime, passages};
use crate::recommend::Recommender;
use crate::search::Searcher;
use crate::server::{self, Authenticator, Services};
use crate::sink::{Dataset, Relay, WebhookSender};
use crate::source::{KafkaSourceConfig, Registry, StartAt};
use crate::store::Store;

/// A Tidemill process.
pub struct App {
    /// Names this process in the ledger.
    owner: String,
    config: Config,
    access: BrokerSettings,
    registry: Option<Registry>,
    store: Store,
    engine: Engine,
    health: Health,
    definitions: Vec<Definition>,
    runtime: Vec<Arc<PipelineRuntime>>,
    job_pipelines: BTreeMap<Arc<str>, Arc<JobPipeline>>,
    schedules: Vec<Schedule>,
    couriers: Vec<WebhookSender>,
    datasets: Vec<Dataset>,
    isolation: Isolation,
    wedged: Arc<AtomicBool>,
}

/// How often the caretaker looks after the database and the models.
const CARE: Duration = Duration::from_secs(1);
/// How often it sweeps.
const SWEEP: Duration = Duration::from_secs(3600);
/// How old a file must be that never went live: far older than any commit can take.
const SWEPT_AFTER_SECONDS: f64 = 86_400.0;
/// How often the indexer looks for vector spaces that have become large.
const INDEXING: Duration = Duration::from_secs(10);
/// Changes of a pipeline's documents after which it brings counts of words together: a search adds up as many rows for each word.
const GATHERED_AFTER: i64 = 500;

impl App {
    /// Loads the models, brings the schema up to date and makes every pipeline ready.
    ///
    /// # Errors
    /// Where anything that the pipelines name is missing or at fault: it shows here, never at record 10,000.
    pub async fn build(config: Config, definitions: Vec<Definition>) -> Result<Self> {
        if definitions.is_empty() {
            return Err(ConfigError(format!("no pipeline in {}: put a pipeline file there", config.pipelines.display())).into());
        }
        let mut problems: Vec<DefinitionProblem> =
            definitions.iter().flat_map(|definition| definition.validate(&config)).collect();
        problems.extend(passages::problems(&definitions));
        if !problems.is_empty() {
            return Err(DefinitionError { problems }.into());
        }
        let schedules = schedules(&config, &definitions)?;
        let health = Health::new();
        let access = BrokerSettings::new(&config.kafka)?;
        let registry = Registry::new(&config.schema_registry, health.clone())?;
        METRICS.loading.set(1);
        let store = Store::connect(&config.database)?;
        let couriers = couriers(&config, &definitions, &store)?;
        store.migrate().await?;
        health.up(Component::Database);
        let (engine_config, mut models) = (config.engine.clone(), config.models.clone());
        models.retain(|name, _| definitions.iter().any(|definition| definition.models().contains(&name.as_str())));
        let engine = tokio::task::spawn_blocking(move || {
            Engine::start_with(&engine_config, &models, &BatchTuning::measured(tuning::folder()))
        })
        .await?
        .map_err(|error| ConfigError(error.to_string()))?;
        health.up(Component::Model);
        let owner = format!("{}-{}", std::process::id(), Uuid::new_v4().simple());
        let mut app = Self {
            owner,
            config,
            access,
            registry,
            store,
            engine,
            health,
            definitions: Vec::new(),
            runtime: Vec::new(),
            job_pipelines: BTreeMap::new(),
            schedules,
            couriers,
            datasets: Vec::new(),
            isolation: Isolation::default(),
            wedged: Arc::default(),
        };
        for definition in definitions {
            app.add(definition).await?;
        }
        app.health.up(Component::Storage);
        // It is asked when a schema is met for the first time, and is to blame from then on.
        app.health.up(Component::Registry);
        METRICS.loading.set(0);
        Ok(app)
    }

    async fn add(&mut self, definition: Definition) -> Result<()> {
        let dataset = match &definition.sinks.parquet {
            Some(sink) => Some(self.dataset(&definition, &sink.dataset.value)?),
            None => None,
        };
        let dependencies = Dependencies {
            engine: self.engine.clone(),
            registry: self.registry.clone(),
            store: self.store.clone(),
            dataset,
            health: self.health.clone(),
            watchdog: Duration::from_secs(self.config.limits.watchdog_seconds),
            isolation: self.isolation.clone(),
            wedged: self.wedged.clone(),
        };
        self.runtime.push(PipelineRuntime::new(&definition, dependencies.clone()).await?);
        if self.config.jobs.enabled {
            let engine = self.engine.with_priority(Priority::Backfill);
            let job_pipeline = JobPipeline::new(&definition, Dependencies { engine, ..dependencies }).await?;
            self.job_pipelines.insert(definition.name.clone(), Arc::new(job_pipeline));
        }
        self.definitions.push(definition);
        Ok(())
    }

    fn dataset(&mut self, definition: &Definition, name: &str) -> Result<Dataset> {
        let Some(dataset) = self.config.datasets.get(name) else {
            let message = format!("{}: dataset `{name}` is not configured; add [datasets.{name}]", definition.path.display());
            return Err(ConfigError(message).into());
        };
        let opened = Dataset::open(name, &dataset.path)
            .map_err(|error| ConfigError(format!("dataset `{name}`: cannot write to {}: {error}", dataset.path.display())))?;
        if !self.datasets.iter().any(|known| known.name() == name) {
            self.datasets.push(opened.clone());
        }
        Ok(opened)
    }

    /// The ledger.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The model host.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is in order.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Runs until `shutdown` turns true, then drains.
    ///
    /// # Errors
    /// Where a pipeline cannot go on; the others have drained by then.
    pub async fn run(mut self, listener: TcpListener, auth: Authenticator, shutdown: watch::Receiver<bool>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut helpers = JoinSet::new();
        let (store, engine, health) = (self.store.clone(), self.engine.clone(), self.health.clone());
        helpers.spawn(caretaker(store, engine, health, self.registry.clone(), self.datasets.clone()));
        helpers.spawn(indexer(self.store.clone()));
        helpers.spawn(Relay::new(self.store.clone(), &self.access, self.health.clone())?.run());
        let services = self.services(auth);
        for courier in std::mem::take(&mut self.couriers) {
            helpers.spawn(courier.run());
        }
        let server = tokio::spawn(server::serve(listener, services, turned(stopped.clone())));
        let mut runners = Vec::new();
        for (definition, runtime) in self.definitions.iter().zip(&self.runtime) {
            let stream = PipelineSupervisor {
                runtime: runtime.clone(),
                source: self.source(definition),
                store: self.store.clone(),
                health: self.health.clone(),
                drain: Duration::from_secs(self.config.limits.drain_seconds),
            };
            let ends = [turned(shutdown.clone()), turned(stopped.clone())].map(Box::pin);
            runners.push(essential(stream.run(async { drop(select_all(ends).await) }), stop.clone()).boxed());
        }
        if self.config.jobs.enabled {
            let runner = JobRunner::new(self.unit_worker(), &self.config.jobs);
            let end = || {
                let ends = [turned(shutdown.clone()), turned(stopped.clone())].map(Box::pin);
                async { drop(select_all(ends).await) }.boxed()
            };
            // Names are the crew's own to give.
            let kafka = self.kafka("", "", StartAt::Earliest);
            for run in runner.start(&kafka, [end(), end()], Duration::from_secs(self.config.limits.drain_seconds))? {
                runners.push(essential(run, stop.clone()).boxed());
            }
            helpers.spawn(runner.coordinator(self.schedules.clone()).run());
        }
        let broken = tokio::spawn(broken(self.engine.clone(), stop.clone()));
        let results = join_all(runners).await;
        stop.send_replace(true);
        server.await?.context("the HTTP server failed")?;
        helpers.shutdown().await;
        self.store.close().await;
        let mut failures: Vec<String> = results.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
        if broken.is_finished() {
            failures.push(broken.await?.to_string());
        } else {
            broken.abort();
        }
        match failures.is_empty() {
            true => Ok(()),
            false => bail!("{}", failures.join("; ")),
        }
    }

    fn services(&self, auth: Authenticator) -> Services {
        let names = KnownNames::new(&self.definitions, &self.config.datasets);
        Services {
            health: self.health.clone(),
            searcher: Searcher::new(self.store.clone(), self.engine.clone(), &self.definitions),
            recommender: Recommender::new(&self.store, &self.definitions),
            explainer: Explainer::new(self.store.clone(), &self.definitions, self.config.jobs.price_per_device_hour),
            job_service: JobService::new(self.store.clone(), &self.config.jobs, names),
            dashboard: Dashboard::new(self.store.clone(), &self.definitions, self.config.jobs.price_per_device_hour),
            copy: CopyService::new(self.store.clone(), &self.definitions),
            leads: LeadService::new(self.store.clone(), &self.definitions),
            auth,
        }
    }

    fn unit_worker(&self) -> UnitWorker {
        UnitWorker {
            store: self.store.clone(),
            job_pipelines: self.job_pipelines.clone(),
            datasets: self.config.datasets.clone(),
            health: self.health.clone(),
            owner: self.owner.clone(),
            in_flight_bytes: self.config.limits.in_flight_bytes,
        }
    }

    fn source(&self, definition: &Definition) -> KafkaSourceConfig {
        let start = match definition.source.start {
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
        };
        self.kafka(&definition.name, &definition.source.topic, start)
    }

    fn kafka(&self, pipeline: &str, topic: &str, start: StartAt) -> KafkaSourceConfig {
        KafkaSourceConfig {
            brokers: self.access.clone(),
            pipeline: pipeline.into(),
            topic: topic.into(),
            start,
            owner: self.owner.clone(),
            in_flight_bytes: self.config.limits.in_flight_bytes,
        }
    }
}

/// One courier for each webhook that a pipeline names. [`Definition::validate`] has seen that all of them are configured.
fn couriers(config: &Config, definitions: &[Definition], store: &Store) -> Result<Vec<WebhookSender>, ConfigError> {
    let named: BTreeSet<&String> =
        definitions.iter().filter_map(|definition| definition.leads.as_ref()?.webhook.as_ref()).collect();
    let courier = |name: &String| Some(WebhookSender::new(name, config.webhooks.get(name)?, store.clone()));
    named.into_iter().filter_map(courier).collect()
}

/// What the foreman asks for by the clock. A process that takes no part in jobs has none, and need not know what they name.
fn schedules(config: &Config, definitions: &[Definition]) -> Result<Vec<Schedule>, DefinitionError> {
    if config.jobs.enabled {
        return Schedule::all(config, definitions);
    }
    let count = config.schedules.len() + definitions.iter().map(|definition| definition.schedules.len()).sum::<usize>();
    if count > 0 {
        tracing::info!(schedules = count, "schedules do not fire here: jobs.enabled is not set");
    }
    Ok(Vec::new())
}

/// One that cannot go on takes the process with it, for a supervisor to start anew; the others drain.
async fn essential(run: impl Future<Output = Result<()>> + Send + 'static, stop: watch::Sender<bool>) -> Result<()> {
    let result = tokio::spawn(run).await.unwrap_or_else(|panic| Err(panic.into()));
    if result.is_err() {
        stop.send_replace(true);
    }
    result
}

/// Resolves when the process is told to stop: by SIGTERM or by Ctrl-C.
///
/// # Errors
/// Where the system does not let the process listen for signals.
pub async fn stop_signal() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop");
    Ok(())
}

/// Resolves once the value is true, or nobody can set it any more.
async fn turned(mut value: watch::Receiver<bool>) {
    let _ = value.wait_for(|value| *value).await;
}

/// Resolves when the model host is broken for good, having told everything else to stop: only a new process has a new one.
async fn broken(engine: Engine, stop: watch::Sender<bool>) -> Transient {
    loop {
        if let Err(failure) = engine.health() {
            stop.send_replace(true);
            return failure;
        }
        sleep(CARE).await;
    }
}

async fn caretaker(store: Store, engine: Engine, health: Health, registry: Option<Registry>, datasets: Vec<Dataset>) {
    let mut swept: Option<Instant> = None;
    loop {
        match store.ping().await {
            Ok(()) => health.up(Component::Database),
            Err(failure) => health.blame(&failure),
        }
        if let Err(failure) = engine.health() {
            health.blame(&failure);
        }
        if let Some(registry) = &registry {
            registry.clear_old_failure();
        }
        for dataset in &datasets {
            if let Some(free) = dataset.free_bytes() {
                METRICS.dataset_free.with_label_values(&[dataset.name()]).set(free as f64);
            }
        }
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            swept = Some(Instant::now());
            for dataset in &datasets {
                if let Err(failure) = sweep(&store, dataset, SWEPT_AFTER_SECONDS).await {
                    tracing::warn!(dataset = dataset.name(), %failure, "the sweep of files is put off");
                }
            }
            gather(&store, 1).await;
        }
        sleep(CARE).await;
    }
}

async fn indexer(store: Store) {
    loop {
        match store.index_embedding_sets().await {
            Ok(built) => built.into_iter().for_each(|set| tracing::info!(set, "the vector space has an index now")),
            Err(failure) => tracing::warn!(%failure, "indexes of vector spaces are put off"),
        }
        gather(&store, GATHERED_AFTER).await;
        sleep(INDEXING).await;
    }
}

async fn gather(store: &Store, changes: i64) {
    if let Err(failure) = store.gather_word_counts(changes).await {
        tracing::warn!(%failure, "counts of words are brought together later");
    }
}

/// Deletes files that were staged at least `seconds` ago and never went live. Their rows are condemned first, so that a commit
/// that is still under way cannot make one live any more.
async fn sweep(store: &Store, dataset: &Dataset, seconds: f64) -> Result<(), Transient> {
    let paths = store.condemn_files(dataset.name(), seconds).await?;
    for path in &paths {
        dataset.delete(path.as_ref())?;
    }
    store.forget_files(&paths).await
}
