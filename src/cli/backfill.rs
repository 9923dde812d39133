//! `tidemill backfill`: a pipeline over Parquet files, with no Kafka at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::progress::{Progress, RowProgress};
use super::{definitions, fits, store, tuned_engine};
use crate::app::stop_signal;
use crate::config::{Config, ConfigError, DatasetConfig, Flag};
use crate::demo::defaults::{tell, with_database, with_models};
use crate::jobs::{INPUT, InputFiles, JobPipeline, LocalBackfill, LocalBackfillReport, UnitWorker, local_job};
use crate::pipeline::Dependencies;
use crate::pipeline::definition::Definition;
use crate::sink::Dataset;
use crate::store::{JobProgress, JobState};

/// What to run over which files.
#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// The pipeline: its name or its file
    #[arg(long, value_name = "PIPELINE")]
    pipeline: String,
    /// The Parquet files: paths or patterns such as 'data/**/*.parquet'
    #[arg(long, value_name = "PATTERN", required = true, num_args = 1..)]
    input: Vec<String>,
    /// The folder of results, which is the pipeline's Parquet dataset for this run
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The folder of private data; its Postgres is used where no database is configured
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// What a shell takes for the end by a second Ctrl-C.
const INTERRUPTED: i32 = 130;

impl BackfillArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Works until every row is committed, or Ctrl-C.
pub async fn run(mut config: Config, args: BackfillArgs) -> Result<()> {
    let definition = definitions(&config, Some(&args.pipeline))?.pop().context("a pipeline that was found is gone")?;
    let definition = without_topics(definition);
    let input = InputFiles::find(&args.input)?;
    let output = made(&args.output, &input)?;
    if !definition.models().is_empty() {
        with_models(&mut config).await?;
    }
    fits(&config, &definition, Some(&output))?;
    let postgres = with_database(&mut config).await?;
    let local = local(&config, definition, &input, &output).await?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(listen(stop));
    let mut progress = Progress::new();
    let started = Instant::now();
    let mut first = None;
    let worked =
        local.run(&input, stopped, |reached| show(&mut progress, started, *first.get_or_insert(reached.rows_done), reached));
    let report = worked.await;
    progress.clear();
    local.worker.store.close().await;
    if let Some(postgres) = postgres {
        tokio::task::spawn_blocking(move || postgres.stop()).await?;
    }
    let report = report?;
    print(&report, &output);
    if args.json {
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

/// Nobody publishes here, and events that wait for ever would fill the ledger.
fn without_topics(mut definition: Definition) -> Definition {
    let sinks = &mut definition.sinks;
    for sink in [sinks.topic.take(), sinks.dead_letters.take()].into_iter().flatten() {
        tell(&format!("topic {} gets nothing: a backfill without Kafka writes rows and files, no events", sink.name));
    }
    definition
}

/// The output, made where it is missing. It must not feed on itself.
fn made(output: &Path, input: &InputFiles) -> Result<PathBuf> {
    let shown = output.display();
    std::fs::create_dir_all(output).map_err(|e| ConfigError(format!("cannot make --output {shown}: {e}")))?;
    let output = output.canonicalize().with_context(|| format!("cannot find --output {shown}"))?;
    if let Some(key) = input.keys.iter().find(|key| input.folder.join(key).starts_with(&output)) {
        let message =
            format!("{key} of the input lies in --output {shown}; results would be read again as documents, so name another");
        return Err(ConfigError(message).into());
    }
    Ok(output)
}

async fn local(config: &Config, definition: Definition, input: &InputFiles, output: &Path) -> Result<LocalBackfill> {
    let store = store(config)?;
    store.migrate().await?;
    let job = local_job(&definition.name, input, output);
    // Under the job's own name: no other run and no service writes files of that name.
    let output = Dataset::open(&job.id, output)
        .map_err(|e| ConfigError(format!("cannot write to --output {}: {e}; mend the folder", output.display())))?;
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

/// The first call to stop drains, the second ends.
async fn listen(stop: watch::Sender<bool>) {
    let told = async {
        stop_signal().await?;
        tell("finishing what is under way; once more ends at once");
        stop.send_replace(true);
        stop_signal().await
    };
    match told.await {
        Ok(()) => std::process::exit(INTERRUPTED),
        Err(error) => tracing::error!(%error, "cannot listen for signals"),
    }
}

fn show(progress: &mut Progress, started: Instant, before: i64, reached: &JobProgress) {
    let seconds = started.elapsed().as_secs_f64();
    let rate = (reached.rows_done - before) as f64 / seconds.max(0.001);
    let left = (reached.rows - reached.rows_done).max(0) as f64;
    progress.show(&RowProgress {
        state: "running",
        done: reached.rows_done,
        rows: reached.rows,
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
    say!("rows and tasks: {} computed, {} reused, {} skipped, {} dead", w.ok, w.reused, w.skipped, w.dead);
    say!("tokens: {} read, {} written; device time: {:.1} s", w.tokens, w.generated_tokens, report.device_seconds);
    say!("{:.1} documents/s; results in {}", report.documents_per_second, output.display());
    if w.reused > 0 {
        say!(
            "what was reused unchanged is in no file of this run: it stands in the ledger and in the files of the run that made it"
        );
    }
}
