//! `tidemill jobs`: what jobs there are, how far they are, and how to stop them or try them again. The ledger is all it needs.

mod watch;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde_json::json;

use super::progress::span;
use super::store;
use crate::config::{Config, ConfigError, Flag};
use crate::demo::defaults::with_database;
use crate::did_you_mean::suggestion;
use crate::jobs::{JobDetails, JobService, JobServiceError, JobSummary, KnownNames, LISTED};
use crate::store::{JobFilter, JobState};

pub use watch::follow;

/// What about jobs.
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
    /// The folder of private data; its Postgres is asked where no database is configured
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// The latest jobs
    List(ListArgs),
    /// Everything that is known of a job
    Show(JobIdArgs),
    /// Follow a job to its end; Ctrl-C ends the watching, not the job
    Watch(JobIdArgs),
    /// Call a job off; what is finished stays
    Cancel(JobIdArgs),
    /// Try again what of a job failed or was stopped; what is finished stays
    Retry(JobIdArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only in this state; may be given more than once
    #[arg(long, value_name = "STATE")]
    state: Vec<String>,
    /// Most jobs, 1 to 100
    #[arg(long, value_name = "N", default_value_t = LISTED)]
    limit: i64,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct JobIdArgs {
    /// The job's id
    id: String,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

impl JobsArgs {
    /// What the command line says of the configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let folder = self.data_dir.as_ref().map(|folder| folder.to_string_lossy().into_owned());
        folder.map(|value| Flag { name: "--data-dir", setting: "data_dir", value }).into_iter().collect()
    }
}

/// Asks the desk.
pub async fn run(mut config: Config, args: JobsArgs) -> Result<()> {
    // It lives as long as the command.
    let _postgres = with_database(&mut config).await?;
    let store = store(&config)?;
    store.migrate().await?;
    // Nothing is submitted here, so that no names are needed.
    let service = JobService::new(store, &config.jobs, KnownNames::default());
    match args.command {
        JobsCommand::List(args) => list(&service, args).await,
        JobsCommand::Show(args) => tell(service.show(&args.id).await, args.json),
        JobsCommand::Watch(args) => follow(&service, &args.id, args.json).await,
        JobsCommand::Cancel(args) => tell(service.cancel(&args.id).await, args.json),
        JobsCommand::Retry(args) => tell(service.retry(&args.id).await, args.json),
    }
}

async fn list(service: &JobService, args: ListArgs) -> Result<()> {
    let named = |name: &String| {
        let near = || suggestion(name, JobState::ALL.map(JobState::as_str));
        JobState::named(name).ok_or_else(|| ConfigError(format!("--state `{name}` is none; {}", near())))
    };
    let states = args.state.iter().map(named).collect::<Result<_, _>>()?;
    let filter = JobFilter { pipeline: args.pipeline, states, schedule: None, limit: args.limit };
    let jobs = service.list(&filter).await.map_err(usage)?;
    if args.json {
        say!("{}", json!({ "jobs": jobs }));
        return Ok(());
    }
    if jobs.is_empty() {
        say!("there are no such jobs");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["job", "kind", "pipeline", "state", "rows", "rows/s", "left", "dead", "device", "asked for"]);
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

/// What the caller asked wrongly is for the caller to mend.
pub fn usage(error: JobServiceError) -> anyhow::Error {
    match error {
        JobServiceError::Invalid(message) => ConfigError(message).into(),
        other => other.into(),
    }
}

fn tell(answer: Result<JobDetails, JobServiceError>, json: bool) -> Result<()> {
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
    say!("  rows and tasks: {} computed, {} reused, {} skipped, {} dead", w.ok, w.reused, w.skipped, w.dead);
    let cost = summary.cost.map(|cost| format!(", which cost {cost:.2}")).unwrap_or_default();
    let (read, written) = (w.tokens, w.generated_tokens);
    say!("  tokens: {read} read, {written} written; device time: {:.1} s{cost}", summary.device_seconds);
    say!("  asked for: {spec}");
    if let Some(report) = report {
        say!("  found out: {report}");
    }
    for fault in faults {
        say!("  unit {} failed, {}: {}", fault.unit, fault.class, fault.reason);
    }
    if dead_letters.count > 0 {
        let classes: Vec<String> = dead_letters.classes.iter().map(|class| format!("{} {}", class.count, class.class)).collect();
        say!("  dead letters: {}", classes.join(", "));
    }
    for letter in &dead_letters.first {
        let task = letter.task.as_ref().map(|task| format!(", task {task}")).unwrap_or_default();
        say!("    unit {} row {}{task}, {}: {}", letter.unit, letter.row, letter.class, letter.reason);
    }
}

/// The job in a line.
fn line(job: &JobSummary) -> String {
    let reason = job.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let rate = job.rows_per_second.map(|rate| format!(", {rate:.1} rows/s")).unwrap_or_default();
    let left = job.seconds_left.map(|left| format!(", {} left", span(left))).unwrap_or_default();
    let (done, rows) = (job.progress.rows_done, job.progress.rows);
    format!("{} of {} is {}{reason} ({done} of {rows} rows{rate}{left})", job.id, job.pipeline, job.state)
}
