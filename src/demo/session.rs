//! `tidemill demo`: the main job from record to search hit, with nothing to set up.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Url;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::defaults::{companions, samples, tell, with_database, with_dataset, with_models};
use super::embedded_broker::{EmbeddedBroker, LARGEST, PacedProducer, too_large, waits_for_nobody};
use super::input::InputReader;
use super::postgres_cluster::password_file;
use super::report::{DemoReport, ExampleSearch};
use crate::app::{App, stop_signal};
use crate::cli::terminal::say;
use crate::config::Config;
use crate::health::Health;
use crate::jobs::needs;
use crate::pipeline::definition::Definition;
use crate::search::{Mode, SearchRequest, Searcher};
use crate::server::{self, Authenticator};
use crate::store::Store;

/// Run a pipeline over a file on embedded defaults: an in-process Kafka broker, a private PostgreSQL, a small model
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The pipeline file
    #[arg(long, value_name = "FILE", default_value = "pipelines/products.yaml")]
    pub pipeline: PathBuf,
    /// The documents, .jsonl or .parquet; the samples beside the pipeline file unless told
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Where private data goes: database and Parquet files
    #[arg(long, value_name = "DIR", default_value = ".tidemill")]
    pub data_dir: PathBuf,
    /// Keep the HTTP API up until Ctrl-C
    #[arg(long)]
    pub serve: bool,
    /// Where to serve HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// Print one JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// What a run over a file came to, and the service that still runs.
pub struct DemoSession {
    /// The report.
    pub report: DemoReport,
    stop: watch::Sender<bool>,
    app: JoinHandle<Result<()>>,
    // Last, so that they outlive the service.
    _broker: EmbeddedBroker,
    _postgres: Option<super::postgres::PrivatePostgres>,
}

/// How long the consumer may take to get its partitions.
const ASSIGNMENT: Duration = Duration::from_secs(60);
/// Searches shown.
const SEARCHES: usize = 3;
/// Hits shown of each.
const HITS: usize = 3;

/// Runs the demo.
///
/// # Errors
/// Where the pipeline or the input is at fault, or a part cannot be started.
pub async fn run(mut config: Config, args: DemoArgs) -> Result<()> {
    config.data_dir = args.data_dir.clone();
    config.server.listen = args.listen.clone();
    let definition = Definition::load(&args.pipeline)?;
    let input = args.input.clone().unwrap_or_else(|| samples(&definition));
    let session = DemoSession::start(config, definition, &input).await?;
    say!("{}", session.report.to_string().trim_end());
    if args.json {
        say!("{}", serde_json::to_string(&session.report)?);
    }
    if args.serve {
        eprintln!("serving {} until Ctrl-C", session.report.http);
        stop_signal().await?;
    }
    session.stop().await
}

impl DemoSession {
    /// Starts the embedded parts, sends the input through the pipeline and waits until everything is committed.
    ///
    /// # Errors
    /// Where the pipeline or the input is at fault, or a part cannot be started.
    pub async fn start(mut config: Config, mut definition: Definition, input: &std::path::Path) -> Result<Self> {
        // Before anything is started: what is wrong with it is said at once, and alone.
        let inputs = opened(&definition, input).await?;
        let parquet_dir = with_dataset(&mut config, &definition)?;
        with_models(&mut config).await?;
        let postgres = with_database(&mut config).await?;
        let broker = EmbeddedBroker::start()?;
        let mut companions = companions(&definition);
        let mut topics = BTreeSet::new();
        for definition in std::iter::once(&mut definition).chain(&mut companions) {
            // A broker that lives as long as this process counts offsets from 0 again, where the ledger would not expect them.
            definition.source.topic = format!("{}.{}", definition.source.topic, Uuid::now_v7().simple());
            definition.source.document = definition.source.document.in_json();
            let sinks = [&definition.sinks.topic, &definition.sinks.dead_letters];
            topics.extend(sinks.into_iter().flatten().map(|sink| sink.name.clone()).chain([definition.source.topic.clone()]));
            let accounts = definition.leads.as_ref().and_then(|leads| leads.accounts.as_ref());
            topics.extend(accounts.map(|accounts| accounts.topic.clone()));
            with_dataset(&mut config, definition)?;
        }
        topics.iter().try_for_each(|topic| broker.create_topic(topic))?;
        config.kafka.brokers = broker.address();
        // Which asks nobody who is there.
        config.kafka.security = Default::default();
        // What is printed ends up in logs and on other people's screens.
        let database = (
            without_password(config.database.url.as_deref().unwrap_or_default()),
            std::path::absolute(password_file(&config.data_dir))?,
        );
        // Its ledger is its own, and so is loopback.
        let listener = server::bind(&config.server, async || Ok(false)).await?;
        let auth = Authenticator::new(&config.server, None);
        let http = format!("http://{}", listener.local_addr()?);
        tell("loading the model");
        let definitions = std::iter::once(&definition).chain(&companions).cloned().collect();
        let app = App::build(config, definitions).await?;
        let (store, engine, health) = (app.store().clone(), app.engine().clone(), app.health().clone());
        let (stop, stopped) = watch::channel(false);
        let mut app = tokio::spawn(app.run(listener, auth, stopped));
        let fed = async {
            let ledger = (&store, &health);
            let fed = feed(ledger, &broker, &definition, inputs).await?;
            for companion in &companions {
                let inputs = opened(companion, &samples(companion)).await?;
                let (sent, _) = feed(ledger, &broker, companion, inputs).await?;
                tell(&format!("{sent} records of {} are in, too", companion.name));
            }
            anyhow::Ok(fed)
        };
        let fed = tokio::select! {
            fed = fed => fed,
            ended = &mut app => match ended? {
                Ok(()) => bail!("the service stopped before the input was done"),
                Err(error) => return Err(error),
            },
        };
        let (sent, elapsed) = match fed {
            Ok(fed) => fed,
            Err(error) => {
                // The service first, so that it does not tell of the ends of what it runs on.
                stop.send_replace(true);
                let _ = app.await;
                return Err(error);
            }
        };
        let statistics = store.statistics(&definition.name, &definition.source.topic).await?;
        let searcher = Searcher::new(store.clone(), engine, [&definition]);
        let glances = store.sample_documents(&definition.name, 8).await?;
        let titles = || glances.iter().map(|glance| glance.beginning.lines().next().unwrap_or_default().to_owned()).collect();
        let queries: Vec<String> = if definition.searches.is_empty() { titles() } else { definition.searches.clone() };
        let searches = search(&searcher, &definition.name, queries).await?;
        let report = DemoReport::new(sent, elapsed, statistics, (glances, searches), (parquet_dir, database, http));
        Ok(Self { report, stop, app, _broker: broker, _postgres: postgres })
    }

    /// Drains the service and stops the embedded parts.
    ///
    /// # Errors
    /// Where the service had failed.
    pub async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        self.app.await?
    }
}

fn without_password(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return String::new() };
    // Refused only for addresses that can hold none.
    let _ = url.set_password(None);
    url.into()
}

/// The input, as far as it can be one: all of its lines are looked at, and the columns of its rows.
async fn opened(definition: &Definition, path: &std::path::Path) -> Result<InputReader> {
    let mut inputs = InputReader::open(path, &needs(definition)).await?;
    match inputs.too_long(LARGEST)? {
        Some((number, size)) => Err(too_large(&format!("line {number}"), size).into()),
        None => Ok(inputs),
    }
}

async fn feed(
    (store, health): (&Store, &Health),
    broker: &EmbeddedBroker,
    definition: &Definition,
    mut inputs: InputReader,
) -> Result<(u64, Duration)> {
    let topic = &definition.source.topic;
    let waited = Instant::now();
    while !store.is_seeded(&definition.name, topic).await? {
        waits_for_nobody(health, &definition.name)?;
        if waited.elapsed() > ASSIGNMENT {
            bail!("the consumer got no partition within {ASSIGNMENT:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut feeder = PacedProducer::new((store.clone(), health.clone()), broker, &definition.name, topic)?;
    let progress = progress();
    let started = Instant::now();
    let mut sent = 0;
    let mut reported = Instant::now();
    while let Some(record) = inputs.next().await? {
        feeder.send(record).await?;
        sent += 1;
        if reported.elapsed() > Duration::from_millis(200) {
            reported = Instant::now();
            progress.set_position(feeder.committed().await?);
        }
    }
    progress.set_length(sent);
    let mut said = Instant::now();
    let plain = !std::io::stderr().is_terminal();
    feeder
        .drained(|committed| {
            progress.set_position(committed);
            if plain && said.elapsed() > Duration::from_secs(5) {
                said = Instant::now();
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
        let question = SearchRequest {
            query: query.clone(),
            pipeline: Some(pipeline.to_string()),
            mode: Mode::Hybrid,
            limit: Some(HITS),
            ..SearchRequest::default()
        };
        let findings = searcher.search(&question).await.context("an example search failed")?;
        searches.push(ExampleSearch { query, hits: findings.hits });
    }
    Ok(searches)
}
