//! `tidemill jobs`: lists and changes jobs. It needs the database only.

mod watch;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::args::{DataDirArgs, OutputArgs};
use super::database::Database;
use super::progress::span;
use crate::config::{Config, ConfigError};
use crate::did_you_mean::suggestion;
use crate::jobs::{JobDetails, JobService, JobServiceError, JobSummary, KnownNames, LISTED};
use crate::store::{JobFilter, JobState};

pub use watch::follow;

#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
    #[command(flatten)]
    pub data_dir: DataDirArgs,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List the latest jobs
    List(ListArgs),
    /// Show everything about a job
    Show(JobIdArgs),
    /// Follow a job to its end; Ctrl-C ends the command, not the job
    Watch(JobIdArgs),
    /// Cancel a job; finished units keep their results
    Cancel(JobIdArgs),
    /// Retry the failed and stopped units of a job; finished units keep their results
    Retry(JobIdArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only jobs of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only jobs in this state; may be given more than once
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// The most jobs, 1 to 100
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    limit: i64,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct JobIdArgs {
    /// The job's id
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `tidemill jobs`.
pub async fn run(mut config: Config, args: JobsArgs) -> Result<()> {
    let database = Database::open_or_create(&mut config).await?;
    // Nothing is submitted here, so no names of pipelines or datasets are needed.
    let service = JobService::new(database.store.clone(), &config.jobs, KnownNames::default());
    let done = match args.command {
        JobsCommand::List(args) => list(&service, args).await,
        JobsCommand::Show(args) => print_answer(service.show(&args.id).await, args.output.json),
        JobsCommand::Watch(args) => follow(&service, &args.id, args.output.json).await,
        JobsCommand::Cancel(args) => print_answer(service.cancel(&args.id).await, args.output.json),
        JobsCommand::Retry(args) => print_answer(service.retry(&args.id).await, args.output.json),
    };
    database.close().await?;
    done
}

async fn list(service: &JobService, args: ListArgs) -> Result<()> {
    let named = |name: &String| {
        let near = || suggestion(name, JobState::ALL.map(JobState::as_str));
        JobState::named(name).ok_or_else(|| ConfigError(format!("--state `{name}` is not a state of a job; {}", near())))
    };
    let states = args.state.iter().map(named).collect::<Result<_, _>>()?;
    let filter = JobFilter { pipeline: args.pipeline, states, schedule: None, limit: args.limit };
    let jobs = service.list(&filter).await.map_err(usage)?;
    if args.output.json {
        say!("{}", json!({ "jobs": jobs }));
        return Ok(());
    }
    if jobs.is_empty() {
        say!("no jobs");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["job", "kind", "pipeline", "state", "rows", "rows/s", "left", "dead", "device", "created"]);
    for job in &jobs {
        table.add_row([
            job.id.clone(),
            job.kind.clone(),
            job.pipeline.clone(),
            job.state.to_string(),
            format!("{} of {}", job.progress.rows_done, job.progress.rows),
            job.rows_per_second.map(|rate| format!("{rate:.1}")).unwrap_or_default(),
            job.seconds_left.map(span).unwrap_or_default(),
            job.progress.work.dead.to_string(),
            format!("{:.1} s", job.device_seconds),
            job.created_at.map(|time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).unwrap_or_default(),
        ]);
    }
    say!("{table}");
    Ok(())
}

/// An invalid request is a usage error.
pub fn usage(error: JobServiceError) -> anyhow::Error {
    match error {
        JobServiceError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

fn print_answer(answer: Result<JobDetails, JobServiceError>, json: bool) -> Result<()> {
    let details = answer.map_err(usage)?;
    if json {
        say!("{}", json!(details));
    } else {
        print(&details);
    }
    Ok(())
}

/// Everything about the job, for people.
fn print(details: &JobDetails) {
    let JobDetails { summary, spec, report, faults, dead_letters } = details;
    say!("{}", line(summary));
    let (p, w) = (&summary.progress, &summary.progress.work);
    say!("  units: {} of {} done, {} failed, {} stopped", p.units_done, p.units, p.units_failed, p.units_stopped);
    say!("  results: {} computed, {} reused, {} skipped, {} dead", w.ok, w.reused, w.skipped, w.dead);
    let cost = summary.cost.map(|cost| format!(", cost {cost:.2}")).unwrap_or_default();
    let (read, written) = (w.tokens, w.generated_tokens);
    say!("  tokens: {read} read, {written} written; device time: {:.1} s{cost}", summary.device_seconds);
    say!("  job: {spec}");
    if let Some(report) = report {
        say!("  report: {report}");
    }
    for fault in faults {
        say!("  unit {} failed, {}: {}", fault.unit, fault.class, fault.reason);
    }
    if dead_letters.count > 0 {
        let classes: Vec<String> = dead_letters.classes.iter().map(|class| format!("{} {}", class.count, class.class)).collect();
        say!("  dead letters: {}", classes.join(", "));
    }
    for dead_letter in &dead_letters.first {
        let task = dead_letter.task.as_ref().map(|task| format!(", task {task}")).unwrap_or_default();
        say!("    unit {} row {}{task}, {}: {}", dead_letter.unit, dead_letter.row, dead_letter.class, dead_letter.reason);
    }
}

/// The job on one line.
fn line(job: &JobSummary) -> String {
    let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let rate = job.rows_per_second.map(|rate| format!(", {rate:.1} rows/s")).unwrap_or_default();
    let left = job.seconds_left.map(|left| format!(", {} left", span(left))).unwrap_or_default();
    let (done, rows) = (job.progress.rows_done, job.progress.rows);
    format!("{} of {} is {}{reason} ({done} of {rows} rows{rate}{left})", job.id, job.pipeline, job.state)
}
