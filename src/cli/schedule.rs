//! `tidemill schedule`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::Table;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::{definitions, store};
use crate::config::{Config, ConfigError};
use crate::did_you_mean::suggestion;
use crate::jobs::schedules::Schedule;
use crate::store::{LastFiring, Store};

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List schedules with the outcome of their last time, and their next time
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show the next times, in the schedule's zone and in UTC
    Next {
        /// The schedule; by default all
        name: Option<String>,
        /// How many times of each schedule
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 5)]
        count: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Start the schedule's job now, in addition to its times
    RunNow {
        /// The schedule
        name: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Runs `tidemill schedule`.
pub async fn run(config: Config, command: ScheduleCommand) -> Result<()> {
    let schedules = Schedule::all(&config, &definitions(&config, None)?)?;
    match command {
        ScheduleCommand::List { output } => list(&config, &schedules, output.json).await,
        ScheduleCommand::Next { name, count, output } => {
            let wanted = match &name {
                Some(name) => vec![named(&schedules, name)?],
                None => schedules.iter().collect(),
            };
            next(&wanted, count, output.json);
            Ok(())
        }
        ScheduleCommand::RunNow { name, output } => run_now(&config, named(&schedules, &name)?, output.json).await,
    }
}

fn named<'a>(schedules: &'a [Schedule], name: &str) -> Result<&'a Schedule> {
    let found = schedules.iter().find(|schedule| schedule.id == name);
    let near = || suggestion(name, schedules.iter().map(|schedule| schedule.id.as_str()));
    Ok(found.ok_or_else(|| ConfigError(format!("no schedule is named `{name}`; {}", near())))?)
}

/// The last times of all schedules, or why they are not known.
async fn last_firings(config: &Config) -> Result<BTreeMap<String, LastFiring>, String> {
    let store = store(config).map_err(|error| error.to_string())?;
    let last = store.last_firings().await.map_err(|failure| failure.to_string());
    store.close().await;
    Ok(last?.into_iter().map(|last| (last.schedule.clone(), last)).collect())
}

async fn list(config: &Config, schedules: &[Schedule], as_json: bool) -> Result<()> {
    let (last, now) = (last_firings(config).await, Timestamp::now());
    if as_json {
        let entries: Vec<Value> = schedules.iter().map(|schedule| entry(schedule, last.as_ref().ok(), now)).collect();
        say!("{}", json!({ "schedules": entries, "last_unknown": last.as_ref().err() }));
        return Ok(());
    }
    if schedules.is_empty() {
        say!("there are no schedules; add `schedules` to a pipeline, or [schedules.<name>] to the configuration");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["schedule", "cron", "time zone", "overlap", "last", "outcome", "job", "next"]);
    for schedule in schedules {
        let last = last.as_ref().ok().map(|last| last.get(&schedule.id));
        let [time, outcome, job] = match last {
            None => ["unknown".into(), String::new(), String::new()],
            Some(None) => ["none yet".into(), String::new(), String::new()],
            Some(Some(last)) => last_cells(schedule, last),
        };
        table.add_row([
            schedule.id.clone(),
            schedule.cron.clone(),
            schedule.time_zone.clone(),
            schedule.overlap.as_str().into(),
            time,
            outcome,
            job,
            match next_of(schedule, now) {
                Some(next) => on_the_clock(&schedule.local(next)),
                None => "disabled".into(),
            },
        ]);
    }
    say!("{table}");
    if let Err(reason) = last {
        say!("the outcomes of their last times are unknown: {reason}");
    }
    Ok(())
}

fn last_cells(schedule: &Schedule, last: &LastFiring) -> [String; 3] {
    let time = Timestamp::from_millisecond(last.time_ms).map(|time| on_the_clock(&schedule.local(time)));
    let outcome = match &last.reason {
        Some(reason) => format!("{}: {reason}", last.outcome),
        None => last.outcome.clone(),
    };
    let job = match (&last.job_id, &last.job_state) {
        (Some(job), Some(state)) => format!("{job} ({state})"),
        _ => String::new(),
    };
    [time.unwrap_or_default(), outcome, job]
}

fn entry(schedule: &Schedule, last: Option<&BTreeMap<String, LastFiring>>, now: Timestamp) -> Value {
    let last = last.and_then(|last| last.get(&schedule.id)).map(|last| {
        json!({
            "time": Timestamp::from_millisecond(last.time_ms).ok(), "outcome": last.outcome, "reason": last.reason,
            "job": last.job_id, "job_state": last.job_state,
        })
    });
    json!({
        "schedule": schedule.id, "pipeline": schedule.pipeline, "cron": schedule.cron, "time_zone": schedule.time_zone,
        "overlap": schedule.overlap.as_str(), "catch_up_seconds": schedule.catch_up.as_secs(),
        "jitter_seconds": schedule.jitter.as_secs_f64(), "enabled": schedule.enabled, "last": last,
        "next": next_of(schedule, now),
    })
}

fn next_of(schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    schedule.enabled.then(|| schedule.next_after(now)).flatten()
}

fn next(schedules: &[&Schedule], count: usize, as_json: bool) {
    let times = |schedule: &Schedule| -> Vec<Timestamp> {
        std::iter::successors(next_of(schedule, Timestamp::now()), |time| schedule.next_after(*time)).take(count).collect()
    };
    if as_json {
        let entry = |schedule: &&Schedule| {
            let moment = |time: Timestamp| json!({ "time": time, "local": on_the_clock(&schedule.local(time)), "start": schedule.start_of(time) });
            let times: Vec<Value> = times(schedule).into_iter().map(moment).collect();
            json!({ "schedule": schedule.id, "time_zone": schedule.time_zone, "enabled": schedule.enabled, "times": times })
        };
        say!("{}", json!({ "schedules": schedules.iter().map(entry).collect::<Vec<_>>() }));
        return;
    }
    if schedules.is_empty() {
        say!("there are no schedules");
        return;
    }
    let mut table = Table::new();
    table.set_header(["schedule", "in its time zone", "UTC", "starts after"]);
    for schedule in schedules {
        if !schedule.enabled {
            table.add_row([schedule.id.as_str(), "disabled", "", ""]);
        }
        for time in times(schedule) {
            let delay = SignedDuration::from_secs(schedule.start_of(time).duration_since(time).as_secs());
            let local = format!("{} {}", on_the_clock(&schedule.local(time)), schedule.time_zone);
            table.add_row([schedule.id.clone(), local, time.to_string(), format!("{delay:#}")]);
        }
    }
    say!("{table}");
}

async fn run_now(config: &Config, schedule: &Schedule, as_json: bool) -> Result<()> {
    let store = store(config)?;
    store.migrate().await?;
    let fired = fire_now(config, schedule, &store).await;
    store.close().await;
    let (job, open) = fired?;
    if as_json {
        say!("{}", json!({ "schedule": schedule.id, "job": job, "waits_for": open }));
        return Ok(());
    }
    say!("submitted job {job}");
    if !open.is_empty() {
        say!("it waits for {}, because jobs of one schedule run one after the other", open.join(", "));
    }
    Ok(())
}

async fn fire_now(config: &Config, schedule: &Schedule, store: &Store) -> Result<(String, Vec<String>)> {
    let now = Timestamp::now();
    let job = schedule.job_now(now).map_err(ConfigError)?;
    let job = job
        .to_new(&schedule.tenant, config.jobs.price_per_device_hour, Some(&schedule.id))
        .map_err(|error| ConfigError(error.0))?;
    let open = store.open_jobs_of(&schedule.id).await?;
    let by = format!("run-now, process {}", std::process::id());
    let fired = store.fire_now(&schedule.id, &by, now.as_millisecond(), &job, &config.jobs.events_topic).await;
    fired.context("cannot submit the job")?;
    Ok((job.id, open))
}

fn on_the_clock(time: &Zoned) -> String {
    time.strftime("%Y-%m-%d %H:%M %:z").to_string()
}
