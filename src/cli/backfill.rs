//! `tidemill backfill`: runs a pipeline over Parquet files without Kafka.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::args::{DataDirArgs, OutputArgs};
use super::database::Database;
use super::progress::{Progress, RowProgress};
use super::{check_configured, definitions, tuned_engine};
use crate::app::stop_signal;
use crate::config::{Config, ConfigError, DatasetConfig};
use crate::demo::defaults::{tell, with_models};
use crate::jobs::{INPUT, InputFiles, JobPipeline, LocalBackfill, LocalBackfillReport, UnitWorker, local_job};
use crate::pipeline::Dependencies;
use crate::pipeline::definition::Definition;
use crate::sink::Dataset;
use crate::store::{JobProgress, JobState};

#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The pipeline, by its name or its file
    #[arg(long, value_name = "PIPELINE")]
    pipeline: String,
    /// The Parquet files, as paths or patterns such as 'data/**/*.parquet'
    #[arg(long, value_name = "PATTERN", required = true, num_args = 1..)]
    input: Vec<String>,
    /// The folder for results, which replaces the pipeline's Parquet dataset for this run
    #[arg(long = "output", value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The exit code of a process that a second Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// Runs until every row is committed, or Ctrl-C.
pub async fn run(mut config: Config, args: BackfillArgs) -> Result<()> {
    let definition = definitions(&config, Some(&args.pipeline))?.pop().context("a pipeline that was found is gone")?;
    let definition = without_topics(definition);
    let input = InputFiles::find(&args.input)?;
    let output = output_folder(&args.folder, &input)?;
    if !definition.models().is_empty() {
        with_models(&mut config).await?;
    }
    check_configured(&config, &definition, Some(&output))?;
    let database = Database::open_or_create(&mut config).await?;
    let local = local_backfill(&config, &database, definition, &input, &output).await?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(stop_on_signal(stop));
    let mut progress = Progress::new();
    let started = Instant::now();
    let mut first = None;
    let report = local.run(&input, stopped, |now| show(&mut progress, started, *first.get_or_insert(now.rows_done), now)).await;
    progress.clear();
    database.close().await?;
    let report = report?;
    print(&report, &output);
    if args.output.json {
        let mut object = json!(report);
        object["output"] = output.display().to_string().into();
        say!("{object}");
    }
    match report.state {
        JobState::Succeeded => Ok(()),
        state => match report.reason {
            Some(reason) => bail!("backfill {} ended as {state}: {reason}", report.job),
            None => bail!("backfill {} ended as {state}", report.job),
        },
    }
}

/// The pipeline without its topics. This process publishes no events, and events that nobody publishes would fill the outbox.
fn without_topics(mut definition: Definition) -> Definition {
    let sinks = &mut definition.sinks;
    for sink in [sinks.topic.take(), sinks.dead_letters.take()].into_iter().flatten() {
        tell(&format!("topic {} gets no events: a backfill without Kafka writes rows and files only", sink.name));
    }
    definition
}

/// The output folder, created if it is missing. No input file may be in it.
fn output_folder(output: &Path, input: &InputFiles) -> Result<PathBuf> {
    let shown = output.display();
    std::fs::create_dir_all(output).map_err(|e| ConfigError(format!("cannot create --output {shown}: {e}")))?;
    let output = output.canonicalize().with_context(|| format!("cannot find --output {shown}"))?;
    if let Some(key) = input.keys.iter().find(|key| input.folder.join(key).starts_with(&output)) {
        let message = format!(
            "the input file {key} is in --output {shown}, and results would be read again as documents; name another folder"
        );
        return Err(ConfigError(message).into());
    }
    Ok(output)
}

async fn local_backfill(
    config: &Config,
    database: &Database,
    definition: Definition,
    input: &InputFiles,
    output: &Path,
) -> Result<LocalBackfill> {
    let store = database.store.clone();
    let job = local_job(&definition.name, input, output);
    // Named after the job, because no other run and no service writes files under that name.
    let output = Dataset::open(&job.id, output)
        .map_err(|e| ConfigError(format!("cannot write to --output {}: {e}; fix the folder", output.display())))?;
    tell("loading the models");
    let engine = tuned_engine(config.clone(), std::slice::from_ref(&definition)).await?;
    let alone = Dependencies::alone(engine, store.clone(), Duration::from_secs(config.limits.watchdog_seconds));
    let health = alone.health.clone();
    let dependencies = Dependencies { dataset: Some(output.clone()), ..alone };
    let job_pipeline = Arc::new(JobPipeline::new(&definition, dependencies).await?);
    let worker = UnitWorker {
        store,
        job_pipelines: BTreeMap::from([(job_pipeline.definition.name.clone(), job_pipeline.clone())]),
        datasets: BTreeMap::from([(INPUT.to_owned(), DatasetConfig::local(&input.folder))]),
        health,
        owner: format!("{}-{}", std::process::id(), Uuid::new_v4().simple()),
        in_flight_bytes: config.limits.in_flight_bytes,
    };
    let (units_at_a_time, unit_seconds) = (config.jobs.units_at_a_time, config.jobs.unit_seconds);
    let drain = Duration::from_secs(config.limits.drain_seconds);
    Ok(LocalBackfill { worker, job_pipeline, job, output, units_at_a_time, unit_seconds, drain })
}

/// The first signal drains, the second ends the process.
async fn stop_on_signal(stop: watch::Sender<bool>) {
    let stopped_twice = async {
        stop_signal().await?;
        tell("finishing the batches under way; press Ctrl-C again to end at once");
        stop.send_replace(true);
        stop_signal().await
    };
    match stopped_twice.await {
        Ok(()) => std::process::exit(INTERRUPTED),
        Err(error) => tracing::error!(%error, "cannot listen for signals"),
    }
}

fn show(progress: &mut Progress, started: Instant, rows_before: i64, now: &JobProgress) {
    let seconds = started.elapsed().as_secs_f64();
    let rate = (now.rows_done - rows_before) as f64 / seconds.max(0.001);
    let left = (now.rows - now.rows_done).max(0) as f64;
    progress.show(&RowProgress {
        state: "running",
        done: now.rows_done,
        rows: now.rows,
        rate: Some(rate),
        left: (rate > 0.0).then(|| left / rate),
    });
}

fn print(report: &LocalBackfillReport, output: &Path) {
    let (p, w) = (&report.progress, &report.progress.work);
    say!(
        "{}: {} of {} units done, {} failed; {} rows, {} of them by this run",
        report.job,
        p.units_done,
        p.units,
        p.units_failed,
        p.rows_done,
        report.rows_of_this_run
    );
    say!("results: {} computed, {} reused, {} skipped, {} dead", w.ok, w.reused, w.skipped, w.dead);
    say!("tokens: {} read, {} written; device time: {:.1} s", w.tokens, w.generated_tokens, report.device_seconds);
    say!("{:.1} documents/s; results in {}", report.documents_per_second, output.display());
    if w.reused > 0 {
        say!("reused results are in the database and in the files of the run that computed them, not in the files of this run");
    }
}
