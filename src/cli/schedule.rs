//! `tidemill schedule`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Subcommand;
use comfy_table::Table;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde_json::{Value, json};

use super::{definitions, store};
use crate::config::{Config, ConfigError};
use crate::did_you_mean::suggestion;
use crate::jobs::schedules::Schedule;
use crate::store::{LastFiring, Store};

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Every schedule, what became of its last time, and its next one
    List {
        /// One JSON object on the last line of stdout
        #[arg(long)]
        json: bool,
    },
    /// The next times, by the clocks of the schedule's zone and in UTC
    Next {
        /// The schedule; all of them unless told
        name: Option<String>,
        /// How many times of each
        #[arg(short = 'n', long = "count", value_name = "N", default_value_t = 5)]
        count: usize,
        /// One JSON object on the last line of stdout
        #[arg(long)]
        json: bool,
    },
    /// Ask for the schedule's job at once, beside its times
    RunNow {
        /// The schedule
        name: String,
        /// One JSON object on the last line of stdout
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub async fn run(config: Config, command: ScheduleCommand) -> Result<()> {
    let schedules = Schedule::all(&config, &definitions(&config, None)?)?;
    match command {
        ScheduleCommand::List { json } => list(&config, &schedules, json).await,
        ScheduleCommand::Next { name, count, json } => {
            let wanted = match &name {
                Some(name) => vec![named(&schedules, name)?],
                None => schedules.iter().collect(),
            };
            next(&wanted, count, json);
            Ok(())
        }
        ScheduleCommand::RunNow { name, json } => run_now(&config, named(&schedules, &name)?, json).await,
    }
}

fn named<'a>(schedules: &'a [Schedule], name: &str) -> Result<&'a Schedule> {
    let found = schedules.iter().find(|schedule| schedule.id == name);
    let near = || suggestion(name, schedules.iter().map(|schedule| schedule.id.as_str()));
    Ok(found.ok_or_else(|| ConfigError(format!("no schedule is named `{name}`; {}", near())))?)
}

/// What the ledger knows of last times, or why that is not known.
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
        say!("there are no schedules; write `schedules` into a pipeline, or [schedules.<name>] into the configuration");
        return Ok(());
    }
    let mut table = Table::new();
    table.set_header(["schedule", "cron", "time zone", "overlap", "last", "became", "job", "next"]);
    for schedule in schedules {
        let last = last.as_ref().ok().map(|last| last.get(&schedule.id));
        let [time, became, job] = match last {
            None => ["not known".into(), String::new(), String::new()],
            Some(None) => ["none yet".into(), String::new(), String::new()],
            Some(Some(last)) => told(schedule, last),
        };
        table.add_row([
            schedule.id.clone(),
            schedule.cron.clone(),
            schedule.time_zone.clone(),
            schedule.overlap.as_str().into(),
            time,
            became,
            job,
            match next_of(schedule, now) {
                Some(next) => on_the_clock(&schedule.local(next)),
                None => "disabled".into(),
            },
        ]);
    }
    say!("{table}");
    if let Err(reason) = last {
        say!("what became of their last times is not known: {reason}");
    }
    Ok(())
}

fn told(schedule: &Schedule, last: &LastFiring) -> [String; 3] {
    let time = Timestamp::from_millisecond(last.time_ms).map(|time| on_the_clock(&schedule.local(time)));
    let became = match &last.reason {
        Some(reason) => format!("{}: {reason}", last.outcome),
        None => last.outcome.clone(),
    };
    let job = match (&last.job_id, &last.job_state) {
        (Some(job), Some(state)) => format!("{job} ({state})"),
        _ => String::new(),
    };
    [time.unwrap_or_default(), became, job]
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
    table.set_header(["schedule", "in its zone", "UTC", "starts after"]);
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
    say!("asked for job {job}");
    if !open.is_empty() {
        say!("it waits for {}, for jobs of one schedule go one after the other", open.join(", "));
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
    fired.context("the job was not asked for")?;
    Ok((job.id, open))
}

fn on_the_clock(time: &Zoned) -> String {
    time.strftime("%Y-%m-%d %H:%M %:z").to_string()
}
