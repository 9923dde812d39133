//! The process: built once, then run until it is asked to stop.
//!
//! ```text
//!            ┌─ one supervisor a pipeline: source → partition workers → ledger
//!            ├─ job topics and job coordinator, where jobs are enabled
//! build ──▶  ├─ relay: outbox → topics
//!            ├─ one webhook sender a webhook that a pipeline names: deliveries → receivers
//!            ├─ maintenance: health of database and models, deletion of files that were never committed
//!            ├─ indexer: an index for each vector space that has become large
//!            └─ HTTP server
//! ```
//! At shutdown the pipelines and jobs drain first; the rest ends when they have.

mod maintenance;
mod supervisor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::maintenance::{CHECK, build_indexes, maintain};
use self::supervisor::PipelineSupervisor;
use crate::broker::BrokerSettings;
use crate::cache;
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

/// A Tidemill process: its ledger, its model host and the pipelines that it runs.
pub struct App {
    /// The name of this process in the ledger.
    owner: String,
    config: Config,
    broker: BrokerSettings,
    registry: Option<Registry>,
    store: Store,
    engine: Engine,
    health: Health,
    definitions: Vec<Definition>,
    runtimes: Vec<Arc<PipelineRuntime>>,
    job_pipelines: BTreeMap<Arc<str>, Arc<JobPipeline>>,
    schedules: Vec<Schedule>,
    webhook_senders: Vec<WebhookSender>,
    datasets: Vec<Dataset>,
    isolation: Isolation,
    wedged: Arc<AtomicBool>,
}

impl App {
    /// Loads the models, migrates the database and builds every pipeline.
    ///
    /// # Errors
    /// Where anything that the pipelines name is missing or does not fit, so that it shows here and not at record 10,000.
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
        let broker = BrokerSettings::new(&config.kafka)?;
        let registry = Registry::new(&config.schema_registry, health.clone())?;
        METRICS.loading.set(1);
        let store = Store::connect(&config.database)?;
        let webhook_senders = webhook_senders(&config, &definitions, &store)?;
        store.migrate().await?;
        health.up(Component::Database);
        let (engine_config, mut models) = (config.engine.clone(), config.models.clone());
        models.retain(|name, _| definitions.iter().any(|definition| definition.models().contains(&name.as_str())));
        let engine = tokio::task::spawn_blocking(move || {
            Engine::start_with(&engine_config, &models, &BatchTuning::measured(tuning_folder()))
        })
        .await?
        .map_err(|error| ConfigError(error.to_string()))?;
        health.up(Component::Model);
        let owner = format!("{}-{}", std::process::id(), Uuid::new_v4().simple());
        let mut app = Self {
            owner,
            config,
            broker,
            registry,
            store,
            engine,
            health,
            definitions: Vec::new(),
            runtimes: Vec::new(),
            job_pipelines: BTreeMap::new(),
            schedules,
            webhook_senders,
            datasets: Vec::new(),
            isolation: Isolation::default(),
            wedged: Arc::default(),
        };
        for definition in definitions {
            app.add(definition).await?;
        }
        app.health.up(Component::Storage);
        // The registry is first used, and its failures first reported, when a record names a new schema.
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
        self.runtimes.push(PipelineRuntime::new(&definition, dependencies.clone()).await?);
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

    /// The ledger of this process.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The model host of this process.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Which components are available.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Runs until `shutdown` turns true, then drains.
    ///
    /// # Errors
    /// Where a pipeline cannot go on. The others have drained by then.
    pub async fn run(mut self, listener: TcpListener, auth: Authenticator, shutdown: watch::Receiver<bool>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut background = JoinSet::new();
        let (store, engine, health) = (self.store.clone(), self.engine.clone(), self.health.clone());
        background.spawn(maintain(store, engine, health, self.registry.clone(), self.datasets.clone()));
        background.spawn(build_indexes(self.store.clone()));
        background.spawn(Relay::new(self.store.clone(), &self.broker, self.health.clone())?.run());
        let services = self.services(auth);
        for sender in std::mem::take(&mut self.webhook_senders) {
            background.spawn(sender.run());
        }
        let server = tokio::spawn(server::serve(listener, services, turned(stopped.clone())));
        let mut runs = Vec::new();
        for (definition, runtime) in self.definitions.iter().zip(&self.runtimes) {
            let supervisor = PipelineSupervisor {
                runtime: runtime.clone(),
                source: self.source(definition),
                store: self.store.clone(),
                health: self.health.clone(),
                drain: Duration::from_secs(self.config.limits.drain_seconds),
            };
            let ends = [turned(shutdown.clone()), turned(stopped.clone())].map(Box::pin);
            runs.push(essential(supervisor.run(async { drop(select_all(ends).await) }), stop.clone()).boxed());
        }
        if self.config.jobs.enabled {
            let runner = JobRunner::new(self.unit_worker(), &self.config.jobs);
            let end = || {
                let ends = [turned(shutdown.clone()), turned(stopped.clone())].map(Box::pin);
                async { drop(select_all(ends).await) }.boxed()
            };
            // The job runner fills in its own pipeline names and topics.
            let kafka = self.kafka("", "", StartAt::Earliest);
            for run in runner.start(&kafka, [end(), end()], Duration::from_secs(self.config.limits.drain_seconds))? {
                runs.push(essential(run, stop.clone()).boxed());
            }
            background.spawn(runner.coordinator(self.schedules.clone()).run());
        }
        let broken = tokio::spawn(broken(self.engine.clone(), stop.clone()));
        let results = join_all(runs).await;
        stop.send_replace(true);
        server.await?.context("the HTTP server failed")?;
        background.shutdown().await;
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
            brokers: self.broker.clone(),
            pipeline: pipeline.into(),
            topic: topic.into(),
            start,
            owner: self.owner.clone(),
            in_flight_bytes: self.config.limits.in_flight_bytes,
        }
    }
}

/// One sender for each webhook that a pipeline names. [`Definition::validate`] has checked that all of them are configured.
fn webhook_senders(config: &Config, definitions: &[Definition], store: &Store) -> Result<Vec<WebhookSender>, ConfigError> {
    let named: BTreeSet<&String> =
        definitions.iter().filter_map(|definition| definition.leads.as_ref()?.webhook.as_ref()).collect();
    let sender = |name: &String| Some(WebhookSender::new(name, config.webhooks.get(name)?, store.clone()));
    named.into_iter().filter_map(sender).collect()
}

/// The schedules that the job coordinator fires. A process without jobs has none, and need not know the datasets that they name.
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

/// If the run fails, the process stops after the other runs have drained, so that its supervisor restarts it.
async fn essential(run: impl Future<Output = Result<()>> + Send + 'static, stop: watch::Sender<bool>) -> Result<()> {
    let result = tokio::spawn(run).await.unwrap_or_else(|panic| Err(panic.into()));
    if result.is_err() {
        stop.send_replace(true);
    }
    result
}

/// Resolves on SIGTERM or Ctrl-C.
///
/// # Errors
/// Where the system does not let the process listen for signals.
pub async fn stop_signal() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("a signal asks the process to stop");
    Ok(())
}

/// The folder in which measured token budgets are kept between starts. Without one, each start measures them again.
pub fn tuning_folder() -> Option<PathBuf> {
    let folder = cache::folder();
    if let Err(error) = &folder {
        tracing::info!(reason = format!("{error:#}"), "measured token budgets are not kept");
    }
    folder.ok()
}

/// Resolves once the value is true, or its sender is gone.
async fn turned(mut value: watch::Receiver<bool>) {
    let _ = value.wait_for(|value| *value).await;
}

/// Resolves when the model host is broken, after asking everything else to stop: only a restarted process has a new model host.
async fn broken(engine: Engine, stop: watch::Sender<bool>) -> Transient {
    loop {
        if let Err(failure) = engine.health() {
            stop.send_replace(true);
            return failure;
        }
        sleep(CHECK).await;
    }
}
