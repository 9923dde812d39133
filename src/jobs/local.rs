//! A backfill that one process plans and works off by itself, without Kafka.
//!
//! It is a job like others, save that no topic hands its units out and no event tells of it. Its id is made of the pipeline, the
//! patterns of its input and its output, so that the same command goes on where it was left:
//!
//! | since the last run, a file | then |
//! |---|---|
//! | is as it was | its finished units stay, the others go on from their positions |
//! | came | it gets units |
//! | changed | its new version gets units, and finished ones of the old version stay; rows that are the same are reused |
//! | went | its finished units stay, the others go |

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

/// A backfill that this process plans and works off by itself.
pub struct LocalBackfill {
    /// Works off its units; [`INPUT`] is among its datasets.
    pub worker: UnitWorker,
    /// The pipeline.
    pub job_pipeline: Arc<JobPipeline>,
    /// The job.
    pub job: NewJob,
    /// Where its files go.
    pub output: Dataset,
    /// Units that it works on at a time.
    pub units_at_a_time: usize,
    /// Seconds that a unit is to take.
    pub unit_seconds: u64,
    /// How long what is under way may take to end once it is told to stop.
    pub drain: Duration,
}

/// What a local backfill came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LocalBackfillReport {
    /// The job's id.
    pub job: String,
    /// The pipeline.
    pub pipeline: String,
    /// How it ended.
    pub state: JobState,
    /// Why, where there is more to say.
    pub reason: Option<String>,
    /// Everything that was done, by this run and those before.
    #[serde(flatten)]
    pub progress: JobProgress,
    /// Rows committed by this run.
    pub rows_of_this_run: i64,
    /// How long this run took.
    pub elapsed_seconds: f64,
    /// Documents a second of this run.
    pub documents_per_second: f64,
    /// Device time of all runs.
    pub device_seconds: f64,
}

/// The name under which the input is opened as a dataset; no configuration can give it.
pub const INPUT: &str = "@input";

/// How often progress is told.
const LOOK: Duration = Duration::from_millis(250);

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
    /// Works until every unit has ended or `stop` turns true; `tell` hears how far it is.
    ///
    /// # Errors
    /// Where another process works on the job, the input cannot be read, or the process is of no use any more.
    pub async fn run(
        &self,
        input: &InputFiles,
        stop: watch::Receiver<bool>,
        tell: impl FnMut(&JobProgress),
    ) -> Result<LocalBackfillReport> {
        let lease = self.lease().await?;
        self.sweep().await?;
        self.open(input).await?;
        let store = &self.worker.store;
        let started = Instant::now();
        let before = self.progress().await?.rows_done;
        let worked = self.work_off(stop, tell).await;
        let stopped = match &worked {
            Ok(true) => None,
            Ok(false) => Some("it was stopped; run the same command again to go on".to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        let progress = self.progress().await?;
        let row = store.job(&self.job.id).await?.with_context(|| format!("job {} is gone from the ledger", self.job.id))?;
        let (state, reason) = match stopped {
            Some(reason) => (JobState::Partial, Some(reason)),
            None if row.state == JobState::Cancelling => (JobState::Cancelled, Some("somebody cancelled it".to_owned())),
            None => ending(&row, &progress),
        };
        store.end_local_job(&self.job.id, state, reason.as_deref()).await?;
        drop(lease);
        worked?;
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
            None => bail!("another process works on backfill {}; wait for its end", self.job.id),
        }
    }

    /// Removes files that a run which was killed had written and not committed: whoever reads the folder takes all of it for results.
    async fn sweep(&self) -> Result<()> {
        let store = &self.worker.store;
        let orphans = store.condemn_files(self.output.name(), 0.0).await?;
        for path in &orphans {
            self.output.delete(path.as_ref())?;
        }
        Ok(store.forget_files(&orphans).await?)
    }

    /// Brings the job's units up to the files as they are now.
    async fn open(&self, input: &InputFiles) -> Result<()> {
        let store = &self.worker.store;
        let config = self.worker.datasets.get(INPUT).context("the workshop has no input")?;
        let archive = Archive::open(INPUT, config)?;
        let mut files = Vec::with_capacity(input.keys.len());
        for key in &input.keys {
            files.push(match archive.file(key).await {
                Ok(file) => file,
                // It is a unit that will fail, so that the job tells of it and goes on with the others.
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
            asked_ms: 0,
        };
        let rows = Rows { dataset: INPUT.to_owned(), prefix: String::new(), since: None, until: None, sample: None, seed: 0 };
        Ok(planner.of_files(&self.job.id, (&rows, None), (archive, files)).await?.units)
    }

    async fn progress(&self) -> Result<JobProgress> {
        let store = &self.worker.store;
        let row = store.job(&self.job.id).await?.with_context(|| format!("job {} is gone from the ledger", self.job.id))?;
        Ok(store.job_progress(&row).await?)
    }

    /// Works on the units side by side. Tells whether all have ended.
    async fn work_off(&self, stop: watch::Receiver<bool>, mut tell: impl FnMut(&JobProgress)) -> Result<bool> {
        let mut units = self.worker.store.local_units(&self.job.id).await?;
        units.retain(|unit| unit.waits);
        let work = |unit: UnitRow| {
            let stop = stop.clone();
            async move { self.one(&unit, stop).await }
        };
        let mut working = iter(units).map(work).buffer_unordered(self.units_at_a_time.max(1));
        let (mut all, mut look) = (true, interval(LOOK));
        let mut told = stop.clone();
        let given_up = async {
            match told.wait_for(|stop| *stop).await {
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
            sleep(self.drain).await;
        };
        tokio::pin!(given_up);
        loop {
            tokio::select! {
                () = &mut given_up => {
                    tracing::warn!(seconds = self.drain.as_secs(), "what was under way did not end, and is left to be done again");
                    return Ok(false);
                }
                ended = working.next() => match ended {
                    Some(ended) => all &= ended?,
                    None => break,
                },
                _ = look.tick() => {
                    // A ledger that does not answer is told by the lanes' own commits.
                    if let Ok(progress) = self.progress().await {
                        tell(&progress);
                    }
                }
            }
        }
        Ok(all)
    }

    /// Tells whether the unit has ended.
    async fn one(&self, unit: &UnitRow, stop: watch::Receiver<bool>) -> Result<bool> {
        let end = match self.worker.work(unit, stop).await {
            UnitExit::Ended(end) => end,
            UnitExit::Open | UnitExit::Fenced => return Ok(false),
            UnitExit::Held => {
                let pipeline = &unit.pipeline;
                bail!(
                    "pipeline `{pipeline}` is stopped: too many rows died, or somebody stopped it; see `tidemill pipelines list`"
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

/// The file of the unit, as it was planned.
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
