//! The command line, with a file for each command.
//!
//! Progress and logs go to stderr. With `--json`, a command that reports prints one object as the last line of stdout.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | the usage, the configuration or a pipeline file is wrong |

#[macro_use]
mod say;

mod answer;
mod args;
mod backfill;
mod bench;
mod check;
mod copy;
mod database;
mod dead_letters;
mod demo;
mod eval;
mod explain;
mod health;
mod jobs;
mod leads;
mod migrate;
mod models;
mod openapi;
mod outbox;
mod pipelines;
mod plan;
mod positions;
mod progress;
mod recommend;
mod run;
mod schedule;
mod search;
mod submit;
mod tokens;
mod train_head;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::app::tuning_folder;
use crate::config::{Config, ConfigError, DatasetConfig, Flag};
use crate::engine::{BatchTuning, Engine, EngineError};
use crate::pipeline::definition::Definition;
use crate::pipeline::definition_error::{DefinitionError, DefinitionProblem};
use crate::store::Store;

/// How long threads and tasks that a command left running may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Event-driven batch processing of LLM tasks over data streams, exactly once.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The configuration file; ./tidemill.toml if it exists
    #[arg(long, global = true, env = "TIDEMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info or debug, or by module as in `info,tidemill::sink=debug`
    #[arg(long, global = true, env = "TIDEMILL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// How to write logs: text for people, or one JSON object per line for collectors
    #[arg(long, global = true, env = "TIDEMILL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The umask of files and folders that the command creates, in octal
    #[arg(long, global = true, env = "TIDEMILL_UMASK", value_name = "MASK", default_value = "077", value_parser = mask)]
    umask: u32,
}

fn mask(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o077 => Ok(mask),
        _ => Err("write three octal digits, the first of them 0, such as 077 or 027".into()),
    }
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    /// Bring the database schema up to date
    Migrate,
    /// Consume every pipeline, or those named, until SIGTERM or Ctrl-C
    Run(run::RunArgs),
    /// Ask a running service whether it is ready, for supervisors that cannot speak HTTP
    Health(health::HealthArgs),
    /// Find documents of a pipeline by meaning, by words or by both
    Search(search::SearchArgs),
    /// Answer a question from the documents, each sentence with the passages that support it
    Answer(answer::AnswerArgs),
    /// Recommend documents that are like another, or that fit what a user liked
    Recommend(recommend::RecommendArgs),
    /// Measure recommendations on interactions that are known already
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Show where the outputs for a document come from: model, prompt, record, tokens, device time, and earlier outputs
    Explain(explain::ExplainArgs),
    /// Check pipeline files: schema, templates, task graph, models, datasets and their own examples
    Check(check::CheckArgs),
    /// Train the linear head of a `classify` task on labelled rows
    TrainHead(train_head::TrainHeadArgs),
    /// Measure the model host alone and the whole pipeline on the same documents
    Bench(bench::BenchArgs),
    /// Run a pipeline over Parquet files, without Kafka; the same command again continues
    Backfill(backfill::BackfillArgs),
    /// Predict what a job will take, from a sample that is run for real
    Plan(plan::PlanArgs),
    /// Submit a job, which running services work on
    Submit(submit::SubmitArgs),
    /// List, show, watch, cancel and retry jobs
    Jobs(jobs::JobsArgs),
    /// Show leads: documents with a score, its parts, drafts and deliveries to webhooks
    Leads(leads::LeadsArgs),
    /// Show schedules, and start their jobs
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// List, pull and verify models
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Dead letters, records that failed for good: list, show, replay and purge them
    #[command(subcommand, alias = "letters")]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Parked events, which their topic refused: list, resend and drop them
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Page copy: list what waits for a decision, show, approve, reject and edit it, and export it
    Copy(copy::CopyArgs),
    /// List, stop and resume pipelines, and assign them to tenants
    #[command(subcommand)]
    Pipelines(pipelines::PipelinesCommand),
    /// Show the positions of pipelines, and skip records that the topic no longer has
    #[command(subcommand)]
    Positions(positions::PositionsCommand),
    /// Tokens of the HTTP API: create, list and revoke them
    #[command(subcommand)]
    Tokens(tokens::TokensCommand),
    /// Print the description of the HTTP API, in OpenAPI 3.1
    Openapi,
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever ended the command early; [`exit_code`] gives the exit code for it.
    pub fn run(self) -> Result<()> {
        log_to_stderr(&self.global.log, self.global.log_format)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(self.global.umask));
        let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
        let global = self.global;
        let outcome = runtime.block_on(async {
            match self.command {
                Command::Demo(_) if global.config.is_some() => {
                    let message =
                        "demo runs on embedded defaults and reads no configuration; leave out --config and TIDEMILL_CONFIG";
                    Err(ConfigError(message.into()).into())
                }
                Command::Demo(args) => demo::run(Config::default(), args).await,
                Command::Migrate => migrate::run(&global.load(&[])?).await,
                Command::Run(args) => run::run(global.load(&args.flags())?, args).await,
                Command::Health(args) => health::run(global.load(&[])?, args).await,
                Command::Explain(args) => explain::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Search(args) => search::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Answer(args) => answer::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Recommend(args) => recommend::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Eval(command) => eval::run(global.load(&command.data_dir().flags())?, command).await,
                Command::Check(args) => check::run(global.load(&[])?, args).await,
                Command::TrainHead(args) => train_head::run(global.load(&[])?, args).await,
                Command::Bench(args) => bench::run(global.load(&[])?, args).await,
                Command::Backfill(args) => backfill::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Plan(args) => plan::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Submit(args) => submit::run(global.load(&[])?, args).await,
                Command::Jobs(args) => jobs::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Leads(args) => leads::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Schedule(command) => schedule::run(global.load(&[])?, command).await,
                Command::Models(command) => {
                    models::run(Config::load_without_secrets(global.config.as_deref(), &[])?, command).await
                }
                Command::DeadLetters(command) => dead_letters::run(global.load(&[])?, command).await,
                Command::Outbox(command) => outbox::run(global.load(&[])?, command).await,
                Command::Copy(args) => copy::run(global.load(&args.data_dir.flags())?, args).await,
                Command::Pipelines(command) => pipelines::run(global.load(&[])?, command).await,
                Command::Positions(command) => positions::run(global.load(&[])?, command).await,
                Command::Tokens(command) => tokens::run(global.load(&[])?, command).await,
                Command::Openapi => {
                    openapi::run();
                    Ok(())
                }
            }
        });
        // A thread that still loads a model cannot be stopped, and nothing waits for it any more.
        runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        outcome
    }
}

impl Global {
    fn load(&self, flags: &[Flag]) -> Result<Config> {
        Ok(Config::load(self.config.as_deref(), flags)?)
    }
}

/// A connection to the configured database; an error that says where to configure it if it is not.
fn store(config: &Config) -> Result<Store> {
    if config.database.url.is_none() {
        let message = "no database is configured; set database.url_file, or TIDEMILL_DATABASE__URL";
        return Err(ConfigError(message.into()).into());
    }
    Store::connect(&config.database)
}

/// Loads the models that the pipelines name, for a short command: it takes token budgets that an earlier start measured.
async fn engine(config: Config, definitions: &[Definition]) -> Result<Engine> {
    start_engine(config, definitions, BatchTuning::remembered(tuning_folder())).await
}

/// The same for a long command: it measures token budgets that are not known yet.
async fn tuned_engine(config: Config, definitions: &[Definition]) -> Result<Engine> {
    start_engine(config, definitions, BatchTuning::measured(tuning_folder())).await
}

async fn start_engine(config: Config, definitions: &[Definition], tuning: BatchTuning) -> Result<Engine> {
    let wanted: BTreeSet<&str> = definitions.iter().flat_map(Definition::models).collect();
    let mut models = config.models;
    models.retain(|name, _| wanted.contains(name.as_str()));
    let engine = tokio::task::spawn_blocking(move || Engine::start_with(&config.engine, &models, &tuning));
    Ok(engine.await.context("a thread panicked")??)
}

/// One pipeline by its name or its file, or all of the configured folder.
fn definitions(config: &Config, pipeline: Option<&str>) -> Result<Vec<Definition>> {
    match pipeline {
        Some(file) if file.ends_with(".yaml") || file.ends_with(".yml") => Ok(vec![Definition::load(file)?]),
        pipeline => Ok(Definition::load_all(&config.pipelines, &pipeline.map(str::to_owned).into_iter().collect::<Vec<_>>())?),
    }
}

/// Checks that everything the pipeline names is configured, except its dataset: `output` is written instead, or nothing.
fn check_configured(config: &Config, definition: &Definition, output: Option<&Path>) -> Result<(), DefinitionError> {
    let mut assumed = config.clone();
    if let Some(sink) = &definition.sinks.parquet {
        assumed.datasets.insert(sink.dataset.value.clone(), DatasetConfig::local(output.unwrap_or(Path::new(""))));
    }
    let problems = definition.validate(&assumed);
    if problems.is_empty() { Ok(()) } else { Err(DefinitionError { problems }) }
}

/// The exit code for an error: 2 if the usage, the configuration or a pipeline file is wrong, else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = error.chain().any(|cause| {
        let is_file = cause.is::<DefinitionError>() || cause.is::<DefinitionProblem>();
        is_file || cause.is::<ConfigError>() || cause.is::<EngineError>()
    });
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Modules that this package re-exports log under the name of their own package.
const LOGGED_AS: [(&str, &str); 3] = [
    ("tidemill::engine", "tidemill_engine"),
    ("tidemill::store", "tidemill_store"),
    ("tidemill::health", "tidemill_base::health"),
];

fn log_to_stderr(filter: &str, format: LogFormat) -> Result<()> {
    let named = LOGGED_AS.iter().fold(filter.to_owned(), |filter, (here, there)| filter.replace(here, there));
    // At each start the database sends notices that tables exist already.
    let named = if named.contains("sqlx") { named } else { format!("{named},sqlx::postgres::notice=warn") };
    let filter = EnvFilter::try_new(named).map_err(|e| ConfigError(format!("--log {filter:?} is not a filter: {e}")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.compact().with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
