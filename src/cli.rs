//! The command line: one file a command.
//!
//! Progress and logs go to stderr. With `--json`, a command that reports prints one object as the last line of stdout.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | the usage, the configuration or a pipeline file is at fault |

#[macro_use]
pub(crate) mod terminal;

mod answer;
mod backfill;
mod bench;
mod check;
mod copy;
mod database;
mod dead_letters;
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

pub use terminal::visible;

use crate::app::tuning_folder;
use crate::config::{Config, ConfigError, DatasetConfig, Flag};
use crate::demo;
use crate::engine::{BatchTuning, Engine, EngineError};
use crate::pipeline::definition::Definition;
use crate::pipeline::definition_error::{DefinitionError, DefinitionProblem};
use crate::store::Store;

/// How long what a command left running may take to end.
const LEFTOVERS: Duration = Duration::from_secs(2);

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
    /// The configuration file; ./tidemill.toml where there is one
    #[arg(long, global = true, env = "TIDEMILL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: error, warn, info, debug, or per module as in `info,tidemill::sink=debug`
    #[arg(long, global = true, env = "TIDEMILL_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// How to write logs: lines for people or one JSON object a line for collectors
    #[arg(long, global = true, env = "TIDEMILL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// What other accounts may not do with the files and folders that it makes, in octal as `umask` has it
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
    /// Ask a running service whether it is in order, as supervisors do that cannot speak HTTP
    Health(health::HealthArgs),
    /// Find documents of a pipeline by meaning, by words or by both
    Search(search::SearchArgs),
    /// Answer a question from the documents, sentence by sentence with what says it
    Answer(answer::AnswerArgs),
    /// Recommend documents: like another, or for a user by what they liked
    Recommend(recommend::RecommendArgs),
    /// Measure how well something does on what is known already
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Tell where everything that is said of a document comes from: model, prompt, record, tokens, device time, and what was before
    Explain(explain::ExplainArgs),
    /// Check pipeline files: schema, templates, task graph, models, datasets and their own examples
    Check(check::CheckArgs),
    /// Train the linear head of a `classify` task from labelled rows
    TrainHead(train_head::TrainHeadArgs),
    /// Measure the model host alone and the whole pipeline on the same documents
    Bench(bench::BenchArgs),
    /// Run a pipeline over Parquet files, without Kafka; run it again to go on
    Backfill(backfill::BackfillArgs),
    /// Predict what a job will take, from a sample that is run for real
    Plan(plan::PlanArgs),
    /// Queue a job for the running fleet
    Submit(submit::SubmitArgs),
    /// What jobs there are, and what becomes of them
    Jobs(jobs::JobsArgs),
    /// Leads: the most promising documents, why, what was drafted, and who was told
    Leads(leads::LeadsArgs),
    /// Jobs that are asked for by the clock
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// What models there are
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Records that failed for good: look at them, send them again, throw them away
    #[command(subcommand, alias = "letters")]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Events that their topic could not take: look at them, send them again, give them up
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// What pages say of documents: what waits, what speaks against it; approve, reject and edit it, and take it away as files
    Copy(copy::CopyArgs),
    /// Which pipelines are stopped; stop and resume them
    #[command(subcommand)]
    Pipelines(pipelines::PipelinesCommand),
    /// How far pipelines have come, and how to go on where records are gone
    #[command(subcommand)]
    Positions(positions::PositionsCommand),
    /// Tokens of the HTTP API: make, list and revoke them
    #[command(subcommand)]
    Tokens(tokens::TokensCommand),
    /// Print the description of the HTTP API, in OpenAPI 3.1
    Openapi,
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever ended it early; [`exit_code`] tells what the process says about it.
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
                Command::Explain(args) => explain::run(global.load(&args.flags())?, args).await,
                Command::Search(args) => search::run(global.load(&args.flags())?, args).await,
                Command::Answer(args) => answer::run(global.load(&args.flags())?, args).await,
                Command::Recommend(args) => recommend::run(global.load(&args.flags())?, args).await,
                Command::Eval(command) => eval::run(global.load(&command.flags())?, command).await,
                Command::Check(args) => check::run(global.load(&[])?, args).await,
                Command::TrainHead(args) => train_head::run(global.load(&[])?, args).await,
                Command::Bench(args) => bench::run(global.load(&[])?, args).await,
                Command::Backfill(args) => backfill::run(global.load(&args.flags())?, args).await,
                Command::Plan(args) => plan::run(global.load(&args.flags())?, args).await,
                Command::Submit(args) => submit::run(global.load(&[])?, args).await,
                Command::Jobs(args) => jobs::run(global.load(&args.flags())?, args).await,
                Command::Leads(args) => leads::run(global.load(&args.flags())?, args).await,
                Command::Schedule(command) => schedule::run(global.load(&[])?, command).await,
                Command::Models(command) => {
                    models::run(Config::load_without_secrets(global.config.as_deref(), &[])?, command).await
                }
                Command::DeadLetters(command) => dead_letters::run(global.load(&[])?, command).await,
                Command::Outbox(command) => outbox::run(global.load(&[])?, command).await,
                Command::Copy(args) => copy::run(global.load(&args.flags())?, args).await,
                Command::Pipelines(command) => pipelines::run(global.load(&[])?, command).await,
                Command::Positions(command) => positions::run(global.load(&[])?, command).await,
                Command::Tokens(command) => tokens::run(global.load(&[])?, command).await,
                Command::Openapi => {
                    openapi::run();
                    Ok(())
                }
            }
        });
        // A thread that still loads a model cannot be told to stop, and nothing waits for it any more.
        runtime.shutdown_timeout(LEFTOVERS);
        outcome
    }
}

impl Global {
    fn load(&self, flags: &[Flag]) -> Result<Config> {
        Ok(Config::load(self.config.as_deref(), flags)?)
    }
}

/// The configured database, or where to set it.
fn store(config: &Config) -> Result<Store> {
    if config.database.url.is_none() {
        let message = "no database is configured; set database.url_file, or TIDEMILL_DATABASE__URL";
        return Err(ConfigError(message.into()).into());
    }
    Store::connect(&config.database)
}

/// Loads the models that the pipelines name, for a command that is over soon: token budgets are as an earlier start measured them.
async fn engine(config: Config, definitions: &[Definition]) -> Result<Engine> {
    start(config, definitions, BatchTuning::remembered(tuning_folder())).await
}

/// The same for a command that works for long, and measures token budgets where they are not known.
async fn tuned_engine(config: Config, definitions: &[Definition]) -> Result<Engine> {
    start(config, definitions, BatchTuning::measured(tuning_folder())).await
}

async fn start(config: Config, definitions: &[Definition], tuning: BatchTuning) -> Result<Engine> {
    let wanted: BTreeSet<&str> = definitions.iter().flat_map(Definition::models).collect();
    let mut models = config.models;
    models.retain(|name, _| wanted.contains(name.as_str()));
    let engine = tokio::task::spawn_blocking(move || Engine::start_with(&config.engine, &models, &tuning));
    Ok(engine.await.context("a thread panicked")??)
}

/// The pipelines that are meant: one by its name or its file, or all of the configured folder.
fn definitions(config: &Config, pipeline: Option<&str>) -> Result<Vec<Definition>> {
    match pipeline {
        Some(file) if file.ends_with(".yaml") || file.ends_with(".yml") => Ok(vec![Definition::load(file)?]),
        pipeline => Ok(Definition::load_all(&config.pipelines, &pipeline.map(str::to_owned).into_iter().collect::<Vec<_>>())?),
    }
}

/// What the pipeline names must be configured, save its dataset where nothing or something else is written in its place.
fn fits(config: &Config, definition: &Definition, output: Option<&Path>) -> Result<(), DefinitionError> {
    let mut assumed = config.clone();
    if let Some(sink) = &definition.sinks.parquet {
        assumed.datasets.insert(sink.dataset.value.clone(), DatasetConfig::local(output.unwrap_or(Path::new(""))));
    }
    let problems = definition.validate(&assumed);
    if problems.is_empty() { Ok(()) } else { Err(DefinitionError { problems }) }
}

/// What the process says to its caller about an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_the_caller = error.chain().any(|cause| {
        let of_a_file = cause.is::<DefinitionError>() || cause.is::<DefinitionProblem>();
        of_a_file || cause.is::<ConfigError>() || cause.is::<EngineError>()
    });
    ExitCode::from(if of_the_caller { 2 } else { 1 })
}

/// Modules that this package only hands on log under the name of their own package.
const LOGGED_AS: [(&str, &str); 3] = [
    ("tidemill::engine", "tidemill_engine"),
    ("tidemill::store", "tidemill_store"),
    ("tidemill::health", "tidemill_base::health"),
];

fn log_to_stderr(filter: &str, format: LogFormat) -> Result<()> {
    let named = LOGGED_AS.iter().fold(filter.to_owned(), |filter, (here, there)| filter.replace(here, there));
    // A notice of the database at each start, that what is there already is there.
    let named = if named.contains("sqlx") { named } else { format!("{named},sqlx::postgres::notice=warn") };
    let filter = EnvFilter::try_new(named).map_err(|e| ConfigError(format!("--log {filter:?} is no filter: {e}")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.compact().with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
