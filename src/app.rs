//! The service: built once, run until told to stop.
//!
//! ```text
//!            ┌─ runner (one a pipeline, unless it is stopped): source → lanes → ledger
//! build ──▶  ├─ relay: outbox → topics
//!            ├─ caretaker: health of database and models, sweep of files that never went live
//!            └─ HTTP server
//! ```
//! On shutdown the runners drain first; the rest ends when they have.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use crate::config::{Config, ConfigError};
use crate::engine::Engine;
use crate::failure::{Component, Transient};
use crate::health::Health;
use crate::pipeline::definition::{Definition, Start};
use crate::pipeline::graph::Graph;
use crate::pipeline::problem::{DefinitionError, Problem};
use crate::pipeline::{self, Committer, Evaluator, Isolation, Valve, Works};
use crate::search::Searcher;
use crate::server::{self, Service};
use crate::sink::{Dataset, Relay, TopicsConfig};
use crate::source::{KafkaSource, KafkaSourceConfig, StartAt};
use crate::store::Store;

/// A Tidemill process.
pub struct App {
    config: Config,
    store: Store,
    engine: Engine,
    health: Health,
    definitions: Vec<Definition>,
    works: Vec<Arc<Works>>,
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

impl App {
    /// Loads the models, brings the schema up to date and makes every pipeline ready.
    ///
    /// # Errors
    /// Where anything that the pipelines name is missing or at fault: it shows here, never at record 10,000.
    pub async fn build(config: Config, definitions: Vec<Definition>) -> Result<Self> {
        if definitions.is_empty() {
            return Err(ConfigError(format!("no pipeline in {}: put a pipeline file there", config.pipelines.display())).into());
        }
        let problems: Vec<Problem> = definitions.iter().flat_map(|definition| definition.validate(&config)).collect();
        if !problems.is_empty() {
            return Err(DefinitionError { problems }.into());
        }
        let health = Health::new();
        let store = Store::connect(&config.database)?;
        store.migrate().await?;
        health.up(Component::Database);
        let (engine_config, mut models) = (config.engine.clone(), config.models.clone());
        models.retain(|name, _| definitions.iter().any(|definition| definition.models().contains(&name.as_str())));
        let engine = tokio::task::spawn_blocking(move || Engine::start(&engine_config, &models))
            .await?
            .map_err(|error| ConfigError(error.to_string()))?;
        health.up(Component::Model);
        let (isolation, wedged) = (Isolation::default(), Arc::default());
        let (works, datasets) = (Vec::new(), Vec::new());
        let mut app = Self { config, store, engine, health, definitions: Vec::new(), works, datasets, isolation, wedged };
        for definition in definitions {
            app.add(definition).await?;
        }
        app.health.up(Component::Storage);
        Ok(app)
    }

    async fn add(&mut self, definition: Definition) -> Result<()> {
        let graph = Graph::build(&definition, &self.engine).await?;
        let dataset = match &definition.sinks.parquet {
            Some(sink) => Some(self.dataset(&definition, &sink.dataset.value)?),
            None => None,
        };
        let evaluator = Evaluator::new(&definition, graph, self.store.clone())?;
        let committer = Committer {
            pipeline: definition.name.clone(),
            tasks: evaluator.graph().tasks().cloned().collect(),
            lineages: evaluator.graph().lineages(),
            prompts: evaluator.graph().prompts().cloned().collect(),
            prompts_kept: OnceCell::new(),
            store: self.store.clone(),
            dataset,
            results_topic: definition.sinks.topic.as_ref().map(|topic| topic.name.clone()),
            dead_letter_topic: definition.sinks.dead_letters.as_ref().map(|topic| topic.name.clone()),
            health: self.health.clone(),
            tolerance: definition.tolerance,
            wary: AtomicBool::new(true),
            embedding_sets: Mutex::new(HashMap::new()),
        };
        self.works.push(Arc::new(Works {
            evaluator,
            committer,
            budget: definition.budget.clone(),
            health: self.health.clone(),
            watchdog: Duration::from_secs(self.config.limits.watchdog_seconds),
            isolation: self.isolation.clone(),
            engine: self.engine.clone(),
            wedged: self.wedged.clone(),
        }));
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
    pub async fn run(self, listener: TcpListener, shutdown: watch::Receiver<bool>) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut helpers = JoinSet::new();
        helpers.spawn(caretaker(self.store.clone(), self.engine.clone(), self.health.clone(), self.datasets.clone()));
        let topics = TopicsConfig { brokers: self.config.kafka.brokers.clone(), settings: self.config.kafka.settings.clone() };
        helpers.spawn(Relay::new(self.store.clone(), &topics, self.health.clone())?.run());
        let service = self.service();
        let server = tokio::spawn(server::serve(listener, service, turned(stopped.clone())));
        let mut runners = Vec::new();
        for (definition, works) in self.definitions.iter().zip(&self.works) {
            let drain = Duration::from_secs(self.config.limits.drain_seconds);
            let ends = [turned(shutdown.clone()), turned(stopped.clone())].map(Box::pin);
            let run = consume(works.clone(), self.source(definition), async { drop(select_all(ends).await) }, drain);
            let stop = stop.clone();
            runners.push(async move {
                // One that cannot go on takes the process with it, for a supervisor to start anew; the others drain.
                let result = tokio::spawn(run).await.unwrap_or_else(|panic| Err(panic.into()));
                if result.is_err() {
                    stop.send_replace(true);
                }
                result
            });
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

    fn service(&self) -> Service {
        Service {
            health: self.health.clone(),
            searcher: Searcher::new(self.store.clone(), self.engine.clone(), &self.definitions),
            token: self.config.server.token.as_deref().map(Arc::from),
        }
    }

    fn source(&self, definition: &Definition) -> KafkaSourceConfig {
        KafkaSourceConfig {
            brokers: self.config.kafka.brokers.clone(),
            settings: self.config.kafka.settings.clone(),
            pipeline: definition.name.clone(),
            topic: definition.source.topic.as_str().into(),
            start: match definition.source.start {
                Start::Earliest => StartAt::Earliest,
                Start::Latest => StartAt::Latest,
            },
            owner: format!("{}-{}", std::process::id(), Uuid::new_v4().simple()),
            in_flight_bytes: self.config.limits.in_flight_bytes,
        }
    }
}

/// Resolves when the process is told to stop: by SIGTERM or by Ctrl-C.
///
/// # Errors
/// Where the system does not let the process listen for signals.
pub async fn told_to_stop() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("told to stop");
    Ok(())
}

/// Runs a pipeline until `shutdown` resolves. While it is stopped, it is in no consumer group and everything else goes on.
async fn consume(
    works: Arc<Works>,
    source: KafkaSourceConfig,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) -> Result<()> {
    let (store, health) = (&works.committer.store, &works.health);
    let valve = Valve::new(source.pipeline.clone(), store.clone(), health.clone());
    let shutdown = shutdown.shared();
    loop {
        tokio::select! {
            biased;
            () = shutdown.clone() => return Ok(()),
            () = valve.opened() => {}
        }
        let (source, events) = KafkaSource::start(source.clone(), store.clone(), health.clone())?;
        let end = async {
            tokio::select! {
                () = valve.closed() => {}
                () = shutdown.clone() => {}
            }
        };
        pipeline::run(works.clone(), source, events, end, drain).await?;
    }
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

async fn caretaker(store: Store, engine: Engine, health: Health, datasets: Vec<Dataset>) {
    let mut swept: Option<Instant> = None;
    loop {
        match store.ping().await {
            Ok(()) => health.up(Component::Database),
            Err(failure) => health.blame(&failure),
        }
        if let Err(failure) = engine.health() {
            health.blame(&failure);
        }
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            swept = Some(Instant::now());
            for dataset in &datasets {
                if let Err(failure) = sweep(&store, dataset, SWEPT_AFTER_SECONDS).await {
                    tracing::warn!(dataset = dataset.name(), %failure, "the sweep of files is put off");
                }
            }
        }
        sleep(CARE).await;
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
