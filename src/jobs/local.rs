//! A local backfill, which one process plans and processes by itself, without Kafka.
//!
//! It is a job like others, but its units are not published to a topic, and no events report its changes. Its id depends on the
//! pipeline, the patterns of its input, and its output, so that the same command continues the same job:
//!
//! | since the last run, a file | its units |
//! |---|---|
//! | is unchanged | finished units stay, the others continue from their positions |
//! | is new | are added |
//! | has changed | those of the new version are added, finished units of the old version stay; equal rows are reused |
//! | is gone | finished units stay, the others are removed |

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::{StreamExt, iter};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use super::coordinator::ending;
use super::input::InputFiles;
use super::job_pipeline::JobPipeline;
use super::plan::Planner;
use super::source::UnitSource;
use super::spec::Rows;
use super::worker::{UnitExit, UnitWorker};
use crate::pipeline::Backoff;
use crate::sink::Dataset;
use crate::source::{Archive, ArchiveError, ArchiveFile};
use crate::store::{CommitError, JobProgress, JobState, LOCAL_JOB_KIND, LocalLease, NewJob, NewUnit, UnitOutcome, UnitRow};

/// A backfill that this process plans and processes by itself.
pub struct LocalBackfill {
    /// Processes its units; [`INPUT`] is among its datasets.
    pub worker: UnitWorker,
    pub job_pipeline: Arc<JobPipeline>,
    pub job: NewJob,
    /// Where its Parquet files are written.
    pub output: Dataset,
    /// The most units that are processed at a time.
    pub units_at_a_time: usize,
    /// The planned seconds of a unit.
    pub unit_seconds: u64,
    /// How long the units under way may take to end once the process is asked to stop.
    pub drain: Duration,
}

/// The result of a local backfill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalBackfillReport {
    pub job: String,
    pub pipeline: String,
    pub state: JobState,
    /// Why it is in this state, where there is a reason.
    pub reason: Option<String>,
    /// Counts over this run and all earlier ones.
    #[serde(flatten)]
    pub progress: JobProgress,
    /// Rows committed by this run.
    pub rows_of_this_run: i64,
    /// The duration of this run.
    pub elapsed_seconds: f64,
    pub documents_per_second: f64,
    pub device_seconds: f64,
}

/// The dataset name of the input, which no configuration can use.
pub const INPUT: &str = "@input";

/// How often progress is reported.
const POLL: Duration = Duration::from_millis(250);

/// The job that reads `input` into `output`.
pub fn local_job(pipeline: &str, input: &InputFiles, output: &Path) -> NewJob {
    let output = output.to_string_lossy();
    let mut hasher = blake3::Hasher::new();
    for part in [pipeline, &output].into_iter().chain(input.patterns.iter().map(String::as_str)) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let id = format!("backfill-{}", &hasher.finalize().to_hex()[..16]);
    let spec = json!({ "version": 1, "id": id, "kind": LOCAL_JOB_KIND, "pipeline": pipeline, "input": input.patterns, "output": output });
    NewJob {
        id,
        kind: LOCAL_JOB_KIND.to_owned(),
        pipeline: pipeline.to_owned(),
        spec: spec.to_string(),
        priority: 0,
        deadline_ms: None,
        budget_micros: None,
        schedule: None,
    }
}

impl LocalBackfill {
    /// Runs until every unit has ended or `stop` turns true, and calls `report` with the progress.
    ///
    /// # Errors
    /// Where another process works on the job, the input cannot be read, or the process cannot go on.
    pub async fn run(
        &self,
        input: &InputFiles,
        stop: watch::Receiver<bool>,
        report: impl FnMut(&JobProgress),
    ) -> Result<LocalBackfillReport> {
        let lease = self.lease().await?;
        self.delete_orphans().await?;
        self.open(input).await?;
        let store = &self.worker.store;
        let started = Instant::now();
        let before = self.progress().await?.rows_done;
        let processed = self.process_units(stop, report).await;
        let stopped = match &processed {
            Ok(true) => None,
            Ok(false) => Some("it was stopped; run the same command again to go on".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        let progress = self.progress().await?;
        let row = store.job(&self.job.id).await?.with_context(|| format!("job {} is gone from the ledger", self.job.id))?;
        let (state, reason) = match stopped {
            Some(reason) => (JobState::Partial, Some(reason)),
            None if row.state == JobState::Cancelling => (JobState::Cancelled, Some("it was cancelled".to_owned())),
            None => ending(&row, &progress),
        };
        store.end_local_job(&self.job.id, state, reason.as_deref()).await?;
        drop(lease);
        processed?;
        let (elapsed, rows) = (started.elapsed().as_secs_f64(), progress.rows_done - before);
        Ok(LocalBackfillReport {
            job: self.job.id.clone(),
            pipeline: self.job.pipeline.clone(),
            state,
            reason,
            progress: self.progress().await?,
            rows_of_this_run: rows,
            elapsed_seconds: elapsed,
            documents_per_second: rows as f64 / elapsed.max(f64::MIN_POSITIVE),
            device_seconds: progress.work.device_micros as f64 / 1e6,
        })
    }

    async fn lease(&self) -> Result<LocalLease> {
        match self.worker.store.local_lease(&self.job.id).await? {
            Some(lease) => Ok(lease),
            None => bail!("another process works on backfill {}; wait until it ends", self.job.id),
        }
    }

    /// Deletes files that an earlier run wrote and did not commit, because readers of the folder would take them for results.
    async fn delete_orphans(&self) -> Result<()> {
        let store = &self.worker.store;
        let orphans = store.condemn_files(self.output.name(), 0.0).await?;
        for path in &orphans {
            self.output.delete(path.as_ref())?;
        }
        Ok(store.forget_files(&orphans).await?)
    }

    /// Updates the job's units to the current files.
    async fn open(&self, input: &InputFiles) -> Result<()> {
        let store = &self.worker.store;
        let config = self.worker.datasets.get(INPUT).context("the worker has no input dataset")?;
        let archive = Archive::open(INPUT, config)?;
        let mut files = Vec::with_capacity(input.keys.len());
        for key in &input.keys {
            files.push(match archive.file(key).await {
                Ok(file) => file,
                // The file becomes a unit that fails, so that the job reports it and goes on with the others.
                Err(ArchiveError::Fault(_)) => ArchiveFile::unreadable(key.clone()),
                Err(error) => return Err(error.into()),
            });
        }
        let known = store.local_units(&self.job.id).await?;
        let planned: HashSet<(String, String)> = known.iter().filter_map(version).collect();
        let present: HashSet<(String, String)> = files.iter().map(named).collect();
        let is_obsolete = |unit: &&UnitRow| unit.waits && !version(unit).is_some_and(|version| present.contains(&version));
        let obsolete: Vec<String> = known.iter().filter(is_obsolete).map(|unit| unit.id.clone()).collect();
        files.retain(|file| !planned.contains(&named(file)));
        let added = self.plan(&archive, files).await?;
        tracing::info!(job = self.job.id, added = added.len(), known = known.len(), obsolete = obsolete.len(), "planned");
        Ok(store.open_local_job(&self.job, &obsolete, &added).await?)
    }

    async fn plan(&self, archive: &Archive, files: Vec<ArchiveFile>) -> Result<Vec<NewUnit>> {
        let planner = Planner {
            store: &self.worker.store,
            job_pipeline: &self.job_pipeline,
            archive: Some(archive),
            unit_seconds: self.unit_seconds,
            created_ms: 0,
        };
        let rows = Rows { dataset: INPUT.to_owned(), prefix: String::new(), since: None, until: None, sample: None, seed: 0 };
        Ok(planner.of_files(&self.job.id, &rows, None, archive, files).await?.units)
    }

    async fn progress(&self) -> Result<JobProgress> {
        let store = &self.worker.store;
        let row = store.job(&self.job.id).await?.with_context(|| format!("job {} is gone from the ledger", self.job.id))?;
        Ok(store.job_progress(&row).await?)
    }

    /// Processes the units side by side. Returns whether all have ended.
    async fn process_units(&self, stop: watch::Receiver<bool>, mut report: impl FnMut(&JobProgress)) -> Result<bool> {
        let mut units = self.worker.store.local_units(&self.job.id).await?;
        units.retain(|unit| unit.waits);
        let process = |unit: UnitRow| {
            let stop = stop.clone();
            async move { self.process_unit(&unit, stop).await }
        };
        let mut processing = iter(units).map(process).buffer_unordered(self.units_at_a_time.max(1));
        let (mut all, mut poll) = (true, interval(POLL));
        let mut stop_signal = stop.clone();
        let drained = async {
            match stop_signal.wait_for(|stop| *stop).await {
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
            sleep(self.drain).await;
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => {
                    tracing::warn!(seconds = self.drain.as_secs(), "some units did not end in time; they will be processed again");
                    return Ok(false);
                }
                ended = processing.next() => match ended {
                    Some(ended) => all &= ended?,
                    None => break,
                },
                _ = poll.tick() => {
                    // The workers' commits report a ledger that is unavailable.
                    if let Ok(progress) = self.progress().await {
                        report(&progress);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Processes one unit. Returns whether it has ended.
    async fn process_unit(&self, unit: &UnitRow, stop: watch::Receiver<bool>) -> Result<bool> {
        let end = match self.worker.work(unit, stop).await {
            UnitExit::Ended(end) => end,
            UnitExit::Open | UnitExit::Fenced => return Ok(false),
            UnitExit::PipelineStopped => {
                let pipeline = &unit.pipeline;
                bail!(
                    "pipeline `{pipeline}` is stopped, manually or because of too many dead letters; see `tidemill pipelines list`"
                )
            }
            UnitExit::Wedged(reason) => bail!("{reason}; run the same command again to go on"),
        };
        if let UnitOutcome::Failed(fault) = &end {
            tracing::warn!(unit = unit.ordinal, class = fault.class, reason = fault.reason, "a unit failed");
        }
        let mut backoff = Backoff::default();
        loop {
            match self.worker.store.end_unit(Some((&unit.id, &end)), None).await {
                Ok(()) => return Ok(true),
                Err(CommitError::Unavailable(failure)) => backoff.after(&failure, &self.worker.health).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn named(file: &ArchiveFile) -> (String, String) {
    (file.key.clone(), file.version.clone())
}

/// Key and version of the unit's file, as it was planned.
fn version(unit: &UnitRow) -> Option<(String, String)> {
    match UnitSource::of(unit) {
        Ok(UnitSource::Rows { file, .. }) => Some(named(&file)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_depends_on_pipeline_input_and_output_and_on_nothing_else() {
        let input = |patterns: &[&str], keys: &[&str]| InputFiles {
            patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            folder: "/data".into(),
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
        };
        let id = |pipeline, input: &InputFiles, output| local_job(pipeline, input, Path::new(output)).id;
        let first = input(&["/data/*.parquet"], &["a.parquet"]);
        let base = id("p", &first, "/out");
        assert_eq!(
            base,
            id("p", &input(&["/data/*.parquet"], &["a.parquet", "b.parquet"]), "/out"),
            "a new file is the same job"
        );
        for other in [id("q", &first, "/out"), id("p", &first, "/out2"), id("p", &input(&["/data/a.parquet"], &[]), "/out")] {
            assert_ne!(base, other);
        }
    }
}
