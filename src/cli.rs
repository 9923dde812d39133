//! The command line: one file a command.
//!
//! Progress and logs go to stderr. With `--json`, a command that reports prints one object as the last line of stdout.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | the usage, the configuration or a pipeline file is at fault |

mod bench;
mod check;
mod migrate;
mod models;
mod positions;
mod run;
mod search;
mod train_head;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, ConfigError, Flag};
use crate::demo;
use crate::engine::{Engine, EngineError};
use crate::pipeline::definition::Definition;
use crate::pipeline::problem::DefinitionError;
use crate::store::Store;

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
    /// Find documents of a pipeline by meaning, by words or by both
    Search(search::SearchArgs),
    /// Check pipeline files: schema, templates, task graph, models, datasets and their own examples
    Check(check::CheckArgs),
    /// Train the linear head of a `classify` task from labelled rows
    TrainHead(train_head::TrainHeadArgs),
    /// Measure the model host alone and the whole pipeline on the same documents
    Bench(bench::BenchArgs),
    /// What models there are
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// How far pipelines have come, and how to go on where records are gone
    #[command(subcommand)]
    Positions(positions::PositionsCommand),
}

impl Cli {
    /// Runs the command to its end.
    ///
    /// # Errors
    /// Whatever ended it early; [`exit_code`] tells what the process says about it.
    pub fn run(self) -> Result<()> {
        log_to_stderr(&self.global.log, self.global.log_format)?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start the asynchronous runtime")?;
        let global = self.global;
        runtime.block_on(async {
            match self.command {
                Command::Demo(args) => demo::run(Config::default(), args).await,
                Command::Migrate => migrate::run(&global.load(&[])?).await,
                Command::Run(args) => run::run(global.load(&args.flags())?, args).await,
                Command::Search(args) => search::run(global.load(&args.flags())?, args).await,
                Command::Check(args) => check::run(global.load(&[])?, args).await,
                Command::TrainHead(args) => train_head::run(global.load(&[])?, args).await,
                Command::Bench(args) => bench::run(global.load(&[])?, args).await,
                Command::Models(command) => models::run(global.load(&[])?, command).await,
                Command::Positions(command) => positions::run(global.load(&[])?, command).await,
            }
        })
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

/// Loads the models that the pipelines name.
async fn engine(config: Config, definitions: &[Definition]) -> Result<Engine> {
    let wanted: BTreeSet<&str> = definitions.iter().flat_map(Definition::models).collect();
    let mut models = config.models;
    models.retain(|name, _| wanted.contains(name.as_str()));
    let engine = tokio::task::spawn_blocking(move || Engine::start(&config.engine, &models));
    Ok(engine.await.context("a thread panicked")??)
}

/// The pipelines that are meant: one by its name or its file, or all of the configured folder.
fn definitions(config: &Config, pipeline: Option<&str>) -> Result<Vec<Definition>> {
    match pipeline {
        Some(file) if file.ends_with(".yaml") || file.ends_with(".yml") => Ok(vec![Definition::load(file)?]),
        pipeline => Ok(Definition::load_all(&config.pipelines, &pipeline.map(str::to_owned).into_iter().collect::<Vec<_>>())?),
    }
}

/// What the process says to its caller about an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let of_the_caller =
        error.chain().any(|cause| cause.is::<ConfigError>() || cause.is::<DefinitionError>() || cause.is::<EngineError>());
    ExitCode::from(if of_the_caller { 2 } else { 1 })
}

fn log_to_stderr(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|e| ConfigError(format!("--log {filter:?} is no filter: {e}")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => subscriber.compact().with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
    Ok(())
}
