//! `tidemill submit`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::args::OutputArgs;
use super::{jobs, store};
use crate::config::{Config, ConfigError};
use crate::jobs::spec::JobSpec;
use crate::jobs::{JobService, KnownNames};
use crate::pipeline::definition::Definition;
use crate::store::SubmitOutcome;

#[derive(Debug, Args)]
pub struct SubmitArgs {
    /// The file with the job, JSON
    #[arg(value_name = "FILE", required_unless_present = "pipeline")]
    file: Option<PathBuf>,
    #[command(flatten)]
    backfill: BackfillFlags,
    /// The job's id, if the file has none; by default a new one. The same id is the same job
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Follow the job to its end, as `jobs watch` does
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct BackfillFlags {
    /// Backfill this pipeline
    #[arg(long, value_name = "NAME", conflicts_with = "file", requires = "dataset")]
    pipeline: Option<String>,
    /// The dataset of the configuration to read
    #[arg(long, value_name = "NAME", requires = "pipeline")]
    dataset: Option<String>,
    /// Only files whose keys begin with this
    #[arg(long, value_name = "PREFIX", requires = "pipeline")]
    prefix: Option<String>,
    /// Only rows of this time or later, by the pipeline's version field, or by the file's time if it has none
    #[arg(long, value_name = "TIME", requires = "pipeline")]
    since: Option<String>,
    /// Only rows before this time
    #[arg(long, value_name = "TIME", requires = "pipeline")]
    until: Option<String>,
    /// Only this many rows, chosen at random
    #[arg(long, value_name = "N", requires = "pipeline")]
    sample: Option<usize>,
    /// The seed that chooses them
    #[arg(long, value_name = "N", requires = "sample")]
    seed: Option<u64>,
    /// The priority; greater runs first
    #[arg(long, value_name = "N", requires = "pipeline", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// When to stop: a time, or a span from now such as `6h`
    #[arg(long, value_name = "TIME|SPAN", requires = "pipeline")]
    deadline: Option<String>,
    /// The most it may cost: a span of device time such as `30m`, or money such as `2.50`
    #[arg(long, value_name = "SPAN|MONEY", requires = "pipeline")]
    budget: Option<String>,
}

/// Submits the job. Running services with `jobs.enabled` work on it.
pub async fn run(config: Config, args: SubmitArgs) -> Result<()> {
    let spec = args.spec()?;
    let definitions = Definition::load_all(&config.pipelines, &[])?;
    let names = KnownNames::new(&definitions, &config.datasets);
    let store = store(&config)?;
    store.migrate().await?;
    let service = JobService::new(store, &config.jobs, names);
    let (submitted, details) = service.submit(&spec).await.map_err(jobs::usage)?;
    if submitted == SubmitOutcome::Known {
        eprintln!("job {} exists already and is {}", details.summary.id, details.summary.state);
    }
    if args.wait {
        if !args.output.json {
            say!("{}", details.summary.id);
        }
        return jobs::follow(&service, &details.summary.id, args.output.json).await;
    }
    match args.output.json {
        true => {
            let mut object = json!(details);
            object["new"] = (submitted == SubmitOutcome::New).into();
            say!("{object}");
        }
        false => say!("{}", details.summary.id),
    }
    Ok(())
}

impl SubmitArgs {
    fn spec(&self) -> Result<JobSpec, ConfigError> {
        let id = self.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
        let refuse = |error: crate::jobs::spec::SpecError| ConfigError(error.0);
        match &self.file {
            Some(file) => {
                let shown = file.display();
                let text = std::fs::read(file).map_err(|e| ConfigError(format!("cannot read the job file {shown}: {e}")))?;
                // The same file may be submitted again, so its id is not made up here: each time would be another job.
                JobSpec::parse_request(&text, self.id.as_deref()).map_err(|e| ConfigError(format!("{shown}: {e}")))
            }
            None => JobSpec::of_object(self.backfill.object(Timestamp::now())?, Some(&id)).map_err(refuse),
        }
    }
}

impl BackfillFlags {
    fn object(&self, now: Timestamp) -> Result<Map<String, Value>, ConfigError> {
        let deadline = self.deadline.as_deref().map(|text| deadline(text, now)).transpose()?;
        let pairs = [
            ("version", Some(json!(1))),
            ("kind", Some(json!("backfill"))),
            ("pipeline", self.pipeline.as_ref().map(|name| json!(name))),
            ("dataset", self.dataset.as_ref().map(|name| json!(name))),
            ("prefix", self.prefix.as_ref().map(|prefix| json!(prefix))),
            ("since", self.since.as_ref().map(|time| json!(time))),
            ("until", self.until.as_ref().map(|time| json!(time))),
            ("sample", self.sample.map(|size| json!(size))),
            ("seed", self.seed.map(|seed| json!(seed))),
            ("priority", self.priority.map(|priority| json!(priority))),
            ("deadline", deadline.map(|time| json!(time))),
            ("budget", self.budget.as_deref().map(budget).transpose()?),
        ];
        Ok(pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }
}

/// The time that `text` states, or the end of a span from now.
fn deadline(text: &str, now: Timestamp) -> Result<String, ConfigError> {
    let Ok(span) = text.parse::<SignedDuration>() else { return Ok(text.to_owned()) };
    let end = now.checked_add(span).and_then(|time| time.round(Unit::Second));
    let end = end.map_err(|e| ConfigError(format!("--deadline {text:?} is too far away: {e}")))?;
    Ok(end.to_string())
}

fn budget(text: &str) -> Result<Value, ConfigError> {
    if let Ok(cost) = text.parse::<f64>() {
        return Ok(json!({ "cost": cost }));
    }
    let span = text.parse::<SignedDuration>();
    let span =
        span.map_err(|_| ConfigError(format!("--budget is {text:?}; write a span such as `30m`, or money such as `2.50`")))?;
    Ok(json!({ "device_seconds": span.as_secs_f64() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_a_time_or_a_span_from_now() {
        let now: Timestamp = "2026-01-01T00:00:00.7Z".parse().unwrap();
        assert_eq!(deadline("6h", now).unwrap(), "2026-01-01T06:00:01Z");
        assert_eq!(deadline("1h 30m", now).unwrap(), "2026-01-01T01:30:01Z");
        assert_eq!(deadline("2026-02-01T00:00:00Z", now).unwrap(), "2026-02-01T00:00:00Z");
        assert_eq!(deadline("soon", now).unwrap(), "soon", "what is no span is for the job's own reader to refuse");
    }

    #[test]
    fn a_budget_is_money_or_device_time() {
        assert_eq!(budget("2.50").unwrap(), json!({ "cost": 2.5 }));
        assert_eq!(budget("30m").unwrap(), json!({ "device_seconds": 1800.0 }));
        assert!(budget("much").unwrap_err().0.contains("write a span such as `30m`"));
    }
}
