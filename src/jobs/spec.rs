//! The specification of a job: one JSON object, wherever the job comes from. Unknown keys are refused.
//!
//! ```json
//! {"version": 1, "id": "archive-2025", "kind": "backfill", "pipeline": "news", "dataset": "archive", "prefix": "2025/",
//!  "since": "2025-03-01", "until": "2025-04-01", "sample": 1000, "seed": 7, "priority": 0,
//!  "deadline": "2026-01-01T06:00:00Z", "budget": {"device_seconds": 600}}
//! ```
//!
//! | kind | does | keys |
//! |---|---|---|
//! | `backfill` | runs the pipeline over the rows of a dataset's Parquet files | `dataset`; optional `prefix`, `since`, `until`, `sample`, `seed` |
//! | `rerun` | processes documents again whose outputs are missing, or come from another model or prompt than the current one | optional `tasks` |
//! | `reembed` | the same for the `embed` tasks only | |
//! | `evaluate` | evaluates labelled rows without storing results, and reports how often a task is right | `dataset`, `task`, `expected`; optional `prefix`, `sample`, `seed` |
//! | `delete` | deletes documents with all their results | `documents` |
//!
//! A job names datasets and pipelines of the configuration. It cannot contain a path, an address, a credential or a setting.

mod file;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::access::DEFAULT_TENANT;
use crate::did_you_mean::suggestion;
use crate::source::check_key;
use crate::store::NewJob;

pub use file::JobFile;

/// Why a job is refused: the key, what is wrong with it, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecError(pub String);

/// A job, checked as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Two jobs with the same id are one job.
    pub id: String,
    pub kind: JobKind,
    pub pipeline: String,
    /// Jobs with a greater priority run first.
    pub priority: i32,
    /// When it stops at the latest.
    pub deadline: Option<Timestamp>,
    pub budget: Option<Budget>,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq)]
pub enum JobKind {
    /// Runs the pipeline over rows.
    Backfill(Rows),
    /// Processes documents of the pipeline again.
    Rerun {
        /// The tasks whose outputs are compared; empty for all tasks.
        tasks: Vec<String>,
    },
    /// Processes documents again whose vectors come from another model.
    Reembed,
    /// Evaluates a task on labelled rows.
    Evaluate {
        rows: Rows,
        task: String,
        /// The column with the expected output.
        expected: String,
    },
    Delete {
        documents: Vec<String>,
    },
}

/// Rows of a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    pub dataset: String,
    /// Only files whose keys start with this.
    pub prefix: String,
    /// Only rows of this time or later. The time of a row is its version, or the file's time where the pipeline has no version.
    pub since: Option<Timestamp>,
    /// Only rows before this time.
    pub until: Option<Timestamp>,
    /// Only this many rows, chosen at random.
    pub sample: Option<usize>,
    pub seed: u64,
}

/// The most that a job may cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Budget {
    DeviceSeconds(f64),
    /// Money, at the configured price of a device hour.
    Cost(f64),
}

const KINDS: [&str; 5] = ["backfill", "rerun", "reembed", "evaluate", "delete"];

/// Keys that every job has.
const COMMON: [&str; 7] = ["version", "id", "kind", "pipeline", "priority", "deadline", "budget"];

/// The further keys of each kind.
const OWN: [(&str, &[&str]); 5] = [
    ("backfill", &["dataset", "prefix", "since", "until", "sample", "seed"]),
    ("rerun", &["tasks"]),
    ("reembed", &[]),
    ("evaluate", &["dataset", "prefix", "sample", "seed", "task", "expected"]),
    ("delete", &["documents"]),
];

const ID_CHARACTERS: usize = 120;

/// The most documents that one job may delete.
const DELETES: usize = 100_000;

impl JobSpec {
    /// Parses a job. A job without an id gets `id`, if that is given.
    ///
    /// # Errors
    /// One sentence where it is not a job.
    pub fn parse(text: &[u8], id: Option<&str>) -> Result<Self, SpecError> {
        let keys: Map<String, Value> =
            serde_json::from_slice(text).map_err(|e| refuse(format!("a job is a JSON object: {e}")))?;
        Self::of_object(keys, id)
    }

    /// Parses a job from outside. Ids with `@` are refused: they belong to schedules, and anybody could guess and take the next
    /// one.
    ///
    /// # Errors
    /// One sentence where it is not a job.
    pub fn parse_request(text: &[u8], id: Option<&str>) -> Result<Self, SpecError> {
        let spec = Self::parse(text, id)?;
        if spec.id.contains('@') {
            return Err(refuse(format!("`id` is `{}`; ids with `@` are reserved for schedules; use another character", spec.id)));
        }
        Ok(spec)
    }

    /// Reads a job from a JSON object.
    ///
    /// # Errors
    /// One sentence where it is not a job.
    pub fn of_object(keys: Map<String, Value>, id: Option<&str>) -> Result<Self, SpecError> {
        let kind = match keys.get("kind").and_then(Value::as_str) {
            Some(kind) if KINDS.contains(&kind) => kind.to_owned(),
            Some(kind) => {
                return Err(refuse(format!("`kind` is `{kind}`, which is not a kind of job; {}", suggestion(kind, KINDS))));
            }
            None => return Err(refuse(format!("`kind` is missing; write one of {}", KINDS.join(", ")))),
        };
        let own = OWN.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, own)| own);
        let known = || COMMON.iter().chain(own).copied();
        if let Some(key) = keys.keys().find(|key| !known().any(|known| known == key.as_str())) {
            return Err(refuse(format!("unknown key `{key}` of a job of kind {kind}; {}", suggestion(key, known()))));
        }
        for (key, value) in &keys {
            check_text(key, value)?;
        }
        let file: JobFile = serde_json::from_value(Value::Object(keys)).map_err(|e| refuse(format!("the job is wrong: {e}")))?;
        Self::of_file(file, &kind, id)
    }

    fn of_file(file: JobFile, kind: &str, id: Option<&str>) -> Result<Self, SpecError> {
        if file.version != 1 {
            return Err(refuse(format!("`version` is {}; write 1", file.version)));
        }
        let Some(id) = file.id.as_deref().or(id) else {
            return Err(refuse("`id` is missing; give the job a name of its own".into()));
        };
        check_id(id)?;
        if file.pipeline.is_empty() {
            return Err(refuse("`pipeline` is missing; name the pipeline".into()));
        }
        match file.budget {
            Some(Budget::DeviceSeconds(amount) | Budget::Cost(amount)) if !amount.is_finite() || amount <= 0.0 => {
                return Err(refuse(format!("`budget` is {amount}; write more than 0")));
            }
            _ => {}
        }
        Ok(Self {
            id: id.to_owned(),
            kind: JobKind::of_file(&file, kind)?,
            pipeline: file.pipeline,
            priority: file.priority.unwrap_or(0),
            deadline: file.deadline.as_deref().map(deadline).transpose()?,
            budget: file.budget,
        })
    }

    /// The tenant's job as the ledger stores it. Equal jobs have equal text.
    ///
    /// # Errors
    /// Where the budget is an amount of money, but no price is configured.
    pub fn to_new(&self, tenant: &str, price_per_device_hour: Option<f64>, schedule: Option<&str>) -> Result<NewJob, SpecError> {
        Ok(NewJob {
            id: job_key(tenant, &self.id),
            kind: self.kind.name().to_owned(),
            pipeline: self.pipeline.clone(),
            spec: self.to_json().to_string(),
            priority: self.priority,
            deadline_ms: self.deadline.map(Timestamp::as_millisecond),
            budget_micros: self.budget_micros(price_per_device_hour)?,
            schedule: schedule.map(str::to_owned),
        })
    }

    /// The budget in microseconds of device time.
    ///
    /// # Errors
    /// Where the budget is an amount of money, but no price is configured.
    pub fn budget_micros(&self, price_per_device_hour: Option<f64>) -> Result<Option<i64>, SpecError> {
        let device_seconds = match (self.budget, price_per_device_hour) {
            (None, _) => None,
            (Some(Budget::DeviceSeconds(seconds)), _) => Some(seconds),
            (Some(Budget::Cost(cost)), Some(price)) if price > 0.0 => Some(cost / price * 3600.0),
            (Some(Budget::Cost(_)), _) => {
                let message = "`budget.cost` needs a price; set jobs.price_per_device_hour, or write `budget.device_seconds`";
                return Err(refuse(message.into()));
            }
        };
        Ok(device_seconds.map(|seconds| (seconds * 1e6).round() as i64))
    }

    /// The job as JSON, which reads as an equal job.
    pub fn to_json(&self) -> Value {
        let mut file = JobFile {
            version: 1,
            id: Some(self.id.clone()),
            kind: self.kind.name().to_owned(),
            pipeline: self.pipeline.clone(),
            priority: (self.priority != 0).then_some(self.priority),
            deadline: self.deadline.map(|time| time.to_string()),
            budget: self.budget,
            ..JobFile::default()
        };
        match &self.kind {
            JobKind::Backfill(rows) => file.set_rows(rows),
            JobKind::Rerun { tasks } => file.tasks = (!tasks.is_empty()).then(|| tasks.clone()),
            JobKind::Reembed => {}
            JobKind::Evaluate { rows, task, expected } => {
                file.set_rows(rows);
                (file.task, file.expected) = (Some(task.clone()), Some(expected.clone()));
            }
            JobKind::Delete { documents } => file.documents = Some(documents.clone()),
        }
        serde_json::to_value(file).unwrap_or_default()
    }
}

impl JobKind {
    fn of_file(file: &JobFile, kind: &str) -> Result<Self, SpecError> {
        Ok(match kind {
            "backfill" => Self::Backfill(file.rows(kind)?),
            "rerun" => Self::Rerun { tasks: file.tasks.clone().unwrap_or_default() },
            "reembed" => Self::Reembed,
            "evaluate" => Self::Evaluate {
                rows: file.rows(kind)?,
                task: file.task.clone().ok_or_else(|| refuse("`task` is missing; name the task to measure".into()))?,
                expected: file
                    .expected
                    .clone()
                    .ok_or_else(|| refuse("`expected` is missing; name the column with the expected output".into()))?,
            },
            _ => {
                let documents = file.documents.clone().unwrap_or_default();
                if documents.is_empty() || documents.len() > DELETES {
                    return Err(refuse(format!("`documents` holds {} ids; write 1 to {DELETES} of them", documents.len())));
                }
                if let Some(id) = documents.iter().find(|id| id.trim().is_empty()) {
                    return Err(refuse(format!("`documents` contains {id:?}, which is not an id")));
                }
                Self::Delete { documents }
            }
        })
    }

    /// The value of the key `kind`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Backfill(_) => "backfill",
            Self::Rerun { .. } => "rerun",
            Self::Reembed => "reembed",
            Self::Evaluate { .. } => "evaluate",
            Self::Delete { .. } => "delete",
        }
    }

    /// The tasks that the job names.
    pub fn tasks(&self) -> &[String] {
        match self {
            Self::Rerun { tasks } => tasks,
            Self::Evaluate { task, .. } => std::slice::from_ref(task),
            Self::Backfill(_) | Self::Reembed | Self::Delete { .. } => &[],
        }
    }

    /// The rows of a dataset that the job reads.
    pub fn rows(&self) -> Option<&Rows> {
        match self {
            Self::Backfill(rows) | Self::Evaluate { rows, .. } => Some(rows),
            Self::Rerun { .. } | Self::Reembed | Self::Delete { .. } => None,
        }
    }
}

impl JobFile {
    fn rows(&self, kind: &str) -> Result<Rows, SpecError> {
        let dataset = self
            .dataset
            .clone()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| refuse(format!("`dataset` is missing; a {kind} names a dataset of the configuration")))?;
        let prefix = self.prefix.clone().unwrap_or_default();
        check_key(&prefix).map_err(|fault| refuse(format!("`prefix`: {}", fault.reason)))?;
        let since = self.since.as_deref().map(|text| time("since", text)).transpose()?;
        let until = self.until.as_deref().map(|text| time("until", text)).transpose()?;
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err(refuse("`since` is not before `until`, so the job has no rows".into()));
        }
        if self.sample == Some(0) {
            return Err(refuse("`sample` is 0; write 1 or more".into()));
        }
        Ok(Rows { dataset, prefix, since, until, sample: self.sample, seed: self.seed.unwrap_or(0) })
    }

    fn set_rows(&mut self, rows: &Rows) {
        self.dataset = Some(rows.dataset.clone());
        self.prefix = Some(rows.prefix.clone()).filter(|prefix| !prefix.is_empty());
        self.since = rows.since.map(|time| time.to_string());
        self.until = rows.until.map(|time| time.to_string());
        self.sample = rows.sample;
        self.seed = (rows.seed != 0).then_some(rows.seed);
    }
}

/// The id of a tenant's job in the ledger. Each tenant has ids of its own, so that no tenant can take or discover another's. Ids of
/// the tenant `default` are unchanged; the others start with the tenant and `:`, which no id of a job contains.
pub fn job_key(tenant: &str, id: &str) -> String {
    if tenant == DEFAULT_TENANT { id.to_owned() } else { format!("{tenant}:{id}") }
}

/// Ids are used in keys, file names and commands, so only harmless characters are allowed.
fn check_id(id: &str) -> Result<(), SpecError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if !id.is_empty() && id.len() <= ID_CHARACTERS && id.chars().all(fits) && id.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    Err(refuse(format!(
        "`id` is {id:?}; write a letter or digit, then letters, digits, `.`, `_`, `-` and `@`, at most {ID_CHARACTERS} in all"
    )))
}

/// Refuses control characters: Postgres cannot store U+0000, and terminals obey others. Document ids come from records, so in them
/// only U+0000 is refused.
fn check_text(key: &str, value: &Value) -> Result<(), SpecError> {
    match value {
        Value::String(text) => match text.chars().find(|c| *c == '\0' || c.is_control() && key != "documents") {
            Some(found) => Err(refuse(format!("`{key}` is {text:?}, which contains U+{:04X}; remove it", u32::from(found)))),
            None => Ok(()),
        },
        Value::Array(items) => items.iter().try_for_each(|item| check_text(key, item)),
        Value::Object(fields) => fields.values().try_for_each(|value| check_text(key, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// A deadline. Times before 1970 are refused: Postgres cannot store all of them, and they make no sense.
fn deadline(text: &str) -> Result<Timestamp, SpecError> {
    match time("deadline", text)? {
        time if time >= Timestamp::UNIX_EPOCH => Ok(time),
        _ => Err(refuse(format!("`deadline` is {text:?}, which is before 1970; write a time in the future"))),
    }
}

/// A time, or a date, which means midnight in UTC.
fn time(key: &str, text: &str) -> Result<Timestamp, SpecError> {
    let civil = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    text.parse::<Timestamp>()
        .ok()
        .or_else(civil)
        .ok_or_else(|| refuse(format!("`{key}` is {text:?}; write a time such as 2026-01-31T06:00:00Z or a date")))
}

fn refuse(message: String) -> SpecError {
    SpecError(message)
}
