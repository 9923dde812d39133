//! Schedules: jobs that start at set times, by a cron expression in a time zone.
//!
//! | file | job |
//! |---|---|
//! | `schedules.rs` | a schedule, and the job of each of its times |
//! | `clock.rs` | computes the times |
//! | `decision.rs` | decides whether a time fires |
//! | `../coordinator/schedules.rs` | the coordinator stores the decisions, all of a round in one transaction |
//!
//! A schedule of a pipeline file has the id `<pipeline>.<name>`, one of the configuration `<name>`. The job of a time has the id
//! `<schedule>@20261121T030000Z`, so that two processes that submit the same time submit the same job.
//!
//! The `prefix` of the job may contain its time, as shown in the schedule's zone:
//!
//! | placeholder | example |
//! |---|---|
//! | `{date}`, `{yesterday}` | `2026-11-21`, `2026-11-20` |
//! | `{year}`, `{month}`, `{day}`, `{hour}` | `2026`, `11`, `21`, `03` |

mod clock;
pub(in crate::jobs) mod decision;

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};
use serde_json::{Map, Value};
use uuid::Uuid;

use self::clock::CronClock;
use super::names::KnownNames;
use super::spec::JobSpec;
use crate::config::{Config, OverlapPolicy, ScheduleConfig};
use crate::did_you_mean::suggestion;
use crate::pipeline::definition::Definition;
use crate::pipeline::definition_error::{DefinitionError, DefinitionProblem};

/// A schedule, checked as a whole.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Its name, unique among all schedules.
    pub id: String,
    /// The pipeline of its jobs.
    pub pipeline: String,
    /// The tenant of the pipeline.
    pub tenant: Arc<str>,
    pub cron: String,
    /// The zone of the cron expression.
    pub time_zone: String,
    /// What happens when a time comes while the job of an earlier one is still open.
    pub overlap: OverlapPolicy,
    /// How late a job may still start.
    pub catch_up: SignedDuration,
    /// The time over which starts are spread.
    pub jitter: SignedDuration,
    pub enabled: bool,
    job: Map<String, Value>,
    clock: CronClock,
}

/// The default `catch_up`.
const CATCH_UP: SignedDuration = SignedDuration::from_hours(1);
/// The least `catch_up`: a fleet may need this long until another process is the coordinator.
const LEAST_CATCH_UP: SignedDuration = SignedDuration::from_mins(1);
/// The longest name: with the longest pipeline name and a time, it still makes a valid job id.
const NAME_CHARACTERS: usize = 39;

/// Keys of a job that a schedule sets itself, or that fit a single job only, with the reason.
const EXCLUDED_KEYS: [(&str, &str); 4] = [
    ("version", "the file of the schedule has it"),
    ("id", "each time has an id of its own"),
    ("pipeline", "the schedule names the pipeline"),
    ("deadline", "it would fit only one of the jobs; use `budget` to limit each"),
];

const PLACEHOLDERS: [&str; 6] = ["date", "yesterday", "year", "month", "day", "hour"];

impl Schedule {
    /// Every schedule of the pipelines and of the configuration, in order of their names.
    ///
    /// # Errors
    /// All problems of all schedules, with their places.
    pub fn all(config: &Config, definitions: &[Definition]) -> Result<Vec<Self>, DefinitionError> {
        let (mut schedules, mut problems) = (Vec::new(), Vec::new());
        for definition in definitions {
            for schedule in &definition.schedules {
                let read = match &schedule.config.pipeline {
                    Some(_) => Err("`pipeline` is always the pipeline of this file; remove the key".to_owned()),
                    None => {
                        let id = format!("{}.{}", definition.name, schedule.name);
                        Self::read(id, &schedule.name, &schedule.config, definition, config)
                    }
                };
                match read {
                    Ok(schedule) => schedules.push(schedule),
                    Err(problem) => {
                        let message = format!("schedule `{}`: {problem}", schedule.name);
                        problems.push(DefinitionProblem::new(&definition.path, schedule.place, message));
                    }
                }
            }
        }
        for (name, written) in &config.schedules {
            match Self::of_configuration(name, written, config, definitions) {
                Ok(schedule) => schedules.push(schedule),
                Err(problem) => problems.push(DefinitionProblem::new(
                    Path::new("configuration"),
                    None,
                    format!("`schedules.{name}`: {problem}"),
                )),
            }
        }
        schedules.sort_by(|a, b| a.id.cmp(&b.id));
        if problems.is_empty() { Ok(schedules) } else { Err(DefinitionError { problems }) }
    }

    fn of_configuration(
        name: &str,
        written: &ScheduleConfig,
        config: &Config,
        definitions: &[Definition],
    ) -> Result<Self, String> {
        let pipeline = written.pipeline.as_deref().ok_or("`pipeline` is missing; name the pipeline of the job")?;
        let definition = definitions.iter().find(|definition| *definition.name == *pipeline).ok_or_else(|| {
            let near = suggestion(pipeline, definitions.iter().map(|definition| &*definition.name));
            format!("no pipeline is named `{pipeline}` here; {near}")
        })?;
        Self::read(name.to_owned(), name, written, definition, config)
    }

    fn read(id: String, name: &str, written: &ScheduleConfig, definition: &Definition, config: &Config) -> Result<Self, String> {
        let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.len() > NAME_CHARACTERS || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(rest) {
            return Err(format!(
                "`{name}` is not a schedule name; use lower-case letters, digits, `-` and `_`, a letter first, at most \
                 {NAME_CHARACTERS} characters"
            ));
        }
        let time_zone = written.time_zone.clone().unwrap_or_else(|| "UTC".to_owned());
        let catch_up = duration("catch_up", written.catch_up.as_deref())?.unwrap_or(CATCH_UP);
        if catch_up < LEAST_CATCH_UP {
            return Err(
                "`catch_up` is less than a minute, but it can take a minute to notice that a process has ended; write 1m or more"
                    .into(),
            );
        }
        let schedule = Self {
            id,
            pipeline: definition.name.to_string(),
            tenant: definition.tenant.clone(),
            cron: written.cron.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
            overlap: written.overlap,
            catch_up,
            jitter: duration("jitter", written.jitter.as_deref())?.unwrap_or_default(),
            enabled: written.enabled.unwrap_or(true),
            job: written.job.clone(),
            clock: CronClock::new(&written.cron, &time_zone)?,
            time_zone,
        };
        let Some(first) = schedule.next_after(Timestamp::now()) else {
            return Err(format!("`cron` is `{}`, which never occurs; write a day that exists", schedule.cron));
        };
        schedule.check_job(&schedule.job_at(first)?, config, definition).map(|()| schedule)
    }

    fn check_job(&self, job: &JobSpec, config: &Config, definition: &Definition) -> Result<(), String> {
        KnownNames::new([definition], &config.datasets).check(job).map_err(|error| format!("its job: {error}"))?;
        job.budget_micros(config.jobs.price_per_device_hour).map(drop).map_err(|error| format!("its job: {error}"))
    }

    /// The first time after `time`.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.clock.next_after(time)
    }

    /// When the job of the time starts: after a part of the jitter that depends on the schedule and the time, and before the next
    /// time.
    pub fn start_of(&self, time: Timestamp) -> Timestamp {
        let until_next = self.next_after(time).map_or(self.jitter, |next| next.duration_since(time));
        let spread = self.jitter.min(until_next).as_millis() as u64;
        if spread == 0 {
            return time;
        }
        let hash = blake3::hash(format!("{}@{}", self.id, time.as_second()).as_bytes());
        let mut number = [0; 8];
        number.copy_from_slice(&hash.as_bytes()[..8]);
        time + SignedDuration::from_millis((u64::from_le_bytes(number) % spread) as i64)
    }

    /// The time in the schedule's zone.
    pub fn local(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.clock.zone().clone())
    }

    /// The job of the time.
    ///
    /// # Errors
    /// One sentence where the job is invalid.
    pub fn job_at(&self, time: Timestamp) -> Result<JobSpec, String> {
        let id = format!("{}@{}", self.id, time.strftime("%Y%m%dT%H%M%SZ"));
        self.job(id, time)
    }

    /// A job of the schedule that starts now.
    ///
    /// # Errors
    /// One sentence where the job is invalid.
    pub fn job_now(&self, now: Timestamp) -> Result<JobSpec, String> {
        // The end of the id is random, and twelve digits are enough.
        let random = Uuid::now_v7().simple().to_string();
        self.job(format!("{}@now-{}", self.id, &random[20..]), now)
    }

    fn job(&self, id: String, time: Timestamp) -> Result<JobSpec, String> {
        if let Some((key, why)) = EXCLUDED_KEYS.iter().find(|(key, _)| self.job.contains_key(*key)) {
            return Err(format!("its job has the key `{key}`; remove it: {why}"));
        }
        let mut job = self.job.clone();
        if let Some(Value::String(prefix)) = job.get_mut("prefix") {
            *prefix = filled(prefix, &self.local(time))?;
        }
        job.insert("version".to_owned(), 1.into());
        job.insert("pipeline".to_owned(), self.pipeline.clone().into());
        JobSpec::of_object(job, Some(&id)).map_err(|error| format!("its job: {error}"))
    }

    /// A hash of everything that the times depend on.
    pub(in crate::jobs) fn timing(&self) -> String {
        let words = format!("{}\n{}\n{}", self.cron, self.time_zone, self.enabled);
        blake3::hash(words.as_bytes()).to_hex()[..32].to_owned()
    }
}

/// The prefix with every placeholder replaced.
fn filled(prefix: &str, time: &Zoned) -> Result<String, String> {
    let (mut whole, mut rest) = (String::new(), prefix);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((word, after)) = after.split_once('}') else {
            return Err(format!("its job's `prefix` is `{prefix}`, in which a `{{` is not closed"));
        };
        let format = match word {
            "date" => "%Y-%m-%d",
            "yesterday" => "%Y-%m-%d",
            "year" => "%Y",
            "month" => "%m",
            "day" => "%d",
            "hour" => "%H",
            _ => return Err(format!("its job's `prefix` contains `{{{word}}}`; {}", suggestion(word, PLACEHOLDERS))),
        };
        let shown =
            if word == "yesterday" { time.date().saturating_sub(1.day()).to_datetime(time.time()) } else { time.datetime() };
        whole.push_str(before);
        whole.push_str(&shown.strftime(format).to_string());
        rest = after;
    }
    whole.push_str(rest);
    Ok(whole)
}

fn duration(key: &str, text: Option<&str>) -> Result<Option<SignedDuration>, String> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<SignedDuration>() {
        Ok(duration) if !duration.is_negative() => Ok(Some(duration)),
        _ => Err(format!("`{key}` is `{text}`; write a duration such as `2m` or `6h`")),
    }
}

#[cfg(test)]
mod tests;
