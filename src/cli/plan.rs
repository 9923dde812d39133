//! `tidemill plan`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs};
use super::database::Database;
use super::progress::span;
use super::{check_configured, definitions, engine};
use crate::config::{Config, ConfigError};
use crate::demo::defaults::{tell, with_models};
use crate::jobs::spec::JobSpec;
use crate::jobs::{ConfidenceInterval, Estimate, Estimator, JobPipeline, KnownNames, PlanError, Sampling};
use crate::pipeline::Dependencies;
use crate::source::Archive;
use crate::store::Store;

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The file with the job, JSON as for `submit`
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// The number of documents that are run for real
    #[arg(long, value_name = "N", default_value_t = 200)]
    sample: usize,
    /// The seed that chooses them
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The id of a job without one; nothing is submitted here.
const PLAN_ID: &str = "plan";

/// The largest sample. It is held in memory, and a larger one adds little precision.
const MAX_SAMPLE: usize = 10_000;

/// Runs the sample and prints what the job will take. Commits nothing.
pub async fn run(mut config: Config, args: PlanArgs) -> Result<()> {
    let shown = args.job.display();
    let text = std::fs::read(&args.job).map_err(|e| ConfigError(format!("cannot read the job file {shown}: {e}")))?;
    let spec = JobSpec::parse(&text, Some(PLAN_ID)).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
    if !(1..=MAX_SAMPLE).contains(&args.sample) {
        return Err(ConfigError(format!("--sample is {}; write 1 to {MAX_SAMPLE}", args.sample)).into());
    }
    let known = definitions(&config, None)?;
    let names = KnownNames::new(&known, &config.datasets);
    names.check(&spec).map_err(|e| ConfigError(format!("{shown}: {e}")))?;
    let database = Database::open_or_create(&mut config).await?;
    let sampling = Sampling { size: args.sample, seed: args.seed };
    let estimated = estimate(config, &database.store, &spec, sampling).await;
    database.close().await?;
    let estimate = estimated?;
    match args.output.json {
        true => say!("{}", json!(estimate)),
        false => print(&estimate),
    }
    Ok(())
}

async fn estimate(mut config: Config, store: &Store, spec: &JobSpec, sampling: Sampling) -> Result<Estimate> {
    let definition = definitions(&config, Some(&spec.pipeline))?.pop().context("a pipeline that was found is gone")?;
    if !definition.models().is_empty() {
        with_models(&mut config).await?;
    }
    check_configured(&config, &definition, None)?;
    let (price_per_device_hour, unit_seconds) = (config.jobs.price_per_device_hour, config.jobs.unit_seconds);
    let dataset = spec.kind.rows().and_then(|rows| Some((&rows.dataset, config.datasets.get(&rows.dataset)?)));
    let archive = dataset.map(|(name, config)| Archive::open(name, config)).transpose()?;
    let watchdog = Duration::from_secs(config.limits.watchdog_seconds);
    tell("loading the models");
    let engine = engine(config, std::slice::from_ref(&definition)).await?;
    // Without a dataset, so that nothing is written.
    let job_pipeline = JobPipeline::new(&definition, Dependencies::alone(engine, store.clone(), watchdog)).await?;
    let estimator =
        Estimator { store, job_pipeline: &job_pipeline, archive: archive.as_ref(), unit_seconds, price_per_device_hour };
    estimator.estimate(spec, sampling).await.map_err(|error| match error {
        PlanError::Refused(reason) => ConfigError(reason).into(),
        PlanError::Unavailable(failure) => failure.into(),
    })
}

fn print(estimate: &Estimate) {
    let Estimate { job, pipeline, units, rows, sampled, .. } = estimate;
    say!("{job} runs {pipeline} over {rows} rows in {units} units; {sampled} rows were run as a sample, and nothing was stored");
    for fault in &estimate.faults {
        say!("  cannot be read: {fault}");
    }
    let count = |p: ConfidenceInterval| format!("{:.0} ({:.0} to {:.0})", p.expected, p.low, p.high);
    let time = |p: ConfidenceInterval| format!("{} ({} to {})", span(p.expected), span(p.low), span(p.high));
    let percent = |p: ConfidenceInterval| format!("{:.1} % ({:.1} to {:.1})", p.expected * 100.0, p.low * 100.0, p.high * 100.0);
    say!("  documents:     {}", count(estimate.documents));
    say!("  tokens read:   {}", count(estimate.tokens));
    say!("  tokens written: {}", count(estimate.generated_tokens));
    say!("  device time:   {}", time(estimate.device_seconds));
    say!("  on this machine: {}", time(estimate.wall_seconds));
    if let Some(cost) = estimate.cost {
        say!("  cost:          {:.2} ({:.2} to {:.2})", cost.expected, cost.low, cost.high);
    }
    say!("  reused:        {} of results", percent(estimate.reused_share));
    say!("  dead:          {} of results", percent(estimate.dead_share));
    for (class, dead_letters) in &estimate.dead_letters_by_class {
        say!("    {class}: {}", count(*dead_letters));
    }
    for limit in &estimate.limits {
        let left = limit.documents_left;
        let needs = time(limit.needs_seconds);
        match left.high > 0.0 {
            true => say!(
                "  its {} of {} would leave {} documents: it needs {needs}",
                limit.limit,
                span(limit.allows_seconds),
                count(left)
            ),
            false => say!("  its {} of {} is enough: it needs {needs}", limit.limit, span(limit.allows_seconds)),
        }
    }
}
