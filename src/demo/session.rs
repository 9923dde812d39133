//! A run of the demo: starts the embedded parts, sends a file through a pipeline, and collects what came of it.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::defaults::{interaction_pipelines, samples, tell, with_database, with_dataset, with_models};
use super::embedded_broker::{EmbeddedBroker, MAX_RECORD_BYTES, PacedProducer, check_not_stopped, too_large};
use super::input::InputReader;
use super::postgres_cluster::password_file;
use super::report::{DemoReport, ExampleSearch, ReportExamples, ReportLocations, RunFigures};
use crate::app::App;
use crate::config::Config;
use crate::health::Health;
use crate::jobs::needs;
use crate::pipeline::definition::Definition;
use crate::search::{Mode, SearchRequest, Searcher};
use crate::server::{self, Authenticator};
use crate::store::Store;

/// The report of a run over a file, and the service, which is still running.
pub struct DemoSession {
    pub report: DemoReport,
    stop: watch::Sender<bool>,
    app: JoinHandle<Result<()>>,
    // Last, because fields are dropped in order and the service needs these.
    _broker: EmbeddedBroker,
    _postgres: Option<super::postgres::PrivatePostgres>,
}

/// How long the consumer may take to get its partitions.
const ASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// Documents to show in the report.
const SAMPLE_DOCUMENTS: i64 = 8;
/// Example searches to run.
const SEARCHES: usize = 3;
/// Hits of each example search.
const HITS: usize = 3;

impl DemoSession {
    /// Starts the embedded parts, sends the input through the pipeline and waits until everything is committed.
    ///
    /// # Errors
    /// If the pipeline or the input is wrong, or a part cannot be started.
    pub async fn start(mut config: Config, mut definition: Definition, input: &Path) -> Result<Self> {
        // First, so that an invalid input is reported at once, before anything starts.
        let inputs = open_input(&definition, input).await?;
        let parquet_dir = with_dataset(&mut config, &definition)?;
        with_models(&mut config).await?;
        let postgres = with_database(&mut config).await?;
        let broker = EmbeddedBroker::start()?;
        let mut interactions = interaction_pipelines(&definition);
        for definition in std::iter::once(&mut definition).chain(&mut interactions) {
            create_topics(&broker, definition)?;
            with_dataset(&mut config, definition)?;
        }
        config.kafka.brokers = broker.address();
        // The in-process broker accepts anybody.
        config.kafka.security = Default::default();
        // The report is printed, so it must not contain the password.
        let database_url = without_password(config.database.url.as_deref().unwrap_or_default());
        let database_password_file = std::path::absolute(password_file(&config.data_dir))?;
        // The database is private and the listener is on loopback, so no tokens are needed.
        let listener = server::bind(&config.server, async || Ok(false)).await?;
        let auth = Authenticator::new(&config.server, None);
        let locations = ReportLocations {
            parquet_dir,
            database_url,
            database_password_file,
            http: format!("http://{}", listener.local_addr()?),
        };
        tell("loading the model");
        let definitions = std::iter::once(&definition).chain(&interactions).cloned().collect();
        let app = App::build(config, definitions).await?;
        let (store, engine, health) = (app.store().clone(), app.engine().clone(), app.health().clone());
        let (stop, stopped) = watch::channel(false);
        let mut app = tokio::spawn(app.run(listener, auth, stopped));
        let sending = async {
            let main_run = send_all(&store, &health, &broker, &definition, inputs).await?;
            for other in &interactions {
                let inputs = open_input(other, &samples(other)).await?;
                let (sent, _) = send_all(&store, &health, &broker, other, inputs).await?;
                tell(&format!("{sent} records of {} are committed as well", other.name));
            }
            anyhow::Ok(main_run)
        };
        let sent = tokio::select! {
            sent = sending => sent,
            ended = &mut app => match ended? {
                Ok(()) => bail!("the service stopped before the input was done"),
                Err(error) => return Err(error),
            },
        };
        let (sent, elapsed) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                // Stop the service first, so that it does not report the broker and the database as unavailable.
                stop.send_replace(true);
                let _ = app.await;
                return Err(error);
            }
        };
        let statistics = store.statistics(&definition.name, &definition.source.topic).await?;
        let documents = store.sample_documents(&definition.name, SAMPLE_DOCUMENTS).await?;
        let titles =
            || documents.iter().map(|document| document.beginning.lines().next().unwrap_or_default().to_owned()).collect();
        let queries: Vec<String> = if definition.searches.is_empty() { titles() } else { definition.searches.clone() };
        let searcher = Searcher::new(store.clone(), engine, [&definition]);
        let searches = search(&searcher, &definition.name, queries).await?;
        let report = DemoReport::new(RunFigures { sent, elapsed, statistics }, ReportExamples { documents, searches }, locations);
        Ok(Self { report, stop, app, _broker: broker, _postgres: postgres })
    }

    /// Drains the service and stops the embedded parts.
    ///
    /// # Errors
    /// If the service had failed.
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.app.await?
    }
}

/// Creates the topics of the pipeline, and gives it a new topic to read: offsets of the in-process broker begin at 0 in every
/// run, but the database stores positions.
fn create_topics(broker: &EmbeddedBroker, definition: &mut Definition) -> Result<()> {
    definition.source.topic = format!("{}.{}", definition.source.topic, Uuid::now_v7().simple());
    definition.source.document = definition.source.document.in_json();
    let sinks = [&definition.sinks.topic, &definition.sinks.dead_letters];
    let accounts = definition.leads.as_ref().and_then(|leads| leads.accounts.as_ref());
    let mut topics: BTreeSet<&str> = sinks.into_iter().flatten().map(|sink| sink.name.as_str()).collect();
    topics.extend(accounts.map(|accounts| accounts.topic.as_str()));
    topics.insert(&definition.source.topic);
    topics.into_iter().try_for_each(|topic| broker.create_topic(topic))
}

fn without_password(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return String::new() };
    // Fails only for URLs that cannot have a password.
    let _ = url.set_password(None);
    url.into()
}

/// Opens the input and checks it: the length of every line of a text file, or the columns of a Parquet file.
async fn open_input(definition: &Definition, path: &Path) -> Result<InputReader> {
    let mut inputs = InputReader::open(path, &needs(definition)).await?;
    match inputs.too_long(MAX_RECORD_BYTES)? {
        Some((number, size)) => Err(too_large(&format!("line {number}"), size).into()),
        None => Ok(inputs),
    }
}

/// Sends every record and waits until the pipeline has committed them. Returns their number and the time from the first to the
/// last.
async fn send_all(
    store: &Store,
    health: &Health,
    broker: &EmbeddedBroker,
    definition: &Definition,
    mut inputs: InputReader,
) -> Result<(u64, Duration)> {
    let topic = &definition.source.topic;
    let waited = Instant::now();
    while !store.is_seeded(&definition.name, topic).await? {
        check_not_stopped(health, &definition.name)?;
        if waited.elapsed() > ASSIGNMENT_TIMEOUT {
            bail!("the consumer got no partition within {ASSIGNMENT_TIMEOUT:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut producer = PacedProducer::new(store.clone(), health.clone(), broker, &definition.name, topic)?;
    let progress = progress();
    let started = Instant::now();
    let mut sent = 0;
    let mut reported = Instant::now();
    while let Some(record) = inputs.next().await? {
        producer.send(record).await?;
        sent += 1;
        if reported.elapsed() > Duration::from_millis(200) {
            reported = Instant::now();
            progress.set_position(producer.committed().await?);
        }
    }
    progress.set_length(sent);
    let mut printed = Instant::now();
    let plain = !std::io::stderr().is_terminal();
    producer
        .wait_until_committed(|committed| {
            progress.set_position(committed);
            if plain && printed.elapsed() > Duration::from_secs(5) {
                printed = Instant::now();
                tell(&format!("{committed} of {sent} records committed"));
            }
        })
        .await?;
    progress.finish_and_clear();
    Ok((sent, started.elapsed()))
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records  {per_sec}  {eta} left");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn search(searcher: &Searcher, pipeline: &Arc<str>, queries: Vec<String>) -> Result<Vec<ExampleSearch>> {
    let mut searches = Vec::new();
    for query in queries.into_iter().filter(|query| !query.trim().is_empty()).take(SEARCHES) {
        let request = SearchRequest {
            query: query.clone(),
            pipeline: Some(pipeline.to_string()),
            mode: Mode::Hybrid,
            limit: Some(HITS),
            ..SearchRequest::default()
        };
        let findings = searcher.search(&request).await.context("an example search failed")?;
        searches.push(ExampleSearch { query, hits: findings.hits });
    }
    Ok(searches)
}
